"""Syntropic137's answers as they come, and what can be relied on in them.

Rules of this file: pydantic at the wire edge, as lenient as can be. Unknown keys are ignored; a value of a
wrong type is taken as missing; only a row without a usable id is skipped, and counted. Strings pass
unchanged, lone surrogates included (JSON can carry them; pydantic's own strings refuse them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, PlainValidator, ValidationError

from artifactfs import errors
from artifactfs.providers.answers import error_body, parse_time_ns
from artifactfs.providers.syntropic.rows import ArtifactRow, SessionRow, WorkflowRow

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Real ids have 36 to 100 characters. Percent-encoding makes up to 12 bytes of one, and a request line has
# to stay below 8 KiB, which is where nginx stops reading.
MAX_ID = 512
MAX_SIZE = 2**63 - 1


def is_usable_id(value: object) -> bool:
    """Tell whether an id can be asked for: text for a URL, and no name that URLs resolve away."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or value in {".", ".."}:
        return False
    return not any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _identifier(value: object) -> str | None:
    return value if isinstance(value, str) and is_usable_id(value) else None


def _required(value: object) -> str:
    if not isinstance(value, str) or not is_usable_id(value):
        raise ValueError("not an id that can be asked for")
    return value


def _size(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_SIZE else None


def _label(value: object) -> str | None:
    """A filter value: null and "" are the same to the service."""
    return value if isinstance(value, str) and value else None


Required = Annotated[str, PlainValidator(_required)]
Identifier = Annotated[str | None, PlainValidator(_identifier)]
Text = Annotated[str | None, PlainValidator(_text)]
Label = Annotated[str | None, PlainValidator(_label)]
Count = Annotated[int | None, PlainValidator(_size)]
Anything = Annotated[Any, PlainValidator(lambda value: value)]


class _Artifact(BaseModel):
    id: Required
    workflow_id: Label = None
    phase_id: Label = None
    session_id: Identifier = None
    execution_id: Identifier = None
    artifact_type: Text = None
    title: Text = None
    size_bytes: Count = None
    created_at: Text = None


class _Session(BaseModel):
    id: Required
    workflow_id: Label = None
    execution_id: Identifier = None
    phase_id: Label = None
    status: Text = None
    started_at: Text = None
    completed_at: Text = None


class _Workflow(BaseModel):
    id: Required
    name: Text = None
    workflow_type: Text = None
    is_archived: Anything = False
    created_at: Text = None


class _Content(BaseModel):
    artifact_id: Text = None
    content: Anything = None
    size_bytes: Count = None


def says_what_is_missing(body: bytes) -> bool:
    """Tell whether a 404 is about an id: of a route that there is not, the service says "Not Found" and no more."""
    detail = (error_body(body) or {}).get("detail")
    return isinstance(detail, str) and detail not in {"", "Not Found"}


def artifact_row(value: object) -> ArtifactRow | None:
    """Return a list's row or a detail, None if it has no usable id."""
    try:
        read = _Artifact.model_validate(value)
    except ValidationError:
        return None
    return ArtifactRow(
        id=read.id,
        workflow_id=read.workflow_id,
        phase_id=read.phase_id,
        session_id=read.session_id,
        execution_id=read.execution_id,
        artifact_type=read.artifact_type,
        title=read.title,
        size=read.size_bytes,
        created_at=read.created_at,
        created_at_ns=parse_time_ns(read.created_at),
    )


def session_row(value: object) -> SessionRow | None:
    """Return a session, None if it has no usable id."""
    try:
        read = _Session.model_validate(value)
    except ValidationError:
        return None
    return SessionRow(
        id=read.id,
        workflow_id=read.workflow_id,
        execution_id=read.execution_id,
        phase_id=read.phase_id,
        status=read.status,
        started_at_ns=parse_time_ns(read.started_at),
        completed_at_ns=parse_time_ns(read.completed_at),
    )


def workflow_row(value: object) -> WorkflowRow | None:
    """Return a workflow, None if it has no usable id."""
    try:
        read = _Workflow.model_validate(value)
    except ValidationError:
        return None
    archived = read.is_archived is True
    return WorkflowRow(read.id, read.name, read.workflow_type, archived, parse_time_ns(read.created_at))


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One answer of a list.

    Attributes:
        rows: those with a usable id.
        given: how many rows the answer had.
        is_object: it was wrapped in an object, as lists are in the later generation.
        total: rows on all pages, where the answer says.
        page_size: rows on a full page, where the answer says.
    """

    rows: tuple[T, ...]
    given: int
    is_object: bool
    total: int | None
    page_size: int | None

    @property
    def skipped(self) -> int:
        """Return how many rows could not be read."""
        return self.given - len(self.rows)


def items_of(value: object, key: str) -> list[Any] | None:
    """Return the rows of a list that may be an array, or an object with the rows under ``key``; None if neither."""
    if isinstance(value, dict):
        value = value.get(key)
    return value if isinstance(value, list) else None


def page_of(value: object, key: str, read: Callable[[object], T | None]) -> Page[T]:
    """Return a list's answer.

    Raises:
        ProviderMisbehaved: it is no list.
    """
    items = items_of(value, key)
    if items is None:
        raise errors.ProviderMisbehaved(f"the answer has no list of {key}")
    rows = tuple(row for row in map(read, items) if row is not None)
    facts = value if isinstance(value, dict) else {}
    total, size = _size(facts.get("total")), _size(facts.get("page_size"))
    return Page(rows, len(items), isinstance(value, dict), total, size)


def content_bytes(value: object, artifact_id: str) -> bytes:
    """Return the bytes that an answer of the content endpoint holds.

    Raises:
        ProviderMisbehaved: it is no such answer, or that of another artifact.
        Unavailable: it says that there should be content, but has none.
        CorruptContent: the text has no bytes (lone surrogates).
    """
    try:
        read = _Content.model_validate(value)
    except ValidationError as error:
        raise errors.ProviderMisbehaved("the answer is no content", subject=artifact_id) from error
    if read.artifact_id not in {None, artifact_id}:
        raise errors.ProviderMisbehaved("the answer is the content of another artifact", subject=artifact_id)
    if isinstance(read.content, str):
        try:
            return read.content.encode("utf-8")
        except UnicodeEncodeError as error:
            message = "the content is text that cannot be encoded as UTF-8 (lone surrogates)"
            raise errors.CorruptContent(message, subject=artifact_id) from error
    if read.content is not None:
        raise errors.ProviderMisbehaved("the content is not text", subject=artifact_id)
    if read.size_bytes == 0:
        return b""
    raise errors.Unavailable("the service does not have the content yet", subject=artifact_id)
