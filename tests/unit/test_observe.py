"""What is counted and kept for status and why."""

from __future__ import annotations

import json

from artifactfs.observe import RECENT_ERRORS, Observer


def test_requests_and_failures_are_counted_apart() -> None:
    """A request that failed counts; an operation that failed because of it is noticed, not counted again."""
    observer = Observer()
    observer.sent("work", "GET /a")
    observer.sent("work", "GET /a")
    observer.failed("work", "http://host/a", "the service failed (500)", status=500, request_id="r1")
    observer.noticed("work", "/dir", "lookup: the service failed (500)", status=500)
    told = observer.counters("work").as_dict()
    assert (told["requests"], told["failures"], told["by_route"]) == (2, 1, {"GET /a": 2})
    assert told["last_error"]["subject"] == "/dir"
    assert observer.counters("work").last_failed_request is observer.incidents[0]
    assert json.loads(json.dumps(told)) == told


def test_success_is_newer_than_the_failure_before_it() -> None:
    """That is how a source is well again."""
    observer = Observer()
    observer.failed("work", "x", "down")
    observer.succeeded("work")
    counters = observer.counters("work")
    assert counters.last_success is not None
    assert counters.last_incident is not None
    assert counters.last_success >= counters.last_incident.at
    assert observer.counters("other").last_success is None


def test_recent_failures_are_bounded_and_one_that_repeats_takes_one_place() -> None:
    """A `find` over a dead service does not push out what else went wrong."""
    observer = Observer()
    observer.noticed("work", "/a", "first")
    for _ in range(1000):
        observer.noticed("work", "/b", "again")
    assert [(one.message, one.times) for one in observer.incidents] == [("first", 1), ("again", 1000)]
    for number in range(1000):
        observer.noticed("work", f"/{number}", "different")
    assert len(observer.incidents) == RECENT_ERRORS
