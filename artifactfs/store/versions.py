"""Versions and trees in the catalog.

Rules of this file: versions are numbered 1, 2, 3 … per artifact without gaps and never change; their times
rise with their numbers unless a caller gives times of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from artifactfs import errors
from artifactfs.store.artifacts import ARTIFACT_COLUMNS, ARTIFACT_WIDTH, Artifacts, artifact_of
from artifactfs.store.database import now_ns
from artifactfs.store.rows import StoredArtifact, StoredVersion, TreeFile, content_id
from artifactfs.store.trees import extras, shape

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION_COLUMNS = "artifact_id, seq, id, sha256, executable, size, file_count, message, created_by, created_at, extras"


def _version(row: Sequence[Any]) -> StoredVersion:
    values = [*row[:4], bool(row[4]), *row[5:]]
    return StoredVersion(*values)


def _of_table(table: str, columns: str) -> str:
    return ", ".join(f"{table}.{column.strip()}" for column in columns.split(","))


class Versions(Artifacts):
    """What the catalog knows of versions and of the trees in them."""

    def versions(self, artifact_id: str) -> list[StoredVersion]:
        """Return all versions, oldest first."""
        rows = self._all(
            f"SELECT {VERSION_COLUMNS} FROM version WHERE artifact_id=? ORDER BY seq",  # noqa: S608 - a constant
            artifact_id,
        )
        return [_version(row) for row in rows]

    def version(self, artifact_id: str, seq: int) -> StoredVersion | None:
        """Return one version."""
        rows = self._all(
            f"SELECT {VERSION_COLUMNS} FROM version WHERE artifact_id=? AND seq=?",  # noqa: S608 - a constant
            artifact_id,
            seq,
        )
        return _version(rows[0]) if rows else None

    def present(self, workflow_id: str) -> list[tuple[StoredArtifact, StoredVersion | None]]:
        """Return a workflow's artifacts, oldest first, each with its current version, in one query."""
        rows = self._all(
            f"SELECT {_of_table('a', ARTIFACT_COLUMNS)}, {_of_table('v', VERSION_COLUMNS)}"  # noqa: S608 - constants
            " FROM artifact a LEFT JOIN version v ON v.artifact_id=a.id AND v.seq=a.current"
            " WHERE a.workflow_id=? AND NOT a.deleted ORDER BY a.created_at, a.id",
            workflow_id,
        )
        return [
            (artifact_of(row), None if row[ARTIFACT_WIDTH] is None else _version(row[ARTIFACT_WIDTH:])) for row in rows
        ]

    def tree(self, artifact_id: str, seq: int) -> list[TreeFile]:
        """Return the files of a version that is a tree, by path."""
        rows = self._all(
            "SELECT path, sha256, size, executable, mtime, target FROM tree_file"
            " WHERE artifact_id=? AND seq=? ORDER BY path",
            artifact_id,
            seq,
        )
        return [TreeFile(r[0], r[1], r[2], bool(r[3]), r[4], r[5]) for r in rows]

    def objects_of(self, artifact_id: str, seq: int) -> set[str]:
        """Return the hashes of the files of a version that is a tree."""
        rows = self._all("SELECT DISTINCT sha256 FROM tree_file WHERE artifact_id=? AND seq=?", artifact_id, seq)
        return {sha256 for (sha256,) in rows if sha256}

    def is_empty_tree(self, artifact_id: str, seq: int) -> bool:
        """Tell whether a version has no entry at all, neither file nor directory nor symlink."""
        return not self._all("SELECT 1 FROM tree_file WHERE artifact_id=? AND seq=? LIMIT 1", artifact_id, seq)

    def save_file(
        self,
        artifact_id: str,
        sha256: str,
        size: int,
        *,
        executable: bool = False,
        message: str | None = None,
        created_by: str = "user",
        created_at_ns: int | None = None,
    ) -> StoredVersion:
        """Make the next version of a file from an object that is here; the current one if it says the same.

        Raises:
            NotFound: there is no such artifact.
            IsADirectory: it is a tree.
        """
        with self.transaction():
            artifact = self._known(artifact_id, "file")
            current = self.version(artifact.id, artifact.current)
            if current and (current.sha256, current.executable) == (sha256, executable):
                return current
            return self._append(
                artifact,
                id=content_id(artifact.uuid, [(artifact.name, sha256)]),
                sha256=sha256,
                executable=executable,
                size=size,
                file_count=1,
                message=message,
                created_by=created_by,
                created_at_ns=created_at_ns,
                extras=extras([TreeFile(artifact.name, sha256, size, executable)]),
            )

    def save_tree(
        self,
        artifact_id: str,
        files: Sequence[TreeFile],
        *,
        message: str | None = None,
        created_by: str = "user",
        created_at_ns: int | None = None,
    ) -> StoredVersion:
        """Make the next version of a tree; the current one if it has the same files, times aside.

        Raises:
            NotFound: there is no such artifact.
            NotADirectory: it is a single file.
            AlreadyExists: a path occurs twice.
        """
        with self.transaction() as db:
            artifact = self._known(artifact_id, "tree")
            regular = [(file.path, file.sha256) for file in files if file.sha256]
            name = content_id(artifact.uuid, regular)
            current = self.version(artifact.id, artifact.current)
            if current and self._says(current, name, files):
                return current
            version = self._append(
                artifact,
                id=name,
                sha256=None,
                executable=False,
                size=sum(file.size for file in files if file.sha256),
                file_count=len(regular),
                message=message,
                created_by=created_by,
                created_at_ns=created_at_ns,
                extras=extras(files),
            )
            db.executemany(
                "INSERT INTO tree_file VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (artifact.id, version.seq, f.path, f.sha256, f.size, f.executable, f.mtime_ns, f.target)
                    for f in sorted(files, key=lambda file: file.path)  # in the order of the table's key
                ],
            )
            return version

    def is_tree(self, artifact_id: str, seq: int, files: Sequence[TreeFile]) -> bool:
        """Tell whether there is such a version and it holds exactly these files, times aside."""
        artifact, version = self.artifact(artifact_id), self.version(artifact_id, seq)
        if artifact is None or version is None:
            return False
        name = content_id(artifact.uuid, [(file.path, file.sha256) for file in files if file.sha256])
        return self._says(version, name, files)

    def _says(self, version: StoredVersion, name: str, files: Sequence[TreeFile]) -> bool:
        # Its name tells most trees apart: the rows are read only to be sure.
        return version.id == name and shape(self.tree(version.artifact_id, version.seq)) == shape(files)

    def set_current(self, artifact_id: str, seq: int) -> None:
        """Make a known version the present one.

        Raises:
            NotFound: the artifact has no such version.
        """
        with self.transaction() as db:
            if self.version(artifact_id, seq) is None:
                raise errors.NotFound(f"no version {seq} of {artifact_id}", subject=artifact_id)
            db.execute("UPDATE artifact SET current=?, updated_at=? WHERE id=?", (seq, now_ns(), artifact_id))

    def _known(self, artifact_id: str, kind: str) -> StoredArtifact:
        artifact = self.artifact(artifact_id)
        if artifact is None:
            raise errors.NotFound(f"no artifact {artifact_id}", subject=artifact_id)
        if artifact.kind != kind:
            error = errors.IsADirectory if artifact.kind == "tree" else errors.NotADirectory
            raise error(f"{artifact_id} is a {artifact.kind}", subject=artifact_id)
        return artifact

    def _append(
        self,
        artifact: StoredArtifact,
        *,
        created_at_ns: int | None,
        **columns: Any,  # noqa: ANN401 - the other fields of StoredVersion
    ) -> StoredVersion:
        ((last, newest),) = self._all(
            "SELECT coalesce(max(seq), 0), coalesce(max(created_at), 0) FROM version WHERE artifact_id=?",
            artifact.id,
        )
        # A clock that was set back must not make the newest version look older than the one before.
        at = created_at_ns or max(now_ns(), newest + 1)
        version = StoredVersion(artifact_id=artifact.id, seq=last + 1, created_at_ns=at, **columns)
        values = (
            version.artifact_id,
            version.seq,
            version.id,
            version.sha256,
            version.executable,
            version.size,
            version.file_count,
            version.message,
            version.created_by,
            version.created_at_ns,
            version.extras,
        )
        with self.transaction() as db:
            db.execute(
                f"INSERT INTO version ({VERSION_COLUMNS}) VALUES ({', '.join('?' * len(values))})",  # noqa: S608 - a constant
                values,
            )
            db.execute(
                "UPDATE artifact SET current=?, updated_at=? WHERE id=?",
                (version.seq, version.created_at_ns, version.artifact_id),
            )
        return version
