"""Inode numbers and the table of nodes: stable, distinct, and counted exactly as the kernel counts."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from artifactfs.tree.inodes import FIRST_FREE, ROOT, InodeTable, number
from artifactfs.tree.nodes import Kind, Node

# Parts that would run together if they were merely joined; surrogates, as titles can have them.
parts = st.one_of(
    st.sampled_from(["", "\0", "a", "a\0", "\0a", "'", '"', ",", "1", "('a',)"]), st.text(st.characters())
)
identities = st.lists(parts, max_size=4).map(tuple)


@given(identities, st.integers(0, 3))
def test_a_number_fits_and_stays(identity, attempt):
    """Above the kernel's own, below 2**63 (some programs keep it signed), the same each time."""
    assert FIRST_FREE <= number(identity, attempt) < 2**63
    assert number(identity, attempt) == number(tuple(identity), attempt)


@given(identities, identities, st.integers(0, 2), st.integers(0, 2))
def test_two_identities_have_two_numbers(one, other, first, second):
    """Whatever titles hold, NUL and quotes included; stepping aside gives a number of its own too."""
    assume((one, first) != (other, second))
    assert number(one, first) != number(other, second)


def test_a_number_survives_the_process():
    """Not Python's own hash, which differs from process to process: a remount shows the same numbers."""
    code = "from artifactfs.tree.inodes import number; print(number(('dir', 'work', '\\ud800')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == number(("dir", "work", "\ud800"))


# -- the table -----------------------------------------------------------------------------------------------


def node(*identity: str, ino: int | None = None) -> Node:
    return Node(number(identity) if ino is None else ino, identity, Kind.DIRECTORY, identity[-1])


def table() -> InodeTable:
    return InodeTable(node("root", ino=ROOT))


def test_the_root_is_never_forgotten():
    """The kernel forgets the root when it unmounts; it stays, as does a number that nobody knows."""
    made = table()
    made.apply_forget(ROOT, 5)
    made.apply_forget(4711, 1)
    assert made.get(ROOT) is not None
    assert len(made) == 1


def test_forgetting_too_often_is_an_error():
    """A count below nothing means that ours is wrong: it is said, not hidden."""
    made = table()
    one = node("a")
    made.apply_lookup(one)
    made.apply_lookup(one)
    with pytest.raises(ValueError, match="2 times too often"):
        made.apply_forget(one.ino, 4)


def test_an_open_file_outlives_its_last_forget():
    """What is forgotten while a handle is open goes with the handle."""
    made = table()
    one = node("a")
    made.apply_lookup(one)
    one.handles = 1
    made.apply_forget(one.ino, 1)
    assert made.get(one.ino) is one
    one.handles = 0
    made.apply_close(one)
    assert made.get(one.ino) is None


def test_one_identity_is_one_object():
    """A newer listing of the same thing refreshes the node that the kernel knows instead of making a second."""
    made = table()
    first = made.settle(node("a"))
    made.apply_lookup(first)
    newer = node("a")
    newer.name, newer.mtime_ns = "renamed", 5
    assert made.settle(newer) is first
    assert (first.name, first.mtime_ns, first.nlookup) == ("renamed", 5, 1)


def test_a_table_that_was_large_becomes_small_again():
    """What the kernel forgets costs no memory, and what it still knows is there."""
    table = InodeTable(Node(ROOT, ("root",), Kind.DIRECTORY, ""))
    nodes = [Node(at, (f"{at}",), Kind.FILE, f"{at}") for at in range(FIRST_FREE, FIRST_FREE + 20_000)]
    for node in nodes:
        table.apply_lookup(node)
    large = sys.getsizeof(table._nodes)
    for node in nodes[10:]:
        table.apply_forget(node.ino, 1)
    assert len(table) == 11
    assert sys.getsizeof(table._nodes) < large / 4
    assert all(table.get(node.ino) is node for node in nodes[:10])


def test_identities_that_meet_step_aside():
    """Two things of one number, were it ever to happen, get two; the one that was first keeps its own."""
    made = table()
    first = node("a")
    made.apply_lookup(made.settle(first))
    second, third = node("b", ino=first.ino), node("c", ino=first.ino)
    for other in (second, third):
        made.apply_lookup(made.settle(other))
    assert len({first.ino, second.ino, third.ino}) == 3
    again = node("b", ino=first.ino)
    assert made.settle(again) is second


class Kernel(RuleBasedStateMachine):
    """The table against a kernel that counts: replies, forgets, opens and closes in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.table = table()
        self.counts: dict[str, int] = {}
        self.open: dict[str, int] = {}
        self.known: dict[str, Node] = {}

    names = st.sampled_from("abcde")

    @rule(name=names)
    def look_up(self, name: str) -> None:
        found = self.table.settle(node(name))
        if name in self.known:
            assert found is self.known[name]
        self.table.apply_lookup(found)
        self.known[name] = found
        self.counts[name] = self.counts.get(name, 0) + 1

    @rule(name=names, share=st.integers(1, 3))
    def forget(self, name: str, share: int) -> None:
        count = min(share, self.counts.get(name, 0))
        if count:
            self.counts[name] -= count
            self.table.apply_forget(self.known[name].ino, count)
            self._drop(name)

    @rule(name=names)
    def open_file(self, name: str) -> None:
        if self.counts.get(name):
            self.known[name].handles += 1
            self.open[name] = self.open.get(name, 0) + 1

    @rule(name=names)
    def close(self, name: str) -> None:
        if self.open.get(name):
            self.open[name] -= 1
            self.known[name].handles -= 1
            self.table.apply_close(self.known[name])
            self._drop(name)

    def _drop(self, name: str) -> None:
        if not self.counts.get(name) and not self.open.get(name):
            self.known.pop(name, None)

    @invariant()
    def everything_held_is_there_and_nothing_else(self) -> None:
        assert len(self.table) == 1 + len(self.known)
        assert len({held.ino for held in self.known.values()}) == len(self.known)
        for name, held in self.known.items():
            assert self.table.get(held.ino) is held
            assert held.nlookup == self.counts.get(name, 0)


TestKernel = Kernel.TestCase
TestKernel.settings = settings(max_examples=50, stateful_step_count=30)
