"""When changes are published, and what is waiting for it.

Rules of this file: one change of an artifact at a time, the oldest of a source first. A change whose failure may pass
is tried again, each time later, for as long as there is a mount; while a source fails its changes go one by one, in
order. What a service refuses stays here, is shown, and is tried again when somebody asks for it or at the next mount.
No failure of a change ends the others.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import trio

from artifactfs import errors, observe
from artifactfs.journal.droppings import is_passing
from artifactfs.journal.states import Event, State, after
from artifactfs.tree.names import encoded
from artifactfs.tree.nodes import VersionDir
from artifactfs.vfs.attempts import begun
from artifactfs.vfs.context import PASSES, Context
from artifactfs.vfs.outages import Outages
from artifactfs.vfs.overlay import Edit, Job, Overlay, Removal, WorkTree
from artifactfs.vfs.publishing import Files
from artifactfs.vfs.removal_publishing import Removals
from artifactfs.vfs.transactions import is_half_done
from artifactfs.vfs.tree_publishing import TreePublisher

log = logging.getLogger(__name__)

# How long a passing name must stay as it is before it is saved: in every recorded save the rename follows the close at
# once, but a database's journal lives as long as its transaction.
PASSING_S = 10.0
# A new file that is empty waits as long for its content: zip and touch make one and fill or remove it.
EMPTY_S = 10.0
# Between tries of what may pass: doubled each time up to the second number, and a part of it left to chance.
RETRY_S = 1.0
RETRY_MAX_S = 60.0
# Changes of one source that are published at once while it is well; rclone takes four, too.
LANES = 4
# Tries of a change until those behind it are tried first: some three minutes.
PATIENCE = 8
# How often a source that failed is looked at: whether anything has succeeded there since.
LOOK_S = 1.0


@dataclass(slots=True)
class Policy:
    """How saves are published: ``delay_s`` after the last change; at each flush if ``write_through``."""

    delay_s: float = 1.0
    write_through: bool = False

    def pause_s(self, edit: Edit) -> float:
        """Return how long nothing may have happened to an edit before it is published."""
        if is_passing(edit.node.name):
            return max(self.delay_s, PASSING_S)
        if edit.is_local and edit.replaces is None and not edit.in_tree and not edit.staged.size:
            return max(self.delay_s, EMPTY_S)
        return self.delay_s


@dataclass(slots=True)
class WriteBack:
    """Publishes the changes of one mount; with ``leave`` its end leaves what waits to the next one."""

    context: Context
    policy: Policy
    leave: bool = False
    removals: Removals = field(init=False)
    files: Files = field(init=False)
    trees: TreePublisher = field(init=False)
    outages: Outages = field(init=False)
    _woken: trio.Event = field(default_factory=trio.Event)
    _changed: trio.Event = field(default_factory=trio.Event)
    _busy: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Wire who publishes what."""
        self.removals = Removals(self.context)
        self.files = Files(self.context, self.removals)
        self.trees = TreePublisher(self.context)
        self.outages = Outages(self.overlay)

    @property
    def overlay(self) -> Overlay:
        """Return the changes."""
        return self.context.overlay

    # -- when ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the changes looked at now."""
        self._woken.set()

    def schedule(self, edit: Edit) -> None:
        """Publish an edit that nobody writes to any more, when nothing has happened to it for a moment."""
        edit.shown = self.where(edit)
        if edit.stays_here or edit.is_orphan:
            edit.due_at = math.inf
        elif isinstance(edit.directory, VersionDir):
            tree = self.overlay.tree_of(edit.directory, edit.source)
            if tree is not None:
                tree.shown = tree.shown or edit.shown.removesuffix(encoded(edit.path)).rstrip("/")
                edit.due_at = trio.current_time() + self.policy.pause_s(edit)
                self.schedule_tree(tree)
        else:
            edit.due_at = trio.current_time() + self.policy.pause_s(edit)
        self.wake()

    def schedule_tree(self, tree: WorkTree) -> None:
        """Make a version of a tree when nothing has happened to it for a moment."""
        tree.waits, tree.due_at = False, math.inf
        if self.trees.has_work(tree):
            # Names that are probably about to go make no version by themselves before they have stayed a while.
            passing = [edit.due_at for edit in self.overlay.edits_of(tree) if self.trees.is_passing(edit)]
            soon = trio.current_time() + self.policy.delay_s
            tree.due_at = max(soon, min(passing)) if passing and not self.trees.has_work(tree, settled=True) else soon
        self.wake()

    def schedule_removal(self, removal: Removal) -> None:
        """Remove an artifact when its name was not taken again for a moment."""
        removal.due_at = trio.current_time() + self.policy.delay_s
        self.wake()

    async def keep_publishing(self) -> None:
        """Publish what is due, for as long as the mount lives."""
        async with trio.open_nursery() as nursery:
            while True:
                self._woken = trio.Event()
                for job in self._startable():
                    self._begin(job)
                    nursery.start_soon(self._run, job)
                with trio.move_on_at(self._next_look()):
                    await self._woken.wait()

    def _startable(self) -> list[Job]:
        now, found, begun = trio.current_time(), [], Counter(self._busy)
        jobs = self.overlay.jobs()
        waited = {job.source for job in jobs if job.has_waited and (job.is_under_way or job.due_at < math.inf)}
        # One that fails again and again, whatever its source does for others, does not stand before them for ever.
        for job in sorted(jobs, key=lambda job: job.tries // PATIENCE):
            is_failing = job.source in self.outages.until
            lanes = 1 if is_failing or job.source in waited else LANES
            if isinstance(job, Edit) and job.in_flight is None and (job.staged.writers or not job.staged.sealed):
                continue  # it is due when it is closed
            if isinstance(job, Edit) and job.due_at <= now and is_half_done(self.overlay, job):
                continue  # the program that ends its transaction closes it, too
            # While its source fails the pause is the source's: the oldest change is the one that finds out.
            is_due = job.due_at <= now or (is_failing and job.tries > 0 and job.due_at < math.inf)
            is_free = job.under_way is None and job.held is None and not self.outages.is_left(job)
            if is_free and is_due and begun[job.source] < lanes:
                if now < self.outages.until.get(job.source, -math.inf):
                    continue
                begun[job.source] += 1
                found.append(job)
        return found

    def _next_look(self) -> float:
        now = trio.current_time()
        if self.outages.notice_recovery(self._busy):
            return now
        due = [job.due_at for job in self.overlay.jobs() if job.under_way is None and job.held is None]
        soonest = min((at for at in (*due, *self.outages.until.values()) if at > now), default=math.inf)
        return min(soonest, now + LOOK_S) if self.outages.until else soonest

    # -- one change ------------------------------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        # Whoever changes it from now on says when it is due again.
        job.under_way, job.due_at = trio.Event(), math.inf
        self._busy[job.source] += 1

    async def _run(self, job: Job) -> None:
        observe.begin("publish", source=job.source, number=job.number, path=f"/{self.where(job)}")
        try:
            await self._publish(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the bytes or end the others
            self._failed(job, error)
        else:
            self._succeeded(job)
        finally:
            self.context.tried(job.source, job.state.value if job.error else "done")
            self._busy[job.source] -= 1
            event, job.under_way = job.under_way, None
            if event is not None:
                event.set()
            changed, self._changed = self._changed, trio.Event()
            changed.set()
            self.wake()

    def _succeeded(self, job: Job) -> None:
        """Go on with what was changed meanwhile, and with what waits for this source."""
        if job.state is not State.CONFLICT and not (isinstance(job, WorkTree) and job.waits):
            job.error = ""
        self.outages.succeeded(job)
        if isinstance(job, WorkTree) and not job.waits:
            self.schedule_tree(job)

    async def _publish(self, job: Job) -> None:
        match job:
            case Edit():
                await self.files.publish(job)
            case Removal():
                await self.removals.remove(job)
            case WorkTree():
                await self.trees.publish(job)
            case _:
                raise TypeError(job)

    def _failed(self, job: Job, error: Exception) -> None:
        job.error, job.failed_at = str(error) or type(error).__name__, time.time()
        job.denied = isinstance(error, errors.AccessDenied)
        now = trio.current_time()
        if job.state in {State.FAILED, State.CONFLICT}:
            job.state = begun(job.state)  # it failed before the service was asked
        if isinstance(error, errors.ArtifactFSError) and not isinstance(error, PASSES):
            job.state, job.failure = after(job.state, Event.REFUSAL), error
            log.warning("refused and kept here: %s: %s", type(error).__name__, error)
        else:
            job.state = after(job.state, Event.FAILURE)
            pause = min(RETRY_MAX_S, RETRY_S * 2 ** min(job.tries - 1, 10)) * random.uniform(0.5, 1)  # noqa: S311 - jitter
            job.due_at = now + pause
            if isinstance(error, PASSES):
                self.outages.failed(job)
        if isinstance(error, (errors.ArtifactFSError, OSError)):
            log.info("a change could not be published and is kept: %s", error)
        else:
            log.error("a change could not be published in an unforeseen way and is kept", exc_info=error)
        self.context.report(job.source, self.where(job), f"not saved yet: {job.error}")

    def where(self, job: Job) -> str:
        """Return the path of what a change is about, as it is or was shown."""
        if isinstance(job, Edit) and job.node.parent:
            return self.context.shown_at(job.node, job.shown)
        return job.shown

    # -- now -------------------------------------------------------------------------------------------------

    async def now(self, job: Job) -> None:
        """Publish a change at once.

        Raises:
            ArtifactFSError, OSError: it is kept here, and was not published.
        """
        while (busy := job.held if job.under_way is None else job.under_way) is not None:
            await busy.wait()
        if not any(job is other for other in self.overlay.jobs()):
            return  # it has just been published
        job.error = ""
        self._begin(job)
        await self._run(job)
        failure, job.failure = job.failure, None
        if failure is not None:
            raise failure
        if job.error:
            raise errors.Unavailable(f"kept here, not saved yet: {job.error}")

    async def through(self, edit: Edit) -> None:
        """Publish an edit at once, whoever still writes to it, and tell what became of it.

        Raises:
            ArtifactFSError, OSError: it is kept here, and was not published.
        """
        job: Job = edit
        if edit.in_tree:
            job = self.overlay.tree_of(edit.directory, edit.source) or edit
        edit.is_ready = True
        try:
            await self.now(job)
        finally:
            edit.is_ready = False

    def hurry(self, below: str = "", *jobs: Job) -> None:
        """Publish some changes now, or what is below a path; refused ones too, not what is open for writing."""
        for job in jobs or [job for job in self.overlay.jobs() if self.is_wanted(job, below)]:
            self.outages.until.pop(job.source, None)
            for edit in self.overlay.edits_of(job) if isinstance(job, WorkTree) else ():
                edit.due_at = min(edit.due_at, trio.current_time())
            if job.under_way is None and not (isinstance(job, Edit) and job.staged.writers):
                job.due_at = min(job.due_at, trio.current_time())
        self.wake()

    def unsettled(self, below: str, since: float) -> list[Job]:
        """Return what is below a path, is still to be published, and was not tried in vain since a time (epoch)."""
        return [
            job for job in self.overlay.jobs() if self.is_wanted(job, below) and self.outages.is_awaited(job, since)
        ]

    async def changed(self, within_s: float) -> None:
        """Wait until a change has been published, or was not, but no longer than so many seconds."""
        with trio.move_on_after(within_s):
            await self._changed.wait()

    def is_wanted(self, job: Job, below: str) -> bool:
        """Tell whether a change is below a path and will ever leave this machine."""
        if isinstance(job, Edit) and (job.stays_here or is_half_done(self.overlay, job)):
            return False
        if isinstance(job, WorkTree) and not self.trees.has_work(job):
            return False
        where = self.where(job)
        return not below or where == below or where.startswith(f"{below}/") or below.startswith(f"{where}/")

    async def finish(self) -> None:
        """Publish what waits, each change once, unless it is to be left to the next mount: this one ends."""
        since = time.time()
        self.outages.ends_since = -math.inf if self.leave else since
        if not self.leave:
            self.hurry()
        while any(job.is_under_way for job in self.overlay.jobs()) or (not self.leave and self.unsettled("", since)):
            await self.changed(LOOK_S)
