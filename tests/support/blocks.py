"""What tests of the block store share."""

from __future__ import annotations

from pathlib import Path

from artifactfs.content.extents import BLOCK

# Of the stores under test, in bytes.
LIMIT = 64 * BLOCK


def block(seed: int, length: int = BLOCK) -> bytes:
    """Return bytes that differ from one seed to another."""
    return (seed.to_bytes(4, "big") * (length // 4 + 1))[:length]


def files(root: Path) -> list[Path]:
    """Return the files of blocks below the directory of a store."""
    return [path for path in (root / "blocks").rglob("*") if path.is_file()]
