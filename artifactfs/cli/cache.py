"""``cache show``, ``cache check`` and ``cache clear``: on the directory itself, mounted or not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from artifactfs import config
from artifactfs.cli import render
from artifactfs.content import cache_check

# Damaged blocks that a screen has room for; JSON has them all.
SHOWN = 10


def show(config_file: Path | None, *, as_json: bool) -> None:
    """Tell how full the cache is.

    Raises:
        ConfigError: the configuration cannot be used.
        Unavailable: the cache does not answer.
    """
    settings = config.load(config_file)
    root = config.cache_dir(settings)
    found = cache_check.summary(root)
    if as_json:
        limits = {"max_bytes": settings.cache.max_size, "min_free_bytes": settings.cache.min_free}
        render.as_json({"directory": str(root), **found, **limits})
        return
    pinned = render.size(found["pinned_bytes"])
    render.facts({
        "directory": root,
        "used": f"{render.size(found['used_bytes'])} of {render.size(settings.cache.max_size)}",
        "contents": f"{found['blobs']} under {found['names']} names, {found['blocks']} blocks",
        "shared": f"{render.size(found['shared_bytes_saved'])} saved by storing equal contents once",
        "pinned": f"{pinned}, {render.size(found['pinned_by_user_bytes'])} of it by you",
    })  # fmt: skip


def check(config_file: Path | None, *, repair: bool, as_json: bool) -> int:
    """Verify every block and database; return the exit code.

    Raises:
        ConfigError: the configuration cannot be used.
        Unavailable: the cache does not answer.
    """
    found = cache_check.check(config.cache_dir(config.load(config_file)), repair=repair)
    if as_json:
        render.as_json({**asdict(found), "healthy": found.healthy})
        return 0 if found.healthy else 1
    for name, why in found.unreadable.items():
        render.complain(f"the database is damaged: {name}: {why}")
    for name, rows in found.rows.items():
        render.complain(f"damaged rows in {name}: {rows}")
    for name in found.bad[:SHOWN]:
        render.complain(f"damaged {name}" if name.startswith(cache_check.NAME) else f"damaged block: {name}")
    if len(found.bad) > SHOWN:
        render.complain(f"and {len(found.bad) - SHOWN} more")
    if found.miscounted:
        render.complain(f"its size is wrong by {render.size(found.miscounted)}")
    render.say(f"{found.blocks} blocks read, {len(found.bad)} damaged")
    if found.orphan_bytes:
        render.say(f"{render.size(found.orphan_bytes)} {'were' if repair else 'are'} in files that belong to nothing")
    if not found.healthy:
        render.say("`artifactfs cache check --repair` forgets them; a mount does so by itself when it meets one")
    elif found.bad or found.miscounted or found.unreadable or found.rows:
        render.say("repaired: what was damaged is fetched again when it is read")
    return 0 if found.healthy else 1


def clear(config_file: Path | None, *, also_pinned: bool) -> None:
    """Empty the cache.

    Raises:
        ConfigError: the configuration cannot be used.
        Unavailable: the cache does not answer.
    """
    freed = cache_check.clear(config.cache_dir(config.load(config_file)), also_pinned=also_pinned)
    render.say(f"freed {render.size(freed)}")
