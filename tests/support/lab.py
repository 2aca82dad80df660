"""A laboratory for mounts: a really served store whose answers can be disturbed, and real mounts of it.

The server runs in a thread of the test process, so that its requests can be counted and its answers changed between two
commands; the mount is a process of its own, started with the command a person types.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from artifactfs.server import app as server_app
from artifactfs.server import storage
from artifactfs.server.context import LINK_LIFETIME_S, SIGNATURE, Signer, Verdict
from artifactfs.server.run import serve_app
from artifactfs.store.catalog import Store
from tests.support.log_guard import MOUNTS
from tests.support.serving import ServedInThread

TOKEN = "vm0_live_laboratory"
# Of each request: enough for what names anything in it.
BODY_BYTES = 64 * 1024
QUIET = {"ARTIFACTFS_MOUNT_POLL_INTERVAL": "0"}
# Python keeps these to itself; said in the log of a mount they fail the test (``log_guard``).
TELLING = {"PYTHONWARNINGS": "default::ResourceWarning"}


@dataclass
class Fault:
    """What to do to requests whose path (with query) matches ``pattern``; ``times`` counts down, None is for ever.

    ``status`` answers at once with that status; ``delay_s`` waits first; ``stall_after`` sends so many bytes of the
    body and then nothing more, until ``go_on`` is set if there is one; ``cut_after`` sends so many bytes and then drops
    the connection; ``lose_answer`` lets the server do what was asked, and then drops the connection; ``headers`` are
    added to ``status``; with ``method`` only requests of it are meant; ``refuse`` drops the connection without doing
    anything, ``swallow`` after doing what was asked and before a byte of the answer; ``then`` is called in a thread
    when the answer has been sent: what changes at the service while somebody asks for more.
    """

    pattern: str
    status: int | None = None
    body: bytes = b'{"detail": "a fault of the laboratory"}'
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    stall_after: int | None = None
    go_on: threading.Event | None = None
    cut_after: int | None = None
    lose_answer: bool = False
    refuse: bool = False
    swallow: bool = False
    times: int | None = None
    method: str | None = None
    then: Callable[[], None] | None = None


Weather = Callable[[str], Fault | None]
"""What happens to a request that no fault was asked for, given its method and path."""


@dataclass(frozen=True)
class Seen:
    """One request as the server saw it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    origin: str
    body: bytearray = field(default_factory=bytearray)
    """The first 64 KiB of it, as far as the server has read it."""


class Laboratory:
    """Middleware that counts requests and applies faults."""

    def __init__(
        self, app: ASGIApp, seen: list[Seen], faults: list[Fault], origin: str, weather: Weather | None = None
    ) -> None:
        """Wrap ``app``."""
        self.app, self.seen, self.faults, self.origin, self.weather = app, seen, faults, origin, weather

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, perhaps badly."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        query = scope["query_string"].decode()
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        seen = Seen(scope["method"], scope["path"], query, headers, self.origin)
        self.seen.append(seen)
        receive = self._kept(receive, seen.body)
        fault = self._fault(f"{scope['path']}?{query}", scope["method"])
        if fault is None and self.weather is not None:
            fault = self.weather(f"{scope['method']} {scope['path']}")
        if fault is None:
            await self.app(scope, receive, send)
            return
        await trio.sleep(fault.delay_s)
        if fault.status is not None:
            pairs = {"content-type": "application/json", "content-length": str(len(fault.body)), **fault.headers}
            raw = [(name.encode(), value.encode()) for name, value in pairs.items()]
            await send({"type": "http.response.start", "status": fault.status, "headers": raw})
            await send({"type": "http.response.body", "body": fault.body})
            return
        if fault.refuse or fault.swallow:
            if fault.swallow:
                await self.app(scope, receive, _swallow)
            # After this hypercorn answers nothing for us, and closes the connection: the answer is not complete.
            await send({"type": "http.response.start", "status": 102, "headers": []})
            return
        await self.app(scope, receive, self._lost(send) if fault.lose_answer else self._disturbed(send, fault))
        if fault.then is not None:
            await trio.to_thread.run_sync(fault.then)

    def _fault(self, where: str, method: str) -> Fault | None:
        for fault in self.faults:
            if fault.times != 0 and fault.method in {None, method} and re.search(fault.pattern, where):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    @staticmethod
    def _kept(receive: Receive, body: bytearray) -> Receive:
        async def kept() -> Message:
            message = await receive()
            body.extend(message.get("body", b"")[: BODY_BYTES - len(body)])
            return message

        return kept

    @staticmethod
    def _lost(send: Send) -> Send:
        """Announce a body and send nothing of it: hypercorn then hangs up."""

        async def lost(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [(b"content-length", b"1")]}
            else:
                message = {"type": "http.response.body", "body": b"", "more_body": True}
            await send(message)

        return lost

    @staticmethod
    def _disturbed(send: Send, fault: Fault) -> Send:
        sent = 0

        async def disturbed(message: Message) -> None:
            nonlocal sent
            limit = fault.stall_after if fault.stall_after is not None else fault.cut_after
            if fault.go_on is not None and fault.go_on.is_set():
                limit = None
            if message["type"] != "http.response.body" or limit is None:
                await send(message)
                return
            body = message.get("body", b"")
            if sent + len(body) <= limit and message.get("more_body"):
                sent += len(body)
                await send(message)
                return
            await send({"type": "http.response.body", "body": body[: max(0, limit - sent)], "more_body": True})
            if fault.go_on is not None:
                while not fault.go_on.is_set():  # noqa: ASYNC110 - a test sets it, in another thread
                    await trio.sleep(0.02)
                await send({**message, "body": body[max(0, limit - sent) :]})
                return
            if fault.stall_after is not None:
                await trio.sleep_forever()
            raise ConnectionResetError  # hypercorn closes the connection in the middle of the body

        return disturbed


