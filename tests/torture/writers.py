"""Programs that save: each thread has files of its own and saves them in one of the ways programs do.

Rules of this file: what is about to be asked for is noted before the call and what was acknowledged after it; no call
here holds the interpreter's lock while it waits for the mount (so no mmap), as the service may be in this process.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.torture.record import Record

# A mount that was killed answers so.
DEAD = frozenset({"ENOTCONN", "ECONNABORTED"})
# Seconds between two saves of a writer: saves within a quiet period and after it.
PAUSES_S = (0.0, 0.0, 0.005, 0.02, 0.1, 0.35)
MAX_SIZE = 60_000
# Longer than any operation of a mount may take.
HANG_S = 90.0


class Ended(Exception):
    """The run is over."""


class Gate:
    """Lets writers in for one save at a time, and out before the mount is taken away.

    Attributes:
        acknowledged: set by each save that was.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_open = self._is_over = False
        self._inside = 0
        self.acknowledged = threading.Event()

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Be inside while the block runs, as soon as it is open."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_open or self._is_over)
            if self._is_over:
                raise Ended
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def open(self) -> None:
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def close(self, patience_s: float) -> bool:
        """Let nobody in any more; tell whether nobody is inside within so many seconds."""
        with self._changed:
            self._is_open = False
            return self._changed.wait_for(lambda: not self._inside, patience_s)

    def end(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


class Writer(threading.Thread):
    """Saves its files until the gate ends.

    Attributes:
        wrong: what it has seen and should not have.
        refused, example: calls that failed, by errno, and the last of each kind.
        history: when it has saved what in which way.
    """

    def __init__(self, gate: Gate, root: Path, records: Sequence[Record], seed: int) -> None:
        super().__init__(daemon=True)
        self.gate, self.root, self.records = gate, root, records
        self.chance = random.Random(seed)
        self.litter: list[Path] = []
        self.wrong: list[str] = []
        self.refused: Counter[str] = Counter()
        self.example: dict[str, str] = {}
        self.doing = ""
        self.history: deque[str] = deque(maxlen=5000)
        self.acked = 0

    def run(self) -> None:
        with contextlib.suppress(Ended):
            while True:
                with self.gate.passing():
                    self._save_one()
                time.sleep(self.chance.choice(PAUSES_S))  # noqa: TID251 - no event loop here

    def _save_one(self) -> None:
        record = self.chance.choice(self.records)
        try:
            self.doing = "cleaning before"
            self.clean()
            self.doing = "looking at"
            self._look(record)
            self._do(record)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error))
            self.refused[name] += 1
            last = record.states[-1]
            at = time.strftime("%H:%M:%S")
            self.history.append(f"{time.time():.3f} {record.path} {self.doing}: {name}")
            self.example[name] = f"{name} {self.doing} {record.path}, state {last.number}, at {at}"

    def clean(self) -> None:
        """Remove the temporary files that an interrupted save has left, as its program would."""
        while self.litter:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.litter[-1])
            self.litter.pop()

    def _look(self, record: Record) -> None:
        """See what became of an interrupted save; now and then look all the same."""
        if len(record.possible()) == 1 and self.chance.random() < 0.9:
            return
        found: bytes | None = None
        with contextlib.suppress(FileNotFoundError):
            found = (self.root / record.path).read_bytes()
        if (complaint := record.seen(found)) is not None:
            self.wrong.append(f"{complaint}; it shows {shape(found)}")
            raise Ended

    def _do(self, record: Record) -> None:
        base = record.possible()[0].content
        text = self._text(record)
        ways: list[tuple[Callable[[Record, bytes], None], bytes, int]] = [
            (self._in_place, text, 4),
            (self._by_rename, text, 4),
        ]
        if base is not None:
            if len(base) < MAX_SIZE:
                ways.append((self._append, base + text, 4))
            ways.append((self._remove, b"", 1))
        way, content, _ = self.chance.choices(ways, [weight for *_, weight in ways])[0]
        self.doing = way.__name__.strip("_")
        self.history.append(f"{time.time():.3f} {record.path} {self.doing} as save {len(record.states) + 1}")
        way(record, content)
        self.history.append(f"{time.time():.3f} {record.path} done")
        self.acked += 1
        self.gate.acknowledged.set()

    def _text(self, record: Record) -> bytes:
        line = f"{record.path} {len(record.states)} {uuid.UUID(int=self.chance.getrandbits(128))} é\n"
        return line.encode() * self.chance.choice((1, 1, 3, 40, 400))

    # -- ways to save ----------------------------------------------------------------------------------------

    def _in_place(self, record: Record, content: bytes) -> None:
        """Empty, write, close; sometimes with an fsync in the middle, which acknowledges half of it."""
        half = content[: len(content) // 2] + b"half\n"
        whole = content if self.chance.random() < 0.8 else half + content
        path = self.root / record.path
        if whole is content:
            state = record.attempt(content)
            self._write(path, os.O_CREAT | os.O_TRUNC, content, sync=self.chance.random() < 0.3)
        else:
            first = record.attempt(half)
            with _opened(path, os.O_CREAT | os.O_TRUNC) as fd:
                os.write(fd, half)
                os.fsync(fd)
                record.ack(first)
                state = record.attempt(whole)
                os.write(fd, content)
        record.ack(state)

    def _by_rename(self, record: Record, content: bytes) -> None:
        """Write a temporary file beside it, fsync, rename over it."""
        path = self.root / record.path
        mark = f"{self.chance.getrandbits(24):06X}"
        forms = (f".goutputstream-{mark}", f"{path.name}.vsctmp", f"{path.name}___jb_tmp___", f"{path.name}~")
        temporary = path.with_name(self.chance.choice(forms))
        self.litter.append(temporary)
        self._write(temporary, os.O_CREAT | os.O_EXCL, content, sync=True)
        state = record.attempt(content)
        os.rename(temporary, path)
        record.ack(state)
        self.litter.pop()

    def _append(self, record: Record, content: bytes) -> None:
        base = record.possible()[0].content or b""
        state = record.attempt(content)
        self._write(self.root / record.path, os.O_APPEND, content[len(base) :], sync=self.chance.random() < 0.2)
        record.ack(state)

    def _remove(self, record: Record, _: bytes) -> None:
        state = record.attempt(None)
        os.unlink(self.root / record.path)
        record.ack(state)

    @staticmethod
    def _write(path: Path, flags: int, content: bytes, *, sync: bool) -> None:
        with _opened(path, flags) as fd:
            for part in (content[:4000], content[4000:]):
                if part:
                    os.write(fd, part)
            if sync:
                os.fsync(fd)


def shape(content: bytes | None) -> str:
    """Return which saves the lines of a content are of."""
    lines = (content or b"").decode(errors="replace").splitlines()
    words = ((line.split(" ")[-3:-2] or [repr(line[:40])])[0] for line in lines)
    parts = [f"{len(list(same))} lines of save {number}" for number, same in itertools.groupby(words)]
    return f"{len(content or b'')} bytes: {', '.join(parts[:9])}"


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Have a file open for writing; its close is part of the block: what it says is heard."""
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    try:
        yield fd
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    os.close(fd)
