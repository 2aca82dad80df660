"""A person's keys in editors on a terminal, at the local store and at the services: one save, one upload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.desks import DESKS, Desk, desk
from tests.support.saves import EMACS, OLD
from tests.support.saving import flushed, history, listed, local_mount, need
from tests.support.terminal import on_a_terminal

pytestmark = pytest.mark.fuse

CTRL_C, CTRL_S, CTRL_X, ESCAPE, F2, F10 = b"\x03", b"\x13", b"\x18", b"\x1b", b"\x1bOQ", b"\x1b[21~"
BECOMES = "new old line\n"


@pytest.fixture(scope="module", params=list(DESKS))
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A service with a file for each test, mounted once; what it can do is asked before anybody counts."""
    with desk(request.param, tmp_path_factory.mktemp("hand"), files=8) as made:
        folder, name = made.take()
        (folder / name).unlink()
        with made.asked():
            pass
        yield made


def nano(folder: Path, name: str, home: Path, *options: str) -> None:
    """Type a word at the beginning, save, leave."""
    need("nano", "nano")
    with on_a_terminal(folder, home, "nano", "-I", *options, name) as screen:
        screen.see(b"old line")
        screen.press(b"new ", CTRL_S)
        screen.see(b"Wrote 1 line")
        screen.press(CTRL_X)


def emacs(folder: Path, name: str, home: Path) -> None:
    """Type a word, which locks the file; let it save by itself meanwhile, then save, and leave."""
    need(*EMACS)
    settings = "(setq backup-enable-predicate (lambda (_) t) auto-save-interval 20)"
    with on_a_terminal(folder, home, "emacs", "-nw", "-Q", "--eval", settings, name) as screen:
        screen.see(b"old line")
        screen.press(b"new ")
        screen.until(lambda: f".#{name}" in listed(folder))
        screen.press(ESCAPE, b"x", b"do-auto-save\r")
        screen.until(lambda: f"#{name}#" in listed(folder))
        screen.press(CTRL_X, CTRL_S)
        screen.see(b"Wrote")
        screen.press(CTRL_X, CTRL_C)


def vim(folder: Path, name: str, home: Path) -> None:
    """Type a word, save with a backup and a swap file, leave."""
    need("vim", "vim")
    with on_a_terminal(folder, home, "vim", "-Nu", "NONE", "--cmd", "set backupskip= updatecount=1", name) as screen:
        screen.see(b"old line")
        screen.press(b"inew ", ESCAPE)
        screen.until(lambda: f".{name}.swp" in listed(folder))
        screen.press(b":w\r")
        screen.see(b"written")
        screen.press(b":q\r")


def mcedit(folder: Path, name: str, home: Path) -> None:
    """Type a word, save and confirm, leave."""
    need("mcedit", "mc")
    with on_a_terminal(folder, home, "mcedit", name) as screen:
        screen.see(b"old line")
        screen.press(b"new ", F2)
        screen.see(b"Save")
        screen.press(b"\r")
        screen.until(lambda: (folder / name).read_text() == BECOMES)
        screen.press(F10)


HANDS = {
    "nano": (nano, ()),
    "nano with a lock and a backup": (lambda *where: nano(*where, "-G", "-B"), ("{}~",)),
    "emacs": (emacs, ("{}~",)),
    "vim": (vim, ()),
    "mcedit": (mcedit, ()),
}


@pytest.mark.parametrize("hand", list(HANDS))
def test_a_save_by_hand_is_one_upload(at: Desk, tmp_path: Path, hand: str):
    """What the editor leaves behind stays here."""
    folder, name = at.take()
    before = at.listed(folder)
    edit, leaves = HANDS[hand]
    with at.asked() as (requests, names):
        edit(folder, name, tmp_path / "home")
    assert requests == at.saved
    assert names <= at.named(name)
    at.becomes(folder, before | {left.format(name) for left in leaves}, {name: BECOMES})


@pytest.mark.parametrize("hand", list(HANDS))
def test_a_save_by_hand_is_one_version(tmp_path: Path, hand: str):
    """The same in the local store, in a workflow and in a tree."""
    edit, leaves = HANDS[hand]
    with local_mount(tmp_path) as mount:
        workflow = mount.path / "work"
        for folder in (workflow, workflow / "tree"):
            folder.mkdir()
            (folder / "doc.md").write_text(OLD)
            flushed(folder)
            edit(folder, "doc.md", tmp_path / "hand")
            flushed(folder)
            assert (folder / "doc.md").read_text() == BECOMES
            assert listed(folder) - {"tree"} == {"doc.md", *(left.format("doc.md") for left in leaves)}
        assert history(workflow, "doc.md") == [OLD.encode(), BECOMES.encode()]
