"""A mount from its beginning to its end, and what is left of one that was killed: everything by our own commands."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.control import ask
from tests.support.lab import Mounted, artifactfs, environment, write_config

pytestmark = pytest.mark.fuse

# For what takes well under a second, on a machine that does other things, too.
SOON_S = 15.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one source, a local store."""
    environment(tmp_path / "home")
    write_config(tmp_path / "home", {"mine": {"type": "local", "path": str(tmp_path / "store")}})
    return tmp_path / "home"


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    return environment(home, ARTIFACTFS_CONFIG=str(home / "config.toml"), TMPDIR=str(home))


@contextlib.contextmanager
def mounted_at(place: Path, env: dict[str, str], *options: str) -> Iterator[Mounted]:
    """Mount what the home's configuration has; the test may have ended it by the end."""
    done = artifactfs(env, "mount", str(place), *options, check=False)
    assert done.returncode == 0, done.stderr
    try:
        yield Mounted(place, Path(env["HOME"]), env)
    finally:
        if place in mounts_below(place):
            assert artifactfs(env, "umount", "--lazy", str(place), check=False).returncode == 0


def mounts_below(place: Path) -> list[Path]:
    return [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if str(place) in line]


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # noqa: TID251 - no event loop here


def left_over(home: Path) -> list[str]:
    """What should not outlive a mount: sockets, locks, the demo's directories, drafts."""
    places = [
        *home.glob("run/artifactfs/*"),
        *home.glob("artifactfs-*"),
        *home.glob(".local/state/artifactfs/drafts/*"),
    ]
    return [str(path) for path in places]


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# -- the beginning -------------------------------------------------------------------------------------------------


def test_a_mount_point_is_made(tmp_path: Path, env: dict[str, str]) -> None:
    """With what is missing above it; blanks, quotes and other scripts in its name do no harm."""
    place = tmp_path / "a b" / "ä \\ 'c'"
    with mounted_at(place, env):
        assert os.path.ismount(place)
        assert json.loads(artifactfs(env, "status", "--json", str(place)).stdout)[0]["mountpoint"] == str(place)
        artifactfs(env, "umount", str(place))
    assert left_over(Path(env["HOME"])) == []


def test_mount_points_that_cannot_be(tmp_path: Path, env: dict[str, str]) -> None:
    """A file, a directory that is not empty, one below a file: exit code 1, and what is the matter."""
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thing").write_text("")
    for place, says in (("file", "not a directory"), ("full", "not empty"), ("file/below", "cannot be made")):
        for options in ((), ("--foreground",)):
            done = artifactfs(env, "mount", str(tmp_path / place), *options, check=False)
            assert done.returncode == 1
            assert says in done.stderr
            assert "Traceback" not in done.stderr
    assert mounts_below(tmp_path) == []


def test_errors_at_the_start_reach_the_caller(tmp_path: Path, home: Path, env: dict[str, str]) -> None:
    """A missing token, one that cannot be sent, a bad file, a source nobody knows: exit code 1 and one clear line."""
    cases = (
        ({"type": "vm0", "token-env": "NOT_SET_AT_ALL"}, "NOT_SET_AT_ALL"),
        ({"type": "vm0", "token-env": "BLANK_TOKEN"}, "characters"),
        ({"type": "vm0", "tokn": "x"}, "unknown key"),
        ({"type": "local", "path": "/proc/nowhere"}, ""),
    )
    for values, says in cases:
        config = write_config(home, {"one": values})
        env["BLANK_TOKEN"] = "vm0_live\tsecret"
        done = artifactfs(env, "mount", str(tmp_path / "mnt"), "--config", str(config), check=False)
        assert done.returncode == 1, values
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert "secret" not in done.stderr
    done = artifactfs(env, "mount", str(tmp_path / "mnt"), "nobody", check=False)
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert mounts_below(tmp_path) == []


def test_a_relative_configuration(tmp_path: Path, home: Path, env: dict[str, str]) -> None:
    """The mount's process stands elsewhere, and finds it nevertheless."""
    env["ARTIFACTFS_CONFIG"] = "config.toml"
    command = [sys.executable, "-m", "artifactfs", "mount", "mnt"]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    artifactfs(env, "umount", str(home / "mnt"))


def test_a_second_mount_at_a_place_is_refused(tmp_path: Path, env: dict[str, str]) -> None:
    """By whatever way the place is named; the first goes on, and a mount elsewhere is another."""
    place, link = tmp_path / "mnt", tmp_path / "link"
    with mounted_at(place, env) as mount:
        link.symlink_to(place)
        for other in (place, link, tmp_path / "mnt/../mnt"):
            done = artifactfs(env, "mount", str(other), check=False)
            assert done.returncode == 1
            assert "already" in done.stderr
        assert mount.status()["mountpoint"] == str(place)
        with mounted_at(tmp_path / "other", env):
            (place / "notes").mkdir()
            assert os.path.ismount(tmp_path / "other")
        assert os.listdir(place) == ["notes"]
        # By its other name it is the same mount.
        assert artifactfs(env, "why", str(link / "notes")).returncode == 0
        assert artifactfs(env, "umount", str(link)).returncode == 0


