"""A keyring for tests, of the library's own kind: `PYTHON_KEYRING_BACKEND=tests.support.ring.FileRing`.

What it keeps is in the file that `TEST_KEYRING` names, so that several processes have the same one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

ROOT = Path(__file__).resolve().parents[2]


class FileRing(KeyringBackend):
    """Keeps what it is given in a file."""

    priority = 5

    def _all(self) -> dict[str, Any]:
        path = Path(os.environ["TEST_KEYRING"])
        return json.loads(path.read_text()) if path.exists() else {}

    def _put(self, known: dict[str, Any]) -> None:
        Path(os.environ["TEST_KEYRING"]).write_text(json.dumps(known))

    def get_password(self, service: str, username: str) -> str | None:
        return self._all().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._put({**self._all(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        known = self._all()
        del known[f"{service}/{username}"]
        self._put(known)


class LockedRing(FileRing):
    """Is there, and gives and takes nothing."""

    def get_password(self, service: str, username: str) -> str | None:
        raise KeyringLocked(f"cannot be opened for {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise KeyringLocked(f"cannot take {password}")


class ForgetfulRing(FileRing):
    """Takes everything and keeps nothing."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Do nothing."""


def with_ring(environ: dict[str, str], home: Path, kind: type[FileRing] = FileRing) -> Path:
    """Have a keyring in an environment; return the file that it keeps everything in."""
    path = home / "keyring"
    environ |= {
        "PYTHON_KEYRING_BACKEND": f"{__name__}.{kind.__name__}", "TEST_KEYRING": str(path), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    return path
