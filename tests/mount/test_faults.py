"""What programs see when services fail: the errno table, through one real mount of many really served sources.

Rules of this file: ``CAUSES`` says once which fault becomes which errno; everything is generated from it. Each cause
has a server of its own that answers so, and three sources on it, one in each dialect; all are in one mount at the
same time, so that whatever is slow has the chance to disturb the others.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from artifactfs.store.catalog import Store
from tests.support.control import ask
from tests.support.lab import Lab, Mounted, mounted, service_source
from tests.support.log_guard import LogGuard

pytestmark = pytest.mark.fuse


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """The tests' own servers break their answers on purpose, and say so."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


SERVICES = ("vm0", "syntropic137", "vlmrun")
# The mount's deadline in these tests, in seconds: what each call to a stalled service takes.
DEADLINE_S = 4
# What a call may take beyond it on a machine that is busy with other things.
SLACK_S = 15.0
# As long as a service that has recovered may still be thought failing: the longest pause asked for, and some.
RECOVERY_S = 40.0
# Calls made at once: more than stall at a time.
AT_ONCE = 24
RUN = "market-research/06f65b43-371e-4d77-aa24-4ed1c9b66417"


@dataclass(frozen=True)
class Target:
    """Where a service is disturbed, and what then goes wrong.

    ``listing`` and ``content`` are patterns of requests; ``storage`` of those that carry the bytes themselves;
    ``absent`` is how the service says that something is not there.
    """

    directory: str
    name: str
    file: str
    listing: str
    content: str
    storage: str
    absent: bytes


