"""Looking through a whole cache: what it holds, whether all of it is true, and emptying it; also while it is in use.

Rules of this file: a cache that is not there is an empty one, and is not made. What a mount changes meanwhile is no
finding: a block is bad only if its record still stands after it failed.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from artifactfs import errors, private
from artifactfs.content import block_index, cache_databases
from artifactfs.content.block_files import DIRECTORIES, BlockFiles
from artifactfs.content.block_index import DATABASE, DIRECTORY, BlockIndex
from artifactfs.content.block_writer import sweep
from artifactfs.content.database import damage, is_damage

NAME = "name: "


@dataclass(slots=True)
class Findings:
    """What a look through a cache found.

    Attributes:
        blocks: that were read.
        bad: those that do not verify, as "file/number"; names that mean another content, as "name: ...".
        miscounted: by how many bytes the size of the cache, as the database counts it, is wrong.
        orphan_bytes: of files that no record names; they cost space and harm nobody.
        unreadable: why a database could not be read, by the name of its file.
        rows: how many rows are not what was written, by the name of the file; of those beside the blocks.
        repaired: whether the bad were forgotten and the orphans removed.
    """

    blocks: int = 0
    bad: list[str] = field(default_factory=list)
    miscounted: int = 0
    orphan_bytes: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    repaired: bool = False

    @property
    def healthy(self) -> bool:
        """Tell whether nothing bad was found, or nothing bad is left."""
        return self.repaired or not (self.bad or self.miscounted or self.unreadable or self.rows)


@contextmanager
def _opened(root: Path) -> Iterator[tuple[BlockIndex, BlockFiles] | None]:
    """Open a cache; None if there is none.

    Raises:
        Unavailable: its database does not answer.
    """
    if not (root / DATABASE).exists():
        yield None
        return
    try:
        index = BlockIndex(root)
    except (OSError, sqlite3.Error) as error:
        raise errors.Unavailable(f"the cache in {root} cannot be opened: {error}") from error
    files = BlockFiles(root / DIRECTORY)
    try:
        yield index, files
    except sqlite3.Error as error:
        raise errors.Unavailable(f"the database of the cache in {root} does not answer: {error}") from error
    finally:
        files.close()
        index.close()


def summary(root: Path) -> dict[str, int]:
    """Return how many blobs, names and blocks there are, and bytes: all, saved by sharing, pinned.

    Raises:
        Unavailable: the database does not answer.
    """
    with _opened(root) as cache:
        return cache[0].summary() if cache else dict.fromkeys(block_index.SUMMARY, 0)


def check(root: Path, *, repair: bool) -> Findings:
    """Read and verify every block, and every row of what is kept beside them.

    Raises:
        Unavailable: a database does not answer.
    """
    found = Findings()
    for name in cache_databases.DATABASES:
        looked = cache_databases.look_through(root / name, repair=repair)
        if looked.why is not None:
            found.unreadable[name] = looked.why
        if looked.rows:
            found.rows[name] = looked.rows
    why = damage(root / DATABASE) if os.path.lexists(root / DATABASE) else None
    why = why or _damage_of_blocks(root, found, repair=repair)
    if why is not None:
        found.unreadable[DATABASE] = why
        if not repair:
            return found
        # Opening begins a database anew, and its blocks with it.
        block_index.remove(root / DATABASE)
        private.file(root / DATABASE)
        if (again := _damage_of_blocks(root, found, repair=repair)) is not None:
            raise errors.Unavailable(f"the database of the cache in {root} is damaged again: {again}")
    found.repaired = repair
    return found


def _damage_of_blocks(root: Path, found: Findings, *, repair: bool) -> str | None:
    """Look through the blocks; return why that cannot be done, if the database is damaged."""
    with _opened(root) as cache:
        if cache is not None:
            try:
                _look_through(*cache, found, repair=repair)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                return str(error)
    return None


def _look_through(index: BlockIndex, files: BlockFiles, found: Findings, *, repair: bool) -> None:
    for blob in index.blobs():
        for number, length, crc in index.blocks(blob.id):
            found.blocks += 1
            data = files.read(blob.file, number, length)
            if len(data) == length and zlib.crc32(data) == crc:
                continue
            with index.transaction():
                if index.recorded(blob.id, number) != (length, crc):
                    continue  # evicted, or forgotten, meanwhile
                found.bad.append(f"{blob.file}/{number}")
                if repair:
                    index.forget(blob.id, number, crc)
    names, found.miscounted = block_index.false_names(index), block_index.miscounted(index)
    found.bad += [f"{NAME}{name}" for name in names]
    if repair and (names or found.miscounted):
        block_index.mend(index, names)
    found.orphan_bytes = sum(sweep(index, files, at, remove=repair) for at in range(DIRECTORIES))


def clear(root: Path, *, also_pinned: bool) -> int:
    """Drop all contents but, unless ``also_pinned``, those that a user pinned; return the bytes that were freed.

    Raises:
        Unavailable: the database does not answer.
    """
    with _opened(root) as cache:
        if cache is None:
            return 0
        index, files = cache
        before = index.used_bytes()
        with index.transaction():
            gone = index.evict(float("inf"), below=block_index.USER_RANK + 1 if also_pinned else block_index.USER_RANK)
        files.remove(gone)
        for at in range(DIRECTORIES):
            sweep(index, files, at)
        return before - index.used_bytes()
