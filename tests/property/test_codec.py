"""What is kept of a service comes back as it was, whatever its titles and facts are."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs.model import codec
from artifactfs.model.content import Access, ArchiveMember, ContentRef, Exact, Hint, Inline, Pointer, Unknown
from artifactfs.model.entry import (
    Accepts,
    Archive,
    Artifact,
    ArtifactKind,
    DirRef,
    Empty,
    Entry,
    Folder,
    Note,
    Role,
    SingleFile,
    Tree,
    Version,
)

# Lone surrogates too, and two of them that would make one character.
TEXT = st.text(st.characters(exclude_categories=()), max_size=8) | st.just("\ud83d\ude00")
PATH = st.lists(TEXT, max_size=3).map(tuple)
TIME = st.none() | st.integers(-(2**63), 2**63)
COUNT = st.integers(0, 2**60)
SIZE = st.builds(Exact, COUNT) | st.builds(Hint, COUNT) | st.builds(Unknown)
REF = st.builds(ContentRef, TEXT, TEXT, PATH, SIZE, st.sampled_from(Access), st.none() | TEXT)
CONTENT = (
    REF
    | st.builds(Pointer, TEXT, TEXT, PATH, SIZE)
    | st.builds(Inline, st.binary(max_size=40))
    | st.builds(ArchiveMember, REF, COUNT, COUNT)
)
VERSION_CONTENT = (
    st.builds(SingleFile, CONTENT, st.booleans()) | st.builds(Archive, REF) | st.builds(Tree, PATH) | st.builds(Empty)
)
ANY_TEXT = st.none() | TEXT
VERSION = st.builds(Version, TEXT, VERSION_CONTENT, SIZE, st.none() | COUNT, TIME, ANY_TEXT, ANY_TEXT)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
FACTS = st.dictionaries(TEXT, JSON, max_size=3)
FOLDER = st.builds(
    Folder, PATH, TEXT, st.none() | st.builds(DirRef, TEXT, TEXT, PATH), st.sampled_from(Role), TIME,
    st.integers(0, 7).map(Accepts), FACTS,
)  # fmt: skip
ARTIFACT = st.builds(
    Artifact, PATH, TEXT, TEXT, st.sampled_from(ArtifactKind), st.none() | VERSION, st.booleans(), TIME, TIME, ANY_TEXT,
    st.booleans(), ANY_TEXT, ANY_TEXT, FACTS,
)  # fmt: skip
NOTE = st.builds(Note, PATH, TEXT, st.binary(max_size=40), TIME)


def facts_of(entry: Entry) -> dict[str, Any]:
    return {} if isinstance(entry, Note) else dict(entry.metadata)


@given(st.lists(FOLDER | ARTIFACT | NOTE, max_size=4))
def test_entries_come_back_as_they_were(entries: list[Entry]) -> None:
    """Every field of every kind of entry, and what the service said besides, which equality leaves out."""
    back = codec.Reader().entries(codec.pack_entries(entries))
    assert back == entries
    assert list(map(facts_of, back)) == list(map(facts_of, entries))
    # What is shown of them in artifact.json is the same text, key by key in the same order.
    assert [json.dumps(facts_of(entry)) for entry in back] == [json.dumps(facts_of(entry)) for entry in entries]


@given(st.lists(VERSION, max_size=4))
def test_versions_come_back_as_they_were(versions: list[Version]) -> None:
    """Every field of every kind of content."""
    assert codec.Reader().versions(codec.pack_versions(versions)) == versions


@given(st.lists(FOLDER | ARTIFACT | NOTE, max_size=4), st.data())
def test_what_is_damaged_is_not_read(entries: list[Entry], data: st.DataObject) -> None:
    """A flipped byte, a missing end, another format: ValueError and nothing else; never half of a listing."""
    packed = bytearray(codec.pack_entries(entries))
    at = data.draw(st.integers(0, len(packed) - 1))
    if data.draw(st.booleans()):
        packed[at] ^= data.draw(st.integers(1, 255))
    else:
        del packed[at:]
    with contextlib.suppress(ValueError):  # or else it is whole: a byte of zlib's header may mean nothing
        assert codec.Reader().entries(bytes(packed)) == entries


@pytest.mark.parametrize("row", [["a"], ["f", 1, 2], ["x"], 5, ["n"], []])
def test_rows_that_nobody_wrote_are_refused(row: Any) -> None:
    """What is well packed but has another shape is refused as a whole."""
    with pytest.raises(ValueError, match=r".*"):
        codec.Reader().entries(codec._pack([row]))


def test_equal_texts_are_shared() -> None:
    """100,000 artifacts of one workflow have one text for it."""
    made = [Artifact((f"{n}",), f"{n}", f"{n}", ArtifactKind.FILE, None, workflow="one of many") for n in range(2)]
    first, second = codec.Reader().entries(codec.pack_entries(made))
    assert isinstance(first, Artifact)
    assert isinstance(second, Artifact)
    assert first.workflow is second.workflow
