"""What VLM Run's answers hold, as far as it is used.

Rules of this file: lenient. Unknown keys are ignored, a field of the wrong type counts as absent, so that
one odd row costs only itself. Shapes are those of the Python SDK 0.9.2; where the service is known to
differ, it says so here.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError

# Files larger than this do not exist: it is what a 64-bit offset can reach.
MAX_SIZE = 2**63 - 1


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _size(value: object) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and isinstance(value, int) and 0 <= value <= MAX_SIZE else None


def _mapping(value: object) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


# Plain validators: pydantic itself would refuse the lone surrogates that a JSON string can hold.
Text = Annotated[str | None, PlainValidator(_text)]
ByteCount = Annotated[int | None, PlainValidator(_size)]
Object = Annotated[dict[str, Any] | None, PlainValidator(_mapping)]
Anything = Annotated[Any, PlainValidator(lambda value: value)]


class Row(BaseModel):
    """One row of an answer."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Execution(Row):
    """A run of an agent. ``status`` may be a word that the SDK does not know (the dashboard has ``cancelled``)."""

    id: Text = None
    name: Text = None
    status: Text = None
    created_at: Text = None
    completed_at: Text = None
    execution_mode: Text = None
    response: Anything = None
    usage: Object = None


class ListedObject(Row):
    """One artifact of a session or execution; the service gives no size, type, time or hash."""

    object_id: Text = None
    filename: Text = None
    source: Text = None


class File(Row):
    """An uploaded file."""

    id: Text = None
    filename: Text = None
    bytes: ByteCount = None
    purpose: Text = None
    created_at: Text = None
    public_url: Text = None


class UploadLink(Row):
    """An address that takes the bytes of a file that has an id already."""

    id: Text = None
    url: Text = None
    filename: Text = None
    content_type: Text = None


R = TypeVar("R", bound=Row)


def rows_of(kind: type[R], values: list[Any]) -> tuple[list[R], int]:
    """Return the rows that are objects, and how many were none."""
    rows: list[R] = []
    for value in values:
        try:
            rows.append(kind.model_validate(value))
        except ValidationError:
            continue
    return rows, len(values) - len(rows)
