"""Uploaded files in the catalog: what is handed in for later runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from artifactfs.store.database import Database
from artifactfs.store.rows import Upload

if TYPE_CHECKING:
    from collections.abc import Sequence

UPLOAD_COLUMNS = "id, filename, purpose, size, sha256, md5, created_at, ready"


def _upload(row: Sequence[Any]) -> Upload:
    values = [*row[:7], bool(row[7])]
    return Upload(*values)


class Uploads(Database):
    """What the catalog knows of uploads."""

    def uploads(self) -> list[Upload]:
        """Return uploaded files, newest first, also those whose bytes have not come yet."""
        rows = self._all(f"SELECT {UPLOAD_COLUMNS} FROM upload ORDER BY created_at DESC, id")  # noqa: S608 - a constant
        return [_upload(row) for row in rows]

    def upload(self, upload_id: str) -> Upload | None:
        """Return one upload by id."""
        rows = self._all(
            f"SELECT {UPLOAD_COLUMNS} FROM upload WHERE id=?",  # noqa: S608 - a constant
            upload_id,
        )
        return _upload(rows[0]) if rows else None

    def put_upload(self, upload: Upload) -> None:
        """Keep an upload; one of that id is replaced."""
        values = (
            upload.id,
            upload.filename,
            upload.purpose,
            upload.size,
            upload.sha256,
            upload.md5,
            upload.created_at_ns,
            upload.ready,
        )
        with self.transaction() as db:
            db.execute(
                f"INSERT OR REPLACE INTO upload ({UPLOAD_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
                values,
            )

    def delete_upload(self, upload_id: str) -> None:
        """Forget an upload."""
        with self.transaction() as db:
            db.execute("DELETE FROM upload WHERE id=?", (upload_id,))
