"""What may be at each path after operations that ran at the same time and were cut off: a log, and what follows of it.

Rules of this file: no guess is ever too strict. An operation takes effect at some moment between its beginning and its
end; one that failed, was cut off, or met another one that moves its file, may have had none. The log is written with
one call for each line, so that nothing that was told is missing after a kill.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Value = str | None
"""The content of a file; None: there is none."""
WRITES = {"write", "anew"}


class Log:
    """Lines that outlive the process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number = os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)

    def say(self, *line: Any) -> None:
        os.write(self._fd, json.dumps(line).encode() + b"\n")

    def begin(self, kind: str, *paths: str, value: str = "") -> int:
        """Note that an operation begins; return its number."""
        self._number += 1
        self.say("begin", self._number, kind, paths, value)
        return self._number

    def writes(self, number: int) -> None:
        """Note that bytes are about to be written: a thread may be killed before anybody can say that they are."""
        self.say("writes", number)

    def wrote(self, number: int) -> None:
        self.say("wrote", number)

    def end(self, number: int, error: str = "") -> None:
        self.say("end", number, error)

    def closed(self, number: int) -> None:
        self.say("closed", number)


@dataclass(eq=False)
class Operation:
    """One of a program: a write of a whole file, an unlink, a rename, or a removal or a move of a directory."""

    kind: str
    paths: tuple[str, ...]
    value: str
    begin: float
    writes: float | None = None
    wrote: float | None = None
    end: float = float("inf")
    closed: float = float("inf")
    is_certain: bool = False
    is_cut: bool = False

    def meets(self, other: Operation) -> bool:
        return self.begin < other.end and other.begin < self.end

    def is_open_with(self, other: Operation) -> bool:
        """Tell whether both write to a file at the same time, which may be the same one."""
        return {self.kind, other.kind} <= WRITES and self.begin < other.closed and other.begin < self.closed


@dataclass(eq=False)
class Effect:
    """What an operation makes of one path."""

    begin: float
    end: float
    values: set[Value]
    is_certain: bool
    of: tuple[str, Operation] | None = None  # the values are those that this path may have had at that operation


