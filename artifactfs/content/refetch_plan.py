"""What of an archive to ask for when files of it were evicted: ranges of it, or the whole again. Pure.

Rules of this file: a range that is not worth a request of its own is joined to its neighbour. The whole is cheaper than
more than half of it in pieces, and for who reads one file after the other it is cheaper still: one request, and the
next file is here before it is asked for (measured: 200 random reads of an archive cost 4 % of its bytes in ranges).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from artifactfs.content.restart import Point, RestartMap
from artifactfs.model.content import ArchiveMember

# Bytes between two ranges that cost less than a request: at 100 Mbit/s and 40 ms a request is worth 500 KB.
MERGE = 128 * 1024
# The share of an archive above which it is read whole.
MOST = 0.5
# So many files missed one behind the other are a recursive reader; so many seconds apart they are not.
SUCCESSION = 8
PAUSE_S = 5.0
# Between two files of a recursive reader there may be some that are here, small ones above all.
SKIPPED = 200


@dataclass(slots=True)
class Run:
    """A range of the archive to ask for, ``begin`` to ``end`` in bytes, and the files to take out of it."""

    point: Point
    end: int
    members: list[ArchiveMember] = field(default_factory=list)


def runs(points: RestartMap, members: Iterable[ArchiveMember]) -> list[Run] | None:
    """Return the ranges that hold these files, ascending; None if one cannot be reached."""
    found: list[Run] = []
    for member in sorted(set(members), key=lambda member: member.offset):
        point = points.point_before(member.offset)
        if point is None:
            return None
        end = points.end_of(member.offset + member.length)
        if found and point.begin <= found[-1].end + MERGE:
            found[-1].end = max(found[-1].end, end)
        else:
            found.append(Run(point, end))
        found[-1].members.append(member)
    return found


@dataclass(slots=True)
class Misses:
    """What of one archive was asked for and was not here, lately."""

    spans: dict[int, int] = field(default_factory=dict)
    last: int = -1
    at: float = 0.0
    in_order: int = 0

    def whole_is_cheaper(self, now: float, member: ArchiveMember, points: RestartMap, rank: int) -> bool:
        """Note one more; tell whether the archive should be read whole.

        ``rank`` is the place of the file among those of the archive, ``now`` in seconds.
        """
        if now - self.at > PAUSE_S:
            self.spans.clear()
            self.in_order = 0
        follows = self.last < rank <= self.last + SKIPPED
        self.in_order = self.in_order + 1 if follows else 1
        self.last, self.at = rank, now
        point = points.point_before(member.offset)
        begin = point.begin if point is not None else 0
        self.spans[begin] = max(self.spans.get(begin, 0), points.end_of(member.offset + member.length))
        return self.in_order >= SUCCESSION or self._union() > MOST * points.size

    def _union(self) -> int:
        total = reached = 0
        for begin, end in sorted(self.spans.items()):
            total += max(0, end - max(begin, reached))
            reached = max(reached, end)
        return total
