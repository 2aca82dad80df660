"""``status``, ``why`` and ``log`` for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifactfs import errors
from artifactfs.cli import client, render

# The latest failures that a screen has room for beside the rest.
SHOWN_ERRORS = 8


def show_status(mountpoints: list[Path], *, as_json: bool) -> None:
    """Show the state of mounts; one whose process is gone is said to be dead."""
    answers = [_status(mountpoint) for mountpoint in mountpoints]
    if as_json:
        render.as_json(answers)
        return
    if not answers:
        render.say("nothing is mounted")
    for answer in answers:
        _show_one(answer)


def _status(mountpoint: Path) -> dict[str, Any]:
    try:
        return client.ask(mountpoint, client.QUICK_S, verb="status")
    except errors.ArtifactFSError as error:
        return {"mountpoint": str(mountpoint), "dead": client.is_dead(mountpoint), "error": str(error)}


def _show_one(answer: dict[str, Any]) -> None:
    render.say(str(answer["mountpoint"]))
    if "error" in answer:
        render.say(f"  {answer['error']}")
        if answer["dead"]:
            render.say("  its process is gone; the next `artifactfs mount` there cleans it up")
        return
    cache = answer["cache"]
    render.say(
        f"  pid {answer['pid']}, since {answer['started_at']}, cache {render.size(cache['used_bytes'])}"
        f" of {render.size(cache['max_bytes'])} in {cache['directory']}"
    )
    render.say(f"  {_saving(answer)}")
    render.say(f"  logs {answer['log']['level']} to {answer['log']['file'] or 'its terminal'}")
    rows = [
        (s["name"], s["service"], s["state"], s["counters"]["requests"], s["counters"]["failures"],
         render.size(s["counters"]["bytes_received"]), _oldest(s["listings"]))
        for s in answer["sources"]
    ]  # fmt: skip
    render.table(("source", "service", "state", "requests", "failures", "received", "oldest listing"), rows)
    for source in answer["sources"]:
        for listing in source["listings"]:
            if listing["note"]:
                render.say(f"  incomplete: {source['name']} {listing['directory']}: {listing['note']}")
            if listing["stale_because"]:
                render.say(f"  stale: {source['name']} {listing['directory']}: {listing['stale_because']}")
    if answer["pending"]:
        waiting = [
            (row["path"], row["what"], row["state"], render.size(row["size"]), row["tries"], f"{row['age_s']:.0f} s",
             row["error"])
            for row in answer["pending"]
        ]  # fmt: skip
        render.table(("waiting", "for", "state", "size", "tries", "age", "last error"), waiting)
    for incident in answer["errors"][-SHOWN_ERRORS:]:
        again = f" ({incident['times']} times)" if incident["times"] > 1 else ""
        render.say(f"  {incident['time']} {incident['source']} {incident['subject']}: {incident['message']}{again}")


def _saving(answer: dict[str, Any]) -> str:
    """Return what becomes of a save, in words."""
    saving = answer["saving"]
    if not any(source["writable"] for source in answer["sources"]):
        return "read-only"
    if saving["write_through"]:
        return "a close waits until the service has what was saved"
    kept = f"; {render.size(saving['journal_bytes'])} are kept here until then" if saving["journal_bytes"] else ""
    return f"saves are published {saving['publish_delay_s']:g} s after the last change{kept}"


def _oldest(listings: list[dict[str, Any]]) -> str:
    ages = [listing["age_s"] for listing in listings if listing["age_s"] is not None]
    return f"{max(ages):.0f} s" if ages else "-"


def show_why(answer: dict[str, Any], *, as_json: bool) -> None:
    """Explain a path."""
    if as_json:
        render.as_json(answer)
        return
    failures = answer.pop("recent_errors")
    if request := answer.pop("last_failed_request", None):
        failures.append(request)
    left_out = answer.pop("not_shown_first", ())
    render.facts(answer)
    for member in left_out:
        render.say(f"in the archive and not shown: {member}")
    for failure in failures:
        facts = {"HTTP": failure["status"], "request": failure["request_id"]}
        told = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
        render.say(f"recent error: {failure['subject']}: {failure['message']}{f' ({told})' if told else ''}")


def show_log(answer: dict[str, Any], *, as_json: bool) -> None:
    """List versions, newest first."""
    if as_json:
        render.as_json(answer)
        return
    rows = [
        ("*" if row["current"] else "", row["version"], row["id"][:12], row["created_at"], row["created_by"],
         row["files"], render.size(row["size"]), row["message"])
        for row in answer["versions"]
    ]  # fmt: skip
    render.table(("", "version", "id", "created", "by", "files", "size", "message"), rows)
    if not answer["complete"]:
        render.say("the service does not list all versions; older ones may be missing here")
