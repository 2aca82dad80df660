"""What ``status``, ``why`` and ``log`` say about a running mount."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import artifactfs
from artifactfs import errors, observe
from artifactfs.content.block_store import BlockStore
from artifactfs.journal.staging import Staging
from artifactfs.tree.nodes import Kind
from artifactfs.tree.versions import iso
from artifactfs.vfs import facts_of
from artifactfs.vfs.filesystem import FileSystem
from artifactfs.vfs.sources import Source


@dataclass(slots=True)
class Status:
    """The state of one mount, as values."""

    mountpoint: Path
    sources: Mapping[str, Source]
    observer: observe.Observer
    store: BlockStore
    staging: Staging
    fs: FileSystem | None = None
    started_at: float = field(default_factory=time.time)

    def snapshot(self) -> dict[str, Any]:
        """Return everything; no I/O at any service."""
        fs = self.fs
        listings = fs.directories.listings.report() if fs else []
        return {
            "version": artifactfs.__version__,
            "mountpoint": str(self.mountpoint),
            "pid": os.getpid(),
            "started_at": iso(int(self.started_at * 1e9)),
            "inodes": len(fs.inodes) if fs else 0,
            "handles": len(fs.handles) if fs else 0,
            "cache": {
                "directory": str(self.store.root.parent),
                "used_bytes": self.store.used_bytes(),
                "max_bytes": self.store.max_bytes,
            },
            "archives": self._archives(),
            "pending": self._pending(),
            "sources": [self._source(source, listings) for source in self.sources.values()],
            "errors": [
                {
                    **incident.as_dict(),
                    "time": datetime.fromtimestamp(incident.at, tz=UTC).isoformat(timespec="seconds"),
                }
                for incident in self.observer.incidents
            ],
        }

    def _archives(self) -> list[dict[str, Any]]:
        if self.fs is None:
            return []
        progress = self.fs.content.archives.progress
        return [{"archive": key, "bytes": done, "files": seen} for key, (done, seen) in progress.items()]

    def _pending(self) -> list[str]:
        if self.fs is None:
            return []
        overlay = self.fs.writer.overlay
        return [
            self.fs.path_of(node) for node in map(self.fs.inodes.get, overlay.staged) if node is not None
        ]  # fmt: skip

    def _source(self, source: Source, listings: list[dict[str, Any]]) -> dict[str, Any]:
        counters = self.observer.counters(source.name)
        return {
            "name": source.name,
            "service": source.provider.service,
            "state": self._state(counters),
            "writable": source.provider.publisher is not None,
            "server": source.provider.describe(),
            "counters": counters.as_dict(),
            "listings": [row for row in listings if row["source"] == source.name],
        }

    @staticmethod
    def _state(counters: observe.SourceCounters) -> str:
        """Return ``ok`` or, if the last thing that happened was a failure, what it was."""
        incident = counters.last_incident
        if incident is None or (counters.last_success or 0) > incident.at:
            return "ok"
        return incident.message

    async def why(self, path: str) -> dict[str, Any]:
        """Explain a path below the mount point: what it is, how old, what last went wrong with it."""
        fs = self._running()
        answer: dict[str, Any] = {"path": path, "exists": True}
        try:
            node = await fs.walk(path)
        except errors.ArtifactFSError as error:
            answer.update(exists=False, error=type(error).__name__, message=str(error), status=error.status)
            node = None
        if node is not None:
            source = self.sources.get(node.source)
            answer["kind"] = node.kind.value
            answer["source"] = node.source or None
            answer.update(facts_of.describe(node, source.provider.service if source else "", fs.content))
            if node.kind is Kind.FILE:
                answer["size"] = fs.shown_size(node)
                answer["size_is"] = facts_of.size_known(node)
            answer["modified"] = iso(node.mtime_ns)
            ref = fs.listing_of(node)
            age = fs.directories.listings.age_s(ref) if ref else None
            answer["listing_age_s"] = None if age is None else round(age, 1)
        answer["recent_errors"] = self._errors_about(path)
        return answer

    def _errors_about(self, path: str) -> list[dict[str, Any]]:
        wanted = path.strip("/")
        return [
            incident.as_dict()
            for incident in self.observer.incidents
            if incident.subject.strip("/") and (wanted + "/").startswith(incident.subject.strip("/") + "/")
        ]

    async def log(self, path: str) -> dict[str, Any]:
        """Return the versions of the artifact that a path shows, newest first."""
        fs = self._running()
        node = await fs.walk(path)
        if node.artifact is None:
            message = f"{path} is not part of an artifact"
            raise errors.InvalidRequest(message)
        known = await fs.directories.history.versions_of(node.source, node.artifact)
        current = node.artifact.current.id if node.artifact.current else None
        rows = [
            {
                "version": f"v{at}",
                "id": version.id,
                "current": version.id == current,
                "created_at": iso(version.created_at_ns),
                "created_by": version.created_by,
                "message": version.message,
                "files": version.file_count,
                "size": getattr(version.size, "value", None),
            }
            for at, version in enumerate(known.ordered, start=1)
        ]
        return {"artifact": node.artifact.id, "complete": known.complete, "versions": rows[::-1]}

    def _running(self) -> FileSystem:
        if self.fs is None:
            message = "the mount is still starting"
            raise errors.Unavailable(message)
        return self.fs