@dataclass
class History:
    """What was done, with what was seen between.

    Attributes:
        leaves: the names that a directory may hold, as ``move`` takes them along.
        are_alone: the files are artifacts of their own, which the service renames.
        known: what any file may have held, also before what is gone on from.
    """

    leaves: tuple[str, ...]
    are_alone: bool = False
    operations: list[Operation] = field(default_factory=list)
    effects: defaultdict[str, list[Effect]] = field(default_factory=lambda: defaultdict(list))
    now: float = 0.0
    known: set[Value] = field(default_factory=set)

    def read(self, path: Path) -> None:
        """Take the log of a life in that has ended."""
        running: dict[int, Operation] = {}
        for line in path.read_text().splitlines():
            self.now += 1
            what, number, *more = json.loads(line)
            if what == "seen":
                self.see(number)
            elif what == "begin":
                kind, paths, value = more
                running[number] = Operation(kind, tuple(paths), value, self.now)
                self.operations.append(running[number])
            elif what == "writes":
                running[number].writes = self.now
            elif what == "wrote":
                running[number].wrote = self.now
            elif what == "end":
                running[number].end, running[number].is_certain = self.now, not more[0]
            elif what == "closed":
                running[number].closed = self.now
        self.now += 1
        for operation in running.values():
            operation.is_cut = operation.end > self.now
            operation.end, operation.closed = min(operation.end, self.now), min(operation.closed, self.now)

    def see(self, shown: dict[str, Value]) -> None:
        """Go on from what is there."""
        self.now += 1
        self.operations.clear()
        self.effects.clear()
        for path, value in shown.items():
            self.effects[path].append(Effect(self.now, self.now, {value}, is_certain=True))
        self.now += 1

    def work_out(self) -> None:
        """Find what each operation may have made of each path."""
        for operation in self.operations:
            for path, effect in self._of(operation):
                self.effects[path].append(effect)
        has_changed = True
        while has_changed:
            has_changed = False
            for effect in [one for level in self.effects.values() for one in level]:
                if effect.of is None:
                    continue
                path, operation = effect.of
                found = self._at(path, operation.begin, operation.end)
                if operation.kind == "rename":
                    found.discard(None)
                if not found <= effect.values:
                    effect.values |= found
                    has_changed = True
        self.known.update(*(one.values for level in self.effects.values() for one in level))

    def _of(self, one: Operation) -> Iterator[tuple[str, Effect]]:
        sure = one.is_certain
        if one.kind in WRITES:
            yield from self._of_write(one)
        elif one.kind == "unlink":
            yield one.paths[0], Effect(one.begin, one.end, {None}, sure)
        elif one.kind == "rmdir":
            for leaf in self.leaves:
                yield f"{one.paths[0]}/{leaf}", Effect(one.begin, one.end, {None}, sure)
        else:
            for old, new in self._moved(one):
                # What is open and was never durable takes no place for good.
                writes = [other for other in self.operations if other.kind in WRITES and old in other.paths]
                is_open = any(other.begin < one.end and one.begin < other.closed for other in writes)
                yield old, Effect(one.begin, one.end, {None}, sure)
                yield new, Effect(one.begin, one.end, set(), sure and not is_open, (old, one))

    def _moved(self, one: Operation) -> list[tuple[str, str]]:
        old, new = one.paths
        return [(old, new)] if one.kind == "rename" else [(f"{old}/{n}", f"{new}/{n}") for n in self.leaves]

    def _of_write(self, one: Operation) -> Iterator[tuple[str, Effect]]:
        paths, is_moved = {one.paths[0]}, False
        others = [other for other in self.operations if other is not one and other.meets(one)]
        has_changed = True
        while has_changed:
            has_changed = False
            for other in others:
                if other.kind in {"rename", "move"}:
                    for old, new in self._moved(other):
                        is_moved |= bool({old, new} & paths)
                        if old in paths and new not in paths:
                            paths.add(new)
                            has_changed = True
                elif other.kind in {"unlink", "rmdir"}:
                    is_moved |= any(path == other.paths[0] or path.startswith(f"{other.paths[0]}/") for path in paths)
        beside = [other for other in self.operations if other is not one and other.is_open_with(one)]
        # What another one empties before it is durable was emptied.
        is_emptied = any(
            other.kind == "anew" and (other.wrote or other.end) > (one.wrote or 0) and other.begin < one.end
            for other in beside
        )
        for path in paths:
            if beside and one.kind == "anew":  # the other one makes that durable, or what it had made so is emptied
                yield path, Effect(one.begin, one.wrote or one.end, {""}, is_certain=False)
            if one.writes is not None:
                yield path, Effect(one.writes, one.end, {one.value}, one.is_certain and not is_moved and not is_emptied)

    def _at(self, path: str, begin: float, end: float) -> set[Value]:
        """Return what may be at a path within a time."""
        known = self.effects.get(path, [])
        found: set[Value] = set() if any(one.is_certain and one.end <= begin for one in known) else {None}
        for one in known:
            if one.begin < end and not any(
                other.is_certain and other.begin >= one.end and other.end <= begin and other is not one
                for other in known
            ):
                found |= one.values
        return found

    def may_be(self, path: str) -> set[Value]:
        """Return what may be at a path now."""
        return self._at(path, self.now, self.now)

    def twice(self, shown: dict[str, Value]) -> list[tuple[str, str]]:
        """Return the renames, from and to, that were cut off and of which both names are shown.

        The service may have carried one out before anything here was changed: then the old name shows what was saved
        last, and the new one, which nothing had before, what the service has of the same file.
        """
        return [
            (old, new)
            for one in self.operations
            if self.are_alone and one.kind == "rename" and one.is_cut
            for old, new in [one.paths]
            if shown.get(old) is not None and shown.get(new) is not None
        ]

    def wrong(self, shown: dict[str, Value], paths: Iterable[str]) -> list[str]:
        """Return what is shown and cannot be."""
        found = []
        for path in paths:
            may_be = self.may_be(path)
            if path in {new for _, new in self.twice(shown)} and None in may_be:
                may_be = self.known  # what the service has of a file may be long ago
            if shown.get(path) not in may_be:
                found.append(f"{path}: {shown.get(path)!r}, not of {may_be}; {self.story(path)}")
        for one in self.operations:
            # One that was cut off has happened or not; what it moves is not lost.
            if one.kind == "rename" and not one.is_certain and self._is_last(one):
                old, new = one.paths
                before = self._at(old, one.begin, one.end)
                if shown.get(old) is None and None not in before and shown.get(new) not in before:
                    found.append(f"{old} -> {new} cost {before}; {self.story(old)}; {self.story(new)}")
        return found

    def _is_last(self, one: Operation) -> bool:
        paths = set(one.paths)
        return not any(
            other is not one
            and other.end > one.begin
            and any(p in paths or any(q.startswith(f"{p}/") for q in paths) for p in other.paths)
            for other in self.operations
        )

    def story(self, path: str) -> list[str]:
        """Return what was done to a path."""
        return [
            f"{one.kind} {one.paths} {one.value} {one.begin}-{one.wrote}-{one.end} {'ok' if one.is_certain else 'cut'}"
            for one in self.operations
            if any(path == p or path.startswith(f"{p}/") or (one.kind == "move") for p in one.paths)
        ]
