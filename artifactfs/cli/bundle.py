"""``debug-bundle``: one file with what is needed to find out what is wrong, and without what is nobody's business.

Rules of this file: whatever is in the bundle has gone through the scrubber. Each piece has its own time, and what is
missing is told instead of it, so that a dead or stuck mount gives a bundle, too. The file is the owner's alone.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from artifactfs import config, errors
from artifactfs.cli import client, evidence, mounting, render
from artifactfs.observe.scrub import Scrubber

T = TypeVar("T")

# How long a piece may take: longer than a mount needs to be found not to answer.
PIECE_S = 15.0
# Of each piece, its end; a status with 10,000 listings has so much.
MAX_CHARS = 4 << 20
# Paths that are explained; each may take 3 s.
EXPLAINED = 5

README = """\
A debug bundle of artifactfs, made at {time} about the mount at {mountpoint}: {state}.

Tokens, passwords and the queries of addresses were removed ({mark}). Names of files and directories, error messages and
addresses of services are in it; contents are not. Look through it before you send it to anybody.

"""


@dataclass(slots=True)
class Bundle:
    """The pieces, as text by name."""

    scrub: Scrubber
    pieces: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, make: Callable[[], T]) -> T | None:
        """Put in what is made, if it comes in time; return it, or None."""
        made: list[T] = []
        failed: list[BaseException] = []

        def work() -> None:
            try:
                made.append(make())
            except Exception as error:  # noqa: BLE001 - it is told in the place of the piece
                failed.append(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(PIECE_S)
        if made:
            text = made[0] if isinstance(made[0], str) else json.dumps(made[0], indent=2, default=str) + "\n"
        elif failed:
            text = f"missing: {type(failed[0]).__name__}: {failed[0]}\n"
        else:
            text = f"missing: it did not come within {PIECE_S:.0f} s\n"
        if len(text) > MAX_CHARS:
            text = text[-MAX_CHARS:].partition("\n")[2]  # half a line may begin with half a token
        self.pieces[name] = self.scrub(text)
        return made[0] if made else None

    def packed(self, directory: str) -> bytes:
        """Return all of it as a compressed archive."""
        raw = io.BytesIO()
        with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
            for name, text in self.pieces.items():
                data = text.encode("utf-8", "backslashreplace")
                member = tarfile.TarInfo(f"{directory}/{name}")
                member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
                tar.addfile(member, io.BytesIO(data))
        return raw.getvalue()


def write(mountpoint: Path | None, output: Path | None, config_file: Path | None, lines: int) -> None:
    """Make a bundle and say where it is.

    Raises:
        ConfigError: it cannot be written there.
    """
    where = client.absolute(mountpoint) if mountpoint else _the_mount()
    name = f"artifactfs-debug-{time.strftime('%Y%m%d-%H%M%S')}"
    target = client.absolute(output or Path(f"{name}.tar.gz"))
    if any(target.is_relative_to(mounted) for mounted in client.our_mounts()):
        raise errors.ConfigError(f"{target} is in a mount, which may be what does not answer: use -o")
    pid = client.pid_of(where)
    bundle = Bundle(Scrubber(_secrets(config_file, pid)))
    state = _of_mount(bundle, where, pid, lines)
    _of_machine(bundle, config_file)
    readme = README.format(time=time.strftime("%Y-%m-%d %H:%M:%S %z"), mountpoint=where, state=state, mark="[removed]")
    bundle.take("README", lambda: readme + "".join(f"{piece}\n" for piece in bundle.pieces))
    _write(target, bundle.packed(name))
    render.say(f"wrote {target} ({render.size(target.stat().st_size)}); the mount at {where} is {state}")
    render.say("look through it before you send it: names of files and error messages are in it, contents are not")


def _the_mount() -> Path:
    """Return the mount that is meant if none is named: the only one, else the usual place."""
    known = client.our_mounts()
    return known[0] if len(known) == 1 else mounting.default_mountpoint()


def _of_mount(bundle: Bundle, where: Path, pid: int | None, lines: int) -> str:
    """Take what the mount's process says, or what can be seen of it from outside; return how it is, in words."""
    status = bundle.take("status.json", lambda: client.ask(where, client.QUICK_S, verb="status"))
    if status is not None:
        bundle.take("why.json", lambda: evidence.why(where, status, EXPLAINED))
        inside = bundle.take("inside.json", lambda: client.ask(where, client.QUICK_S, verb="debug"))
        if inside is not None:
            del bundle.pieces["inside.json"]
            bundle.take("tasks.txt", lambda: "\n".join(inside["tasks"]) + "\n")
            bundle.take("threads.json", lambda: inside["threads"])
            bundle.take("metrics.txt", lambda: inside["metrics"])
            bundle.take("running-config.json", lambda: inside["config"])
        state = "alive"
    elif pid is not None:
        asked = bundle.take("stacks.json", lambda: {"written_to_log": evidence.ask_for_stacks(pid)})
        stacks = "; where its threads are stands at the end of log.txt" if asked and asked["written_to_log"] else ""
        state = f"stuck: its process {pid} does not answer{stacks}"
    else:
        state = "dead: its process is gone" if where in client.our_mounts() else "not mounted"
    if pid is not None:
        bundle.take("process.json", lambda: evidence.process(pid))
    bundle.take("log.txt", lambda: evidence.log_tail(where, lines))
    return state


def _of_machine(bundle: Bundle, config_file: Path | None) -> None:
    bundle.take("versions.json", evidence.versions)
    bundle.take("machine.json", evidence.machine)
    bundle.take("config.json", lambda: evidence.configuration(config_file))
    bundle.take("doctor.json", lambda: evidence.doctor(config_file))
    bundle.take("mounts.json", evidence.mount_table)
    bundle.take("cache.json", lambda: evidence.cache(config_file))
    bundle.take("journal-files.json", evidence.journal_files)
    bundle.take("journals.json", evidence.left_behind)


def _secrets(config_file: Path | None, pid: int | None) -> Iterator[str]:
    """Return what must not be in the bundle: of this environment, of the process's, and what sources log in with."""
    yield from config.secrets_of(os.environ)
    if pid is not None:
        with suppress(OSError):
            raw = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "surrogateescape")
            pairs = (row.partition("=") for row in raw.split("\0"))
            yield from config.secrets_of({name: value for name, _, value in pairs})
    with suppress(errors.ConfigError):
        yield from config.secrets_in(config.load(config_file))


def _write(target: Path, data: bytes) -> None:
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise errors.ConfigError(f"{target} exists already; nothing is overwritten") from None
    except OSError as error:
        raise errors.ConfigError(f"{target} cannot be made: {error.strerror}") from error
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        with suppress(OSError):
            target.unlink()
        raise errors.ConfigError(f"{target} cannot be written: {error.strerror}") from error
