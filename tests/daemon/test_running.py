"""A whole mount in this process, with the kernel on one side and a served store on the other: time can be turned on."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from pydantic import SecretStr
from trio.testing import MockClock

from artifactfs import config
from artifactfs.daemon.compose import Mounted
from artifactfs.daemon.lifecycle import Plan, running
from artifactfs.store import demo
from artifactfs.store.catalog import Store
from tests.support.lab import TOKEN, Lab
from tests.support.log_guard import LogGuard

pytestmark = pytest.mark.fuse

T = TypeVar("T")
SERVICES: tuple[config.Service, ...] = ("vm0", "syntropic137", "vlmrun")
RUN = "vlmrun/market-research/06f65b43-371e-4d77-aa24-4ed1c9b66417"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("demo") / "store")
    demo.fill(made)
    return made


@pytest.fixture
def lab(store: Store, expected_logs: LogGuard) -> Iterator[Lab]:
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)
    with Lab(Store(store.root)) as made:
        yield made


@asynccontextmanager
async def mount(
    tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, *services: config.Service, timeout: float = 10.0
) -> AsyncIterator[tuple[Path, Mounted]]:
    """Mount services of a laboratory at ``tmp_path/mnt``."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    place = tmp_path / "mnt"
    place.mkdir()
    settings = config.Config.model_validate({"cache": {"dir": tmp_path / "cache"}, "mount": {"timeout": timeout}})
    sources = [
        config.Source(
            name=name, service=name, url=lab.bases()[name], authorization=SecretStr(f"Bearer {TOKEN}"),
            allow_private_urls=True,
        )
        for name in services
    ]  # fmt: skip
    plan = Plan(settings, sources, place, at_root=len(sources) == 1, state=tmp_path / "state")
    async with running(plan) as mounted:
        yield place, mounted


async def call(function: Callable[..., T], *arguments: object) -> T:
    """Make a system call as another program would: not on the event loop that has to answer it."""
    return await trio.to_thread.run_sync(lambda: function(*arguments))


async def number_of(function: Callable[..., object], *arguments: object) -> str:
    try:
        await call(function, *arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "success"


LISTINGS = {
    "vm0": ("vm0/artifacts", r"/v1/artifacts\?"),
    "syntropic137": ("syntropic137/field-notes ✎", r"/artifacts\?"),
    "vlmrun": ("vlmrun", r"/agent/executions\?"),
}
TROUBLES: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "429": {"status": 429, "headers": {"retry-after": "3600"}},
    "cut short": {"cut_after": 5},
    "no answer": {"delay_s": 60},
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_known_listing_outlives_the_services_failure(
    tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock, trouble: str
) -> None:
    """All that was listed is still there, what was not is not invented, status and why say stale; then all is well."""
    mock_clock.rate = 1.0
    async with mount(tmp_path, lab, monkeypatch, *SERVICES, timeout=3) as (place, mounted):
        before = {service: await call(os.listdir, place / where) for service, (where, _) in LISTINGS.items()}
        for _, pattern in LISTINGS.values():
            lab.fault(pattern, **TROUBLES[trouble])
        # Listings are believed for a minute; the kernel is told as much.
        mock_clock.jump(90)
        for service, (where, _) in LISTINGS.items():
            assert await call(os.listdir, place / where) == before[service]
            assert await number_of(os.stat, place / where / before[service][0]) == "success"
            # A complete listing answers for what is not in it.
            assert await number_of(os.stat, place / where / "no such thing") in {"ENOENT", "EIO", "ETIMEDOUT"}
            told = await mounted.status.why(where)
            assert told["stale_because"]
            assert told["next_retry_s"] > 0
        stale = [
            row for source in mounted.status.snapshot()["sources"] for row in source["listings"] if row["stale_because"]
        ]
        assert {row["source"] for row in stale} == set(SERVICES)
        lab.heal()
        mock_clock.jump(90)
        for service, (where, _) in LISTINGS.items():
            assert await call(os.listdir, place / where) == before[service]
            assert "stale_because" not in await mounted.status.why(where)
        assert {source["state"] for source in mounted.status.snapshot()["sources"]} == {"ok"}


async def test_why_follows_links_as_programs_do(
    tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """`why latest/plan/plan.md` is about the file; `why latest` about the link; `..` leads back, and not out."""
    mock_clock.rate = 1.0
    async with mount(tmp_path, lab, monkeypatch, *SERVICES) as (_, mounted):
        file = await mounted.status.why("vlmrun/market-research/latest/plan/plan.md")
        assert (file["exists"], file["kind"]) == (True, "file")
        link = await mounted.status.why("vlmrun/market-research/latest")
        assert link["kind"] == "symlink"
        back = await mounted.status.why("vlmrun/market-research/latest/../../../../../vm0")
        assert (back["kind"], back["source"]) == ("directory", "vm0")
        gone = await mounted.status.why(f"{RUN}/no/such/thing")
        assert (gone["exists"], gone["error"]) == (False, "NotFound")
        assert json.dumps(file)


async def test_failures_are_kept_with_the_path_they_are_about(
    tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """A read fails by handle, the root of a single source has no name: `why` finds both by path, and only them."""
    mock_clock.rate = 1.0
    async with mount(tmp_path, lab, monkeypatch, "vlmrun", timeout=3) as (place, mounted):
        lab.fault(r"/agent/executions\?", status=403)
        assert await number_of(os.listdir, place) == "EACCES"
        assert (await mounted.status.why(""))["recent_errors"][0]["status"] == 403
        lab.heal()
        run = "market-research/06f65b43-371e-4d77-aa24-4ed1c9b66417"
        await call(os.listdir, place / run / "plan")
        mounted.observer.incidents.clear()
        handle = await call(os.open, place / run / "write/deliverable.md", os.O_RDONLY)
        lab.fault(r"/v1/artifacts\?", status=403)
        try:
            other = place / run / "plan/plan.md"
            assert await number_of(other.read_bytes) == "EACCES"
        finally:
            await call(os.close, handle)
        told = await mounted.status.why(f"{run}/plan/plan.md")
        assert told["recent_errors"][0]["subject"] == f"/{run}/plan/plan.md"
        assert (await mounted.status.why(f"{run}/write"))["recent_errors"] == []
        # An absent name and a refused write are answers: nothing is wrong with the source because of them.
        mounted.observer.incidents.clear()
        assert await number_of(os.stat, place / run / "nothing") == "ENOENT"
        assert await number_of(os.mkdir, place / "new") == "EROFS"
        assert await number_of(os.stat, place / ("x" * 300)) == "ENAMETOOLONG"
        assert not mounted.observer.incidents


async def test_a_mount_that_ends_in_an_error_is_unmounted(
    tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends it, no dead mount and no socket stay behind."""
    with pytest.raises(ExceptionGroup) as caught:
        async with mount(tmp_path, lab, monkeypatch, "vm0") as (place, _):
            assert os.path.ismount(place)
            raise ValueError
    assert caught.group_contains(ValueError)
    assert not os.path.ismount(tmp_path / "mnt")
    assert not list((tmp_path / "run").rglob("*.sock"))
