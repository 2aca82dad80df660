"""Hostile archives through a real mount: the good members with the right bytes, or a clear error on the version.

Every class of ``tests.support.archives`` is the one version of an artifact of its name; all are in one mount.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artifactfs.tree import names
from tests.support.archives import CASES, MIB, Case, Tar
from tests.support.awkward import mounted_archives
from tests.support.control import ask
from tests.support.lab import Mounted

pytestmark = pytest.mark.fuse

NUMBERS = {"corrupt": errno.EIO, "limit": errno.EFBIG}
BOMBS = [name for name in CASES if name.startswith("bomb") or name in {"hundred_thousand_entries", "levels_1500"}]
# More entries than these are counted, not read one by one: 100,000 files are a minute of system calls.
FEW = 3000
# "Slow: seconds, not minutes", on a machine that does other things.
SLOW_S = 60.0
# An index of 100,000 entries takes some 60 MB while it is made; measured for all bombs at once: 300 MB.
MEMORY = 600 * MIB
# The output of a bomb is looked at up to 256 MiB before its ratio is judged, and there are several.
DISK = 2048 * MIB


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """All archives as artifacts of one source at the root."""
    made = {name: lambda name=name: CASES[name]().data for name in CASES}
    with mounted_archives(tmp_path_factory.mktemp("hostile"), made) as mount:
        yield mount


def shown(path: str) -> str:
    return "/".join(names.encode(part) for part in path.split("/"))


def walk(root: Path) -> tuple[dict[str, bytes], set[str], dict[str, str]]:
    """Return files with their bytes, directories, and links with their targets, by path below ``root``."""
    files: dict[str, bytes] = {}
    directories: set[str] = set()
    links: dict[str, str] = {}
    todo = [root]
    while todo:
        for entry in os.scandir(todo.pop()):
            path = str(Path(entry.path).relative_to(root))
            if entry.is_symlink():
                links[path] = os.readlink(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                directories.add(path)
                todo.append(Path(entry.path))
            else:
                files[path] = Path(entry.path).read_bytes()
    return files, directories, links


def check_shown(root: Path, case: Case) -> None:
    if len(case.files) > FEW or len(case.dirs) > FEW:
        done = subprocess.run(["find", "."], cwd=root, capture_output=True, check=False, timeout=100)
        assert (done.returncode, done.stderr[-300:]) == (0, b"")
        assert done.stdout.count(b"\n") == 1 + len(case.files) + len(case.dirs) + len(case.links) + len(case.broken)
        return
    files, directories, links = walk(root)
    broken = {shown(path) for path in case.broken}
    assert {path: data for path, data in files.items() if path not in broken} == {
        shown(path): data for path, data in case.files.items()
    }
    assert directories == {shown(path) for path in case.dirs}
    assert links.keys() == {shown(path) for path in case.links}
    assert broken <= files.keys()
    for path, target in links.items():
        # Never a way out: not absolute, and never above the version.
        depth = path.count("/")
        assert not target.startswith("/")
        assert target.split("/").count("..") <= depth


def check(mount: Mounted, name: str, made: Case | None = None) -> None:
    case, root = made or CASES[name](), mount.path / "artifacts" / name
    begin = time.monotonic()
    if not case.error:
        check_shown(root, case)
    else:
        # Each look downloads it anew, so a bomb is looked at once.
        calls: list[Callable[[Path], object]] = [os.listdir, lambda path: os.stat(path / "good.txt")]
        for call in calls[: 1 if name in BOMBS else 2]:
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
                call(root)
            assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[NUMBERS[case.error]]
        if name in BOMBS:
            return
        why = ask(mount, verb="why", path=f"artifacts/{name}/good.txt")
        assert case.says in str(why)
        assert why["exists"] is None
    # Of those that are read all at once the mount's own seconds are counted.
    assert made or time.monotonic() - begin < SLOW_S


@pytest.mark.parametrize("name", sorted(CASES.keys() - set(BOMBS)))
def test_an_archive_is_shown_right_or_not_at_all(mount: Mounted, name: str) -> None:
    """Good members and no others, each with its bytes; or one errno for the version, and why."""
    check(mount, name)


def test_what_was_refused_is_said(mount: Mounted) -> None:
    """In the errors of the mount, by name; the source itself has not failed for good: another archive is read."""
    with pytest.raises(OSError, match="Input/output"):
        os.listdir(mount.path / "artifacts/gzip_cut_at_50")
    people = mount.artifactfs("status", str(mount.path)).stdout
    assert "artifacts/gzip_cut_at_50" in people
    assert "cut off" in mount.artifactfs("why", str(mount.path / "artifacts/gzip_cut_at_50/x")).stdout
    assert os.listdir(mount.path / "artifacts/format_pax")
    assert " ERROR " not in mount.log_text()


def test_a_walk_over_everything_ends(mount: Mounted) -> None:
    """`grep -r` over all that is not a bomb: errors for the bad ones, and the process goes on."""
    places = [name for name in CASES if name not in BOMBS]
    done = mount.run("grep", "-rc", "x", *[f"artifacts/{name}" for name in places], check=False, timeout=100)
    assert done.returncode == 2
    assert "Input/output error" in done.stderr
    assert ask(mount, verb="status")["pid"]


def test_a_limit_that_was_set_is_named_where_it_is_met(tmp_path: Path) -> None:
    """By the key to set, in ``why`` and in the errors of the mount; what stays below it is shown."""
    made = {"three": lambda: Tar().add(b"a", b"1").add(b"b", b"2").good().gz(), "one": lambda: Tar().good().gz()}
    with mounted_archives(tmp_path, made, extra_config="[limits]\nmax-entries = 2\n") as mount:
        with pytest.raises(OSError, match="File too large"):
            os.listdir(mount.path / "artifacts/three")
        says = "more entries than limits.max-entries = 2"
        assert says in mount.artifactfs("why", str(mount.path / "artifacts/three/a")).stdout
        assert says in (mount.path / ".artifactfs/errors").read_text()
        assert os.listdir(mount.path / "artifacts/one") == ["good.txt"]


def memory_peak(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU that a process has used: however much else the machine does."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.timeout(400)
def test_bombs_take_neither_time_nor_memory_nor_disk(tmp_path: Path) -> None:
    """All of them at once, in a mount of their own: each ends as it must, and other archives are read meanwhile."""
    # Made before: the server is in this process, and what it takes to make them is not the mount's time.
    cases = {name: CASES[name]() for name in (*BOMBS, "format_pax")}
    made = {name: lambda case=case: case.data for name, case in cases.items()}
    # All at once, on a machine that does other things: time is looked at below, not by the deadline.
    with mounted_archives(tmp_path, made, extra_config="[mount]\ntimeout = 90\n") as mount:
        pid = ask(mount, verb="status")["pid"]
        base, begin, before_s = memory_peak(pid), time.monotonic(), cpu_s(pid)
        with ThreadPoolExecutor(len(made)) as pool:
            for _ in pool.map(lambda name: check(mount, name, cases[name]), made):
                pass
        memory = memory_peak(pid) - base
        disk = sum(path.stat().st_size for path in (mount.home / ".cache").rglob("*") if path.is_file())
        took_s, used_s = time.monotonic() - begin, cpu_s(pid) - before_s
        sys.stdout.write(
            f"bombs: {took_s:.1f} s, {used_s:.1f} s of CPU, {memory // MIB} MiB of memory, {disk // MIB} MiB on disk\n"
        )
        assert used_s < SLOW_S
        assert memory < MEMORY
        assert disk < DISK
