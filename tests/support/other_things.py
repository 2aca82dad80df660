"""What may lie where a file should be."""

from __future__ import annotations

import os
from pathlib import Path


def put_in_place(path: Path, what: str) -> None:
    """Put it there; nothing is there before."""
    match what:
        case "a directory":
            path.mkdir()
            (path / "file").touch()
        case "a pipe":
            os.mkfifo(path)
        case "a link":
            path.symlink_to("/etc/hostname")
        case "a link to nowhere":
            path.symlink_to("nowhere")
        case _:
            raise ValueError(what)
