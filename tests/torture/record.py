"""What was asked of one file and what of it was acknowledged; and what a service may therefore hold. Pure."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.support.at_store import Held

# More than were ever in flight at once.
KEPT = 50


def hash_of(content: bytes | None) -> str | None:
    """Return how a content is named here; None is a file that is not there."""
    return None if content is None else hashlib.sha256(content).hexdigest()


@dataclass(eq=False)
class State:
    """One save, or removal, as it was asked for.

    Attributes:
        number: counts those of one file.
        sha256: of the content; None is a removal.
        content: forgotten once it cannot be the file's any more.
        acked: the call that made it durable has returned 0, or it was seen in the mount after it had not.
        void: it did not come about: what was seen in the mount afterwards was another.
    """

    number: int
    sha256: str | None
    content: bytes | None
    acked: bool = False
    void: bool = False


@dataclass
class Record:
    """The states of one file, in order. One thread changes it; others look while that one is held."""

    path: str
    states: list[State] = field(default_factory=lambda: [State(0, None, None, acked=True)])
    settled: set[str] = field(default_factory=set)
    _by_hash: dict[str | None, State] = field(default_factory=dict)

    def attempt(self, content: bytes | None) -> State:
        """Note what is about to be asked for."""
        state = State(len(self.states), hash_of(content), content)
        self.states.append(state)
        self._by_hash[state.sha256] = state
        return state

    def ack(self, state: State) -> None:
        """Note that it was acknowledged."""
        state.acked = True
        for older in self.states[max(0, state.number - KEPT) : state.number]:
            older.content = None

    def possible(self) -> list[State]:
        """Return what the file may be now: the last acknowledged state, and what was in flight after it."""
        last = next(state.number for state in reversed(self.states) if state.acked)
        return [state for state in self.states[last:] if not state.void]

    def seen(self, content: bytes | None) -> str | None:
        """Take what the mount shows for what the file is from now on; return a complaint if it may not be that."""
        sha256 = hash_of(content)
        found = next((state for state in self.possible() if state.sha256 == sha256), None)
        if found is None:
            return f"{self.path}: the mount shows {self.name_of(sha256)}; {self.wanted()}"
        for later in self.states[found.number + 1 :]:
            later.void = True
        self.ack(found)
        return None

    def name_of(self, sha256: str | None) -> str:
        """Tell what a content is."""
        if sha256 is None:
            return "nothing"
        state = self._by_hash.get(sha256)
        if state is None:
            return "bytes that nobody saved"
        how = "acknowledged" if state.acked else "never acknowledged"
        return f"save {state.number}, {how}" + (", which was not shown after the next mount" if state.void else "")

    def knows(self, sha256: str) -> bool:
        """Tell whether anybody ever saved this."""
        return sha256 in self._by_hash

    def last(self) -> str:
        """Tell what was asked for last, a letter for what became of each: acknowledged, void, or neither."""
        tail = self.states[-8:]
        return " ".join(f"{s.number}{'a' if s.acked else 'v' if s.void else '?'}" for s in tail)

    def wanted(self) -> str:
        """Tell what would be right."""
        first, *more = self.possible()
        text = f"the last acknowledged is {'removal' if first.sha256 is None else 'save'} {first.number}"
        return text + (f", in flight were {[state.number for state in more]}" if more else "")

    def is_at(self, held: Sequence[Held]) -> bool:
        """Tell whether the service has what was acknowledged last, or what was in flight after it."""
        return self._now(held) in {state.sha256 for state in self.possible()}

    @staticmethod
    def _now(held: Sequence[Held]) -> str | None:
        return next((file.now for file in held if file.now), None)

    def judge(self, held: Sequence[Held], *, keeps_all: bool) -> Iterator[str]:
        """Yield what is wrong with what a service holds under this file's path.

        Args:
            held: all of it, what is deleted too.
            keeps_all: the service keeps what a content was before.
        """
        listed = [file for file in held if file.now]
        if len(listed) > 1:
            yield f"{self.path}: it is listed {len(listed)} times: {'; '.join(self.name_of(f.now) for f in listed)}"
        if not self.is_at(held):
            yield f"{self.path}: the service has {self.name_of(self._now(held))}; {self.wanted()}"
        pasts = [file.past for file in held] if keeps_all else [(file.now,) for file in listed]
        runs = [sha for past in pasts for sha, _ in itertools.groupby(past) if sha]
        times = Counter(runs)
        for sha256, count in times.items():
            if count > 1:
                yield f"{self.path}: {self.name_of(sha256)}, is there {count} times"
            elif sha256 not in self._by_hash:
                yield f"{self.path}: a version of it is {self.name_of(sha256)}"
        if keeps_all:
            yield from (f"{self.path}: {self.name_of(sha)}, is gone" for sha in self.settled - set(times))
            self.settled.update(sha for sha in [self._now(held)] if sha)


def judge(records: Sequence[Record], held: Sequence[Held], *, known: set[str], keeps_all: bool) -> list[str]:
    """Return what is wrong at a service; ``known`` are paths that it had from the beginning."""
    by_path: dict[str, list[Held]] = {}
    for file in held:
        by_path.setdefault(file.path, []).append(file)
    wrong = [line for record in records for line in record.judge(by_path.get(record.path, []), keeps_all=keeps_all)]
    strange = set(by_path) - known - {record.path for record in records}
    return wrong + [f"{path}: nobody saved a file of this name" for path in sorted(strange)]
