"""What requests to the Syntropic137 dialect may hold.

Rules of this file: pydantic models only. The service validates with pydantic too (service source, May
2026), so the texts of a 422 come out as its own: unknown names in a query are ignored, unknown keys of a
body refused.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictStr

# Where the numbers come from: the service's OpenAPI description, v0.18.0, and its source, May 2026.
MAX_ROWS = 200
MAX_PAGE_SIZE = 100

Rows = Annotated[int, Field(ge=1, le=MAX_ROWS)]
Page = Annotated[int, Field(ge=1)]
PageSize = Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE)]


class ArtifactsQuery(BaseModel):
    """``GET /artifacts`` up to 0.25.4."""

    workflow_id: str | None = None
    phase_id: str | None = None
    artifact_type: str | None = None
    limit: Rows = 50


class PagedArtifactsQuery(BaseModel):
    """``GET /artifacts`` of the later generation; ``limit`` is its old name of ``page_size``."""

    workflow_id: str | None = None
    phase_id: str | None = None
    artifact_type: str | None = None
    session_id: str | None = None
    q: str | None = None
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    page: Page = 1
    page_size: Rows | None = None
    limit: Rows | None = None


class DetailQuery(BaseModel):
    """``GET /artifacts/{id}``."""

    include_content: bool = True


class WorkflowsQuery(BaseModel):
    """``GET /workflows``."""

    page: Page = 1
    page_size: PageSize = 20


class ExecutionsQuery(BaseModel):
    """``GET /executions``."""

    status: str | None = None
    page: Page = 1
    page_size: PageSize = 50


class SessionsQuery(BaseModel):
    """``GET /sessions``; the times are read by hand, as the service does."""

    workflow_id: str | None = None
    status: str | None = None
    statuses: str | None = None
    started_after: str | None = None
    started_before: str | None = None
    limit: Rows = 50


class CreateBody(BaseModel):
    """``POST /artifacts``."""

    model_config = ConfigDict(extra="forbid")

    workflow_id: StrictStr
    artifact_type: StrictStr
    title: StrictStr
    content: StrictStr
    phase_id: StrictStr | None = None
    session_id: StrictStr | None = None
    content_type: StrictStr = "text/markdown"


class UpdateBody(BaseModel):
    """``PUT /artifacts/{id}``; that one must be given is checked where it is used (400, not 422)."""

    model_config = ConfigDict(extra="forbid")

    title: StrictStr | None = None
    metadata: dict[str, Any] | None = None
    is_primary_deliverable: bool | None = None
