"""Nothing hangs for ever: programs and mounts that are told to end, and a process that does not answer.

Rules of this file: a program of a test is looked at through /proc only, and none may be left in uninterruptible sleep.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from tests.mount.test_content import add_tree
from tests.support.control import ask
from tests.support.lab import Lab, Mounted, artifactfs, mounted, service_source
from tests.support.log_guard import LogGuard

pytestmark = pytest.mark.fuse

# Far below the deadline of 30 s, far above what a busy machine needs: "at once", and within a second or two.
SOON_S = 10.0
PRIVATE = {"allow-private-urls": True}
READERS = 50
LISTING, BYTES = r"/v1/artifacts\?", r"download|archive\.tar\.gz"


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """The tests' own servers break their answers on purpose, and say so."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


def state_of(pid: int) -> str:
    """Return the letter of a process, or nothing if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def within(seconds: float, condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)  # noqa: TID251 - no event loop here
    return True


def waits(pid: int) -> bool:
    """Tell whether a process waits for an answer of a mount, or behind one who does."""
    with contextlib.suppress(OSError):
        return state_of(pid) == "D" or "request_wait_answer" in Path(f"/proc/{pid}/wchan").read_text()
    return False


@contextlib.contextmanager
def programs(*commands: tuple[str, ...]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Have programs that wait in the kernel while the block runs; none of them is left when it has ended."""
    null = subprocess.DEVNULL
    running = [subprocess.Popen(command, stdout=null, stderr=null) for command in commands]
    try:
        assert within(SOON_S, lambda: all(waits(program.pid) for program in running))
        yield running
        within(SOON_S, lambda: all(program.poll() is not None for program in running))
        assert [(program.args, state_of(program.pid)) for program in running if program.poll() is None] == []
    finally:
        for program in running:
            program.kill()
            program.wait(60)


def trees(store: Store, seed: int, number: int = READERS) -> None:
    """Put a tree into a store whose files nobody else has."""
    add_tree(store, "tree", {f"{name:03}": bytes([seed, name]) * 100_000 for name in range(number)})


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Lab, Lab]]:
    """Two services with a tree each."""
    stores = [Store(tmp_path / name) for name in ("deaf", "well")]
    for seed, store in enumerate(stores):
        trees(store, seed)
    with Lab(stores[0]) as deaf, Lab(stores[1]) as well:
        yield deaf, well


def sources(**labs: Lab) -> dict[str, dict[str, object]]:
    return {name: service_source("vm0", lab.bases()["vm0"], **PRIVATE) for name, lab in labs.items()}


@contextlib.contextmanager
def known_but_cold(tmp_path: Path, labs: dict[str, Lab]) -> Iterator[Mounted]:
    """Mount services whose names are known, and none of whose bytes are here."""
    with mounted(tmp_path, sources(**labs), "--all") as mount:
        for name in labs:
            mount.run("sh", "-c", f"cat {name}/artifacts/tree/* > /dev/null")
        assert artifactfs(mount.environ, "cache", "clear", "--pinned").returncode == 0
    with mounted(tmp_path, sources(**labs), "--all") as mount:
        yield mount


# -- one source hangs ----------------------------------------------------------------------------------------------


def test_fifty_readers_of_a_service_that_hangs_take_nothing_from_others(tmp_path: Path, pair: tuple[Lab, Lab]) -> None:
    """Neither reads that are not cached, nor names: the kernel has room for them all."""
    deaf, well = pair
    with known_but_cold(tmp_path, {"deaf": deaf, "well": well}) as mount:
        deaf.fault(BYTES, delay_s=120)
        readers = [("cat", str(mount.path / f"deaf/artifacts/tree/{name:03}")) for name in range(READERS)]
        with programs(*readers) as running:
            begin = time.monotonic()
            for name in range(5):
                data = (mount.path / f"well/artifacts/tree/{name:03}").read_bytes()
                assert data == bytes([1, name]) * 100_000
            assert len(os.listdir(mount.path / "well/artifacts/tree")) >= READERS
            sys.stdout.write(f"six calls while {READERS} readers wait elsewhere: {time.monotonic() - begin:.2f} s\n")
            assert time.monotonic() - begin < SOON_S
            assert [program.poll() for program in running] == [None] * READERS, "they should still wait"
            for program in running:
                program.kill()


