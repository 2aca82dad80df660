"""From VLM Run's rows to the values the core works with.

Rules of this file: pure. Ids of folders carry their kind, so that an agent called ``files`` is not taken
for the folder of that name. An object's id repeats between runs, so its key names the run too.
"""

from __future__ import annotations

import contextlib
import json
import math
import mimetypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from artifactfs import errors
from artifactfs.model.codec import packed
from artifactfs.model.content import Access, ContentRef, Exact, Size, Unknown
from artifactfs.model.entry import Accepts, Artifact, ArtifactKind, DirRef, Folder, Note, Role, SingleFile, Version
from artifactfs.providers.answers import parse_time_ns
from artifactfs.providers.vlmrun import names, refs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from artifactfs.providers.vlmrun.api import Namespace
    from artifactfs.providers.vlmrun.schemas import Execution, File, ListedObject

# Executions that will not change any more; `cancelled` is shown by the dashboard though the SDK does not
# know it.
SETTLED = frozenset({"completed", "failed", "cancelled", "canceled"})
# An artifact named in a finished response may be ready only later (an independent client waits up to ten
# minutes).
GRACE_NS = 600 * 10**9
# How long a listing is believed that may still grow, in seconds. Following one run costs two requests each
# time, of the ten a minute that the cheapest plan allows.
UNSETTLED_TTL_S = 30.0
# A response is indented as long as that adds no more than so many times what it has on one line: tables of short
# numbers in a few levels stay below 4; 50,000 zeros 600 levels deep came to 400 (60 MB and a second, measured).
SPREAD = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where objects were found: what they are asked for by, and what is said of them."""

    source: str
    namespace: Namespace
    workflow: str
    at_ns: int | None = None

    @property
    def key(self) -> str:
        """Return the part of the key that tells this place from others."""
        return self.namespace.id if self.namespace.kind == "execution" else f"session/{self.namespace.id}"


def _escaped(text: str) -> str:
    """Return a text as it is if it is one, else its escapes: a lone surrogate is no part of an id."""
    return text if names.can_be_sent(text) else text.encode("unicode_escape").decode("ascii")


# -- folders -----------------------------------------------------------------------------------------------


def agent_folder(name: str, mtime_ns: int | None) -> Folder:
    """Return the folder of an agent; the listing that holds it says all of its runs."""
    return Folder((name,), f"agent/{_escaped(name)}", role=Role.WORKFLOW, mtime_ns=mtime_ns)


def special_folder(source: str, kind: str) -> Folder:
    """Return ``sessions`` or ``files``."""
    accepts = Accepts.FILES if kind == "files" else Accepts.NOTHING
    return Folder((kind,), kind, ref=DirRef(source, kind), role=Role.WORKFLOW, accepts=accepts)


def session_folder(source: str, session_id: str, mtime_ns: int | None) -> Folder:
    """Return the folder of a session."""
    ref = DirRef(source, "session", (session_id,))
    return Folder((session_id,), f"session/{session_id}", ref=ref, role=Role.RUN, mtime_ns=mtime_ns)


def ended_ns(row: Execution) -> int | None:
    """Return when an execution ended, else when it began."""
    return parse_time_ns(row.completed_at) or parse_time_ns(row.created_at)


def execution_folder(source: str, row: Execution) -> Folder:
    """Return the folder of an execution whose id is usable."""
    agent, version = names.agent(row.name)
    run_id = row.id or ""
    said = {
        "name": row.name,
        "agent_version": version,
        "status": row.status,
        "created_at": row.created_at,
        "completed_at": row.completed_at,
        "execution_mode": row.execution_mode,
        "usage": row.usage,
    }
    metadata = {key: value for key, value in said.items() if value is not None}
    ref = DirRef(source, "run", (run_id,))
    return Folder((agent, run_id), run_id, ref=ref, role=Role.RUN, mtime_ns=ended_ns(row), metadata=metadata)


def is_settled(row: Execution) -> bool:
    """Tell whether an execution will not change any more."""
    return row.status in SETTLED


def run_ttl_s(row: Execution, now_ns: int) -> float:
    """Return how long a run's listing is to be believed, in seconds: for ever once its grace is over."""
    ended = ended_ns(row)
    over = is_settled(row) and ended is not None and now_ns - ended > GRACE_NS
    return math.inf if over else UNSETTLED_TTL_S


# -- what is in them -----------------------------------------------------------------------------------------


def of_response(row: Execution, max_bytes: int) -> tuple[list[refs.Found], Note | None]:
    """Return what an execution's response names, and itself as a file; in a thread: it may be as large as an answer."""
    return refs.scan(row.response), response_note(row, max_bytes)


def response_note(row: Execution, max_bytes: int) -> Note | None:
    """Return an execution's response as a file, None if it gave none.

    It is indented if it stays below ``max_bytes`` then, and below a few times its size.
    """
    if row.response is None:
        return None
    return Note(("response.json",), f"{row.id}/response", _shown(row.response, max_bytes), ended_ns(row))


