"""What tests of contents need of the system."""

from __future__ import annotations

import pytest

from artifactfs.content import inflate_blocks


@pytest.fixture
def libz() -> None:
    """Fail where zlib's shared library is missing: restart points are made with it."""
    if inflate_blocks.load() is None:
        pytest.fail("there is no libz.so.1: apt-get install zlib1g")
