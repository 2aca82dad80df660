"""The composition root: from configuration to objects, wired once, no globals."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from artifactfs import config, observe, private
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.reader import ContentReader
from artifactfs.daemon.status import Status
from artifactfs.journal.staging import Staging
from artifactfs.model.content import ContentRef
from artifactfs.providers import registry
from artifactfs.providers.credentials import Credentials
from artifactfs.providers.resolving import Resolver
from artifactfs.vfs.control_dir import ControlFiles
from artifactfs.vfs.filesystem import FileSystem
from artifactfs.vfs.polling import Poller
from artifactfs.vfs.recovery import recover
from artifactfs.vfs.sources import Source
from artifactfs.vfs.writeback import Policy

log = logging.getLogger(__name__)

# How long the end of a mount waits for saves; less than `umount` waits for the process.
FINISH_S = 20.0

# Of the time an operation has, what one of its requests may take with all its tries: a service's own failure is then
# the answer (EIO, and why), not that the deadline passed.
REQUEST_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Journals:
    """The directories of drafts of one source: this mount's, and those of mounts that ended before it."""

    own: Staging
    adopted: Sequence[Staging]

    @classmethod
    def open(cls, state: Path, source: Source, max_bytes: int) -> Journals:
        """Take up what earlier mounts of the source left; its first directory becomes this mount's own.

        By the source, not by the mount: what is not saved yet belongs to whoever mounts its source next.
        """
        # Who may write where journals stand could put one there for us to publish.
        for place in (state, state / "journal"):
            private.directory(place)
        base = state / "journal" / hashlib.sha256(source.fingerprint.encode()).hexdigest()[:16]
        if source.provider.publisher is None and not base.exists():
            return cls(Staging.fresh(base, max_bytes), ())
        left = Staging.abandoned(base, max_bytes)
        return cls(left[0], left[1:]) if left else cls(Staging.fresh(base, max_bytes), ())

    @property
    def was_written(self) -> bool:
        """Tell whether a mount that saved something did not end in an orderly way, or left something."""
        return any(staging.journal.path.exists() for staging in (self.own, *self.adopted))

    def close(self) -> None:
        """Give the directories up; those that are empty go."""
        for staging in (self.own, *self.adopted):
            staging.close()
        with contextlib.suppress(OSError):  # others are in it
            self.own.root.parent.rmdir()


@dataclass(frozen=True, slots=True)
class Mounted:
    """The wired objects of one mount."""

    fs: FileSystem
    observer: observe.Observer
    status: Status
    journals: Mapping[str, Journals]
    credentials: Mapping[str, Credentials]
    poller: Poller

    @property
    def homes(self) -> list[Staging]:
        """Return its directories of drafts, also those that it took over."""
        return [staging for journal in self.journals.values() for staging in (journal.own, *journal.adopted)]


@asynccontextmanager
async def composed(
    settings: config.Config, sources: Sequence[config.Source], mountpoint: Path, *, at_root: bool, state: Path
) -> AsyncIterator[Mounted]:
    """Wire everything for a mount; what was opened is closed in the opposite order at the end."""
    async with AsyncExitStack() as stack:
        observer = observe.Observer()
        facts, store = _cache(settings, stack)
        credentials = {source.name: registry.credentials_of(source) for source in sources}
        known = {
            source.name: _connected(source, settings, facts, observer, credentials[source.name], stack)
            for source in sources
        }
        # Requests run here: a waiter's end does not end them, the mount's end does.
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        trio.socket.set_custom_hostname_resolver(Resolver(nursery))
        reader = ContentReader(
            nursery, store, facts, {name: source.provider for name, source in known.items()},
            local_path=_local_path(known), fingerprints={n: s.fingerprint for n, s in known.items()},
            limits=settings.limits.bounds(),
        )  # fmt: skip
        stack.callback(reader.close)
        journals = _journals(state, known, settings.journal.max_size, observer)
        for journal in journals.values():
            stack.callback(journal.close)
        status = Status(mountpoint, known, observer, store)
        fs = FileSystem(
            known, reader, {name: journal.own for name, journal in journals.items()},
            ControlFiles(status.snapshot, status.metrics_text), show_ids=settings.mount.show_ids, single=at_root,
            policy=Policy(settings.mount.publish_delay, settings.mount.write_through),
        )  # fmt: skip
        poller = Poller(
            known, fs.directories.listings, settings.mount.poll_interval,
            lambda name: observer.counters(name).last_success or 0.0,
        )  # fmt: skip
        status.fs, status.poller = fs, poller
        await stack.enter_async_context(_saving(fs, observer, journals, nursery))
        for name, held in credentials.items():
            held.renewed = partial(_try_denied_again, fs, name)
        yield Mounted(fs, observer, status, journals, credentials, poller)