TARGETS = {
    "vm0": Target(
        "artifacts", "site-report", "artifacts/site-report/notes.md",
        r"/v1/artifacts\?", r"/v1/artifacts/[^/]+/download", r"archive\.tar\.gz",
        b'{"error": {"code": "NOT_FOUND", "message": "no such thing"}}',
    ),
    "syntropic137": Target(
        "field-notes ✎", "README", "field-notes ✎/visit.md",
        r"/artifacts\?", r"/artifacts/[^/]+/content", r"/artifacts/[^/]+/content",
        b'{"detail": "no such thing"}',
    ),
    "vlmrun": Target(
        RUN, "plan", "video-review/bc41efcc-13f4-45ea-a76b-35e3107fe2af/analyse/frames/opening.jpg",
        r"/v1/artifacts/list", r"/v1/artifacts\?", r"/v1/artifacts\?",
        b'{"detail": "no such thing"}',
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cause:
    """One fault and the errno it becomes.

    ``what`` is how the server answers; ``says`` is a pattern of what stands in status and why; ``unless`` has, by
    service and call, the exceptions to ``number``: 0 where it succeeds.
    """

    number: int
    says: str
    what: dict[str, Any] = field(default_factory=dict)
    on_storage: bool = False
    unless: dict[tuple[str, str], int] = field(default_factory=dict)


def answer(number: int, says: str, code: int, headers: dict[str, str] | None = None, **more: Any) -> Cause:
    """A cause that is an answer with a status."""
    unless = more.pop("unless", {})
    return Cause(number, says, {"status": code, "headers": headers or {}, **more}, unless=unless)


LATE = "no answer within|not complete after"
HTML = b"<!DOCTYPE html><title>Sign in</title>"
# Its size stands at the head of the answer: opening succeeds.
OPENS = {("vlmrun", "open"): 0}
ALWAYS_LISTED = {(service, call): errno.EIO for service in ("vm0", "syntropic137") for call in ("ls", "stat")}
CAUSES = {
    "401": answer(errno.EACCES, r"\(401\)", 401),
    "402": answer(errno.EDQUOT, r"\(402\)", 402),
    "403": answer(errno.EACCES, r"\(403\)", 403),
    # VLM Run says so of an execution that has left no objects (yet): it is listed, without them. The others always have
    # a list.
    "404": answer(errno.ENOENT, "no such thing", 404, unless={("vlmrun", "ls"): 0, **ALWAYS_LISTED}),
    "413": answer(errno.EFBIG, r"\(413\)", 413),
    "422": answer(errno.EINVAL, r"\(422\)", 422),
    "429 with a long Retry-After": answer(errno.EIO, "fewer requests", 429, {"retry-after": "8"}),
    "500": answer(errno.EIO, r"\(500\)", 500),
    "503 with a long Retry-After": answer(errno.EIO, r"\(503\)", 503, {"retry-after": "60"}),
    "an answer cut short": Cause(errno.EIO, "broke", {"cut_after": 10}, on_storage=True, unless=OPENS),
    "no answer": Cause(errno.ETIMEDOUT, LATE, {"delay_s": 60}),
    "an answer that stops": Cause(errno.ETIMEDOUT, LATE, {"stall_after": 10}, on_storage=True, unless=OPENS),
    "HTML with 200": answer(errno.EIO, "html", 200, {"content-type": "text/html"}, body=HTML),
    "204": answer(errno.EIO, r"\(204\)", 204, {"content-length": "0"}, body=b""),
    "an empty 200": answer(errno.EIO, "", 200, body=b""),
    "JSON of another type": answer(errno.EIO, "JSON|json|content", 200, body=b'"no"'),
    "broken JSON": answer(errno.EIO, "JSON|json", 200, body=b'{"data": ['),
}  # fmt: skip
# That an execution has no objects is believed for 30 s.
LATER = {("404", "vlmrun")}
LISTING, CONTENT = ("ls", "stat"), ("open", "read")


def ls(place: Path, target: Target) -> object:
    return sorted(os.listdir(place / target.directory))


def stat(place: Path, target: Target) -> object:
    return os.stat(place / target.directory / target.name).st_ino


def open_(place: Path, target: Target) -> object:
    os.close(os.open(place / target.file, os.O_RDONLY))
    return True


def read(place: Path, target: Target) -> object:
    return (place / target.file).read_bytes()


CALLS: dict[str, Callable[[Path, Target], object]] = {"ls": ls, "stat": stat, "open": open_, "read": read}
Key = tuple[str, str, str]
"""Cause, service and call."""


@dataclass(frozen=True)
class Outcome:
    """What came of a call: its errno (0 if it succeeded), its value, and how long it took."""

    number: int
    value: object
    took_s: float

    def __str__(self) -> str:
        return errno.errorcode.get(self.number, "success")


def attempt(place: Path, service: str, call: str) -> Outcome:
    begin, number, value = time.monotonic(), 0, None
    try:
        value = CALLS[call](place, TARGETS[service])
    except OSError as error:
        number = error.errno or -1
    return Outcome(number, value, time.monotonic() - begin)


@dataclass
class World:
    """One mount over many sources, each with a fault of its own, and what was seen of it."""

    mount: Mounted
    labs: dict[str, Lab]
    first: dict[Key, Outcome] = field(default_factory=dict)
    again: dict[Key, int] = field(default_factory=dict)
    why: dict[Key, dict[str, Any]] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    people: str = ""
    healed: dict[Key, Outcome] = field(default_factory=dict)
    healed_status: dict[str, Any] = field(default_factory=dict)

    def source(self, cause: str, service: str) -> str:
        return f"{service} with {cause}"

    def calls(self, names: tuple[str, ...]) -> dict[Key, Outcome]:
        """Make calls to all sources side by side, as many programs would."""
        keys = [(cause, service, name) for name in names for cause in self.labs for service in SERVICES]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = pool.map(lambda key: attempt(self.mount.path / self.source(*key[:2]), *key[1:]), keys)
            return dict(zip(keys, found, strict=True))

    def disturb(self, names: tuple[str, ...]) -> None:
        for cause, lab in self.labs.items():
            for target in TARGETS.values():
                what, storage = dict(CAUSES[cause].what), CAUSES[cause].on_storage
                if what.get("status") == 404:
                    what["body"] = target.absent
                lab.fault(target.listing if names == LISTING else target.storage if storage else target.content, **what)

    def heal(self, names: tuple[str, ...]) -> dict[Key, Outcome]:
        """Mend everything; return what calls give as soon as all sources may be asked again."""
        for lab in self.labs.values():
            lab.heal()
        deadline = time.monotonic() + RECOVERY_S
        while True:
            found = self.calls(names)
            failed = {key[:2] for key, outcome in found.items() if outcome.number}
            if time.monotonic() > deadline or failed <= LATER:
                return found
            time.sleep(0.5)  # noqa: TID251 - no event loop here

    def explain(self, names: tuple[str, ...]) -> None:
        """Ask why of everything that failed."""
        pairs = [(cause, service) for cause in self.labs for service in SERVICES]

        def explain_one(pair: tuple[str, str]) -> dict[str, Any]:
            target = TARGETS[pair[1]]
            path = target.directory if names == LISTING else target.file
            return ask(self.mount, verb="why", path=f"{self.source(*pair)}/{path}")

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for pair, answer in zip(pairs, pool.map(explain_one, pairs), strict=True):
                self.why[(*pair, names[0])] = answer

    def sources(self) -> dict[str, dict[str, Any]]:
        return {source["name"]: source for source in ask(self.mount, verb="status")["sources"]}


@contextmanager
def all_of(labs: Iterable[Lab]) -> Iterator[None]:
    """Serve all of them; they end side by side, since each takes a second to give up on what stalls."""
    with ThreadPoolExecutor(len(CAUSES)) as pool:
        list(pool.map(Lab.__enter__, labs))
        try:
            yield
        finally:
            list(pool.map(Lab.__exit__, labs))


@pytest.fixture(scope="module")
def world(demo_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything cold, under its fault: listings first, then content; each healed after it."""
    with ExitStack() as stack:
        labs = {cause: Lab(Store(demo_lab.store.root)) for cause in CAUSES}
        stack.enter_context(all_of(labs.values()))
        sources = {
            f"{service} with {cause}": service_source(service, lab.bases()[service], **{"allow-private-urls": True})
            for cause, lab in labs.items()
            for service in SERVICES
        }
        config = f"[mount]\ntimeout = {DEADLINE_S}\n"
        mount = stack.enter_context(
            mounted(tmp_path_factory.mktemp("faults"), quoted(sources), "--all", extra_config=config)
        )  # fmt: skip
        made = World(mount, labs)
        for source in sources:
            os.listdir(mount.path / source)
        made.disturb(LISTING)
        made.first.update(made.calls(LISTING))
        made.explain(LISTING)
        made.heal(LISTING)
        made.disturb(CONTENT)
        made.first.update(made.calls(CONTENT))
        made.explain(CONTENT)
        made.status = made.sources()
        made.people = mount.artifactfs("status", str(mount.path)).stdout
        made.healed = made.heal((*LISTING, *CONTENT))
        made.healed_status = made.sources()
        yield made


def quoted(sources: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Names with blanks are written in quotes in TOML."""
    return {json.dumps(name): source for name, source in sources.items()}


@pytest.mark.parametrize("call", [*LISTING, *CONTENT])
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("cause", CAUSES)
def test_each_fault_becomes_its_errno(world: World, cause: str, service: str, call: str) -> None:
    """Fault x service x call: the errno of the table, and not later than the deadline."""
    outcome = world.first[cause, service, call]
    wanted = CAUSES[cause].unless.get((service, call), CAUSES[cause].number)
    assert str(outcome) == errno.errorcode.get(wanted, "success")
    assert outcome.took_s < DEADLINE_S + SLACK_S


@pytest.mark.parametrize("part", ["ls", "open"])
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("cause", CAUSES)
def test_why_says_what_went_wrong(world: World, cause: str, service: str, part: str) -> None:
    """Of the directory whose listing failed, and of the file whose content did: in words, and with the HTTP status."""
    told = world.why[cause, service, part]
    if CAUSES[cause].unless.get((service, part)) == 0:
        return  # nothing went wrong yet
    text = json.dumps(told, ensure_ascii=False)
    assert told["recent_errors"] or told.get("error"), text
    assert re.search(CAUSES[cause].says, text), text


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("cause", CAUSES)
def test_status_says_which_source_fails_and_why(world: World, cause: str, service: str) -> None:
    """In its state, for programs and for people; and that it is well again after the service is."""
    name = world.source(cause, service)
    assert world.status[name]["state"] != "ok"
    assert re.search(CAUSES[cause].says, world.status[name]["state"])
    (line,) = [line for line in world.people.splitlines() if line.startswith(f"{name} ")]
    # Asked for after the JSON: by then it may be the failure of another request.
    assert "ok" not in line.split()[1:3]
    assert world.healed_status[name]["state"] == "ok" or (cause, service) in LATER


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("cause", CAUSES)
def test_everything_recovers(world: World, cause: str, service: str, demo_lab: Lab) -> None:
    """After the service has: the whole listing, and the right bytes, by the same process."""
    for call in (*LISTING, *CONTENT):
        outcome = world.healed[cause, service, call]
        if (cause, service) not in LATER or call not in LISTING:
            assert str(outcome) == "success"
            assert outcome.value == world.healed["401", service, call].value or call == "stat"
    content = world.healed[cause, service, "read"].value
    assert isinstance(content, bytes)
    assert demo_lab.store.objects.has(hashlib.sha256(content).hexdigest())


def test_a_mount_of_many_failing_sources_is_one_living_process(world: World) -> None:
    """It answers still, and nothing unforeseen happened in it."""
    assert os.listdir(world.mount.path)
    assert " ERROR " not in world.mount.log_text()
    assert "vm0_live_laboratory" not in world.mount.log_text() + world.people + json.dumps(
        ask(world.mount, verb="status")
    )