def test_content_that_hangs_takes_nothing_from_lists(tmp_path: Path, lab: Lab) -> None:
    """Of the same source: more readers than there are connections leave some to who looks into a new directory."""
    for number in range(2):
        lab.store.add_workflow(f"w{number}", workflow_id=f"wf-{number}", created_at_ns=10**18)
        for name in range(READERS):
            made = lab.store.add_artifact(f"wf-{number}", f"{name:02}.md", "file")
            lab.store.save_file(made.id, lab.store.objects.put(b"%d" % name, durable=False), 2)
    with mounted(tmp_path, {"mine": service_source("syntropic137", lab.bases()["syntropic137"])}) as mount:
        os.listdir(mount.path / "w0")
        lab.fault("/content", delay_s=120)
        readers = [("cat", str(mount.path / f"w0/{name:02}.md")) for name in range(READERS)]
        with programs(*readers) as running:
            begin = time.monotonic()
            assert len(os.listdir(mount.path / "w1")) >= READERS
            assert time.monotonic() - begin < SOON_S
            for program in running:
                program.kill()


def test_a_change_that_hangs_at_one_source_takes_nothing_from_others(tmp_path: Path, demo_lab: Lab) -> None:
    """What is asked for a removal at one service keeps no name of another waiting."""
    with Lab(Store(demo_lab.store.root)) as deaf:
        local = {"type": "local", "path": str(tmp_path / "store")}
        syntropic = service_source("syntropic137", deaf.bases()["syntropic137"])
        with mounted(tmp_path, {"deaf": syntropic, "local": local}, "--all") as mount:
            directory = mount.path / "deaf/field-notes ✎"
            name = next(name for name in os.listdir(directory) if (directory / name).is_file())
            (mount.path / "local/notes").mkdir()
            deaf.fault("/artifacts/", method="DELETE", delay_s=120)
            with programs(("rm", "-f", str(directory / name))) as (removal,):
                begin = time.monotonic()
                note = mount.path / "local/notes/a.md"
                note.write_text("written meanwhile")
                note.rename(note.with_name("b.md"))
                note.with_name("b.md").unlink()
                assert time.monotonic() - begin < SOON_S
                assert removal.poll() is None, "it should still wait"
                removal.kill()


# -- who waits can be ended ----------------------------------------------------------------------------------------

READS = "import sys; open(sys.argv[1]).read()"
LOOKS = "import os, sys; os.listdir(sys.argv[1])"
WAITS = {
    "ls": (signal.SIGKILL, ("ls", "{}/artifacts"), LISTING),
    "stat": (signal.SIGTERM, ("stat", "{}/artifacts/tree"), LISTING),
    "a read": (signal.SIGINT, ("cat", "{}/artifacts/tree/000"), BYTES),
    "a read by who handles it": (signal.SIGINT, (sys.executable, "-c", READS, "{}/artifacts/tree/000"), BYTES),
    "a look by who handles it": (signal.SIGINT, (sys.executable, "-c", LOOKS, "{}/artifacts"), LISTING),
}


@pytest.mark.parametrize("what", WAITS)
def test_a_program_that_waits_can_be_ended(tmp_path: Path, pair: tuple[Lab, Lab], what: str) -> None:
    """By Ctrl-C and kill: within a second or two, not at the deadline; and nothing is wrong afterwards."""
    number, command, pattern = WAITS[what]
    with mounted(tmp_path, sources(deaf=pair[0])) as mount:
        if pattern is BYTES:
            os.listdir(mount.path / "artifacts")
        fault = pair[0].fault(pattern, delay_s=120)
        with programs(tuple(part.format(mount.path) for part in command)) as (program,):
            begin = time.monotonic()
            program.send_signal(number)
            assert within(SOON_S, lambda: program.poll() is not None), state_of(program.pid)
            sys.stdout.write(f"{what}, {number.name}: gone after {time.monotonic() - begin:.2f} s\n")
            assert program.returncode == -number
        fault.times = 0
        assert (mount.path / "artifacts/tree/000").read_bytes() == bytes([0, 0]) * 100_000
        assert ask(mount, verb="status")["loop"] == {"stalls": 0, "last_stall": None}


