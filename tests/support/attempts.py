"""Drafts and attempts as the journal would hand them to a publisher."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from artifactfs.providers.base import Attempt, Draft


@dataclass
class Tries:
    """What the journal remembers of one change; ``again`` is the same change after a failure or a kill."""

    is_first: bool = True
    facts: Mapping[str, str] = field(default_factory=dict)
    killed_before: str = ""
    """The fact before whose note the process is killed."""

    async def note(self, **facts: str) -> None:
        """Remember facts."""
        if self.killed_before in facts:
            raise KilledError
        self.facts = {**self.facts, **facts}

    def again(self) -> Tries:
        """Return the attempt of the next try."""
        return Tries(is_first=False, facts=dict(self.facts))


class KilledError(Exception):
    """Stands for the end of the process."""


_checked: Attempt = Tries()


def draft_of(directory: Path, data: bytes, *, base: bytes | None = None) -> Draft:
    """Return a sealed draft; ``base`` is the content that its writer had seen."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = directory / f"draft-{sha256[:16]}"
    path.write_bytes(data)
    seen = None if base is None else hashlib.sha256(base).hexdigest()
    return Draft(path, len(data), sha256, executable=False, mtime_ns=1, base_sha256=seen)
