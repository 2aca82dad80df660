"""Many programs at one name, one page, one directory of a service that hangs: all of them end by one deadline."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from artifactfs.store.rows import Upload
from tests.support.lab import Lab, Mounted, mounted, service_source

pytestmark = pytest.mark.fuse

DEADLINE_S = 3.0
PROGRAMS = 12
# One after the other they take 12 deadlines, a minute at least; so many behind the first one take 0.05 s each, or 0.5 s
# each where it is another name in the directory. The rest is for a busy machine.
TOGETHER_S = 6 * DEADLINE_S
# The programs look for those who are told to end twice a second (``fuse.interrupts``).
SOON_S = 2.5
NULL = subprocess.DEVNULL
MAPS = "import mmap, sys; f = open(sys.argv[1], 'rb'); print(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[0])"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Lab, Mounted]]:
    """VLM Run's files, whose names are known and whose bytes are not; a directory of executions is not known either."""
    store = Store(tmp_path / "store")
    for number in range(2):
        data = bytes([65 + number]) * 300_000
        sha256, md5 = store.objects.put(data, durable=False), hashlib.md5(data).hexdigest()
        identifier = f"00000000-0000-4000-8000-{number:012x}"
        store.put_upload(Upload(identifier, f"{number}.txt", "assistants", len(data), sha256, md5, 10**18))
    config = f"[mount]\ntimeout = {DEADLINE_S}\n"
    with Lab(store) as lab:
        source = service_source("vlmrun", lab.bases()["vlmrun"], **{"allow-private-urls": True})
        with mounted(tmp_path, {"v": source}, extra_config=config) as mount:
            yield lab, mount


def ended(commands: Sequence[Sequence[str]]) -> float:
    """Run programs side by side; return how many seconds it took until all had failed."""
    begin = time.monotonic()
    running = [subprocess.Popen(command, stdout=NULL, stderr=NULL) for command in commands]
    try:
        codes = [program.wait(PROGRAMS * 2 * DEADLINE_S + 30) for program in running]
    finally:
        for program in running:
            program.kill()
    assert all(codes), "somebody read what did not come"
    return time.monotonic() - begin


COMMANDS: dict[str, Callable[[Path], list[list[str]]]] = {
    "readers of one file": lambda at: [["cat", str(at / "files/0.txt")]] * PROGRAMS,
    "maps of one file": lambda at: [[sys.executable, "-c", MAPS, str(at / "files/0.txt")]] * PROGRAMS,
    "one unknown name": lambda at: [["cat", str(at / "files/by-id/00000000-0000-4000-8000-0000000000ff")]] * PROGRAMS,
    "many new names": lambda at: [
        ["sh", "-c", f": > '{at}/files/by-id/00000000-0000-4000-8000-0000000001{number:02}'"]
        for number in range(PROGRAMS)
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", COMMANDS)
def test_nobody_waits_for_the_deadlines_of_others(place: tuple[Lab, Mounted], what: str) -> None:
    """The kernel lets them ask one after the other; that costs the later ones no deadline of their own."""
    lab, mount = place
    mount.run("ls", "files", "files/by-id")
    lab.fault("", delay_s=120)
    took_s = ended(COMMANDS[what](mount.path))
    sys.stdout.write(f"{PROGRAMS} {what}: {took_s:.1f} s\n")
    assert DEADLINE_S / 2 < took_s < TOGETHER_S


def test_once_the_service_is_well_nobody_is_refused(place: tuple[Lab, Mounted]) -> None:
    """Who comes later than those waits as long as it takes."""
    lab, mount = place
    mount.run("ls", "files")
    fault = lab.fault("", delay_s=120)
    ended([["cat", str(mount.path / "files/0.txt")]] * 3)
    fault.delay_s = 0.0
    begin = time.monotonic()
    # What was asked for while it hung has its deadline, too.
    while mount.run("head", "-c", "9", "files/0.txt", check=False).returncode:
        assert time.monotonic() - begin < 3 * DEADLINE_S
        time.sleep(0.1)  # noqa: TID251 - no event loop here
    assert (mount.path / "files/0.txt").read_bytes() == b"A" * 300_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_that_waits_for_its_memory_can_be_ended(place: tuple[Lab, Mounted], number: signal.Signals) -> None:
    """Python handles SIGINT: the kernel asks for the page once more when it has."""
    lab, mount = place
    mount.run("ls", "files")
    lab.fault("", delay_s=120)
    program = subprocess.Popen([sys.executable, "-c", MAPS, str(mount.path / "files/0.txt")], stdout=NULL, stderr=NULL)
    try:
        time.sleep(1.0)  # noqa: TID251 - no event loop here; into the page
        begin = time.monotonic()
        program.send_signal(number)
        program.wait(60)
    finally:
        program.kill()
    assert time.monotonic() - begin < SOON_S
