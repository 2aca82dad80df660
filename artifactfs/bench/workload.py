"""What is read: the same tree as plain files and in a store, the same bytes on every machine.

Rules of this file: the tree has two versions that differ in one file of ten; a word nobody else writes stands in one
file of a hundred, so that a search can be checked.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from artifactfs.store.catalog import Store
from artifactfs.store.demo.filler import Filler
from artifactfs.store.rows import Upload

WORD = "zqxjkvbenchmark"
WORD_EVERY = 100
CHANGED_EVERY = 10
# Bytes of a file, both ends included: what agents write (issue 3 names 1-50 KB).
SMALLEST, LARGEST = 1_000, 50_000
MIB = 1 << 20
WORKFLOW = "bench"
SAVED = "2026-05-01T08:00:00.000Z"
PHASE = "out"
BIG = "big.bin"
WORDS = ("artifact", "report", "finding", "table", "summary", "source", "review", "draft", "result", "note")


@dataclass(frozen=True, slots=True)
class Workload:
    """How much there is: files in directories, how many directories are the part that slow peers read, the big file."""

    files: int = 2000
    directories: int = 50
    part: int = 5
    big_mib: int = 64

    @property
    def part_files(self) -> int:
        """Return how many files the part has."""
        return self.part * (self.files // self.directories)

    def expected(self, *, part: bool) -> int:
        """Return how many files hold the word."""
        count = self.part_files if part else self.files
        return len(range(0, count, WORD_EVERY))

    def names(self) -> Iterator[str]:
        """Return the path of each file, in order."""
        each = self.files // self.directories
        return (f"d{at // each:02d}/f{at % each:03d}.txt" for at in range(each * self.directories))


def file_bytes(at: int, version: int) -> bytes:
    """Return the content of file ``at`` in version 1 or 2."""
    dice = random.Random(at)  # noqa: S311 - no secret: the seed makes the text the same in every process
    size = dice.randint(SMALLEST, LARGEST)
    head = f"{WORD}\n" if at % WORD_EVERY == 0 else ""
    changed = f"version {version}\n" if at % CHANGED_EVERY == 0 else ""
    line = " ".join(dice.choice(WORDS) for _ in range(12))
    lines = (f"{number} {line}\n" for number in range(size // len(line)))
    return (head + changed + f"file {at}\n" + "".join(lines))[:size].encode()


def big_pieces(mib: int) -> Iterator[bytes]:
    """Return a file that does not compress, in pieces of 1 MiB."""
    return (hashlib.shake_256(f"big {at}".encode()).digest(MIB) for at in range(mib))


def write_plain(load: Workload, root: Path) -> None:
    """Write ``v1/``, ``v2/`` and the big file below ``root``."""
    for version in (1, 2):
        for at, name in enumerate(load.names()):
            path = root / f"v{version}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file_bytes(at, version))
    with (root / BIG).open("wb") as out:
        out.writelines(big_pieces(load.big_mib))
    # As the bucket's listing says: a client that sees another time believes that the file has changed.
    saved = datetime.fromisoformat(SAVED).timestamp()
    for path in root.rglob("*"):
        os.utime(path, (saved, saved))


def fill_store(load: Workload, directory: Path) -> None:
    """Make a store with the same bytes: two runs of single files, a tree in two versions, an upload."""
    store = Store(directory)
    try:
        fill = Filler(store)
        with store.transaction():
            workflow = fill.workflow(WORKFLOW, "2026-05-01 08:00", "What the benchmark reads.")
            for version in (1, 2):
                _fill_run(fill, load, version)
            # Version 1 is saved last: the present is what everybody reads.
            tree = [
                (f"2026-05-0{3 - version} 09:00", "agent", f"version {version}", _entries(load, version))
                for version in (2, 1)
            ]
            fill.tree(workflow, "tree", tree)
            fill.file(workflow, BIG, b"".join(big_pieces(load.big_mib)), "2026-05-01 09:00")
            _fill_upload(store, load)
    finally:
        store.close()


def _entries(load: Workload, version: int) -> dict[str, bytes]:
    return {name: file_bytes(at, version) for at, name in enumerate(load.names())}


def _fill_run(fill: Filler, load: Workload, version: int) -> None:
    # One workflow a run: which of two runs is which must not depend on how a service names them.
    workflow = fill.workflow(f"run{version}", "2026-05-01 08:00", "Single files.")
    run = fill.run(workflow, f"v{version}", "2026-05-02 09:00", "2026-05-02 10:00", "completed")
    for name, data in _entries(load, version).items():
        fill.output(run, PHASE, name, data, 5)


def _fill_upload(store: Store, load: Workload) -> None:
    md5 = hashlib.md5(usedforsecurity=False)
    for piece in big_pieces(load.big_mib):
        md5.update(piece)
    sha256, size = store.objects.put_stream(big_pieces(load.big_mib), durable=False)
    made = int(datetime.fromisoformat(SAVED).timestamp()) * 10**9
    store.put_upload(Upload(UPLOAD_ID, BIG, "assistants", size, sha256, md5.hexdigest(), made))


UPLOAD_ID = "b16b16b1-6b16-4b16-8b16-b16b16b16b16"


@functools.cache
def tree_bytes(load: Workload) -> int:
    """Return how large one version is."""
    return sum(len(file_bytes(at, 1)) for at in range(load.files))
