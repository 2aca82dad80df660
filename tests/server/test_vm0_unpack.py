"""Uploaded archives, all hostile kinds of them: taken as declared, or refused; nothing else ever happens."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifactfs import errors
from artifactfs.server.vm0_unpack import Declared, safe_path, unpack
from artifactfs.store.objects import Objects
from tests.support import archives
from tests.support import vm0_world as world

FILES = {"f": b"hello\n", "dir/" * 30 + "long": b"x" * 3000, "ü" * 60: b""}


def declared(files: dict[str, bytes]) -> dict[str, Declared]:
    return {path: Declared(world.sha256(data), len(data)) for path, data in files.items()}


@pytest.mark.parametrize("name", sorted(set(archives.CASES) - {"hundred_thousand_entries"}))
def test_every_hostile_kind_is_taken_as_declared_or_refused(name: str, tmp_path: Path) -> None:
    """What is taken has exactly the declared files; what is not is one error of ours."""
    case = archives.CASES[name]()
    wanted = declared(dict(case.files))
    objects = Objects(tmp_path / "objects")
    try:
        taken = unpack(io.BytesIO(case.data), wanted, objects)
    except errors.CorruptContent:
        return
    assert {f.path: Declared(f.sha256, f.size) for f in taken if f.sha256} == wanted
    assert all(".." not in f.path.split("/") and not f.path.startswith("/") for f in taken)


def test_what_is_declared_is_taken(tmp_path: Path) -> None:
    """Bytes land in the objects under their hashes."""
    objects = Objects(tmp_path / "objects")
    taken = unpack(io.BytesIO(world.packed(FILES)), declared(FILES), objects)
    assert {f.path: objects.read(f.sha256 or "") for f in taken} == FILES


def test_many_files_are_taken(tmp_path: Path) -> None:
    """Also beyond the number up to which each is made durable on its own."""
    files = {f"d{n % 7}/{n}": str(n).encode() for n in range(300)}
    objects = Objects(tmp_path / "objects")
    assert len(unpack(io.BytesIO(world.packed(files)), declared(files), objects)) == 300


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), min_size=1, max_size=8))
def test_damage_is_found(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    """Flipped bits anywhere: refused, or in a part that says nothing, and then all is as declared."""
    data = bytearray(world.packed(FILES))
    for at, bit in flips:
        data[at % len(data)] ^= 1 << bit
    objects = Objects(tmp_path / "objects")
    try:
        taken = unpack(io.BytesIO(bytes(data)), declared(FILES), objects)
    except errors.CorruptContent:
        return
    assert {f.path: objects.read(f.sha256 or "") for f in taken if f.sha256} == FILES


@pytest.mark.parametrize(
    ("mtime", "expected"),
    [
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("-1.5", -1_500_000_000),
        ("253402300799", None),
        ("nan", None),
        ("inf", None),
        ("1e3", 1_000 * 10**9),
    ],
)
def test_times_are_exact_or_none(tmp_path: Path, mtime: str, expected: int | None) -> None:
    """To the nanosecond; the year 9999 does not fit, and NaN is no time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("f")
        info.pax_headers = {"mtime": mtime}
        tar.addfile(info)
    (taken,) = unpack(io.BytesIO(out.getvalue()), declared({"f": b""}), Objects(tmp_path / "objects"))
    assert taken.mtime_ns == expected


@pytest.mark.parametrize("name", ["/a", "../a", "a/../b", "..", "a\0b", "\udcff", "a/" * 300 + "b", "x" * 5000])
def test_unsafe_paths_are_refused(name: str) -> None:
    """Absolute, leaving the tree, no text, too deep, too long."""
    with pytest.raises(errors.CorruptContent):
        safe_path(name)


def test_paths_are_made_plain() -> None:
    """What all producers write means the same path."""
    assert [safe_path(name) for name in ("./a/b", "a//b/", "a/./b", "a/b")] == ["a/b"] * 4
    assert safe_path("./") == safe_path(".") == ""
