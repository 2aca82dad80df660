"""Which listings are in memory."""

from __future__ import annotations

from artifactfs.model.entry import DirRef
from artifactfs.tree.layout import Level
from artifactfs.tree.nodes import Kind, Node
from artifactfs.vfs.known import LARGE_S, Known, KnownListings


def listing(entries: int, looked_at: float = 0.0) -> Known:
    children = {f"{n}": Node(n + 16, (f"{n}",), Kind.FILE, f"{n}") for n in range(entries)}
    return Known({(): Level(children)}, 0.0, 60.0, complete=True, note=None, looked_at=looked_at)


def test_the_least_used_fall_out() -> None:
    """As many as are too many; those used since stay, and whoever is told hears of each once."""
    dropped: list[DirRef] = []
    known = KnownListings(lambda ref, _: dropped.append(ref), 30)
    refs = [DirRef("s", f"{n}") for n in range(4)]
    for ref in refs[:3]:
        known.put(ref, listing(8))
    assert known.get(refs[0]) is not None
    assert known.peek(refs[1]) is not None  # a peek is no use
    known.put(refs[3], listing(8))
    assert dropped == [refs[1]]
    assert [ref for ref, _ in known] == [refs[2], refs[0], refs[3]]
    assert known.get(refs[1]) is None


def test_one_that_is_larger_than_all_room_is_kept_beside_the_others() -> None:
    """Whoever looks into a directory of a million must be shown it, and not wait anew for each look at another."""
    dropped: list[DirRef] = []
    known = KnownListings(lambda ref, _: dropped.append(ref), 30)
    for kind, entries in (("small", 3), ("large", 100), ("small", 3), ("other", 25)):
        known.put(DirRef("s", kind), listing(entries))
    assert [ref.kind for ref, _ in known] == ["large", "small", "other"]
    known.put(DirRef("s", "third"), listing(20))
    assert [ref.kind for ref in dropped] == ["small", "other"]


def test_one_large_listing_is_kept_at_a_time() -> None:
    """The other one falls out, and so does one that nobody has looked at for a long time."""
    known = KnownListings(lambda _ref, _known: None, 30)
    known.put(DirRef("s", "large"), listing(100, looked_at=0.0))
    known.put(DirRef("s", "larger"), listing(200, looked_at=1.0))
    assert [ref.kind for ref, _ in known] == ["larger"]
    known.put(DirRef("s", "small"), listing(3, looked_at=LARGE_S))
    assert len(known) == 2
    known.put(DirRef("s", "small"), listing(3, looked_at=LARGE_S + 2))
    assert [ref.kind for ref, _ in known] == ["small"]
    known.put(DirRef("s", "other"), listing(28))
    assert [ref.kind for ref, _ in known] == ["other"]


def test_replacing_and_forgetting_give_room() -> None:
    """What is no longer there does not count."""
    dropped: list[DirRef] = []
    known = KnownListings(lambda ref, _: dropped.append(ref), 30)
    for _ in range(5):
        known.put(DirRef("s", "a"), listing(12))
        known.put(DirRef("s", "b"), listing(12))
    known.pop(DirRef("s", "a"))
    known.put(DirRef("s", "c"), listing(12))
    assert not dropped
    assert len(known) == 2
