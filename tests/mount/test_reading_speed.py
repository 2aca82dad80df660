"""How large files are fetched: what readers in order and at random cost, counted at the server."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from artifactfs.content.extents import BLOCK
from artifactfs.content.readahead import FIRST, MISSES
from tests.support.lab import Lab, Mounted, Seen, mounted, service_source
from tests.support.latency import delayed

pytestmark = pytest.mark.fuse

MIB = 1 << 20
SIZE = 64 * MIB
VIDEO = "video-review/latest/watch/clip.mp4"
ASKED = re.compile(r"bytes=(\d+)-(\d*)")


@pytest.fixture(scope="module")
def original(demo_lab: Lab) -> Iterator[int]:
    """Return a descriptor of the bytes as the store keeps them."""
    path = next(path for path in demo_lab.store.root.rglob("*") if path.is_file() and path.stat().st_size == SIZE)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def mount_of(lab: Lab, tmp_path: Path, url: str | None = None) -> contextlib.AbstractContextManager[Mounted]:
    return mounted(tmp_path, {"vlmrun": service_source("vlmrun", url or lab.bases()["vlmrun"])})


def ranges(requests: Sequence[Seen]) -> list[tuple[int, int]]:
    """Return what was asked for of contents, as (offset, length); all of it has a length of 0."""
    found = []
    for request in requests:
        if request.path == "/vlmrun/v1/artifacts":
            asked = ASKED.fullmatch(request.headers.get("range", "bytes=0-"))
            assert asked is not None
            first = int(asked[1])
            found.append((first, int(asked[2]) - first + 1 if asked[2] else 0))
    return found


@contextlib.contextmanager
def opened(mount: Mounted) -> Iterator[int]:
    """Open the video as who reads at random does: the kernel is not to read ahead."""
    fd = os.open(mount.path / VIDEO, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        yield fd
    finally:
        os.close(fd)


def read_in_order(mount: Mounted, original: int) -> None:
    with (mount.path / VIDEO).open("rb") as file:
        for offset in range(0, SIZE, MIB):
            assert file.read(MIB) == os.pread(original, MIB, offset)


def test_the_first_bytes_cost_one_small_window(demo_lab: Lab, tmp_path: Path, original: int) -> None:
    """`head -c 4096` of 64 MiB, and what it takes to learn the size."""
    with mount_of(demo_lab, tmp_path) as mount, demo_lab.counted() as requests:
        with (mount.path / VIDEO).open("rb", buffering=0) as file:
            assert file.read(4096) == os.pread(original, 4096, 0)
        mount.status()  # takes a moment, in which what would be read ahead would be asked for
    asked = ranges(requests)
    assert asked
    assert sum(length for _, length in asked) <= FIRST


def test_a_reader_in_order_gets_each_byte_once(demo_lab: Lab, tmp_path: Path, original: int) -> None:
    """In windows that grow, and right."""
    with mount_of(demo_lab, tmp_path) as mount, demo_lab.counted() as requests:
        read_in_order(mount, original)
    asked = sorted(ranges(requests))
    assert sum(length for _, length in asked) == SIZE
    assert [first for first, _ in asked] == [0, *(first + length for first, length in asked[:-1])]
    assert len(asked) <= 50


def test_a_line_of_20_ms_is_filled_by_several_streams(demo_lab: Lab, tmp_path: Path, original: int) -> None:
    """Far away the window is many ranges; nothing is asked for twice there either."""
    with (
        delayed(demo_lab.bases()["vlmrun"], 0.02) as url,
        mount_of(demo_lab, tmp_path, url) as mount,
        demo_lab.counted() as requests,
    ):
        read_in_order(mount, original)
    asked = ranges(requests)
    assert sum(length for _, length in asked) == SIZE
    assert len(asked) >= 8


def test_reads_at_random_cost_their_blocks_and_then_the_whole_comes(
    demo_lab: Lab, tmp_path: Path, original: int
) -> None:
    """A few jumps ask for a block each; who goes on jumping finds all of the file here."""
    with mount_of(demo_lab, tmp_path) as mount:
        os.stat(mount.path / VIDEO)  # learns the size, from the first blocks
        begin = len(demo_lab.seen)
        with opened(mount) as fd:
            jumps = [(7 + 13 * number) % 60 * MIB + 4096 for number in range(MISSES)]
            for offset in jumps[:-1]:
                assert os.pread(fd, 4096, offset) == os.pread(original, 4096, offset)
            few = sorted(ranges(demo_lab.seen[begin:]))
            assert few == sorted((offset // BLOCK * BLOCK, BLOCK) for offset in jumps[:-1])
            assert os.pread(fd, 4096, jumps[-1]) == os.pread(original, 4096, jumps[-1])
            assert os.pread(fd, 4096, SIZE - 4096) == os.pread(original, 4096, SIZE - 4096)
        with opened(mount) as fd:
            for number in range(64):
                offset = (29 * number + 3) % 64 * MIB + number * 4096
                assert os.pread(fd, 4096, offset) == os.pread(original, 4096, offset)
        # All of it once, without the first window that told the size.
        assert sum(length for _, length in ranges(demo_lab.seen[begin:])) == SIZE - FIRST


def test_a_reader_gets_what_has_come_of_a_range(demo_lab: Lab, tmp_path: Path, original: int) -> None:
    """The server stops in the middle of the first window: what came before is read all the same."""
    with Lab(demo_lab.store) as lab, mount_of(lab, tmp_path, None) as mount:
        os.stat(mount.path / VIDEO.rpartition("/")[0])
        lab.fault(r"/vlmrun/v1/artifacts\?", stall_after=BLOCK + 5)
        begin = time.monotonic()
        with opened(mount) as fd:
            assert os.pread(fd, 4096, 8192) == os.pread(original, 4096, 8192)
        assert time.monotonic() - begin < 10  # the stalled range itself ends after 20 s
        lab.heal()
