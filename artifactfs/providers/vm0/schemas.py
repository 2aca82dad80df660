"""VM0's answers as they come over the wire.

Rules of this file: lenient. Both spellings are accepted (camelCase since 27 January 2026, snake_case
before: service source), unknown keys are ignored, an optional field of the wrong type counts as absent; a
row without its id, or in /api/storages its name, is no row.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

# Sizes travel to the kernel as signed 64-bit numbers.
MAX_COUNT = 2**63 - 1
# Characters; ids travel in paths, and servers take paths of some thousand bytes.
MAX_ID = 1024


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _id(value: object) -> str:
    """Take nothing but text: an id that was made of a number would not be found again."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        message = "an id must be text"
        raise ValueError(message)
    return value


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return value if is_count else None  # type: ignore[return-value]  # is_count says it is an int


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


# PlainValidator: pydantic's own check of text refuses lone surrogates, which JSON can carry and titles do.
Text = Annotated[str | None, PlainValidator(_text)]
Count = Annotated[int | None, PlainValidator(_count)]
Flag = Annotated[bool | None, PlainValidator(_flag)]
Id = Annotated[str, PlainValidator(_id)]


def _both(camel: str, snake: str) -> Any:  # noqa: ANN401 - what pydantic's Field returns
    return Field(default=None, validation_alias=AliasChoices(camel, snake))


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class VersionRow(_Row):
    """One version; ``size`` is the sum of its files, uncompressed, in bytes."""

    id: Id
    size: Count = None
    file_count: Count = _both("fileCount", "file_count")
    message: Text = None
    created_by: Text = _both("createdBy", "created_by")
    created_at: Text = _both("createdAt", "created_at")


class ArtifactRow(_Row):
    """One artifact or volume.

    ``size`` and ``file_count`` can be those of an earlier version: when a push moves the present to content
    that is already known, the service does not write them again (service source, 2026). Those of
    ``current_version`` are true.
    """

    id: Id
    name: Text = None
    current_version_id: Text = _both("currentVersionId", "current_version_id")
    current_version: Annotated[VersionRow | None, PlainValidator(lambda value: read(VersionRow, value))] = _both(
        "currentVersion", "current_version"
    )
    size: Count = None
    file_count: Count = _both("fileCount", "file_count")
    created_at: Text = _both("createdAt", "created_at")
    updated_at: Text = _both("updatedAt", "updated_at")


class Pagination(_Row):
    """Whether there is more, and where."""

    has_more: Flag = _both("hasMore", "has_more")
    next_cursor: Text = _both("nextCursor", "next_cursor")


class StorageRow(_Row):
    """One row of /api/storages/list; there is no id and no version in it."""

    name: Id
    size: Count = None
    file_count: Count = _both("fileCount", "file_count")
    updated_at: Text = _both("updatedAt", "updated_at")


class StorageDownload(_Row):
    """Where a version is, from /api/storages/download; without ``url`` if it is empty."""

    version_id: Id = Field(validation_alias=AliasChoices("versionId", "version_id"))
    url: Text = None
    empty: Flag = None
    file_count: Count = _both("fileCount", "file_count")
    size: Count = None


class UploadLink(_Row):
    """Where one of the two objects of a version is to be put."""

    presigned_url: Text = _both("presignedUrl", "presigned_url")


def _nested(kind: type[_Row]) -> Any:  # noqa: ANN401 - what pydantic's validator is
    return PlainValidator(lambda value: read(kind, value))


class Uploads(_Row):
    """Where a version is to be put."""

    archive: Annotated[UploadLink | None, _nested(UploadLink)] = None
    manifest: Annotated[UploadLink | None, _nested(UploadLink)] = None


class Prepared(_Row):
    """What /api/storages/prepare says: the version's id, and links unless it is there already."""

    version_id: Id = Field(validation_alias=AliasChoices("versionId", "version_id"))
    existing: Flag = None
    uploads: Annotated[Uploads | None, _nested(Uploads)] = None


class Committed(_Row):
    """What /api/storages/commit says."""

    version_id: Id = Field(validation_alias=AliasChoices("versionId", "version_id"))
    success: Flag = None


RowT = TypeVar("RowT", bound=_Row)


def read(kind: type[RowT], value: object) -> RowT | None:
    """Return one row, None if it cannot be one."""
    try:
        return kind.model_validate(value)
    except (ValidationError, RecursionError):
        return None
