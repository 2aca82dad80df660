"""What a client declares when it pushes a tree, checked.

Rules of this file: pure but for reading the store; whatever JSON comes in, what comes out is a ``Push`` or
``Refused``. Paths are refused that the upstream service would take (``..``, absolute ones, a file below a
file), because this server unpacks what it is sent.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from artifactfs import errors
from artifactfs.server.vm0_unpack import Declared, safe_path
from artifactfs.server.vm0_wire import Refused
from artifactfs.store.rows import content_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import StoredArtifact

# The service's limits: of a name (its column), of one file and of all together in bytes, of files in a
# version (service source, March to August 2026).
MAX_NAME = 64
MAX_BYTES = 100 * 1024 * 1024
MAX_FILES = 50_000
HASH = re.compile(r"[0-9a-f]{64}")
NO_FILES: Mapping[str, Declared] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Push:
    """A prepare or a commit.

    Attributes:
        name, role: of the storage.
        files: what the version holds, by path.
        version_id: what a commit says it commits; empty in a prepare.
        force: upload again although the content is known.
        run_id, message: who and why, of a commit.
        base_version: a version that ``files`` only adds to, less ``deleted``; empty if ``files`` is all.
    """

    name: str
    role: str
    files: Mapping[str, Declared]
    version_id: str = ""
    force: bool = False
    run_id: str | None = None
    message: str | None = None
    base_version: str = ""
    deleted: frozenset[str] = frozenset()


def _text(body: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise Refused(400, f"{key} must be a string", "BAD_REQUEST")
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        raise Refused(400, f"{key} is not valid text", "BAD_REQUEST") from error
    return value


def _declared(row: object) -> tuple[str, Declared]:
    given = row if isinstance(row, dict) else {}
    path, sha256, size = given.get("path"), given.get("hash"), given.get("size")
    if not isinstance(path, str) or not isinstance(sha256, str) or not HASH.fullmatch(sha256):
        raise Refused(400, "a file needs a path and a hash of 64 hex digits", "BAD_REQUEST")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise Refused(400, "the size of a file must be a number of bytes", "BAD_REQUEST")
    try:
        is_plain = safe_path(path) == path != ""
    except errors.CorruptContent:
        is_plain = False
    if not is_plain:
        raise Refused(400, f"the path {path!r:.100} is not a plain relative path", "BAD_REQUEST")
    if size > MAX_BYTES:
        raise Refused(413, f"{path!r:.100} is larger than {MAX_BYTES} bytes", "PAYLOAD_TOO_LARGE")
    return path, Declared(sha256, size)


def _files(rows: object) -> Mapping[str, Declared]:
    if not isinstance(rows, list):
        raise Refused(400, "files must be a list", "BAD_REQUEST")
    if len(rows) > MAX_FILES:
        raise Refused(413, f"a version has at most {MAX_FILES} files", "PAYLOAD_TOO_LARGE")
    files = dict(_declared(row) for row in rows)
    if len(files) != len(rows):
        raise Refused(400, "a path is declared twice", "BAD_REQUEST")
    if sum(file.size for file in files.values()) > MAX_BYTES:
        raise Refused(413, f"the files are larger than {MAX_BYTES} bytes together", "PAYLOAD_TOO_LARGE")
    for path in files:
        parent = posixpath.dirname(path)
        while parent:
            if parent in files:
                raise Refused(400, f"{path!r:.100} is below a file", "BAD_REQUEST")
            parent = posixpath.dirname(parent)
    return files


def read_push(body: Mapping[str, Any]) -> Push:
    """Return what a request declares.

    Raises:
        Refused: 400 for what is malformed, 413 for what is too large.
    """
    name, role = _text(body, "storageName") or "", _text(body, "storageType") or ""
    if not 0 < len(name) <= MAX_NAME or "\0" in name:
        raise Refused(400, f"storageName must have 1 to {MAX_NAME} characters", "BAD_REQUEST")
    if role not in {"artifact", "volume"}:
        raise Refused(400, "storageType must be 'volume' or 'artifact'", "BAD_REQUEST")
    changes = body.get("changes")
    deleted = changes.get("deleted") if isinstance(changes, dict) else None
    gone = [path for path in deleted if isinstance(path, str)] if isinstance(deleted, list) else []
    return Push(
        name,
        role,
        _files(body.get("files")),
        _text(body, "versionId") or "",
        body.get("force") is True,
        _text(body, "runId"),
        _text(body, "message"),
        _text(body, "baseVersion") or "",
        frozenset(gone),
    )


def version_id(store: Store, artifact: StoredArtifact, push: Push) -> str:
    """Return the id of the version that the declared files make, on top of the base version if one is named.

    A base that is not known is ignored, as the service does.
    """
    files = {path: file.sha256 for path, file in push.files.items()}
    base = next((v for v in store.versions(artifact.id) if push.base_version and v.id == push.base_version), None)
    if base is not None:
        for file in store.tree(artifact.id, base.seq):
            if file.sha256 and file.path not in push.deleted:
                files.setdefault(file.path, file.sha256)
    return content_id(artifact.uuid, files.items())
