"""What is fetched ahead of programs that go through the tree, counted at the server."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs.content.prefetch import FILES
from artifactfs.store.catalog import Store
from artifactfs.store.rows import Run
from artifactfs.vfs.prefetch import CONCURRENT, RESERVE
from tests.support.lab import Lab, Mounted, Seen, mounted, service_source
from tests.support.syntropic137_store import MINUTE_NS, START_NS, add_file

pytestmark = pytest.mark.fuse

FLOWS, PER_FLOW = 10, 20
PLENTY = 1_000_000


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Workflows with files in them: for Syntropic137 each a listing, its files pointers with lying sizes.

    A listing is in the order of times, of equal ones by chance; what is fetched ahead goes by that order.
    """
    store = Store(tmp_path_factory.mktemp("flows") / "store")
    for flow in range(FLOWS):
        store.add_workflow(f"flow{flow:02}", workflow_id=f"wf-{flow}", created_at_ns=START_NS)
        for file in range(PER_FLOW):
            data, at_ns = f"{flow} {file}\n".encode() * 50, START_NS + file * MINUTE_NS
            add_file(store, f"wf-{flow}", f"file{file:02}.txt", data, at_ns=at_ns)
    with Lab(store) as lab:
        yield lab


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Runs with objects in them, as VLM Run has them: no size is told."""
    store = Store(tmp_path_factory.mktemp("objects") / "store")
    store.add_workflow("agent", workflow_id="wf-0", created_at_ns=START_NS)
    for number in range(2):
        began = START_NS + number * 60 * MINUTE_NS
        run = Run(f"exec-{number:012x}", f"run-{number}", "wf-0", "completed", began, began + MINUTE_NS)
        store.add_run(run)
        for file in range(40):
            add_file(store, "wf-0", f"file{file:02}.txt", f"{number} {file}\n".encode() * 50, run=run)
    with Lab(store) as lab:
        yield lab


@contextlib.contextmanager
def syntropic137(lab: Lab, tmp_path: Path, per_minute: int = PLENTY) -> Iterator[Mounted]:
    url = lab.bases()["syntropic137-c"]
    source = service_source("syntropic137", url, **{"requests-per-minute": per_minute})
    with mounted(tmp_path, {"s": source}, names=("s",)) as mount:
        try:
            yield mount
        finally:
            lab.heal()


def vlmrun(lab: Lab) -> dict[str, dict[str, object]]:
    more = {"requests-per-minute": PLENTY, "allow-private-urls": True}
    return {"s": service_source("vlmrun", lab.bases()["vlmrun"], **more)}


def contents(requests: list[Seen]) -> Counter[str]:
    """Return the requests for bytes, by what was asked for."""
    found = (f"{r.path}?{r.query}" for r in requests)
    return Counter(path for path in found if re.search(r"/content\?|vlmrun/v1/artifacts\?", path))


def settled(lab: Lab, quiet_s: float = 0.5) -> None:
    """Wait until no further request comes."""
    count = -1
    while count != len(lab.seen):
        count = len(lab.seen)
        time.sleep(quiet_s)  # noqa: TID251 - no event loop here


def test_a_listing_is_nothing_to_go_ahead_of(flows: Lab, tmp_path: Path) -> None:
    """``ls`` and ``ls -l`` of one directory ask for that directory, also where directories or pointers are in it."""
    with syntropic137(flows, tmp_path) as mount:
        with flows.counted() as requests:
            mount.run("ls")
            mount.run("ls", "-l")
            settled(flows)
        assert not [r for r in requests if "workflow_id" in r.query]
        with flows.counted() as requests:
            mount.run("ls", "flow03")
            settled(flows)
        assert {r.query.split("workflow_id=")[-1].split("&")[0] for r in requests} == {"wf-3"}
        assert not contents(requests)


def test_one_file_is_one_request(flows: Lab, tmp_path: Path) -> None:
    """``cat`` of one file asks for that file, although its siblings are listed."""
    with syntropic137(flows, tmp_path) as mount:
        mount.run("ls", "flow03")
        with flows.counted() as requests:
            mount.run("cat", "flow03/file00.txt")
            settled(flows)
        assert len(requests) == 1


def test_two_opens_in_order_waste_one_window_at_most(flows: Lab, tmp_path: Path) -> None:
    """Who opens two siblings and stops has had the first window fetched, and nothing of other directories."""
    with syntropic137(flows, tmp_path) as mount:
        mount.run("ls", "flow03", "flow04")
        with flows.counted() as requests:
            mount.run("cat", "flow03/file00.txt", "flow03/file01.txt")
            settled(flows)
        assert len(contents(requests)) == len(requests) == 2 + FILES.first


@pytest.mark.parametrize("command", [["grep", "-rc", "", "."], ["cp", "-r", ".", "../copy"]], ids=["grep", "cp"])
def test_a_recursive_reader_finds_the_files_here(command: list[str], flows: Lab, tmp_path: Path) -> None:
    """Each listing and each file is asked for once, ahead of the reader: not a delay for each."""
    delay_s, files = 0.2, FLOWS * PER_FLOW
    with syntropic137(flows, tmp_path) as mount, flows.counted() as requests:
        flows.fault(r"/content\?", delay_s=delay_s)
        begin = time.perf_counter()
        mount.run(*command)
        took_s = time.perf_counter() - begin
        settled(flows)
    asked = contents(requests)
    assert len(asked) == files
    assert set(asked.values()) == {1}
    assert set(Counter((r.path, r.query) for r in requests).values()) == {1}
    # One after another they would take 40 s.
    assert took_s < files * delay_s / 3


def test_a_shell_pattern_is_read_ahead_by_name(flows: Lab, tmp_path: Path) -> None:
    """``cat *.txt`` goes by name, and pays for the answers of one directory together."""
    delay_s = 0.5
    with syntropic137(flows, tmp_path) as mount, flows.counted() as requests:
        mount.run("ls", "flow05")
        flows.fault(r"/content\?", delay_s=delay_s)
        begin = time.perf_counter()
        mount.run("sh", "-c", "cat flow05/*.txt")
        assert time.perf_counter() - begin < PER_FLOW * delay_s / 2
    assert set(contents(requests).values()) == {1}


def test_a_walk_finds_its_directories_listed(flows: Lab, tmp_path: Path) -> None:
    """``ls -R`` waits a few times, not once for each directory, and asks for no content."""
    delay_s = 0.7
    with syntropic137(flows, tmp_path) as mount, flows.counted() as requests:
        flows.fault("workflow_id=", delay_s=delay_s)
        begin = time.perf_counter()
        mount.run("ls", "-R")
        took_s = time.perf_counter() - begin
        settled(flows)
    assert not contents(requests)
    assert set(Counter((r.path, r.query) for r in requests).values()) == {1}
    # Two requests for each directory, one after the other: 14 s.
    assert took_s < FLOWS * 2 * delay_s / 2


def test_sizes_of_siblings_are_settled_together(objects: Lab, tmp_path: Path) -> None:
    """``ls -l`` over objects of unknown size asks for each once, many at a time; reading them then asks for nothing."""
    delay_s = 0.3
    with mounted(tmp_path, vlmrun(objects), names=("s",)) as mount:
        run = next(path for path in sorted(mount.path.glob("agent/*")) if not path.is_symlink())
        objects.fault(r"vlmrun/v1/artifacts\?", delay_s=delay_s)
        try:
            with objects.counted() as requests:
                begin = time.perf_counter()
                mount.run("ls", "-l", str(run))
                took_s = time.perf_counter() - begin
            settled(objects)
        finally:
            objects.heal()
        files = list(run.rglob("*.txt"))
        assert set(contents(requests).values()) == {1}
        assert took_s < len(files) * delay_s / 2
        with objects.counted() as requests:
            mount.run("sh", "-c", f"cat {run}/*.txt")
        assert not contents(requests)


def test_a_small_budget_is_left_to_who_waits(flows: Lab, tmp_path: Path) -> None:
    """With ten requests a minute nothing is fetched ahead: files and directories cost what is looked at."""
    with syntropic137(flows, tmp_path, per_minute=RESERVE) as mount:
        mount.run("ls")
        mount.run("ls", "flow03")
        with flows.counted() as requests:
            mount.run("cat", *(f"flow03/file{number:02}.txt" for number in range(4)))
            settled(flows)
        assert len(requests) == 4


def test_a_budget_is_not_used_up_ahead(flows: Lab, tmp_path: Path) -> None:
    """Of a budget so much is left that who comes next does not wait for the minute to pass."""
    per_minute = 30
    with syntropic137(flows, tmp_path, per_minute=per_minute) as mount:
        with flows.counted() as requests:
            mount.run("ls", "flow03")
            mount.run("cat", *(f"flow03/file{number:02}.txt" for number in range(5)))
            settled(flows)
        assert len(requests) <= per_minute - RESERVE + 3  # who reads goes on when fetching ahead has stopped
        begin = time.perf_counter()
        mount.run("cat", "flow03/file19.txt")
        assert time.perf_counter() - begin < 5


def test_a_failing_source_is_left_alone(flows: Lab, tmp_path: Path) -> None:
    """What fails is not fetched ahead: each further open costs its own request and no other."""
    places = [f"flow{flow:02}" for flow in range(4)]
    names = [f"{place}/file{number:02}.txt" for place in places for number in range(PER_FLOW)]
    with syntropic137(flows, tmp_path) as mount:
        mount.run("ls", *places)
        flows.fault(r"/content\?", status=401)
        with flows.counted() as requests:
            mount.run("cat", *names, check=False)
            settled(flows)
    assert len(contents(requests)) == len(names)
    assert contents(requests).total() <= len(names) + CONCURRENT


def test_the_past_and_ids_are_not_dragged_along(flows: Lab, tmp_path: Path) -> None:
    """Who reads two artifacts by their ids has these two fetched."""
    with syntropic137(flows, tmp_path) as mount:
        mount.run("ls", "-l", "flow03/by-id/")
        ids = sorted(path.name for path in (mount.path / "flow03/.artifacts").iterdir())[:3]
        with flows.counted() as requests:
            for name in ids:
                mount.run("sh", "-c", f"cat flow03/.artifacts/{name}/latest/*")
            settled(flows)
        assert len(contents(requests)) == len(ids)


def test_a_mount_ends_while_it_fetches_ahead(flows: Lab, tmp_path: Path) -> None:
    """What is under way for nobody does not hold up the end."""
    rows = {row.name: row.uuid for row in flows.store.artifacts("wf-3")}
    first = [rows[name] for name in ("file00.txt", "file01.txt")]
    with syntropic137(flows, tmp_path) as mount:
        mount.run("ls", "flow03")
        flows.fault(rf"/(?!{'|'.join(first)})[^/]*/content\?", delay_s=60)
        with flows.counted() as requests:
            mount.run("cat", "flow03/file00.txt", "flow03/file01.txt")
            settled(flows)
        assert len(contents(requests)) == 2 + FILES.first
        begin = time.perf_counter()
    assert time.perf_counter() - begin < 15
