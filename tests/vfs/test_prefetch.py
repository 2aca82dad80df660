"""Carrying out what is fetched ahead, against a source that only notes what it is asked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.content.prefetch import AHEAD_BYTES, FILES, PAUSE_S
from artifactfs.model.content import Access, Content, ContentRef, Exact, Pointer, Unknown
from artifactfs.model.entry import DirRef
from artifactfs.providers import limits
from artifactfs.providers.limits import Lane
from artifactfs.tree.nodes import Kind, Listed, Node
from artifactfs.vfs.prefetch import CONCURRENT, ENTRIES, RECORDS, REST_S, WHOLE_BYTES, Prefetch
from tests.support.log_guard import LogGuard


class Asked:
    """What a reader's content is asked for."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.asked: list[str] = []
        self.lanes: set[Lane] = set()
        self.under_way = self.most = 0
        self.gate = trio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def prefetch(self, content: Content, max_bytes: int, max_age_s: float) -> int:
        del max_age_s
        assert isinstance(content, ContentRef | Pointer)
        self.asked.append(content.key)
        self.lanes.add(limits.lane.get())
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.gate.wait()
        self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        return min(content.size.value, max_bytes) if isinstance(content.size, Exact) else 1


@pytest.fixture
async def asked(nursery: trio.Nursery) -> Asked:
    return Asked(nursery)


def made(asked: Any, left: int | None = None) -> Prefetch:
    provider = SimpleNamespace(publisher=None, is_here=False, describe=lambda: {"requests_left": left})
    directories: Any = SimpleNamespace(sources={"s": SimpleNamespace(provider=provider)})
    return Prefetch(directories, asked)


def directory(number: int, parent: int = 0) -> Node:
    place = Listed(DirRef("s", "dir", (str(number),)))
    return Node(
        number, ("dir", str(number)), Kind.DIRECTORY, f"d{number:06}", directory=place, parent=parent, source="s"
    )


def files(parent: int, count: int, size: int | None = 100) -> list[Node]:
    known = Unknown() if size is None else Exact(size)
    return [
        Node(
            parent * 1000 + at,
            ("file", f"{parent}/{at}"),
            Kind.FILE,
            f"{at:04}",
            parent=parent,
            source="s",
            content=ContentRef("s", f"{parent}/{at}", (), known, Access.RANGED),
        )
        for at in range(count)
    ]


def wait() -> Any:
    return trio.testing.wait_all_tasks_blocked()


async def test_it_goes_in_the_background_and_so_many_at_once(asked: Asked) -> None:
    ahead, entries = made(asked), files(1, 200)
    asked.gate = trio.Event()
    ahead.entered(directory(1), entries)
    for node in entries[:20]:
        ahead.opened(node)
    await wait()
    assert asked.most == CONCURRENT
    assert asked.lanes == {Lane.BACKGROUND}
    assert limits.lane.get() is Lane.FOREGROUND
    asked.gate.set()
    await wait()
    assert len(asked.asked) == len(set(asked.asked)) > CONCURRENT


async def test_nothing_is_asked_twice_or_of_what_was_read(asked: Asked) -> None:
    ahead, entries = made(asked), files(1, 50)
    for _ in range(3):
        ahead.entered(directory(1), entries)
        for node in entries:
            ahead.opened(node)
            await wait()
    # The first two were opened before anything was earned.
    assert sorted(asked.asked) == sorted(f"1/{at}" for at in range(2, 50))


async def test_bytes_ahead_have_a_cap_until_they_are_used(asked: Asked, autojump_clock: trio.testing.MockClock) -> None:
    ahead, entries = made(asked), files(1, 500, size=WHOLE_BYTES)
    ahead.entered(directory(1), entries)
    for node in entries[:10]:
        ahead.opened(node)
        await wait()
    most = AHEAD_BYTES // WHOLE_BYTES
    assert len(asked.asked) <= most + 8  # those that were used make room
    for node in entries[10:20]:
        ahead.opened(node)
        await wait()
    assert len(asked.asked) <= most + 18


