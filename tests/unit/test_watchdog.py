"""The watchdog: a loop that does not come round is told of, with its place, and a mount that was told to end ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from artifactfs.daemon import watchdog
from artifactfs.daemon.watchdog import OWN_PAUSE_S, STUCK_S, Watchdog
from tests.support.log_guard import LogGuard

# A process with a loop that a watchdog watches; what it does is put in.
PROGRAM = """
import logging, os, signal, sys, time
from pathlib import Path
import trio
from artifactfs.daemon import watchdog
from artifactfs.daemon.watchdog import TELLING, Watchdog

logging.basicConfig(level=logging.INFO)
watchdog.TICK_S, watchdog.STUCK_S, watchdog.END_S, watchdog.ONE_CAUSE_S = 0.05, 0.3, 1.0, 0.2

def hangs_here(seconds):
    time.sleep(seconds)

async def main():
    dog = Watchdog(Path("/nowhere/at/all"), {abort_s})
    with trio.open_signal_receiver(*TELLING) as signals, dog.watching():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dog.beat)
            print("ready", flush=True)
            {body}
            nursery.cancel_scope.cancel()
    print(dog.report(), flush=True)

trio.run(main)
"""


def start(body: str, abort_s: float = 0.0) -> subprocess.Popen[str]:
    body = textwrap.indent(textwrap.dedent(body).strip(), " " * 12).strip()
    command = [sys.executable, "-c", PROGRAM.replace("{abort_s}", str(abort_s)).replace("{body}", body)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_stuck_loop_is_told_of_with_its_place() -> None:
    """Once, with the stack; that it goes on, too; and the report keeps when, how long, and where."""
    with start("await trio.sleep(0.2); hangs_here(1.5); await trio.sleep(0.5)") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err.count("is stuck") == 1
    assert "hangs_here" in err
    assert "goes on after" in err
    assert "'stalls': 1" in out
    assert "hangs_here" in out


def test_a_call_that_lets_no_other_thread_run_is_told_of() -> None:
    """One of C's, that keeps the interpreter's lock: the watchdog is held up by it as well, and knows by what."""
    body = "watchdog.OWN_PAUSE_S = 0.1; await trio.sleep(0.2); sum(range(10**8)); await trio.sleep(0.5)"
    with start(body) as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert err.count("is stuck") == 1
    assert "'stalls': 1" in out


def test_a_loop_that_never_comes_round_again_is_ended() -> None:
    """If that was asked for; with the place in the log."""
    with start("await trio.sleep(0.2); hangs_here(60)", abort_s=1.0) as process:
        _, err = process.communicate(timeout=50)
    assert process.returncode == watchdog.STUCK_CODE
    assert "the mount is ended" in err
    assert "hangs_here" in err


def test_the_second_signal_ends_a_process_whatever_it_does() -> None:
    """The first one only asks; a pair of one cause is one."""
    with start("await trio.sleep(0.1); hangs_here(60)") as process:
        begin = time.monotonic()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # noqa: TID251 - no event loop here
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - begin < 30
    assert process.returncode == 128 + signal.SIGTERM
    assert "ended at once" in err


def test_an_end_that_takes_too_long_is_cut_short() -> None:
    """The first signal starts the clock, also while the loop is stuck and nobody hears it."""
    with start("await trio.sleep(0.1); hangs_here(60)") as process:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == watchdog.STUCK_CODE
    assert "did not end within" in err


def test_signals_reach_trio_all_the_same() -> None:
    """The watchdog has taken the place of trio's own way for signals; what was asked for is heard."""
    with start("async for number in signals:\n    print(number, flush=True)\n    break") as process:
        time.sleep(0.2)  # noqa: TID251 - into the loop's wait; no event loop here
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.startswith("15\n")


def test_a_process_that_was_stopped_was_not_stuck(expected_logs: LogGuard) -> None:
    """However long that took: the watchdog did not run either."""
    dog = Watchdog(Path("/nowhere/at/all"), STUCK_S)
    dog.look(OWN_PAUSE_S)
    assert dog.report() == {"stalls": 0, "last_stall": None}
    seen = expected_logs("is stuck", logger="artifactfs.daemon.watchdog")
    assert OWN_PAUSE_S < STUCK_S
    assert not seen.seen


@pytest.mark.parametrize("passed_s", [STUCK_S, 3 * STUCK_S])
def test_its_report_grows_while_the_loop_is_stuck(passed_s: float, expected_logs: LogGuard) -> None:
    """And names a place of ours, not of a library."""
    expected_logs("is stuck|goes on", logger="artifactfs.daemon.watchdog")
    dog = Watchdog(Path("/nowhere/at/all"), 0.0)
    dog.look(passed_s)
    dog.look(1.0)
    report = dog.report()
    assert report["stalls"] == 1
    assert report["last_stall"]["seconds"] == pytest.approx(passed_s + 1.0)
    assert report["last_stall"]["where"].startswith("watchdog.py")
