"""``source list``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifactfs import config, errors
from artifactfs.cli import render


def _row(settings: config.Config, name: str) -> dict[str, Any]:
    known = config.all_sources(settings).get(name)
    service = known.type if known else "local"
    try:
        source = config.resolve(settings, name)
    except errors.ConfigError as error:
        return {
            "name": name, "service": service, "where": None, "token_from": None, "ready": False, "problem": str(error)
        }  # fmt: skip
    where = str(source.path) if source.service == "local" else source.url
    return {
        "name": name, "service": service, "where": where, "token_from": source.token_from or None, "ready": True,
        "problem": None,
    }  # fmt: skip


def show(config_file: Path | None, *, as_json: bool) -> None:
    """List the sources that can be mounted; those that `mount` takes by itself are marked.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    settings = config.load(config_file)
    rows = [_row(settings, name) for name in dict.fromkeys((*config.all_sources(settings), "local"))]
    chosen = config.choose(settings, [], everything=False)
    if as_json:
        render.as_json([{**row, "mounted_by_default": row["name"] in chosen} for row in rows])
        return
    render.table(
        ("", "source", "service", "where", "token from"),
        [
            ("*" if row["name"] in chosen else "", row["name"], row["service"], row["where"], row["token_from"])
            for row in rows
        ],
    )
    render.say("* what `artifactfs mount` takes when none is named")
    for row in rows:
        if row["problem"]:
            render.complain(row["problem"])
