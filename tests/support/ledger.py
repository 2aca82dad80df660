"""What two clients have saved, and what of it must be at their service in the end. Pure.

Each content is made once, so that it says itself who saved it and where. It is LIVE until somebody who had seen it
replaces or removes it. While both clients change a name at once nobody can say what the one had seen of the other's:
then what was there is in DOUBT, and may be there or not, but what was saved since is not.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

# What our saves that come too late are marked by, and how one of two artifacts of one title is shown.
MARK = re.compile(r" \(conflict \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d(?: \d+)?\)| ~[0-9a-f]{4,}")

TWIN = re.compile(r" ~[0-9a-f]{4,}")


def unmarked(name: str) -> str:
    """Return the name or path that a save which came too late was meant for."""
    return MARK.sub("", name)


class Fate(enum.Enum):
    """What must be of a content once everything is published."""

    LIVE = "there once"
    DOUBT = "there or not"
    DEAD = "not there"


@dataclass
class Ledger:
    """Every content that was ever saved: what must be of it, and under which names."""

    fates: dict[bytes, Fate] = field(default_factory=dict)
    homes: dict[bytes, frozenset[str]] = field(default_factory=dict)
    ties: list[frozenset[str]] = field(default_factory=list)
    made: int = 0

    def fresh(self, who: str, size: int) -> bytes:
        """Return a content that there never was."""
        self.made += 1
        return f"{who}{self.made}\n".encode() + b"0123456789abcde\n" * (size // 16)

    def saved(self, data: bytes, name: str) -> None:
        """Note a content that must not be lost."""
        self.fates[data], self.homes[data] = Fate.LIVE, frozenset({name})

    def moved(self, data: bytes, name: str) -> None:
        """Note that a content is to be found under another name, too."""
        self.homes[data] = self.homes.get(data, frozenset()) | {name}

    def ended(self, data: bytes | None) -> None:
        """Note that a content was replaced or removed by who had seen it."""
        if data is not None and self.fates.get(data) is Fate.LIVE:
            self.fates[data] = Fate.DEAD

    def doubted(self, data: bytes | None) -> None:
        """Note that a content may have been replaced or removed by who had seen it."""
        if data is not None and self.fates.get(data) is Fate.LIVE:
            self.fates[data] = Fate.DOUBT

    def revived(self, data: bytes, name: str) -> None:
        """Note that a content may have been saved once more, under another name."""
        self.moved(data, name)
        if self.fates.get(data) is Fate.DEAD:
            self.fates[data] = Fate.DOUBT

    def tie(self, *names: str) -> None:
        """Note that it cannot be told which of these names something is under."""
        tied = frozenset(names).union(*(self.tied(name) for name in names))
        self.ties = [one for one in self.ties if not one & tied] + [tied]

    def tied(self, name: str) -> frozenset[str]:
        """Return the names that cannot be told from this one."""
        return next((one for one in self.ties if name in one), frozenset({name}))

    def at(self, name: str) -> list[bytes]:
        """Return what must not be lost of what was saved under a name."""
        names = self.tied(name) | self.tied(unmarked(name))
        return [data for data, fate in self.fates.items() if fate is Fate.LIVE and self.homes[data] & names]

    def knows(self, data: bytes) -> bool:
        """Tell whether anybody ever saved this."""
        return data in self.fates

    def check(self, there: Iterable[tuple[str, bytes]]) -> None:
        """Compare with what the service has, by name; a name may be there twice."""
        there = list(there)
        count = Counter(data for _, data in there)
        for name, data in there:
            assert data in self.fates, ("nobody saved this", name, data[:40])
            assert self.fates[data] is not Fate.DEAD, ("this was replaced or removed", name, data[:40])
            assert self._is_home(name, self.homes[data]), ("under a wrong name", name, self.homes[data], data[:40])
        for data, fate in self.fates.items():
            if fate is Fate.LIVE:
                assert count[data] == 1, ("lost" if not count[data] else "twice", data[:40], self.homes[data], there)

    def _is_home(self, name: str, homes: AbstractSet[str]) -> bool:
        names = frozenset[str]().union(*(self.tied(home) for home in homes))
        return name in names or unmarked(name) in {unmarked(one) for one in names}

    def settle(self, there: Iterable[tuple[str, bytes]]) -> None:
        """Begin again with what the service has, of which everything is certain."""
        for data in self.fates:
            self.fates[data] = Fate.DEAD
        for name, data in there:
            self.saved(data, name)
