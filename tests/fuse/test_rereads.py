"""A read that failed and is made once more at once by the kernel: the same answer, without asking again."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from artifactfs import errors
from artifactfs.fuse.rereads import AT_ONCE_S, Rereads

FAILURE = errors.TimedOut("no answer in time")


@pytest.fixture
def rereads(autojump_clock: MockClock) -> Rereads:
    return Rereads()


async def test_what_is_read_again_at_once_fails_in_the_same_way(rereads: Rereads) -> None:
    rereads.failed(7, 4096, 8192, FAILURE)
    assert rereads
    with pytest.raises(errors.TimedOut) as caught:
        rereads.check(7, 8192)
    assert caught.value is FAILURE
    assert not rereads


async def test_only_once(rereads: Rereads) -> None:
    rereads.failed(7, 0, 4096, FAILURE)
    with pytest.raises(errors.TimedOut):
        rereads.check(7, 0)
    rereads.check(7, 0)


async def test_as_often_as_it_is_asked_where_it_was_cut_short(rereads: Rereads, autojump_clock: MockClock) -> None:
    """A page of a program's memory is asked for anew when the program has seen its signal."""
    rereads.failed(7, 0, 4096, FAILURE, is_cut=True)
    for _ in range(3):
        with pytest.raises(errors.TimedOut):
            rereads.check(7, 0)
    autojump_clock.jump(2 * AT_ONCE_S)
    rereads.check(7, 0)
    assert not rereads


async def test_not_through_another_handle_nor_of_other_bytes(rereads: Rereads) -> None:
    rereads.failed(7, 0, 4096, FAILURE)
    rereads.check(8, 0)
    rereads.check(7, 4096)


async def test_not_later(rereads: Rereads, autojump_clock: MockClock) -> None:
    rereads.failed(7, 0, 4096, FAILURE)
    autojump_clock.jump(2 * AT_ONCE_S)
    rereads.check(7, 0)


async def test_nothing_is_kept_of_handles_that_are_not_read_again(rereads: Rereads, autojump_clock: MockClock) -> None:
    for handle in range(100):
        rereads.failed(handle, 0, 4096, FAILURE)
        autojump_clock.jump(AT_ONCE_S)
    assert len(rereads._failed) <= 2