async def _swallow(message: Message) -> None:
    """Take an answer that nobody gets."""


class AgingLinks(Signer):
    """Makes links that expire when a test says so."""

    def __init__(self) -> None:
        """Make links that last."""
        super().__init__()
        self.stillborn: int | None = 0
        """So many of the next links have expired when they are made; None is all."""
        self._given: set[str] = set()
        self._expired: set[str] = set()

    def expire(self) -> int:
        """Have all links expired that were made until now; return how many there are."""
        self._expired |= self._given
        return len(self._given)

    def link(self, base_url: str, path: str, *, method: str = "GET", lifetime_s: int = LINK_LIFETIME_S) -> str:
        if self.stillborn is None or self.stillborn:
            lifetime_s = -1
            self.stillborn = None if self.stillborn is None else self.stillborn - 1
        # Two that live equally long and are made within a second are one, and expire together.
        lifetime_s += len(self._given) if lifetime_s > 0 else 0
        made = super().link(base_url, path, method=method, lifetime_s=lifetime_s)
        self._given.add(_signature_of(dict(parse_qsl(urlsplit(made).query))))
        return made

    def check(self, method: str, path: str, query: Mapping[str, str]) -> Verdict:
        is_expired = _signature_of(query) in self._expired
        return Verdict.EXPIRED if is_expired else super().check(method, path, query)


def _signature_of(query: Mapping[str, str]) -> str:
    return query.get(SIGNATURE, "")


class Lab(ServedInThread):
    """A served store; use as a context manager. ``links`` are those that its answers lead to bytes by."""

    def __init__(self, store: Store, *, token: str | None = None, weather: Weather | None = None) -> None:
        """Prepare to serve ``store``; ``weather`` is asked in the server's thread about each request."""
        super().__init__()
        self.store = store
        self.token = token
        self.weather = weather
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.links = AgingLinks()

    async def way(self, origin: str, url: str, nursery: trio.Nursery) -> str:
        """Return the address by which clients reach a server: its own."""
        return url

    async def begin(self, nursery: trio.Nursery) -> str:
        """Serve the bytes, and the dialects that name their address."""
        objects = Laboratory(storage.build(self.store, self.links), self.seen, self.faults, "storage", self.weather)
        bytes_at = await nursery.start(serve_app, objects)
        storage_url = await self.way("storage", bytes_at.url, nursery)
        app = server_app.build(self.store, storage_url=storage_url, token=self.token, signer=self.links)
        main = await nursery.start(serve_app, Laboratory(app, self.seen, self.faults, "main", self.weather))
        self.url = await self.way("main", main.url, nursery)
        return self.url

    def bases(self) -> dict[str, str]:
        """Return the base URL of each dialect."""
        return {name: self.url + path for name, path in server_app.BASES.items()}

    def fault(self, pattern: str, **what: Any) -> Fault:
        """Disturb requests from now on; returns the fault, which ``heal`` ends."""
        fault = Fault(pattern, **what)
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """End all faults."""
        self.faults.clear()
        self.links.stillborn = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[Seen]]:
        """Collect the requests that arrive while the block runs."""
        begin = len(self.seen)
        found: list[Seen] = []
        yield found
        found.extend(self.seen[begin:])


