"""What tests of contents need of the system, and the store they put blocks into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs.content import inflate_blocks
from artifactfs.content.block_store import BlockStore
from tests.support.blocks import LIMIT


@pytest.fixture
def libz() -> None:
    """Fail where zlib's shared library is missing: restart points are made with it."""
    if inflate_blocks.load() is None:
        pytest.fail("there is no libz.so.1: apt-get install zlib1g")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlockStore]:
    """Return an empty store in the test's own directory."""
    made = BlockStore(tmp_path, LIMIT, min_free=0)
    yield made
    made.close()
