"""What ``status``, ``why`` and ``log`` say about a running mount."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

import artifactfs
from artifactfs import errors, observe
from artifactfs.content.block_store import BlockStore
from artifactfs.daemon.metrics import metrics_text
from artifactfs.fuse.subjects import ORDINARY
from artifactfs.tree.inodes import ROOT
from artifactfs.tree.nodes import Kind, Node
from artifactfs.tree.versions import iso
from artifactfs.vfs import facts_of, left_out
from artifactfs.vfs.filesystem import FileSystem
from artifactfs.vfs.listings import describe
from artifactfs.vfs.overlay import is_below
from artifactfs.vfs.places import Trail, follow
from artifactfs.vfs.polling import Poller
from artifactfs.vfs.queue import queue_of
from artifactfs.vfs.sources import Source

# Longer than most answers take; who asks why something hangs must not hang, too.
WHY_S = 3.0


@dataclass(slots=True)
class Status:
    """The state of one mount, as values; ``metrics_at`` is where its numbers are served, if anywhere."""

    mountpoint: Path
    sources: Mapping[str, Source]
    observer: observe.Observer
    store: BlockStore
    fs: FileSystem | None = None
    poller: Poller | None = None
    metrics_at: str | None = None
    started_at: float = field(default_factory=time.time)
    loop: Callable[[], dict[str, Any]] = dict

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
            "loop": self.loop(),
            "invalidations": fs.announcer.told if fs else 0,
            "cache": {
                "directory": str(self.store.root.parent),
                "used_bytes": self.store.used_bytes(),
                "max_bytes": self.store.max_bytes,
            },
            "log": observe.describe_log(),
            "metrics": self.metrics_at,
            "archives": self._archives(),
            "pending": self._pending(),
            "saving": self._saving(),
            "sources": [self._source(source, listings) for source in self.sources.values()],
            "errors": [
                {**incident.as_dict(), "time": iso(int(incident.at * 1e9))} for incident in self.observer.incidents
            ],
        }

    def served_at(self, where: str | None) -> None:
        """Note where the numbers are served."""
        self.metrics_at = where

    def metrics_text(self) -> str:
        """Return its numbers in the text format of Prometheus; no I/O at any service."""
        return metrics_text(self.observer, self.store, self.fs, self.poller, self.loop())

    def _archives(self) -> list[dict[str, Any]]:
        if self.fs is None:
            return []
        return self.fs.content.archives.progress()

    def _pending(self) -> list[dict[str, Any]]:
        if self.fs is None:
            return []
        return [pending.as_dict() for pending in queue_of(self.fs.writer)]

    def _saving(self) -> dict[str, Any]:
        """Return when saves are published, and what the drafts of all changes take of the disk."""
        if self.fs is None:
            return {}
        writer = self.fs.writer
        return {
            "publish_delay_s": writer.policy.delay_s,
            "write_through": writer.policy.write_through,
            "journal_bytes": sum(home.used_bytes for home in writer.homes.values()),
        }

    def _source(self, source: Source, listings: list[dict[str, Any]]) -> dict[str, Any]:
        counters = self.observer.counters(source.name)
        return {
            "name": source.name,
            "service": source.provider.service,
            "state": self._state(counters),
            "writable": source.provider.publisher is not None,
            "server": source.provider.describe(),
            "counters": counters.as_dict(),
            "polling": self.poller.report(source.name) if self.poller else None,
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
        """Explain a path below the mount point: what it is, how old, what last went wrong with it.

        ``exists`` is None where nobody knows: the service failed, or does not answer.
        """
        fs = self._running()
        answer: dict[str, Any] = {"path": path, "exists": True}
        trail: Trail = [("", fs.node(ROOT))]
        with trio.move_on_after(WHY_S) as scope:
            try:
                await follow(fs, deque(filter(None, path.split("/"))), trail)
            except errors.ArtifactFSError as error:
                absent = isinstance(error, errors.NotFound | errors.NotADirectory)
                answer.update(exists=False if absent else None, **_told(error))
                self._notice(*trail[-1], error)
            else:
                answer.update(self._about(trail[-1][1]))
        if scope.cancelled_caught:
            message = f"not known: there was no answer within {WHY_S:.0f} s"
            answer.update(exists=None, error=errors.TimedOut.__name__, message=message)
        if answer["exists"] is not None:
            answer.update(await left_out.told(fs.content, fs.directories.history, trail, path))
        answer.update(self._waiting(trail[-1][0] if answer["exists"] else path))
        answer.update(self._freshness(trail))
        answer.update(self._last_failure(trail[-1][1].source))
        answer["recent_errors"] = self._errors_about(path)
        return answer

    def _about(self, node: Node) -> dict[str, Any]:
        fs = self._running()
        source = self.sources.get(node.source)
        about: dict[str, Any] = {"kind": node.kind.value, "source": node.source or None}
        about.update(facts_of.describe(node, source.provider.service if source else "", fs.content))
        if node.kind is Kind.FILE:
            about.update(size=fs.shown_size(node), size_is=facts_of.size_known(node))
        return {**about, "modified": iso(node.mtime_ns)}

    def _waiting(self, path: str) -> dict[str, Any]:
        """Return what waits at a path, and how much below it."""
        here, below = path.strip("/"), 0
        answer: dict[str, Any] = {}
        for row in queue_of(self._running().writer):
            if row.path == here:
                answer.update(
                    waits_for=row.what, waiting_state=row.state, number=row.number, tries=row.tries,
                    last_error=row.error or None, next_try_s=row.next_try_s,
                )  # fmt: skip
            elif is_below(row.path, here):
                below += 1
        return {**answer, "waiting_below": below} if below else answer

    def _freshness(self, trail: Trail) -> dict[str, Any]:
        """Return how old the listing is that the end of the trail is in, and why if it could not be renewed."""
        fs = self._running()
        refs = (fs.listing_of(node) for _, node in reversed(trail))
        known = next((known for ref in refs if ref and (known := fs.directories.listings.peek(ref))), None)
        if known is None:
            return {"listing_age_s": None}
        now = trio.current_time()
        told = describe(known, now)
        answer: dict[str, Any] = {"listing_age_s": told["age_s"]}
        answer.update({f"listing_{name}": told[name] for name in ("stale", "revalidating", "complete", "note")})
        if known.failure is not None:
            answer.update(stale_because=str(known.failure), next_retry_s=round(max(0.0, known.retry_at - now), 1))
        return answer

    def _notice(self, path: str, node: Node, error: errors.ArtifactFSError) -> None:
        """Keep a failure that asking has met, as if a program had met it."""
        if not (isinstance(error, ORDINARY) and error.status is None):
            self.observer.noticed(
                node.source, path or "/", str(error), status=error.status, request_id=error.request_id
            )  # fmt: skip

    def _last_failure(self, source: str) -> dict[str, Any]:
        """Return the source's last failed request, if nothing has succeeded since."""
        counters = self.observer.counters(source)
        incident = counters.last_failed_request
        if not source or incident is None or (counters.last_success or 0) > incident.at:
            return {}
        return {"last_failed_request": incident.as_dict()}

    def _errors_about(self, path: str) -> list[dict[str, Any]]:
        """Return the failures of operations on a path and on the directories above it; those of requests have a URL."""
        wanted = f"/{path.strip('/')}/"
        return [
            incident.as_dict()
            for incident in self.observer.incidents
            if incident.subject.startswith("/")
            and (wanted.startswith(incident.subject.rstrip("/") + "/") or _is_copy(wanted, incident))
        ]

    async def log(self, path: str) -> dict[str, Any]:
        """Return the versions of the artifact that a path shows, newest first."""
        fs = self._running()
        trail: Trail = [("", fs.node(ROOT))]
        await follow(fs, deque(filter(None, path.split("/"))), trail)
        _, node = trail[-1]
        if node.artifact is None:
            message = f"{path} is not part of an artifact"
            raise errors.InvalidRequest(message)
        artifact = fs.directories.history.newest(node.source, node.artifact)
        known = await fs.directories.history.versions_of(node.source, artifact)
        current = artifact.current.id if artifact.current else None
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


def _is_copy(path: str, incident: observe.Incident) -> bool:
    """Tell whether a path is that of the save that was kept beside another one, as a failure says."""
    above, _, name = path.strip("/").rpartition("/")
    return incident.subject.strip("/").rpartition("/")[0] == above and f"kept as {name!r}" in incident.message


def _told(error: errors.ArtifactFSError) -> dict[str, Any]:
    return {
        "error": type(error).__name__, "message": str(error), "status": error.status, "request_id": error.request_id
    }  # fmt: skip