def test_two_mounts_at_the_same_moment(tmp_path: Path, env: dict[str, str]) -> None:
    """One of them has the place, the other says so."""
    place = tmp_path / "mnt"
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: artifactfs(env, "mount", str(place), check=False), range(3)))
    assert sorted(one.returncode for one in done) == [0, 1, 1], done
    assert len(mounts_below(place)) == 1
    artifactfs(env, "umount", str(place))


# -- the end -------------------------------------------------------------------------------------------------------


def test_umount_leaves_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    """No process, mount, socket or temporary file; and what is not mounted cannot be unmounted."""
    with mounted_at(tmp_path / "mnt", env) as mount:
        pid = mount.status()["pid"]
        artifactfs(env, "umount", str(tmp_path / "mnt"))
        assert not is_alive(pid)
    assert mounts_below(tmp_path) == []
    assert left_over(Path(env["HOME"])) == []
    done = artifactfs(env, "umount", str(tmp_path / "mnt"), check=False)
    assert done.returncode == 1
    assert "not mounted" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount(tmp_path: Path, env: dict[str, str], number: int) -> None:
    """In order, and soon, also while a file is open."""
    with mounted_at(tmp_path / "mnt", env) as mount:
        (mount.path / "notes").mkdir()
        (mount.path / "notes/a.md").write_text("kept")
        with contextlib.suppress(OSError), (mount.path / "notes/a.md").open():
            pid = mount.status()["pid"]
            os.kill(pid, number)
            eventually(lambda: not is_alive(pid))
    assert mounts_below(tmp_path) == []
    assert left_over(Path(env["HOME"])) == []
    with mounted_at(tmp_path / "mnt", env) as mount:
        assert (mount.path / "notes/a.md").read_text() == "kept"


def test_the_systems_umount_ends_the_process(tmp_path: Path, env: dict[str, str]) -> None:
    """Not only our command does."""
    with mounted_at(tmp_path / "mnt", env) as mount:
        pid = mount.status()["pid"]
        helper = ["umount"] if os.getuid() == 0 else ["fusermount3", "-u"]
        subprocess.run([*helper, str(mount.path)], check=True)
        eventually(lambda: not is_alive(pid))
    assert left_over(Path(env["HOME"])) == []


def test_a_mount_in_use_is_busy_until_lazy(tmp_path: Path, env: dict[str, str]) -> None:
    """It says by whom; --lazy detaches it, the open file stays readable, and the process ends after its close."""
    with mounted_at(tmp_path / "mnt", env) as mount:
        (mount.path / "notes").mkdir()
        (mount.path / "notes/a.md").write_text("still here")
        pid = mount.status()["pid"]
        with (mount.path / "notes/a.md").open() as file:
            done = artifactfs(env, "umount", str(mount.path), check=False)
            assert done.returncode == 1
            assert "busy" in done.stderr
            assert "--lazy" in done.stderr
            assert f"({os.getpid()})" in done.stderr
            assert mount.status()["pid"] == pid
            begin = time.monotonic()
            assert artifactfs(env, "umount", "--lazy", str(mount.path)).returncode == 0
            assert time.monotonic() - begin < SOON_S
            assert mounts_below(tmp_path) == []
            assert file.read() == "still here"
            # The place is free again, and the mount there is not disturbed by the end of the first.
            with mounted_at(tmp_path / "mnt", env) as second:
                file.close()
                eventually(lambda: not is_alive(pid))
                assert second.status()["pid"] != pid
                assert ask(second, verb="status")


def test_a_stopped_process_does_not_stop_umount(tmp_path: Path, env: dict[str, str]) -> None:
    """One that answers nothing, not even its socket, is unmounted all the same."""
    with mounted_at(tmp_path / "mnt", env) as mount:
        pid = mount.status()["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            assert artifactfs(env, "umount", "--lazy", str(mount.path)).returncode == 0
            assert time.monotonic() - begin < SOON_S
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: not is_alive(pid))


# -- what a killed one leaves --------------------------------------------------------------------------------------


