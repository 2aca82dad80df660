"""Work of a mount that may take longer than one answer: begun, and asked about until it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifactfs.cli import client


def worked(mountpoint: Path, *, verb: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Have a mount do something and return what came of it, however long it takes.

    Raises:
        Unreachable: its process does not answer.
        InvalidRequest: it says no.
    """
    answer = client.ask(mountpoint, verb=verb, **request)
    while not answer["done"]:
        answer = client.ask(mountpoint, verb=verb, work=answer["work"])
    return answer
