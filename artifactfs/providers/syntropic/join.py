"""Which session, and so which run, made an artifact: never a guess, and as few requests as it takes.

No list up to 0.25.4 says it (service source, May 2026). The ways, cheapest first:

1. The row says it (may come in later generations).
2. It was learnt before: the link never changes, so it is remembered for ever.
3. The phase ran in exactly one session of the workflow, of all its sessions, and the title is an output's. The
   sessions must have been listed after the artifacts: no newer session can then have made one of them.
4. Later generation: lists filtered by each session in question, if those are fewer than the artifacts. A
   server that ignores the filter is noticed, because then the same artifact comes back for two sessions, or for
   a session of another phase.
5. The artifact's detail, one request for each, side by side.

What names no phase was made by POST and belongs to no run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from artifactfs.concurrency import in_slices
from artifactfs.providers.syntropic.api import all_of
from artifactfs.providers.syntropic.rows import ArtifactRow, Rows, SessionRow
from artifactfs.providers.syntropic.titles import split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from artifactfs.providers.base import Memory
    from artifactfs.providers.syntropic.api import Api

NONE: Rows[SessionRow] = Rows(())
MAKER = "session-of/"
"""Key in the memory: artifact id -> session id, "" if it has none."""
SESSION = "session/"
"""Key in the memory: session id -> [execution id, mtime in ns], once it has ended."""


@dataclass(slots=True)
class Links:
    """What has been found: session id by artifact id, None where it certainly has none; and the sessions."""

    makers: dict[str, str | None] = field(default_factory=dict)
    sessions: dict[str, SessionRow] = field(default_factory=dict)
    unexplained: int = 0
    """Artifacts that name a phase, but of which the service would not say the session."""

    def of(self, row: ArtifactRow) -> SessionRow | None:
        """Return the session that made an artifact."""
        maker = self.makers.get(row.id)
        return None if maker is None else self.sessions.get(maker)


def only_sessions(sessions: Rows[SessionRow]) -> dict[str, str]:
    """Return the session of each phase that ran in exactly one; none if there may be more sessions."""
    if not sessions.complete:
        return {}
    times = Counter(session.phase_id for session in sessions.rows)
    return {s.phase_id: s.id for s in sessions.rows if s.phase_id is not None and times[s.phase_id] == 1}


def agreed(found: Sequence[tuple[SessionRow, Sequence[ArtifactRow]]]) -> dict[str, str] | None:
    """Return session by artifact from lists filtered by session; None if the filter was evidently ignored."""
    makers: dict[str, str] = {}
    for session, rows in found:
        for row in rows:
            if row.id in makers or row.phase_id != session.phase_id:
                return None
            makers[row.id] = session.id
    return makers


class Linker:
    """Finds the sessions of artifacts, and remembers them."""

    def __init__(self, api: Api, memory: Memory) -> None:
        """Ask ``api`` for what ``memory`` does not know."""
        self.api = api
        self.memory = memory

    async def link(self, workflow_id: str | None, rows: Sequence[ArtifactRow], sessions: Rows[SessionRow]) -> Links:
        """Return who made each of these artifacts; ``sessions`` were listed after them."""
        links = Links(sessions={session.id: session for session in sessions.rows})
        open_rows: list[ArtifactRow] = []
        await in_slices(rows, lambda part: open_rows.extend(self._without_asking(part, sessions, links)))
        if open_rows and self.api.generation == "C" and workflow_id is not None:
            await self._by_filter(workflow_id, open_rows, sessions, links)
            open_rows = [row for row in open_rows if row.id not in links.makers]
        await all_of([partial(self._by_detail, row, links) for row in open_rows])
        wanted = {maker for maker in links.makers.values() if maker is not None} - set(links.sessions)
        found = await all_of([partial(self.session, session_id) for session_id in sorted(wanted)])
        links.sessions.update({session.id: session for session in found})
        return links

    def _without_asking(
        self, rows: Iterable[ArtifactRow], sessions: Rows[SessionRow], links: Links
    ) -> list[ArtifactRow]:
        """Note what can be told from here (1 to 3); return the other rows."""
        only = only_sessions(sessions)
        open_rows = []
        for row in rows:
            if row.session_id is not None:
                links.makers[row.id] = row.session_id
            elif row.execution_id is not None or row.phase_id is None:
                links.makers[row.id] = None
            elif isinstance(known := self.memory.get(MAKER + row.id), str):
                links.makers[row.id] = known or None
            elif row.phase_id in only and row.title is not None and split(row.title):
                self._learn(row.id, only[row.phase_id], links)
            else:
                open_rows.append(row)
        return open_rows

    def _learn(self, artifact_id: str, session_id: str | None, links: Links) -> None:
        links.makers[artifact_id] = session_id
        self.memory.put(MAKER + artifact_id, session_id or "")

    async def _by_filter(
        self, workflow_id: str, rows: Sequence[ArtifactRow], sessions: Rows[SessionRow], links: Links
    ) -> None:
        """Ask for the artifacts of each session in question (4)."""
        phases = {row.phase_id for row in rows}
        asked = [session for session in sessions.rows if session.phase_id in phases]
        # One session alone could not show that the filter is ignored.
        if not 2 <= len(asked) < len(rows):  # noqa: PLR2004 - as said
            return
        jobs = [partial(self.api.artifacts, workflow_id, session_id=session.id) for session in asked]
        lists = await all_of(jobs)
        makers = agreed([(session, found.rows) for session, found in zip(asked, lists, strict=True)])
        for row in rows:
            if makers is not None and row.id in makers:
                self._learn(row.id, makers[row.id], links)

    async def _by_detail(self, row: ArtifactRow, links: Links) -> None:
        """Ask for the artifact itself (5)."""
        detail = await self.api.artifact(row.id)
        if detail is None:
            # Deleted meanwhile, or beyond the 10,000th, which the service lists but does not find.
            links.makers[row.id] = None
            links.unexplained += 1
        else:
            self._learn(row.id, detail.session_id, links)

    async def maker(self, detail: ArtifactRow) -> SessionRow | None:
        """Return the session of an artifact whose detail is here: at most one request."""
        self.memory.put(MAKER + detail.id, detail.session_id or "")
        return None if detail.session_id is None else await self.session(detail.session_id)

    async def session(self, session_id: str) -> SessionRow:
        """Return a session from memory or from the service; of one it does not know, only the id is known."""
        known: Any = self.memory.get(SESSION + session_id)
        match known:
            case [str(run) | (None as run), int(at_ns)]:
                return SessionRow(session_id, None, run, None, None, None, at_ns)
            case _:
                pass
        session = await self.api.session(session_id)
        if session is None or session.id != session_id:
            return SessionRow(session_id, None, None, None, None, None, None)
        if session.completed_at_ns is not None:
            self.memory.put(SESSION + session_id, [session.execution_id, session.completed_at_ns])
        return session
