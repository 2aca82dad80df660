"""Who waits and is told to end: what /proc says of real processes, and what becomes of the work they waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from artifactfs import errors
from artifactfs.concurrency import SingleFlight
from artifactfs.fuse.interrupts import is_to_end

BLOCKS = """
import signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("ready", flush=True)
time.sleep(60)
"""
# A signal that is handled stays pending while the program cannot come to it: here, because it is stopped.
HANDLES = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: None)
signal.signal(signal.SIGUSR1, lambda *_: None)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", request.param], stdout=subprocess.PIPE, text=True) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == "ready\n"
        yield made
        made.kill()


def eventually(pid: int, *, asking: bool) -> bool:
    deadline = time.monotonic() + 5
    while not (found := is_to_end(pid, asking=asking)) and time.monotonic() < deadline:
        time.sleep(0.02)  # noqa: TID251 - no event loop here
    return found


@pytest.mark.parametrize("process", [HANDLES], indirect=True)
def test_a_request_to_end_counts_for_those_who_only_ask(process: subprocess.Popen[str]) -> None:
    """Of a program that handles it; a change is not cut short by that, and other signals say nothing."""
    assert not is_to_end(process.pid, asking=True)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    process.send_signal(signal.SIGUSR1)
    assert not is_to_end(process.pid, asking=True)
    process.send_signal(signal.SIGINT)
    assert eventually(process.pid, asking=True)
    assert not is_to_end(process.pid, asking=False)


@pytest.mark.parametrize("process", [BLOCKS], indirect=True)
def test_a_signal_that_is_blocked_asks_nobody(process: subprocess.Popen[str]) -> None:
    """It will not be delivered when the call ends either."""
    process.send_signal(signal.SIGINT)
    assert not is_to_end(process.pid, asking=True)


def test_a_process_that_is_gone_is_not_waited_for_or_failed_on() -> None:
    """Its number means nothing any more."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert not is_to_end(gone.pid, asking=True)
    assert not is_to_end(0, asking=True)


async def test_a_change_goes_on_when_nobody_waits(autojump_clock: MockClock) -> None:
    """To its end; what it has opened is then closed again. Who does wait gets the value, or the error."""
    done: list[str] = []

    async def work() -> str:
        await trio.sleep(5)
        done.append("made")
        return "handle"

    async def undo(value: str) -> None:
        await trio.lowlevel.checkpoint()
        done.append(f"closed {value}")

    async def fails() -> str:
        await trio.sleep(5)
        raise errors.NotFound

    async with trio.open_nursery() as nursery:
        flights = SingleFlight(nursery)
        with trio.move_on_after(1) as scope:
            await flights.to_the_end(work, undo)
        assert scope.cancelled_caught
        assert done == []
        await trio.sleep(10)
        assert done == ["made", "closed handle"]
        assert await flights.to_the_end(work, undo) == "handle"
        assert done == ["made", "closed handle", "made"]
        with pytest.raises(errors.NotFound):
            await flights.to_the_end(fails, undo)
        with trio.move_on_after(1):
            await flights.to_the_end(fails, undo)
        await trio.sleep(10)  # nobody hears of it, and nothing ends for it
        assert len(done) == 3
