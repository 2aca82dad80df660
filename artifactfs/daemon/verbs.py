"""What can be asked of a running mount through its control socket."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from artifactfs import config, errors, observe
from artifactfs.daemon import figures, inside
from artifactfs.daemon.compose import Mounted
from artifactfs.daemon.control import Verb
from artifactfs.daemon.saving_verbs import SavingVerbs
from artifactfs.fuse.operations import Operations

log = logging.getLogger(__name__)

Request = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs of one mount."""

    mounted: Mounted
    operations: Operations
    settings: config.Config

    def table(self) -> Mapping[str, Verb]:
        """Return the verbs by name."""
        return {
            "status": self._status, "why": self._why, "log": self._log, "interrupt": self._interrupt,
            "set": self._set, "debug": self._debug,
            "figures": self._figures,
            "renew": self._renew,
            **SavingVerbs(self.mounted).table(),
        }  # fmt: skip

    async def _interrupt(self, request: Request) -> object:
        older_than_s = request.get("older_than_s")
        number = self.operations.interrupt(float(older_than_s) if isinstance(older_than_s, float) else 0.0)
        return {"interrupted": number}

    async def _set(self, request: Request) -> object:
        """Change what can be changed while it runs; return how it stands now."""
        level = request.get("log_level")
        if level is not None:
            if level not in observe.LEVELS:
                raise errors.InvalidRequest(f"log level {level!r}: should be one of {', '.join(observe.LEVELS)}")
            was = observe.level()
            observe.set_level(level)
            log.info("the log level is %s now, it was %s", level, was)
        return {"log": observe.describe_log()}

    async def _debug(self, _request: Request) -> object:
        """Return what only the process itself knows of its inside."""
        status = self.mounted.status
        return {
            "tasks": inside.task_tree(),
            "threads": inside.thread_stacks(),
            "metrics": status.metrics_text(),
            "config": config.public(self.settings),
        }

    async def _figures(self, request: Request) -> object:
        most = request.get("types")
        found: dict[str, object] = dict(figures.figures(self.mounted, self.operations))
        return {**found, "types": figures.types(most)} if isinstance(most, int) else found

    async def _renew(self, request: Request) -> object:
        """Look for a newer token of a source; what was refused for the old one is tried again."""
        held = self.mounted.credentials.get(str(request.get("source", "")))
        if held is None:
            return {"mounted": False}
        is_new = await held.look(forget=bool(request.get("forget")))
        return {"mounted": True, "renewed": is_new, "where": held.where}

    async def _status(self, _request: Request) -> object:
        return self.mounted.status.snapshot()

    async def _why(self, request: Request) -> object:
        return await self.mounted.status.why(str(request.get("path", "")))

    async def _log(self, request: Request) -> object:
        return await self.mounted.status.log(str(request.get("path", "")))
