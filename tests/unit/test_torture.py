"""What the torture of saving takes for right and for wrong, and how a laboratory loses answers."""

import hashlib
from pathlib import Path

import httpx
import pytest

from artifactfs.store.catalog import Store
from tests.support.at_store import AtStore, Held
from tests.support.lab import Fault, Lab
from tests.torture.record import Record, judge
from tests.torture.services import SERVICES
from tests.torture.weather import BadDay


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def record(*states: str) -> Record:
    """Return a record of saves: ``a`` was acknowledged, ``a?`` was not, ``-`` is a removal."""
    made = Record("f")
    for word in states:
        text = word.rstrip("?")
        state = made.attempt(None if text == "-" else text.encode())
        if text == word:
            made.ack(state)
    return made


def held(*past: str, path: str = "f", deleted: bool = False) -> Held:
    """Return what a service has under a name; ``-`` is a version without it."""
    return Held(path, tuple(None if text == "-" else sha(text) for text in past), f"id of {path}", deleted)


def wrong(of: Record, *there: Held, keeps_all: bool = True) -> list[str]:
    return judge([of], there, known={"seed"}, keeps_all=keeps_all)


RIGHT = [
    pytest.param(("a", "b", "c"), ("a", "b", "c"), id="each save is a version"),
    pytest.param(("a", "b", "c"), ("c",), id="the last of a quiet period is"),
    pytest.param(("a", "b", "c?"), ("b",), id="what was in flight is not there"),
    pytest.param(("a", "b", "c?", "d?"), ("a", "c"), id="what was in flight is there"),
    pytest.param(("a", "-?"), (), id="a removal that was in flight is done"),
    pytest.param(("a?",), (), id="a first save in flight is not there"),
    pytest.param(("a", "-", "b"), ("a", "-", "b"), id="removed and made again"),
    pytest.param(("a", "b"), ("a", "a", "b", "b"), id="it stays over versions of its tree"),
]


@pytest.mark.parametrize(("states", "past"), RIGHT)
def test_what_is_right(states: tuple[str, ...], past: tuple[str, ...]):
    assert wrong(record(*states), *([held(*past)] if past else []), held("s", path="seed")) == []


WRONG = [
    pytest.param(("a", "b"), ("a",), "the last acknowledged is save 2", id="lost"),
    pytest.param(("a",), (), "the service has nothing; the last acknowledged is save 1", id="lost whole"),
    pytest.param(("a", "b", "c"), ("a", "c", "b"), "the service has save 2", id="an older one"),
    pytest.param(("a", "b?", "c"), ("a", "b"), "never acknowledged; the last acknowledged is save 3", id="too old"),
    pytest.param(("a", "b"), ("a", "ab"), "bytes that nobody saved", id="mixed bytes"),
    pytest.param(("a", "b"), ("ab", "b"), "a version of it is bytes that nobody saved", id="mixed bytes once"),
    pytest.param(("a", "b"), ("a", "b", "a", "b"), "is there 2 times", id="twice"),
    pytest.param(("a", "-"), ("a",), "the last acknowledged is removal 2", id="a removed one is back"),
]


@pytest.mark.parametrize(("states", "past", "said"), WRONG)
def test_what_is_wrong(states: tuple[str, ...], past: tuple[str, ...], said: str):
    assert said in "\n".join(wrong(record(*states), *([held(*past)] if past else [])))


def test_two_of_a_name_are_wrong_and_a_removed_one_beside_it_is_not():
    assert wrong(record("a", "b"), held("a", deleted=True), held("b")) == []
    assert "listed 2 times" in wrong(record("a", "b"), held("a"), held("b"))[0]
    # Where nothing of the past is kept, only what is listed can be there twice.
    assert wrong(record("a", "b"), held("b", deleted=True), held("b"), keeps_all=False) == []
    assert "2 times" in wrong(record("a", "b"), held("b", deleted=True), held("b"))[0]


def test_a_name_that_nobody_saved_is_wrong():
    assert wrong(record(), held("x", path=".f.swp", deleted=True)) == [".f.swp: nobody saved a file of this name"]


def test_what_was_at_the_service_once_stays_there():
    known = record("a")
    assert wrong(known, held("a")) == []
    known.ack(known.attempt(b"b"))
    assert "save 1, acknowledged, is gone" in wrong(known, held("b"))[0]


def test_what_the_mount_shows_after_a_kill_is_what_the_file_is():
    """An interrupted save that was not shown must not come about later, and one that was shown must stay."""
    known = record("a", "b?", "c?")
    assert "shows bytes that nobody saved" in (known.seen(b"x") or "")
    assert known.seen(b"b") is None
    assert [state.number for state in known.possible()] == [2]
    assert "not shown after the next mount" in wrong(known, held("a", "b", "c"))[0]
    assert "the last acknowledged is save 2" in wrong(known, held("a"))[0]


def test_a_store_is_seen_by_file_whoever_made_it(tmp_path: Path):
    """A tree's files by their paths, with the versions that lack them; seeds are known."""
    store = Store(tmp_path / "store")
    for name in ("local", "vm0"):
        SERVICES[name].prepare(store)
        files = {file.path: file.past for file in SERVICES[name].held(AtStore(store))}
        assert files.keys() == SERVICES[name].known
        (workflow,) = store.workflows()
        for artifact in store.artifacts():
            store.save_tree(artifact.id, [])
        assert {file.past[1:] for file in SERVICES[name].held(AtStore(store))} == {(None,)}
        for artifact in store.artifacts():
            store.delete_artifact(artifact.id)
        store.remove_workflow(workflow.id)
    store.close()


@pytest.mark.parametrize(("what", "there"), [("refuse", 0), ("swallow", 1), ("lose_answer", 1)])
async def test_an_answer_that_is_lost_may_have_been_one(tmp_path: Path, what: str, there: int):
    """The connection ends without an answer; what was asked for is done, or not."""
    store = Store(tmp_path / "store")
    with Lab(store) as lab:
        lab.fault("/artifacts", times=1, **{what: True})
        body = {"workflow_id": "w", "artifact_type": "text", "title": "t", "content": "x"}
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post(f"{lab.bases()['syntropic137']}/api/v1/artifacts", json=body)
            assert len(store.artifacts()) == there
            answer = await client.post(f"{lab.bases()['syntropic137']}/api/v1/artifacts", json=body)
        assert answer.status_code == 201
        assert len(store.artifacts()) == there + 1
    store.close()


def test_a_bad_day_has_all_kinds_of_failures_and_ends():
    day = BadDay(seed=1)
    faults = [day("GET /x") or Fault("") for _ in range(1000)]
    assert {fault.status for fault in faults} == {None, 500, 502, 503}
    assert min(day.counted.values()) > 10
    assert any(fault.refuse for fault in faults)
    assert any(fault.swallow for fault in faults)
    assert any(fault.lose_answer for fault in faults)
    assert all(0 <= fault.delay_s <= 0.05 for fault in faults)
    day.calm = True
    assert day("GET /x") is None