@dataclass
class Mounted:
    """A real mount, in a process of its own."""

    path: Path
    home: Path
    environ: dict[str, str]

    def run(
        self, *command: str, check: bool = True, timeout: float = 60, **kwargs: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with the mount as its working directory."""
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.environ,
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout,
            **kwargs,
        )

    def artifactfs(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run our own command, as the mount's owner would, from outside the mount."""
        return artifactfs(self.environ, *arguments, check=check, timeout=timeout)

    def status(self) -> dict[str, Any]:
        """Return what ``artifactfs status --json`` says of this mount."""
        return json.loads(self.artifactfs("status", "--json", str(self.path)).stdout)[0]

    def why(self, path: str) -> dict[str, Any]:
        """Return what ``artifactfs why --json`` says of a path below the mount."""
        return json.loads(self.artifactfs("why", "--json", str(self.path / path)).stdout)

    def log_text(self) -> str:
        """Return the log of the mount's process."""
        return "".join(p.read_text() for p in self.home.glob(".local/state/artifactfs/log/*.log"))

    def kill(self) -> None:
        """Kill the mount's process as a power cut would."""
        os.kill(self.status()["pid"], signal.SIGKILL)


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment with a home of its own and none of the services' variables.

    Mounts look for others' changes only where a test asks for it: the requests of the others are counted.
    """
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("VM0_", "SYN_", "VLMRUN_", "ARTIFACTFS_CONFIG", "XDG_"))
    }
    home.mkdir(parents=True, exist_ok=True)
    MOUNTS.watch(home)
    runtime = home / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    return {**kept, "HOME": str(home), "VM0_TOKEN": "", "XDG_RUNTIME_DIR": str(runtime), **QUIET, **TELLING, **more}


def artifactfs(
    environ: Mapping[str, str], *arguments: str, check: bool = True, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "artifactfs", *arguments],
        env=dict(environ), capture_output=True, text=True, check=check, timeout=timeout, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def write_config(home: Path, sources: Mapping[str, Mapping[str, object]], extra: str = "") -> Path:
    """Write a configuration file; values are given as TOML would have them in Python."""
    lines = [extra]
    for name, values in sources.items():
        lines.append(f"[sources.{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    path = home / "config.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def service_source(service: str, url: str, **more: object) -> dict[str, object]:
    """Return the configuration of a source on the laboratory's server."""
    return {"type": service, "url": url, "token-env": "LAB_TOKEN", **more}


@contextlib.contextmanager
def mounted(
    tmp_path: Path,
    sources: Mapping[str, Mapping[str, object]],
    *options: str,
    names: tuple[str, ...] = (),
    extra_config: str = "",
    environ: Mapping[str, str] | None = None,
) -> Iterator[Mounted]:
    """Mount configured sources for real; unmounts and checks the log for unforeseen errors at the end.

    One home per ``tmp_path``: mounting twice in one test is a remount with the caches of the first.
    """
    home = tmp_path / "home"
    env = environment(home, **{"LAB_TOKEN": TOKEN, **(environ or {})})
    config = write_config(home, sources, extra_config)
    place = tmp_path / "mnt"
    done = artifactfs(env, "mount", str(place), *names, "--config", str(config), *options, check=False)
    assert done.returncode == 0, done.stderr
    mount = Mounted(place, home, env)
    try:
        yield mount
    finally:
        ended = artifactfs(env, "umount", str(place), check=False)
        if ended.returncode:
            subprocess.run(["umount", "-l", str(place)], check=False)
    assert ended.returncode == 0, ended.stderr
    assert "unforeseen" not in mount.log_text(), mount.log_text()[-4000:]


Maker = Callable[[Store], None]
