"""Fetches ahead of programs that go through the tree: the bytes and sizes of files, the listings of directories.

Rules of this file: an open earns bytes, a ``getattr`` of a file whose size nobody knows earns sizes, entering
directories in order earns listings; reading a directory earns nothing. Only what is listed is followed, so the past,
ids and the mount's own files are never dragged along, nor another source. All of it goes in the background lane, leaves
a part of a small budget alone, and rests when the source fails. What somebody waits for is never asked here; a failure
here is nobody's: who comes for the content asks again. For a directory that has been gone through, nothing is done but
to look it up in a table.
"""

from __future__ import annotations

import enum
import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import trio

from artifactfs import errors, observe
from artifactfs.content import prefetch as policy
from artifactfs.content.prefetch import Cursor, Ledger, Track
from artifactfs.content.reader import ContentReader
from artifactfs.model.content import Access, Content, ContentRef, Exact, Hint, Pointer
from artifactfs.providers import limits
from artifactfs.tree.nodes import Kind, Listed, Node
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.pointers import BELIEVED_S
from artifactfs.vfs.sources import Source

log = logging.getLogger(__name__)

# Under way at once: keeps most of 32 connections busy and leaves the others to those who wait.
CONCURRENT = 24
# Requests of a budget that are left to those who wait: a minute's worth of VLM Run's cheapest plan, which so gets none.
RESERVE = 10
# A source that failed is left alone for so long, in seconds.
REST_S = 30.0
# A file is fetched up to here: as much as its size alone may cost. Of a larger one this is the first window.
WHOLE_BYTES = 1 << 20
# Directories remembered, and entries of them all: about 25 MB, whatever the size of the tree.
RECORDS, ENTRIES = 256, 100_000
# Who enters the first of a directory's directories so soon after it was listed goes through them all; a person does not
# read what was listed in that time.
AT_ONCE_S = 0.25
# What says of one content that it cannot be had, and nothing of its source.
OF_ONE = (errors.NotFound, errors.StaleContent, errors.CorruptContent, errors.LimitExceeded)


class What(enum.Enum):
    """What is fetched ahead."""

    BYTES = "bytes"
    SIZES = "sizes"
    LISTINGS = "listings"


RAMPS = {What.BYTES: policy.FILES, What.SIZES: policy.SIZES, What.LISTINGS: policy.DIRECTORIES}
OF_FILES = (What.BYTES, What.SIZES)