async def test_a_large_file_that_only_comes_whole_is_left_out(asked: Asked) -> None:
    ahead, entries = made(asked), files(1, 8)
    entries[3].content = ContentRef("s", "large", (), Exact(WHOLE_BYTES + 1), Access.STREAMED)
    entries[4].content = ContentRef("s", "local", (), Exact(1), Access.LOCAL)
    ahead.entered(directory(1), entries)
    for node in entries[:2]:
        ahead.opened(node)
    await wait()
    assert sorted(asked.asked) == ["1/2", "1/5", "1/6", "1/7"]


async def test_after_a_failure_the_source_rests(asked: Asked, autojump_clock: trio.testing.MockClock) -> None:
    ahead, entries = made(asked), files(1, 400)
    asked.failure = errors.AccessDenied("no")

    def run() -> None:
        ahead.entered(directory(1), entries)
        for node in entries[:20]:
            ahead.opened(node)

    run()
    await wait()
    assert len(asked.asked) <= CONCURRENT
    before = len(asked.asked)
    run()
    await wait()
    assert len(asked.asked) == before
    await trio.sleep(REST_S + 1)
    asked.failure = None
    run()
    await wait()
    assert len(asked.asked) > before + CONCURRENT


@pytest.mark.parametrize("failure", [errors.NotFound("gone"), errors.StaleContent("other")])
async def test_one_content_that_is_gone_stops_nothing(asked: Asked, failure: Exception) -> None:
    ahead, entries = made(asked), files(1, 20)
    asked.failure = failure
    ahead.entered(directory(1), entries)
    for node in entries:
        ahead.opened(node)
        await wait()
    assert len(asked.asked) == 18


async def test_a_bug_does_not_end_the_mount(asked: Asked, expected_logs: LogGuard) -> None:
    announced = expected_logs("could not fetch ahead", level=logging.ERROR)
    ahead, entries = made(asked), files(1, 20)
    asked.failure = RuntimeError("a bug")
    ahead.entered(directory(1), entries)
    for node in entries[:2]:
        ahead.opened(node)
    await wait()
    assert announced.seen


async def test_what_waits_for_a_program_that_has_stopped_is_dropped(
    asked: Asked, autojump_clock: trio.testing.MockClock
) -> None:
    ahead, entries = made(asked), files(1, 400)
    asked.gate = trio.Event()
    ahead.entered(directory(1), entries)
    for node in entries[:20]:
        ahead.opened(node)
    await trio.sleep(PAUSE_S + 1)
    asked.gate.set()
    await wait()
    assert len(asked.asked) == CONCURRENT


@pytest.mark.parametrize(("left", "count"), [(10, 0), (12, 2), (None, FILES.first)])
async def test_a_part_of_the_budget_is_left(asked: Asked, left: int | None, count: int) -> None:
    asked.gate = trio.Event()
    ahead, entries = made(asked, left), files(1, 20)
    ahead.entered(directory(1), entries)
    for node in entries[:2]:
        ahead.opened(node)
    await wait()
    assert len(asked.asked) == count
    asked.gate.set()


def batches(count: int) -> Iterator[tuple[Node, list[Node]]]:
    for number in range(1, count + 1):
        yield directory(number), files(number, 5)


async def test_what_is_remembered_does_not_grow_with_the_tree(asked: Asked) -> None:
    ahead = made(asked)
    for node, entries in batches(RECORDS * 2):
        ahead.entered(node, entries)
    assert len(ahead._records) == RECORDS
    assert ahead._entries == RECORDS * 5
    ahead.entered(directory(10_000), files(10_000, 1) * ENTRIES)
    assert len(ahead._records) == 1
    ahead.entered(directory(10_001), files(10_001, 1) * (ENTRIES + 1))  # nobody is followed through so many
    assert list(ahead._records) == [directory(10_000).ino]
