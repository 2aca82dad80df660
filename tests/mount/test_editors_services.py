"""Editors and tools on real mounts of the services: one save, one upload, under the right name, and no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.desks import DESKS, Desk, desk
from tests.support.saves import NO_SAVES, OLD, SAVES, Save, by_name, prepared
from tests.support.saving import fails, shell

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module", params=list(DESKS))
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A service with a file for each test, mounted once; what it can do is asked before anybody counts."""
    with desk(request.param, tmp_path_factory.mktemp("service")) as made:
        folder, name = made.take()
        shell(f"echo changed > {name}", folder)
        shell(f"rm {name}", folder)
        with made.asked():
            pass
        yield made


@pytest.mark.parametrize("save", by_name(SAVES))
def test_one_save_is_one_upload(at: Desk, tmp_path: Path, save: Save):
    """The service has the bytes under the name they were meant for, was asked once, and of nothing else."""
    folder, name = at.take()
    own = save.of(name)
    variables = prepared(tmp_path, own, name)
    before = at.listed(folder)
    refusal = _refusal(at, own)
    with at.asked() as (requests, names):
        if refusal:
            assert refusal in fails(own.script, folder, **variables)
        else:
            shell(own.script, folder, **variables)
    if refusal:
        assert not requests
        at.becomes(folder, before, {name: OLD})
    else:
        assert requests == at.saved
        assert names <= at.named(name)
        at.becomes(folder, before | own.leaves, {name: save.becomes})


def _refusal(at: Desk, save: Save) -> str:
    """Return what a program says that cannot save here; nothing if it can."""
    if at.text_only and not save.is_text:
        return "Invalid argument"
    return "" if at.makes or save.plain else "Read-only file system"


@pytest.mark.parametrize("script", NO_SAVES)
def test_what_changes_no_content_asks_for_nothing(at: Desk, tmp_path: Path, script: str):
    """Times, owners, opening for writing, droppings, and saving the same again."""
    folder, name = at.take()
    before = at.listed(folder)
    own = Save("none", script).of(name)
    with at.asked() as (requests, names):
        shell(own.script, folder, **prepared(tmp_path, own, name))
    assert not requests
    assert not names
    at.becomes(folder, before, {name: OLD})


def test_it_is_all_there_after_a_remount_with_an_empty_cache(at: Desk):
    """What the tests before this one have left, and one save more."""
    folder, name = at.take()
    before = at.listed(folder)
    with at.asked() as (requests, _):
        shell(f"sed -i s/old/new/ {name}; echo mine > .{name}.swp", folder)
    assert requests == at.saved
    at.becomes(folder, before | {f".{name}.swp"}, {name: "new line\n"})
    at.remount()
    with at.asked() as (requests, _):
        for place, (names, content) in at.expected.items():
            assert at.listed(place) == names
            assert {name: (place / name).read_bytes() for name in content} == content
    assert requests == Counter()