def test_who_is_not_told_to_end_goes_on_waiting(tmp_path: Path, pair: tuple[Lab, Lab]) -> None:
    """A signal that a program handles, and that asks nobody to end, is no reason to fail its call."""
    with mounted(tmp_path, sources(deaf=pair[0])) as mount:
        fault = pair[0].fault(LISTING, delay_s=4)
        code = "import os, signal, sys; signal.signal(signal.SIGUSR1, print); print(len(os.listdir(sys.argv[1])))"
        command = [sys.executable, "-c", code, str(mount.path / "artifacts")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
            assert within(SOON_S, lambda: waits(program.pid))
            program.send_signal(signal.SIGUSR1)
            out, err = program.communicate(timeout=60)
        assert program.returncode == 0, err
        assert int(out.splitlines()[-1]) > 0
        fault.times = 0


# -- the end -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hanging(tmp_path: Path, lab: Lab) -> Iterator[Mounted]:
    """A mount whose service hangs; the test ends it."""
    with contextlib.ExitStack() as stack:
        mount = stack.enter_context(mounted(tmp_path, sources(deaf=lab)))
        os.listdir(mount.path)
        lab.fault(".*", delay_s=120)
        try:
            yield mount
        finally:
            subprocess.run(["umount", "-l", str(mount.path)], check=False, capture_output=True)
            with contextlib.suppress(AssertionError):
                stack.close()


ENDS = {
    "kill -9": lambda mount, pid: os.kill(pid, signal.SIGKILL),
    "SIGTERM": lambda mount, pid: os.kill(pid, signal.SIGTERM),
    "umount -l": lambda mount, pid: subprocess.run(["umount", "-l", str(mount.path)], check=True, timeout=SOON_S),
    "artifactfs umount": lambda mount, pid: mount.artifactfs("umount", str(mount.path)),
}  # fmt: skip


@pytest.mark.parametrize("how", ENDS)
def test_no_program_is_left_in_a_mount_that_ends(tmp_path: Path, pair: tuple[Lab, Lab], how: str) -> None:
    """However it ends while programs wait in it: they get an answer, and none is left in uninterruptible sleep."""
    with hanging(tmp_path, pair[0]) as mount:
        pid = mount.status()["pid"]
        asking = [("ls", str(mount.path / "artifacts")), ("stat", str(mount.path / "artifacts/tree/000"))]
        with programs(*asking, ("cat", str(mount.path / "artifacts/tree/001"))) as running:
            time.sleep(1.2)  # noqa: TID251 - what has just come is not given up by `artifactfs umount`
            ENDS[how](mount, pid)
            if how == "umount -l":  # it is left to them, until they are told to end
                for program in running:
                    program.kill()
        assert within(SOON_S, lambda: state_of(pid) in {"", "Z"})


@pytest.mark.parametrize("command", [["umount", "-l"], ["fusermount3", "-u"]], ids=" ".join)
def test_a_stopped_process_can_be_unmounted(tmp_path: Path, pair: tuple[Lab, Lab], command: list[str]) -> None:
    """By the system's own commands, too: they ask nothing of the mount."""
    with hanging(tmp_path, pair[0]) as mount:
        pid = mount.status()["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            subprocess.run([*command, str(mount.path)], check=True, timeout=SOON_S, cwd="/")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert within(SOON_S, lambda: state_of(pid) in {"", "Z"})


def test_our_own_umount_of_a_stopped_process(tmp_path: Path, pair: tuple[Lab, Lab]) -> None:
    """It unmounts, without waiting for what will not come, and says why the process has not ended."""
    with hanging(tmp_path, pair[0]) as mount:
        pid = mount.status()["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            done = mount.artifactfs("umount", str(mount.path), check=False)
            assert time.monotonic() - begin < SOON_S
            assert "is unmounted" in done.stderr
            assert "kill -CONT" in done.stderr
            assert not os.path.ismount(mount.path)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert within(SOON_S, lambda: state_of(pid) in {"", "Z"})
