"""A whole session with three tokens that can be recognised, and then a look for them everywhere they must not be.

One comes from a variable, one from a file, one from a login. Everything is done that people and programs do, while the
service answers, refuses, fails and redirects; what was said, written and kept is searched afterwards.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from artifactfs.store import demo
from artifactfs.store.catalog import Store
from tests.support.awkward import Served
from tests.support.control import exchange, socket_of
from tests.support.lab import Fault, Lab, Mounted, environment, mounted, write_config
from tests.support.log_guard import LogGuard

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """The tests' own servers break their answers on purpose, and say so."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


SERVICES = ("vm0", "syntropic137", "vlmrun")
# With characters that look otherwise in a URL, and long enough to be nobody else's.
CANARIES = {
    "vm0": "env+canary/7f3a91c2d4=.vm0", "syntropic137": "file+canary/7f3a91c2d4=.syn",
    "vlmrun": "login+canary/7f3a91c2d4=.vlm",
}  # fmt: skip


def forms(secret: str) -> set[bytes]:
    """Return what a secret looks like as it is, quoted, in hex, and inside of anything that was put into base64."""
    found = {secret.encode(), quote(secret, safe="").encode(), secret.encode().hex().encode()}
    for shift in range(3):
        # Without the first and the last group, which what stands beside it changes, too.
        found.add(base64.b64encode(b"\0" * shift + secret.encode())[4:-4])
    return found


FORMS = {name: forms(secret) for name, secret in CANARIES.items()}


def shown(data: bytes) -> list[str]:
    """Return whose token stands in some bytes."""
    return [name for name, spellings in FORMS.items() if any(one in data for one in spellings)]


@dataclass
class Session:
    """What came of it: what was said, by what said it; what the other host was asked; files and modes left behind."""

    home: Path
    said: dict[str, bytes] = field(default_factory=dict)
    astray: list[Request] = field(default_factory=list)
    live: dict[str, int] = field(default_factory=dict)
    limits: str = ""
    echoes: bool = False

    def run(self, mount: Mounted, what: str, *command: str) -> None:
        """Run a command in the mount and keep what it says, whatever comes of it."""
        done = mount.run(*command, check=False, timeout=100)
        self.said[what] = f"{done.stdout}\0{done.stderr}".encode()

    def ours(self, mount: Mounted, *arguments: str) -> None:
        """Run our own command and keep what it says."""
        done = mount.artifactfs(*arguments, check=False, timeout=100)
        self.said[f"artifactfs {' '.join(arguments[:2])} {len(self.said)}"] = f"{done.stdout}\0{done.stderr}".encode()


@contextlib.contextmanager
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def modes(home: Path) -> dict[str, int]:
    """Return the modes of everything that a session left in a home, but for what the tests put there themselves."""
    own = {home / "config.toml", home / "token"}
    found = (path for path in home.rglob("*") if path not in own and not path.is_symlink())
    return {str(path.relative_to(home)): stat.S_IMODE(path.lstat().st_mode) for path in found}


def xattrs(place: Path) -> bytes:
    found = bytearray()
    for path in sorted(place.rglob("*"))[:300]:
        with contextlib.suppress(OSError):
            for name in os.listxattr(path, follow_symlinks=False):
                found += name.encode() + b"=" + os.getxattr(path, name, follow_symlinks=False) + b"\n"
    return bytes(found)


def write_somewhere(place: Path) -> bool:
    """Save a file in the first directory that takes one."""
    for folder in (place, *sorted(place.glob("*")), *sorted(place.glob("*/*"))):
        if folder.is_dir() and folder.name != "by-id":
            with contextlib.suppress(OSError):
                (folder / "canary.md").write_text("a save\n")
                return True
    return False


def look_at(session: Session, mount: Mounted) -> None:
    """Ask what can be asked of the mount."""
    session.ours(mount, "status")
    session.said[f"status {len(session.said)}"] = exchange(socket_of(mount), b'{"verb": "status"}\n')
    for name in SERVICES:
        request = f'{{"verb": "why", "path": "{name}/nobody"}}\n'
        session.said[f"why {name} {len(session.said)}"] = exchange(socket_of(mount), request.encode())
    for file in sorted((mount.path / ".artifactfs").iterdir()):
        session.said[f"{file.name} {len(session.said)}"] = file.read_bytes()


