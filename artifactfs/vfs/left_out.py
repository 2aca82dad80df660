"""What an archive holds and its version does not show, for ``why``.

Rules of this file: nothing is asked for; of an archive that nobody has looked into here nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import trio

from artifactfs.content.archive_index import Refused
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import Archive, Version
from artifactfs.model.text import printable
from artifactfs.tree import names
from artifactfs.tree.nodes import Node, VersionDir
from artifactfs.vfs.history import History
from artifactfs.vfs.places import Trail

# Of an archive with 100,000 members that are not shown a person wants to know why, not which.
EXAMPLES = 5
# Of a path in an archive, which may be as long as the largest header.
SHOWN = 255


async def told(content: ContentReader, history: History, trail: Trail, path: str) -> dict[str, Any]:
    """Return what of an archive is not shown at a path or below it, and why; the trail goes as far as the path does.

    ``not_shown_because`` is the reason of what is at the path itself, ``not_shown`` how many members below it are
    not shown, ``not_shown_first`` some of them with their reasons.
    """
    shown, node = trail[-1]
    version = _version(node, history)
    if version is None or not isinstance(version.content, Archive) or not isinstance(node.directory, VersionDir):
        return {}
    above, asked = shown.strip("/"), path.strip("/")
    rest = asked[len(above) :] if asked.startswith(above) else ""
    here = [*map(names.encode, _parts(node.directory.path)), *_parts(rest)]
    left_out = await content.archives.left_out(content.keyed(version.content.ref))
    found = await trio.to_thread.run_sync(_below, left_out, here)
    if not found:
        return {}
    own = [one.reason for one in found if _shown(one) == here]
    first = [f"{printable(one.path[:SHOWN])}: {printable(one.reason)}" for one in found[:EXAMPLES]]
    answer: dict[str, Any] = {"not_shown_because": printable(own[-1])} if own else {}
    return {**answer, "not_shown": len(found), "not_shown_first": first}


def _version(node: Node, history: History) -> Version | None:
    place = node.directory
    if not isinstance(place, VersionDir):
        return None
    if place.present and node.writable:
        return history.newest(node.source, place.artifact).current
    return place.version


def _parts(path: str) -> Iterator[str]:
    return (part for part in path.split("/") if part not in ("", "."))


def _shown(one: Refused) -> list[str]:
    return [names.encode(part) for part in _parts(one.path)]


def _below(refused: Sequence[Refused], here: list[str]) -> list[Refused]:
    return [one for one in refused if not here or _shown(one)[: len(here)] == here]
