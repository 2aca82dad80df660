"""How much the drafts of a mount may hold together, and a disk that is full before that."""

import errno
import os
import random
from pathlib import Path

import pytest

from artifactfs.journal.records import Record
from artifactfs.journal.staging import Staged, Staging
from tests.support.tiny_disk import tiny

LIMIT = 10_000


@pytest.fixture
def staging(tmp_path: Path):
    opened = Staging.fresh(tmp_path / "drafts", LIMIT)
    yield opened
    opened.close()


def holding(staging: Staging, size: int) -> Staged:
    staged = staging.open()
    try:
        staged.write(0, b"x" * size)
    except OSError:
        staged.close()
        raise
    return staged


def test_growth_beyond_the_room_is_refused_before_a_byte_is_written(staging: Staging):
    """By a write, a length or a clone, over all drafts together; the draft is broken then, as on a full disk."""
    first, second = holding(staging, 6_000), holding(staging, 3_000)
    assert staging.used_bytes == 9_000
    for grow in (
        lambda: second.write(2_000, b"y" * 2_001),
        lambda: second.truncate(4_001),
        lambda: second.write(4_000, b"y"),
        lambda: staging.clone(second),
        lambda: staging.clone(first),
    ):
        with pytest.raises(OSError, match="No space") as caught:
            grow()
        assert caught.value.errno == errno.ENOSPC
        assert (second.size, staging.used_bytes) == (3_000, 9_000)
        if second.broken:
            second.broken = None
    assert second.read(0, 9_999) == b"x" * 3_000
    with pytest.raises(OSError, match="No space"):
        second.write(0, b"y" * 4_001)
    with pytest.raises(OSError, match="No space"):
        staging.seal(second, Record(second.number, {}))
    assert first.broken is None
    second.truncate(0)
    assert second.write(0, b"y" * 4_000) == 4_000
    for staged in (first, second):
        staging.discard(staged)
    assert not list(staging.root.glob("*.draft"))


def test_room_comes_back(staging: Staging):
    """By a shorter length, by a discard, and, of a draft that is deleted while it is open, when it is closed."""
    staged = holding(staging, LIMIT)
    staged.write(0, b"y" * LIMIT)  # in place takes none
    staged.truncate(4_000)
    other = holding(staging, 6_000)
    staging.unlink(staged)
    assert staging.used_bytes == LIMIT
    staged.close()
    assert staging.used_bytes == 6_000
    other.close()
    assert staging.used_bytes == 6_000
    staging.unlink(other)
    staging.unlink(other)
    assert staging.used_bytes == 0
    last = holding(staging, 5_000)
    staging.discard(staging.clone(last))
    assert staging.used_bytes == 5_000
    last.close()


def test_what_an_earlier_mount_left_counts(staging: Staging):
    """Its drafts may hold more than the limit of now: they are opened, and may only become shorter."""
    staged = holding(staging, 8_000)
    staging.seal(staged, Record(staged.number, {}))
    staged.close()
    staging.close()
    (again,) = Staging.abandoned(staging.root.parent, 5_000)
    assert again.used_bytes == 8_000
    ((_, found),) = again.left_over()
    assert found is not None
    with pytest.raises(OSError, match="No space"):
        found.write(8_000, b"x")
    with pytest.raises(OSError, match="No space"):
        holding(again, 1)
    found.truncate(4_000)
    found.write(4_000, b"x" * 1_000)
    again.discard(found)
    assert again.used_bytes == 0
    again.close()


def test_the_count_is_that_of_the_files(staging: Staging):
    """Whatever was done to them, in whatever order."""
    chance, drafts = random.Random(7), [staging.open()]
    for _ in range(2_000):
        staged = chance.choice(drafts)
        try:
            match chance.randrange(10):
                case 0:
                    drafts.append(staging.clone(staged))
                case 1:
                    drafts.append(staging.open())
                case 2 if len(drafts) > 1:
                    drafts.remove(staged)
                    staging.discard(staged)
                case 3 | 4:
                    staged.truncate(chance.randrange(3_000))
                case _:
                    staged.write(chance.randrange(3_000), b"z" * chance.randrange(1_000))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            staged.broken = None
        assert staging.used_bytes == sum(one.size for one in drafts) <= LIMIT
    for staged in drafts:
        staging.discard(staged)


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path):
    """Seals and clones say ENOSPC; what was sealed is found, and discarding works and gives room."""
    with tiny(tmp_path / "disk") as disk:
        staging = Staging.fresh(disk / "drafts", 1 << 40)
        kept: list[Staged] = []
        with pytest.raises(OSError, match="No space"):
            while True:
                staged = staging.open()
                staged.write(0, os.urandom(50_000))
                staging.seal(staged, Record(staged.number, {"n": staged.number}))
                kept.append(staged)
        assert staging.used_bytes == sum(each.size for each in (*kept, staged))
        staging.discard(staged)
        with pytest.raises(OSError, match="No space"):
            twins = [staging.clone(kept[0]) for _ in range(9)]
            pytest.fail(f"{len(twins)} clones fit")
        contents = {staged.number: staged.read(0, 99_999) for staged in kept}
        gone = kept.pop(0)
        staging.discard(gone)
        del contents[gone.number]
        for each in kept:
            each.close()
        staging.close()
        (again,) = Staging.abandoned(disk / "drafts")
        found = again.left_over()
        assert {record.number: left.read(0, 99_999) for record, left in found if left is not None} == contents
        assert again.used_bytes == 50_000 * len(contents)
        for _, left in found:
            assert left is not None
            again.discard(left)
        again.close()
        assert not list((disk / "drafts").iterdir())