def _shown(value: object, max_bytes: int) -> bytes:
    """Return JSON for people; what is too deep to indent, or no valid UTF-8, comes plainer."""
    plain, ascii_only = _plain(value)
    allowed = min(SPREAD * len(plain), max_bytes - len(plain) - 1)
    if _indentation(value, allowed) <= allowed:
        with contextlib.suppress(RecursionError):
            plain = json.dumps(value, indent=2, ensure_ascii=ascii_only).encode()
    return plain + b"\n"


def _plain(value: object) -> tuple[bytes, bool]:
    """Return a value on one line, and whether it had to be ASCII."""
    for ascii_only in (False, True):
        try:
            return json.dumps(value, ensure_ascii=ascii_only).encode(), ascii_only
        except UnicodeEncodeError:
            continue
        except RecursionError:
            break
    message = "the response is nested too deep"
    raise errors.ProviderMisbehaved(message)


def _indentation(value: object, enough: int) -> int:
    """Return by how many bytes a value is longer when it is indented by 2; counts to ``enough`` and a little more."""
    longer, waiting = 0, [(value, 1)]
    while waiting and longer <= enough:
        outer, depth = waiting.pop()
        inner: Collection[Any] = outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ()
        if inner:
            # For each value a line break in place of the space behind a comma; one more before the closing bracket.
            longer += 2 * depth * (len(inner) + 1)
            waiting.extend((item, depth + 1) for item in inner if isinstance(item, dict | list))
    return longer


def objects(place: Place, rows: Iterable[ListedObject], found: Sequence[refs.Found]) -> tuple[list[Artifact], int]:
    """Return the artifacts of a namespace, and how many rows name nothing that could be asked for.

    Those listed come first; those that only the response names follow.
    """
    artifacts: dict[str, Artifact] = {}
    dropped = 0
    for row in rows:
        artifact = _listed(place, row)
        if artifact is None:
            dropped += 1
        elif artifact.key not in artifacts or (row.filename and not artifacts[artifact.key].metadata["filename"]):
            artifacts[artifact.key] = artifact
    for ref in found:
        path = names.object_path(ref.object_id, None, ref.extension)
        metadata = {"object_id": ref.object_id, "filename": None, "source": "response", "field": ref.where}
        artifact = _artifact(place, ref.object_id, path, metadata)
        artifacts.setdefault(artifact.key, artifact)
    return list(artifacts.values()), dropped


def _listed(place: Place, row: ListedObject) -> Artifact | None:
    """Return the artifact of a row: asked for by its id if that is a reference, else by its filename."""
    reference = refs.split(row.object_id) if row.object_id else None
    metadata = {"object_id": row.object_id, "filename": row.filename, "source": row.source}
    if reference:
        object_id, extension = reference
        return _artifact(place, object_id, names.object_path(object_id, row.filename, extension), metadata)
    wanted = row.filename or row.object_id
    if not wanted or not names.can_be_sent(wanted):
        return None
    return _artifact(place, wanted, names.path_of(wanted), metadata, by_name=row.filename is not None)


def _artifact(
    place: Place, wanted: str, path: tuple[str, ...], metadata: dict[str, Any], *, by_name: bool = False
) -> Artifact:
    prefix = refs.prefix(wanted)
    key = f"{place.key}/{wanted}"
    kind = "name" if by_name else "url" if prefix == "url" else "object"
    locator = (kind, place.namespace.kind, place.namespace.id, wanted)
    content = ContentRef(place.source, key, locator, Unknown(), Access.RANGED)
    media_type = mimetypes.guess_type(path[-1])[0] or refs.DEFAULTS.get(prefix, ("", ""))[1] or None
    return Artifact(
        path,
        wanted,
        key,
        ArtifactKind.FILE,
        Version(key, SingleFile(content), file_count=1, created_at_ns=place.at_ns),
        only_version=True,
        created_at_ns=place.at_ns,
        updated_at_ns=place.at_ns,
        media_type=media_type,
        workflow=place.workflow,
        run=place.namespace.id,
        metadata=packed({**metadata, f"{place.namespace.kind}_id": place.namespace.id}),
    )


def file_content(source: str, row: File) -> ContentRef:
    """Return what names the bytes of an uploaded file that has an id."""
    size: Size = Unknown() if row.bytes is None else Exact(row.bytes)
    return ContentRef(source, f"file/{row.id}", ("file", row.id or ""), size, Access.RANGED)


def file_artifact(source: str, row: File) -> Artifact | None:
    """Return the artifact of an uploaded file, None if its id cannot be asked for."""
    if row.id is None or not refs.UUID.fullmatch(row.id):
        return None
    at_ns = parse_time_ns(row.created_at)
    content = file_content(source, row)
    size, key = content.size, content.key
    # One title, slashes and all: uploads have no folders.
    name = row.filename or row.id
    metadata = {
        "filename": row.filename,
        "bytes": row.bytes,
        "purpose": row.purpose,
        "created_at": row.created_at,
    }
    return Artifact(
        (name,),
        row.id,
        key,
        ArtifactKind.FILE,
        Version(key, SingleFile(content), size, file_count=1, created_at_ns=at_ns),
        only_version=True,
        created_at_ns=at_ns,
        updated_at_ns=at_ns,
        media_type=mimetypes.guess_type(name)[0],
        writable=True,
        workflow="files",
        metadata=packed(metadata),
    )