def test_a_dead_mount_is_cleaned_by_the_next(tmp_path: Path, env: dict[str, str]) -> None:
    """After a kill -9 status says so, and mounting again just works; so does umount."""
    place = tmp_path / "mnt"
    with mounted_at(place, env) as mount:
        (place / "notes").mkdir()
        (place / "notes/a.md").write_text("published")
        eventually(lambda: not ask(mount, verb="status")["pending"])
        pid = mount.status()["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_alive(pid))
        with pytest.raises(OSError, match="connect"):
            os.listdir(place)
        told = artifactfs(env, "status").stdout
        assert "its process is gone" in told
        assert json.loads(artifactfs(env, "status", "--json", str(place)).stdout)[0]["dead"] is True
        done = artifactfs(env, "mount", str(place))
        assert "cleaned up a dead mount" in done.stdout
        assert (place / "notes/a.md").read_text() == "published"
        assert len(mounts_below(place)) == 1
        os.kill(mount.status()["pid"], signal.SIGKILL)
        assert artifactfs(env, "umount", str(place)).returncode == 0
    assert mounts_below(tmp_path) == []
    # Its drafts stay for the next mount, which looks what has not been published.
    assert not list(Path(env["HOME"]).glob("run/artifactfs/*"))


def test_a_killed_demo_leaves_nothing_for_long(tmp_path: Path, env: dict[str, str]) -> None:
    """Its server ends with it; its directory goes with the next demo, and only that."""
    (Path(env["TMPDIR"]) / "demo-of-somebody-else").mkdir()
    place = tmp_path / "mnt"
    begin = time.monotonic()
    with mounted_at(place, env, "--demo") as mount:
        sys.stdout.write(f"a demo of four sources was ready after {time.monotonic() - begin:.1f} s\n")
        pid = mount.status()["pid"]
        lists = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
        children = [int(child) for one in lists for child in one]
        assert children, "the server is a process of its own"
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(is_alive, (pid, *children))))
        assert len(demos(env)) == 1
        artifactfs(env, "mount", "--demo", str(place))
        assert len(demos(env)) == 1
        assert sorted(os.listdir(place)) == ["local", "syntropic137", "vlmrun", "vm0"]
        artifactfs(env, "umount", str(place))
    assert demos(env) == []
    assert (Path(env["TMPDIR"]) / "demo-of-somebody-else").exists()


def demos(env: dict[str, str]) -> list[Path]:
    return [path for base in (env["TMPDIR"], f"{env['HOME']}/run/artifactfs") for path in Path(base).glob("*-demo-*")]


# -- in the foreground ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_stays_until_told(tmp_path: Path, env: dict[str, str], number: int) -> None:
    """It says what it has mounted, ends with exit code 0, and leaves nothing."""
    place = tmp_path / "mnt"
    command = [sys.executable, "-m", "artifactfs", "mount", "--foreground", str(place)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert str(place) in process.stdout.readline()
        assert os.path.ismount(place)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "Traceback" not in err
    assert mounts_below(tmp_path) == []
    assert left_over(Path(env["HOME"])) == []


def test_control_c_before_there_is_a_mount(tmp_path: Path, env: dict[str, str]) -> None:
    """No traceback, no mount, no process; at whatever moment it comes."""
    for pause_s in (0.5, 0.8, 1.1):
        command = [sys.executable, "-m", "artifactfs", "mount", "-f", "--demo", str(tmp_path / "mnt")]
        with subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            time.sleep(pause_s)  # noqa: TID251 - no event loop here
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
            assert process.returncode in {0, 130, -signal.SIGINT}, err
            assert "Traceback" not in err or "artifactfs" not in err.rpartition("File ")[2]
        assert mounts_below(tmp_path) == []


# -- the socket ----------------------------------------------------------------------------------------------------


def test_whatever_is_said_to_the_socket_the_mount_goes_on(tmp_path: Path, env: dict[str, str]) -> None:
    """Nothing, noise, other JSON, too much, too deep, wrong types, many who say nothing."""
    from tests.support.control import exchange, socket_of

    with mounted_at(tmp_path / "mnt", env) as mount, contextlib.ExitStack() as stack:
        path = socket_of(mount)
        assert path.stat().st_mode & 0o077 == 0
        for _ in range(30):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.connect(str(path))
        hostile = (
            b"", b"\n", b"[]\n", b"null\n", b"5\n", b"{}\n", b"\xff\xfe\n", b"[" * 60_000 + b"\n", b"x" * 200_000,
            b'{"verb": []}\n', b'{"verb": "why", "path": {"a": 1}}\n', b'{"verb": "why", "path": "\\ud800/\\u0000"}\n',
            b'{"verb": "log", "path": "/../.."}\n', b'{"verb": "interrupt", "older_than_s": "x"}\n',
            b'{"verb": "why", "path": "' + b"../" * 9000 + b'"}\n',
        )  # fmt: skip
        for raw in hostile:
            with contextlib.suppress(ConnectionError):
                reply = exchange(path, raw)
                assert not reply or json.loads(reply)
        assert mount.status()["pid"]
        assert "unforeseen" not in mount.log_text()


def test_the_log_says_where_it_is(tmp_path: Path, env: dict[str, str]) -> None:
    """A process that dies at its start is told by its log's name, not by silence."""
    broken = tmp_path / "broken"
    shutil.copytree(Path(__file__).parents[2] / "artifactfs", broken / "artifactfs")
    (broken / "artifactfs/daemon/lifecycle.py").write_text("raise SystemExit(3)\n")
    command = [sys.executable, "-m", "artifactfs", "mount", str(tmp_path / "mnt")]
    done = subprocess.run(command, env=env, cwd=broken, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert ".log" in done.stderr
