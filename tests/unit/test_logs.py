"""The log: a line is of one record, has the id of its operation, is bounded on disk, and cannot be forged."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from artifactfs import observe
from artifactfs.observe import logs

HOSTILE = "a\nERROR root [-] forged \x1b[2Jred \u2028\u202egnp.exe \udcff end"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    was = logging.getLogger("artifactfs").level
    yield
    logging.getLogger("artifactfs").setLevel(was)
    logs._hidden.clear()


def record(message: str, *args: object, **more: Any) -> logging.LogRecord:
    return logging.getLogger("artifactfs.test").makeRecord(
        "artifactfs.test", logging.INFO, "file", 1, message, args, more.pop("exc_info", None), extra=more or None
    )


def raised(message: str) -> Any:
    error = ValueError(message)
    with contextlib.suppress(ValueError):
        _raise(error)
    return (ValueError, error, error.__traceback__)


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("formatter", [logs.TextLines(), logs.JsonLines()], ids=["text", "json"])
def test_no_title_forges_a_line(formatter: logging.Formatter) -> None:
    """Line ends, escape sequences, direction marks and what is no text leave as escapes, wherever they stand."""
    observe.begin("lookup", path=HOSTILE)
    line = formatter.format(record("a title: %s", HOSTILE))
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert "forged" in line
    traced = formatter.format(record("failed", exc_info=raised(HOSTILE)))
    assert all(part.isprintable() for part in traced.split("\n"))
    assert not any(part.startswith("ERROR") for part in traced.splitlines())


def test_each_line_of_a_traceback_has_time_and_id() -> None:
    """So that what is found by an id is the whole of it."""
    observe.begin("publish", source="work")
    current = observe.operation.get()
    assert current is not None
    lines = logs.TextLines().format(record("failed", exc_info=raised("why"))).splitlines()
    assert len(lines) >= 4
    head = re.compile(rf"\d{{4}}-\d\d-\d\d [\d:,]+ INFO artifactfs\.test \[{current.id} publish source=work\] ")
    assert all(head.match(line) for line in lines)
    assert lines[-1].endswith("ValueError: why")


def test_a_stack_of_our_own_stands_in_lines() -> None:
    """Each with its head, as a traceback's; a message that does not say so keeps to one line."""
    stack = "the loop is stuck:\n  File one\n  File two\n"
    lines = logs.TextLines().format(record("%s", stack, **observe.IN_LINES)).split("\n")
    assert [line.partition("] ")[2] for line in lines] == ["the loop is stuck:", "  File one", "  File two"]
    assert len(logs.TextLines().format(record("%s", stack)).split("\n")) == 1


def test_json_is_one_object_a_line_with_everything_by_name() -> None:
    """Operation, what it is about, and the facts of a request."""
    observe.begin("read", ino=7, path="/a", pid=12)
    current = observe.operation.get()
    assert current is not None
    facts = {"source": "work", "status": "200", "ms": 1.5, "request_id": "r1"}
    told = json.loads(logs.JsonLines().format(record("sent %s", "it", request=facts, exc_info=raised("why"))))
    assert (told["id"], told["operation"], told["ino"], told["path"], told["pid"]) == (current.id, "read", 7, "/a", 12)
    assert (told["level"], told["logger"], told["message"]) == ("info", "artifactfs.test", "sent it")
    assert told["request"] == facts
    assert told["traceback"].endswith("ValueError: why")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])


def test_what_is_hidden_does_not_show() -> None:
    """In no format, wherever it stands, tracebacks included."""
    observe.hide("vm0_live_5ecret", "ab")
    for formatter in (logs.TextLines(), logs.JsonLines()):
        said = formatter.format(record("Bearer %s about", "vm0_live_5ecret", exc_info=raised("vm0_live_5ecret")))
        assert "5ecret" not in said
        assert "about" in said  # what is too short for a secret is no reason to cut words


def test_what_describes_an_operation_may_fail() -> None:
    """A log line is never what makes an operation fail."""

    class Broken:
        def described(self, operation: str, args: Any) -> dict[str, object]:
            raise KeyError(operation)

    observe.operation.set(observe.Operation("read", Broken(), (1,)))
    assert logs.TextLines().format(record("still")).endswith(" read] still")


async def test_tasks_inherit_their_operation_and_begin_their_own() -> None:
    """What an operation starts has its id; background work has one of its own; no two are the same."""
    seen: list[str] = []

    async def look(*, afresh: bool = False) -> None:
        if afresh:
            observe.begin("prefetch")
        current = observe.operation.get()
        assert current is not None
        seen.append(current.id)

    observe.begin("lookup")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: look(afresh=True))
    await look()
    assert seen[0] == seen[2] != seen[1]


FLOOD = """
import logging, os, sys
from pathlib import Path
from artifactfs import observe
path, rounds = Path(sys.argv[1]), int(sys.argv[2])
fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.dup2(fd, 1), os.dup2(fd, 2)
observe.set_up_logging("info", "text", observe.BoundedLog(path, 50_000))
log = logging.getLogger("artifactfs.flood")
for number in range(rounds):
    log.info("line %d %s", number, "x" * 100)
if rounds > 10:
    os.write(2, b"said by something else\\n")
"""


def flood(path: Path, rounds: int, **more: Any) -> None:
    subprocess.run([sys.executable, "-c", FLOOD, str(path), str(rounds)], check=True, timeout=60, **more)


def test_a_log_in_the_background_is_bounded(tmp_path: Path) -> None:
    """Two files at most, for the owner alone, the newest lines in them; what else goes to stderr follows."""
    path = tmp_path / "mount.log"
    flood(path, 3000)
    assert sorted(os.listdir(tmp_path)) == ["mount.log", "mount.log.1"]
    assert all(file.stat().st_size <= 50_000 + 100 for file in tmp_path.iterdir())
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in tmp_path.iterdir())
    lines = path.read_text().splitlines()
    assert "line 2999 " in lines[-2]
    assert lines[-1] == "said by something else"
    before = (tmp_path / "mount.log.1").read_text().splitlines()
    numbers = [int(line.split(" line ")[1].split()[0]) for line in (*before, *lines[:-1])]
    assert numbers == list(range(numbers[0], 3000))


def test_a_log_that_cannot_be_put_aside_begins_anew(tmp_path: Path) -> None:
    """A directory in the way of its successor, or a log that was taken away: bounded all the same."""
    path = tmp_path / "mount.log"
    (tmp_path / "mount.log.1" / "in the way").mkdir(parents=True)
    flood(path, 3000)
    assert path.stat().st_size <= 50_000 + 100
    assert "line 2999 " in path.read_text()


def test_a_full_disk_does_not_harm_who_logs() -> None:
    """The line is lost, and nothing else."""
    flood(Path("/dev/full"), 10, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
