"""``doctor`` and ``source test``."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import trio

from artifactfs import config, errors, observe, private
from artifactfs.cli import client, render
from artifactfs.providers import registry
from artifactfs.providers.base import Check

# A free cache disk below this makes every read an uncached one.
LITTLE_DISK = 1 << 30
# ... and of the disk of the journal below this every save of some size fails.
LITTLE_JOURNAL = 64 << 20


class _Forgetful:
    """A memory for one check: what is learnt is not kept."""

    def __init__(self) -> None:
        self._values: dict[str, object] = {}

    def get(self, key: str) -> object | None:
        return self._values.get(key)

    def put(self, key: str, value: object) -> None:
        self._values[key] = value

    def items(self, prefix: str) -> list[tuple[str, object]]:
        return [(key, value) for key, value in self._values.items() if key.startswith(prefix)]


def run(config_file: Path | None, *, as_json: bool) -> int:
    """Check the machine and the configuration; return the exit code."""
    return _report(found_here(config_file), as_json=as_json)


def found_here(config_file: Path | None) -> list[Check]:
    """Check the machine and the configuration."""
    found = [_python(), _fuse_device(), _fusermount(), _pyfuse3(), _libz(), *_mounts()]
    try:
        settings = config.load(config_file)
    except errors.ConfigError as error:
        found.append(Check("configuration", ok=False, detail=str(error)))
    else:
        where = config_file or config.config_path()
        detail = str(where) if where.exists() else f"none; {where} would be read"
        found.append(Check("configuration", ok=True, detail=detail))
        found.append(_cache(settings))
        found.append(_journal(settings))
        found += _sources(settings)
    return found


def _report(found: list[Check], *, as_json: bool) -> int:
    if as_json:
        render.as_json([{"what": c.what, "ok": c.ok, "detail": c.detail} for c in found])
    else:
        render.table(("", "what", "found"), [("ok" if c.ok else "!!", c.what, c.detail) for c in found])
    return 0 if all(check.ok for check in found) else 1


def _python() -> Check:
    return Check("Python", ok=True, detail=".".join(map(str, sys.version_info[:3])))


def _fuse_device() -> Check:
    path = Path("/dev/fuse")
    if not path.exists():
        return Check("/dev/fuse", ok=False, detail="missing; in a container: --device /dev/fuse --cap-add SYS_ADMIN")
    if not os.access(path, os.R_OK | os.W_OK):
        return Check("/dev/fuse", ok=False, detail="this user may not open it")
    return Check("/dev/fuse", ok=True, detail="can be opened")


def _fusermount() -> Check:
    where = shutil.which("fusermount3")
    if where:
        return Check("fusermount3", ok=True, detail=where)
    return Check("fusermount3", ok=os.getuid() == 0, detail="missing; install the package fuse3 (root can do without)")


def _pyfuse3() -> Check:
    # Loading it is what tells whether libfuse3 is there: to look for the library needs tools that may be missing.
    try:
        from artifactfs.fuse import session
    except ImportError as error:
        detail = f"{error}; install libfuse3-dev, pkg-config and a C compiler, then artifactfs again"
        return Check("pyfuse3", ok=False, detail=detail)
    return Check("pyfuse3", ok=True, detail=f"can be imported (mounts as {session.FSNAME})")


def _libz() -> Check:
    from artifactfs.content import inflate_blocks

    if inflate_blocks.load() is None:
        detail = "cannot be loaded: what was evicted of an archive is fetched by downloading the archive again"
        return Check("libz.so.1", ok=True, detail=detail)
    return Check("libz.so.1", ok=True, detail="gives archives restart points")


def _mounts() -> list[Check]:
    return [_mount(place) for place in client.our_mounts()]


def _mount(place: Path) -> Check:
    if client.is_dead(place):
        detail = (
            f"{place}: its process is gone; `artifactfs mount {place}` cleans it up, or `artifactfs umount {place}`"
        )
        return Check("mount", ok=False, detail=detail)
    return Check("mount", ok=True, detail=str(place))


def _cache(settings: config.Config) -> Check:
    where = config.cache_dir(settings)
    existing = next(path for path in (where, *where.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{where}, {render.size(free)} free"
    if settings.cache.dir is not None and where.exists() and private.is_open_to_others(where):
        detail += "; others can look into this directory, though not into what we put there"
    return Check("cache", ok=free > LITTLE_DISK and os.access(existing, os.W_OK), detail=detail)


def _journal(settings: config.Config) -> Check:
    where = config.state_dir() / "journal"
    existing = next(path for path in (where, *where.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    most = min(settings.journal.max_size, free)
    detail = f"{where}, room for {render.size(most)} that waits for its service"
    return Check("journal", ok=free > LITTLE_JOURNAL and os.access(existing, os.W_OK), detail=detail)


def _sources(settings: config.Config) -> list[Check]:
    found = []
    try:
        config.choose(settings, [], everything=False)
    except errors.ConfigError as error:
        found.append(Check("default", ok=False, detail=str(error)))
    for name in config.all_sources(settings):
        try:
            source = config.resolve(settings, name)
        except errors.ConfigError as error:
            found.append(Check(f"source {name}", ok=False, detail=str(error)))
        else:
            detail = source.url or str(source.path)
            if source.token_from:
                detail += f", token from {source.token_from}"
            found.append(Check(f"source {name}", ok=True, detail=detail))
            found += _token_file(name, settings)
    return found


def _token_file(name: str, settings: config.Config) -> list[Check]:
    """Say if others can read a token; mending it is its owner's: somebody may have put it there like that."""
    path = config.all_sources(settings)[name].token_file
    if path is None or not private.is_open_to_others(path):
        return []
    detail = f"others can read {path} (mode {stat.S_IMODE(path.stat().st_mode):04o}); `chmod 600` it"
    return [Check(f"token file {name}", ok=False, detail=detail)]


def test_sources(config_file: Path | None, names: list[str], *, as_json: bool) -> int:
    """Ask sources, all if none is named; return the exit code.

    Raises:
        ConfigError: the configuration cannot be used, or a name is no source.
    """
    settings = config.load(config_file)
    found: list[Check] = []
    for name in config.choose(settings, names, everything=True):
        try:
            source = config.resolve(settings, name)
            checks = ask(settings, source)
        except errors.ArtifactFSError as error:
            checks = [Check("configuration", ok=False, detail=str(error))]
        found += [Check(f"{name}: {c.what}", c.ok, c.detail) for c in checks]
    return _report(found, as_json=as_json)


def ask(settings: config.Config, source: config.Source) -> list[Check]:
    """Try a source.

    Raises:
        ArtifactFSError: it cannot be asked at all.
    """
    return trio.run(_ask, source, settings)


async def _ask(source: config.Source, settings: config.Config) -> list[Check]:
    try:
        limits = settings.limits.bounds().answers
        provider = registry.create(source, _Forgetful(), observe.Observer(), settings.mount.timeout, limits)
    except OSError as error:
        return [Check("store", ok=False, detail=f"{source.path}: {error.strerror}")]
    try:
        return list(await provider.check())
    finally:
        await provider.aclose()