def do_everything(session: Session, mount: Mounted, lab: Lab, elsewhere: str) -> None:
    session.run(mount, "find", "find", "-L", ".", "-ls")
    session.run(mount, "cat", "sh", "-c", "find . -type f -size -64k | head -60 | xargs -d '\\n' cat")
    session.said["xattrs"] = xattrs(mount.path)
    assert b"user.artifactfs." in session.said["xattrs"]
    session.said["wrote"] = str([write_somewhere(mount.path / name) for name in SERVICES]).encode()
    session.ours(mount, "flush", str(mount.path))
    look_at(session, mount)
    session.ours(mount, "source", "list")
    session.ours(mount, "source", "list", "--json")
    session.ours(mount, "why", str(mount.path / "vm0"))
    redirect = {"status": 302, "headers": {"location": f"{elsewhere}/taken"}}
    for what in ({"status": 401}, {"status": 500}, redirect, {"cut_after": 10}):
        lab.fault("", **what)
        for name in SERVICES:
            session.run(mount, f"{name} {what}", "cat", f"{name}/nobody", f"{name}/by-id/nobody")
            with contextlib.suppress(OSError):
                (mount.path / name / f"{what.get('status', 'cut')}.md").write_text("fails\n")
        look_at(session, mount)
        if what in ({"status": 401}, redirect):
            session.ours(mount, "source", "test")
        lab.heal()
    session.echoes = True
    for name in SERVICES:
        session.run(mount, f"{name} echo", "cat", f"{name}/other", f"{name}/by-id/other")
    look_at(session, mount)
    session.ours(mount, "source", "test")
    assert session.said[f"artifactfs source test {len(session.said) - 1}"].count(b"the token Bearer *** is") >= 1
    session.echoes = False
    session.ours(mount, "doctor")
    session.ours(mount, "pending", "list")
    session.ours(mount, "cache", "show")
    session.ours(mount, "log", str(mount.path / "syntropic137"))
    session.ours(mount, "source", "test")
    session.said["socket"] = exchange(socket_of(mount), b'{"verb": "renew", "source": "vm0"}\n')
    session.said["socket too"] = exchange(socket_of(mount), b'{"verb": "renew", "source": {"a": 1}, "forget": 7}\n')
    pid = mount.status()["pid"]
    for file in ("cmdline", "environ"):
        session.said[file] = Path(f"/proc/{pid}/{file}").read_bytes()
    session.limits = Path(f"/proc/{pid}/limits").read_text()
    session.live = modes(session.home)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Everything is done once, under a umask that keeps nothing from others."""
    place = tmp_path_factory.mktemp("secrets")
    store = Store(place / "store")
    demo.fill(store)
    made = Session(place / "home")

    async def take(request: Request) -> Response:
        made.astray.append(request)
        return JSONResponse({"data": []})

    def echo(_where: str) -> Fault | None:
        """Repeat what was refused, as some services do."""
        if not made.echoes:
            return None
        sent = lab.seen[-1].headers.get("authorization", "")
        words = json.dumps({"error": {"message": f"the token {sent} is not valid"}, "detail": sent})
        return Fault("", status=403, body=words.encode(), headers={"x-request-id": sent.partition(" ")[2]})

    lab = Lab(store, weather=echo)
    with Served(Starlette(routes=[Route("/{path:path}", take)])) as other, lab, open_umask():
        environ = {
            "CANARY": CANARIES["vm0"], "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            "TMPDIR": str(place / "home/tmp"),
        }  # fmt: skip
        home = environment(made.home, **environ)
        (made.home / "tmp").mkdir(mode=0o700)
        (made.home / "token").write_text(CANARIES["syntropic137"])
        (made.home / "token").chmod(0o600)
        named = {"vm0": {"token-env": "CANARY"}, "syntropic137": {"token-file": str(made.home / "token")}}
        sources = {
            name: {"type": name, "url": lab.bases()[name], **named.get(name, {})} for name in SERVICES
        }  # fmt: skip
        home["ARTIFACTFS_CONFIG"] = environ["ARTIFACTFS_CONFIG"] = str(write_config(made.home, sources))
        done = subprocess.run(
            [sys.executable, "-m", "artifactfs", "login", "vlmrun"],
            env=home, input=CANARIES["vlmrun"].encode(), capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        made.said["login"] = done.stdout + done.stderr
        extra = 'log-level = "debug"\n[mount]\ntimeout = 3\nxattrs = true\npublish-delay = 0.2\n'
        with mounted(place, sources, "--all", extra_config=extra, environ=environ) as mount:
            do_everything(made, mount, lab, other.url)
        carried = {request.headers.get("authorization") for request in lab.seen}
    store.close()
    # Otherwise there would have been nothing to find.
    assert {f"Bearer {secret}" for secret in CANARIES.values()} <= carried
    return made


def test_nothing_that_is_said_shows_a_token(session: Session) -> None:
    """Outputs, attributes, the control directory, answers of the socket, command line, environment."""
    assert {what: names for what, data in session.said.items() if (names := shown(data))} == {}
    assert session.said["wrote"] == b"[True, True, True]"
    assert any(b"login (" in data for data in session.said.values())


def test_nothing_that_is_kept_holds_a_token(session: Session) -> None:
    """Cache, journal, logs, databases, sockets and temporary files: none but the two files that are for tokens."""
    found = {}
    for path in session.home.rglob("*"):
        if path.is_file() and not path.is_symlink() and (names := shown(path.read_bytes())):
            found[str(path.relative_to(session.home))] = names
    (kept,) = (session.home / ".config/artifactfs/tokens").iterdir()
    assert found == {"token": ["syntropic137"], str(kept.relative_to(session.home)): ["vlmrun"]}
    assert shown(xattrs(session.home)) == []
    (log,) = (session.home / ".local/state/artifactfs/log").iterdir()
    assert b"DEBUG" in log.read_bytes()


def test_no_token_went_to_another_host(session: Session) -> None:
    """It was asked by all three, without."""
    assert session.astray
    for request in session.astray:
        assert "authorization" not in request.headers
        assert shown(f"{request.url}{request.headers}".encode()) == []


def test_everything_is_the_owners_alone(session: Session) -> None:
    """While it runs and afterwards, whatever the umask."""
    assert {path: oct(mode) for path, mode in session.live.items() if mode & 0o077} == {}
    assert {path: oct(mode) for path, mode in modes(session.home).items() if mode & 0o077} == {}
    kinds = {Path(path).suffix for path in session.live}
    assert {".db", ".db-wal", ".log", ".sock", ".json"} <= kinds


def test_no_core_is_left(session: Session) -> None:
    """The limit of 1 byte also keeps the kernel from piping one to a handler."""
    (line,) = [line for line in session.limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] in (["1", "1"], ["0", "0"])


def confined(*lines: str) -> subprocess.CompletedProcess[bytes]:
    """Run some lines after those that confine a process."""
    begin = ["import os, resource, signal, subprocess, sys", "from artifactfs.daemon import confinement"]
    return subprocess.run(
        [sys.executable, "-c", "\n".join([*begin, *lines])],
        env={**os.environ, "CANARY": CANARIES["vm0"]}, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_process_that_crashes_dumps_nothing() -> None:
    """Which the same crash without it may do, if this machine has it so."""
    crash = "os.kill(os.getpid(), signal.SIGQUIT)"
    done = confined(
        "child = os.fork()", "if child == 0:", "    confinement.no_core()", f"    {crash}",
        "print(os.WCOREDUMP(os.waitpid(child, 0)[1]))",
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, b"False")


def test_variables_are_forgotten_by_the_process_and_its_children() -> None:
    """Also where the kernel shows them; what was not named stays."""
    look = "open('/proc/self/environ', 'rb').read()"
    done = confined(
        f"assert os.environ['CANARY'].encode() in {look}",
        "confinement.forget_variables(['CANARY', 'NOT_SET'])",
        f"print({look}, os.environ)",
        "sys.stdout.flush()",
        "subprocess.run(['env'])",
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown(done.stdout) == []
    assert b"PATH=" in done.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_a_defect_with_the_token_at_hand_shows_it_nowhere(
    tmp_path: Path, service: str, expected_logs: LogGuard
) -> None:
    """A traceback from where requests are sent, with what is sent in the words of the exception, goes to the log."""
    expected_logs(level=logging.ERROR)  # each line of it
    package = tmp_path / "broken/artifactfs"
    shutil.copytree(Path(__file__).parents[2] / "artifactfs", package)
    with (package / "providers/connections.py").open("a") as file:
        file.write("async def _defect(self, request):\n    raise RuntimeError(f'{self} cannot {request!r}')\n")
        file.write("Pool.send = _defect\n")
    environ = environment(tmp_path / "home", CANARY=CANARIES[service])
    sources = {"work": {"type": service, "url": "http://127.0.0.1:1", "token-env": "CANARY"}}
    place, config = tmp_path / "mnt", str(write_config(tmp_path / "home", sources))

    def ours(*arguments: str) -> bytes:
        command = [sys.executable, "-m", "artifactfs", *arguments, str(place), "--config", config]
        command = command if arguments == ("mount",) else command[:-2]
        done = subprocess.run(command, env=environ, cwd=package.parent, capture_output=True, check=True, timeout=60)
        return done.stdout + done.stderr

    said = ours("mount")
    try:
        with pytest.raises(OSError, match="Input/output error"):
            os.listdir(place / "artifacts" if service == "vm0" else place)
        said += ours("status")
    finally:
        said += ours("umount")
    (log,) = (tmp_path / "home/.local/state/artifactfs/log").iterdir()
    assert b"RuntimeError: <Pool" in log.read_bytes()
    assert b"Outgoing(url=" in log.read_bytes()
    assert shown(said + log.read_bytes()) == []