@dataclass(slots=True, eq=False)
class Record:
    """What is known of programs' ways through one directory.

    Attributes:
        node, above: the directory, and the number of the one it was found in.
        entries: what it lists.
        made_at: when, in seconds; as old as a pointer may be it is made anew, and everything is asked again.
        walked: it was entered by a program that goes through its siblings in order.
        done: what has been gone through to the end, so that nothing is left to fetch ahead.
        asked: what has been fetched ahead, or is waiting to be.
        ways: the orders and windows of programs that used files below, for the directories that follow.
    """

    node: Node
    above: int
    entries: list[Node]
    made_at: float
    walked: bool = False
    done: set[What] = field(default_factory=set)
    asked: set[tuple[What, int]] = field(default_factory=set)
    ways: dict[What, tuple[tuple[policy.Order, ...], int]] = field(default_factory=dict)
    nodes: dict[int, Node] = field(default_factory=dict)
    _tracks: dict[What, Track] = field(default_factory=dict)

    def track(self, what: What) -> Track:
        """Return how its files, or its directories, are gone through."""
        found = self._tracks.get(what)
        if found is None:
            kind = Kind.DIRECTORY if what is What.LISTINGS else Kind.FILE
            members = [node for node in self.entries if node.kind is kind]
            if kind is Kind.DIRECTORY:
                members = [node for node in members if isinstance(node.directory, Listed)]
            self.nodes.update((node.ino, node) for node in members)
            found = self._tracks[what] = Track([node.ino for node in members], [node.name for node in members])
        return found


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to fetch ahead; ``record`` is the directory it stands in."""

    what: What
    node: Node
    record: Record


class Prefetch:
    """What one mount fetches ahead."""

    def __init__(self, directories: Directories, content: ContentReader) -> None:
        """Work in the mount's nursery, which owns ``content``'s requests."""
        self._directories = directories
        self._content = content
        self._records: dict[int, Record] = {}
        self._entries = 0
        self._queues: dict[What, deque[Job]] = {What.LISTINGS: deque(), What.BYTES: deque(), What.SIZES: deque()}
        self._ledger = Ledger()
        self._workers = 0
        self._under_way: dict[str, int] = {}
        self._resting: dict[str, float] = {}
        self._seen_at: dict[str, float] = {}

    def __repr__(self) -> str:
        """Tell how much there is to do."""
        return f"<Prefetch {sum(map(len, self._queues.values()))} waiting, {self._workers} workers, {self._ledger!r}>"

    # -- what programs do ------------------------------------------------------------------------------------

    def opened(self, node: Node) -> None:
        """Note that a file is being opened for reading."""
        self._used(What.BYTES, node)

    def sized(self, node: Node) -> None:
        """Note that somebody wants a size that has to be asked for."""
        self._used(What.SIZES, node)

    def entered(self, node: Node, entries: list[Node]) -> None:
        """Note that a directory is being read, and what it lists."""
        if not isinstance(node.directory, Listed) or self._source(node).provider.is_here:
            return
        if len(entries) > ENTRIES:  # nobody follows programs through so many
            return
        now = trio.current_time()
        if self._is_resting(node.source, now):
            return
        self._seen_at[node.source] = now
        record = self._record(node, node.parent, entries, now)
        record.track(What.LISTINGS).begin(policy.ALL, 0, now - policy.PAUSE_S + AT_ONCE_S)
        above = self._records.get(record.above)
        if above is None:
            return
        cursor = above.track(What.LISTINGS).visit(node.ino, now)
        above.asked.add((What.LISTINGS, node.ino))
        if cursor.run < policy.EARNED:
            return
        record.walked = True
        record.track(What.LISTINGS).begin(cursor.orders, 0, now)
        record.ways = dict(above.ways)
        for what, (orders, window) in above.ways.items():
            record.track(what).begin(orders, window, now)
        count = cursor.due(policy.DIRECTORIES)
        if count:
            self._ask(What.LISTINGS, self._upcoming(record, cursor.orders[0]), count, now)

    def _used(self, what: What, node: Node) -> None:
        """Note that a file is used, and fetch ahead what that earns."""
        if len(self._ledger):
            self._ledger.use((what, node.ino))
        record = self._records.get(node.parent)
        if record is None or what in record.done:
            return
        now = self._seen_at[node.source] = trio.current_time()
        track = record.track(what)
        cursor = track.visit(node.ino, now)
        record.asked.add((what, node.ino))
        count = cursor.due(RAMPS[what], cautious=self._ledger.is_cautious)
        if count or cursor.at is None or cursor.run < policy.EARNED:
            self._note_way(record, what, cursor)
        if count:
            self._ask(what, self._files(what, record, cursor), count, now)
        elif self._queues[what]:
            self._pump(now)
        if track.is_last(cursor) and not self._misses(record, what):
            record.done.add(what)

    def _note_way(self, record: Record, what: What, cursor: Cursor) -> None:
        """Tell the directories above how the files below are used."""
        above = self._records.get(record.above)
        while above is not None:
            above.ways[what] = (cursor.orders, cursor.window)
            above = self._records.get(above.above) if above.walked else None

    def _misses(self, record: Record, what: What) -> bool:
        return any(
            (what, node.ino) not in record.asked and is_worth(node) for node in record.entries if node.kind is Kind.FILE
        )

    # -- directories that are remembered ---------------------------------------------------------------------

    def _source(self, node: Node) -> Source:
        return self._directories.sources[node.source]

    def _record(self, node: Node, above: int, entries: list[Node], now: float) -> Record:
        """Return the record of a directory, the one there is if it is still true."""
        old = self._records.pop(node.ino, None)
        if old is not None:
            self._entries -= len(old.entries)
        if old is None or now - old.made_at > BELIEVED_S or not _is_same(old.entries, entries):
            old = Record(node, above, entries, now)
        old.above = above or old.above
        self._records[node.ino] = old
        self._entries += len(old.entries)
        while len(self._records) > RECORDS or (self._entries > ENTRIES and len(self._records) > 1):
            oldest = self._records.pop(next(iter(self._records)))
            self._entries -= len(oldest.entries)
        return old

    def _upcoming(self, record: Record, order: policy.Order) -> Iterator[tuple[Record, Node]]:
        """Go through the directories that come after one, each with the record it was found in."""
        if not record.walked:
            return
        yield from self._below(record, order)
        while record.walked and (above := self._records.get(record.above)) is not None:
            for number in above.track(What.LISTINGS).after(order, record.node.ino):
                yield above, above.nodes[number]
                inner = self._records.get(number)
                if inner is not None:
                    yield from self._below(inner, order)
            record = above

    def _below(self, record: Record, order: policy.Order) -> Iterator[tuple[Record, Node]]:
        for number in record.track(What.LISTINGS).line(order):
            yield record, record.nodes[number]
            inner = self._records.get(number)
            if inner is not None:
                yield from self._below(inner, order)

    def _files(self, what: What, record: Record, cursor: Cursor) -> Iterator[tuple[Record, Node]]:
        """Go through the files that come after a program's place, in this directory and the next ones."""
        order = cursor.orders[0]
        for number in record.track(what).after(order, cursor.at):
            yield record, record.nodes[number]
        for _, node in self._upcoming(record, order):
            inner = self._records.get(node.ino)
            if inner is None:
                return  # not listed yet, nor what comes after it
            for number in inner.track(what).line(order):
                yield inner, inner.nodes[number]

    # -- what is to be done ----------------------------------------------------------------------------------

    def _ask(self, what: What, found: Iterator[tuple[Record, Node]], count: int, now: float) -> None:
        """Queue the first ``count`` of what was found, but for what has been asked."""
        for record, node in islice(found, count):
            key = (what, node.ino)
            if key in record.asked:
                continue
            record.asked.add(key)
            known = self._records.get(node.ino)
            if is_worth(node) and (known is None or now - known.made_at > BELIEVED_S):
                self._queues[what].append(Job(what, node, record))
        self._pump(now)

    def _pump(self, now: float) -> None:
        """Set workers to what may be done now."""
        self._ledger.expire(now)
        with limits.background():
            while self._workers < CONCURRENT and (job := self._next(now)) is not None:
                self._workers += 1
                self._content.nursery.start_soon(self._work, job)

    def _next(self, now: float) -> Job | None:
        """Take what is to be done next, None if nothing may be done now."""
        for what, queue in self._queues.items():
            if what is not What.LISTINGS and not self._ledger.has_room:
                continue
            while queue:
                job = queue[0]
                if now - self._seen_at.get(job.node.source, -math.inf) > policy.PAUSE_S:
                    queue.popleft()
                    job.record.asked.discard((what, job.node.ino))
                    continue
                if not self._may_send(job.node.source):
                    break
                queue.popleft()
                if job.node.content is not None:
                    self._ledger.begin((what, job.node.ino), _known_size(job.node.content), now)
                self._under_way[job.node.source] = self._under_way.get(job.node.source, 0) + 1
                return job
        return None

    def _may_send(self, source: str) -> bool:
        """Tell whether the budget of a source has more than those in the foreground may want."""
        left = self._directories.sources[source].provider.describe().get("requests_left")
        return left is None or int(left) - self._under_way.get(source, 0) > RESERVE

    async def _work(self, job: Job | None) -> None:
        while job is not None:
            source = job.node.source
            observe.begin("prefetch", source=source, ino=job.node.ino)
            try:
                await self._do(job)
            except OF_ONE as error:
                log.debug("not fetched ahead: %s", error)
            except errors.ArtifactFSError as error:
                self._rest(source, error)
            except Exception as error:
                # The nursery of the mount must not end for what nobody waits for.
                log.exception("could not fetch ahead")
                self._rest(source, error)
            finally:
                self._under_way[source] -= 1
            job = self._next(trio.current_time())
        self._workers -= 1

    async def _do(self, job: Job) -> None:
        content = job.node.content
        if job.what is What.LISTINGS:
            level = await self._directories.children(job.node)
            self._record(job.node, job.record.node.ino, list(level.children.values()), trio.current_time())
            return
        if content is None:
            return
        key, fetched = (job.what, job.node.ino), 0
        try:
            if job.what is What.SIZES:
                size = await self._content.size(content)
                fetched = size if size <= WHOLE_BYTES else 0
            else:
                fetched = await self._content.prefetch(content, WHOLE_BYTES, BELIEVED_S)
        finally:
            self._ledger.land(key, fetched)

    def _rest(self, source: str, error: Exception) -> None:
        """Leave a source alone for a while; everything is earned anew after that."""
        log.info("nothing is fetched ahead from %s for %.0f s: %s", source, REST_S, error)
        self._resting[source] = trio.current_time() + REST_S
        for what, queue in self._queues.items():
            self._queues[what] = deque(job for job in queue if job.node.source != source)
        for number in [number for number, record in self._records.items() if record.node.source == source]:
            self._entries -= len(self._records.pop(number).entries)

    def _is_resting(self, source: str, now: float) -> bool:
        return now < self._resting.get(source, -math.inf)


def is_worth(node: Node) -> bool:
    """Tell whether something can be fetched ahead: no file that only comes whole and is large."""
    match node.content:
        case Pointer(size=Exact(size) | Hint(size)) | ContentRef(access=Access.STREAMED, size=Exact(size)):
            return size <= WHOLE_BYTES
        case ContentRef(access=access):
            return access is not Access.LOCAL
        case Pointer():
            return True
        case _:
            return node.kind is Kind.DIRECTORY


def _known_size(content: Content) -> int | None:
    match content:
        case ContentRef(size=Exact(size) | Hint(size)) | Pointer(size=Hint(size)):
            return min(size, WHOLE_BYTES)
        case _:
            return None


def _is_same(before: Sequence[Node], after: Sequence[Node]) -> bool:
    return len(before) == len(after) and all(one.ino == other.ino for one, other in zip(before, after, strict=True))