def _cache(settings: config.Config, stack: AsyncExitStack) -> tuple[Facts, BlockStore]:
    root = config.cache_dir(settings)
    with contextlib.suppress(OSError):  # without a disk there is no cache, and everything else
        private.directory(root, close=settings.cache.dir is None)
    facts = Facts(root / "facts.db")
    stack.callback(facts.close)
    store = BlockStore(root, settings.cache.max_size, settings.cache.min_free)
    stack.callback(store.close)
    return facts, store


def _connected(
    source: config.Source,
    settings: config.Config,
    facts: Facts,
    observer: observe.Observer,
    credentials: Credentials,
    stack: AsyncExitStack,
) -> Source:
    """Return a source with its provider, which is closed with the stack."""
    memory = facts.memory(source.fingerprint)
    deadline_s = settings.mount.timeout * REQUEST_SHARE
    limits = settings.limits.bounds().answers
    provider = registry.create(source, memory, observer, deadline_s, limits, credentials)
    stack.push_async_callback(provider.aclose)
    seen = facts.first_seen([source.fingerprint])[source.fingerprint]
    if settings.mount.read_only:
        provider.publisher = None
    observer.counters(source.name)
    return Source(source.name, provider, source.fingerprint, seen)


def _journals(
    state: Path, known: Mapping[str, Source], max_bytes: int, observer: observe.Observer
) -> Mapping[str, Journals]:
    """Return the journals of the sources; one that could keep no save until it is published takes none."""
    found = {}
    for name, source in known.items():
        try:
            found[name] = Journals.open(state, source, max_bytes)
        except OSError as error:
            if source.provider.publisher is not None:
                log.warning("%s is mounted for reading only, since no save can be kept: %s", name, error)
                observer.noticed(name, "/", f"for reading only: no save can be kept in {state}: {error.strerror}")
                source.provider.publisher = None
    return found


def _try_denied_again(fs: FileSystem, source: str) -> None:
    """Publish now what the source has refused to whoever asked with the token of before."""
    writeback = fs.writer.writeback
    if denied := [job for job in writeback.overlay.jobs() if job.source == source and job.denied]:
        writeback.hurry("", *denied)


@asynccontextmanager
async def _saving(
    fs: FileSystem, observer: observe.Observer, journals: Mapping[str, Journals], nursery: trio.Nursery
) -> AsyncIterator[None]:
    """Go on with what an earlier mount did not finish, and publish what is due while the block runs."""
    writer, context = fs.writer, fs.writer.context
    context.report = lambda source, path, message: observer.noticed(source, f"/{path}", message)
    context.saved = observer.succeeded
    context.tried = lambda source, outcome: observer.counters(source).saves.update([outcome])
    writer.writeback.outages.well_at = lambda source: observer.counters(source).last_success or 0.0
    for name, journal in journals.items():
        if journal.was_written:
            fs.directories.listings.distrusted.add(name)
        for staging in (journal.own, *journal.adopted):
            await recover(writer, name, staging)
    nursery.start_soon(writer.writeback.keep_publishing)
    try:
        yield
    finally:
        # No request of the kernel comes any more; what is not saved now is saved by the next mount.
        with trio.CancelScope(deadline=trio.current_time() + FINISH_S, shield=True):
            await writer.finish()


def _local_path(known: dict[str, Source]) -> Callable[[ContentRef], Path]:
    def path_of(ref: ContentRef) -> Path:
        provider: Any = known[ref.source].provider
        return provider.path(ref)  # type: ignore[no-any-return]  # only the local provider gives LOCAL content

    return path_of
