"""Object references of VLM Run: their grammar, what they are, and finding them in a response.

Rules of this file: pure. Only lower-case hex counts: the SDK's own pattern (six word characters) takes
words such as ``doc_number`` and ``img_height`` for references (measured with SDK 0.9.2), and every id the
service was seen to make is hex.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What the service serves for each kind (SDK 0.9.2), and the extension that goes with it. Arrays have no
# documented encoding; what is behind a URL cannot be known before it is asked for.
DEFAULTS: dict[str, tuple[str, str]] = {
    "img": ("jpg", "image/jpeg"),
    "vid": ("mp4", "video/mp4"),
    "aud": ("mp3", "audio/mpeg"),
    "doc": ("pdf", "application/pdf"),
    "recon": ("spz", "application/octet-stream"),
    "arr": ("bin", "application/octet-stream"),
    "url": ("", ""),
}
PREFIX = "|".join(DEFAULTS)
# An id in prose is followed by anything; only these are taken for its extension (`img_a1b2c3.Next sentence`).
EXTENSION = (
    "jpe?g|png|webp|gif|bmp|tiff?|svg|mp4|mov|avi|mkv|webm|mp3|wav|m4a|flac|ogg|aac"
    "|pdf|docx?|pptx?|xlsx?|txt|md|html|csv|json|xml|zip|spz|ply|splat|glb|obj|npy|npz|bin"
)
REF = re.compile(rf"({PREFIX})_[0-9a-f]{{6}}")
NAMED = re.compile(rf"((?:{PREFIX})_[0-9a-f]{{6}})(?:\.([A-Za-z0-9]{{1,10}}))?")
IN_TEXT = re.compile(
    rf"(?<![0-9A-Za-z_])((?:{PREFIX})_[0-9a-f]{{6}})(?:\.({EXTENSION}))?(?![0-9A-Za-z_])", re.ASCII | re.IGNORECASE
)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Executions have UUIDs; whatever else a server uses must be able to stand in a path as it is.
EXECUTION = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")
# Where a reference stands is told to people; hostile nesting could make it grow without end.
MAX_WHERE = 200
# An honest response names a few; a hostile one of 64 MiB could name five million.
MAX_FOUND = 10_000


@dataclass(frozen=True, slots=True)
class Found:
    """A reference in a response: its id, the extension written after it, and where it stands."""

    object_id: str
    extension: str
    where: str


def is_ref(name: str) -> bool:
    """Tell whether a name is a bare reference."""
    return REF.fullmatch(name) is not None


def split(name: str) -> tuple[str, str] | None:
    """Return (id, extension) of a reference with or without one, None if it is none.

    The live service writes ``vid_4d0e56.mp4`` and serves ``vid_4d0e56`` (recorded by an independent client).
    """
    found = NAMED.fullmatch(name)
    return (found.group(1), (found.group(2) or "").lower()) if found else None


def prefix(object_id: str) -> str:
    """Return the kind of a reference, empty if it is none."""
    return object_id.partition("_")[0] if is_ref(object_id) else ""


def scan(response: object) -> list[Found]:
    """Return the references in all strings of a response, at any depth, in the order they stand there.

    Keys are no values: a reference in one is the field's name. At most 10,000 are returned.
    """
    found: dict[str, Found] = {}
    # By hand, not recursive: the parser goes deeper than a recursion here would.
    waiting: list[tuple[str, object]] = [("", response)]
    while waiting and len(found) < MAX_FOUND:
        where, value = waiting.pop()
        where = where[:MAX_WHERE]
        if isinstance(value, str):
            for match in IN_TEXT.finditer(value):
                object_id = match.group(1)
                if REF.fullmatch(object_id) and object_id not in found and len(found) < MAX_FOUND:
                    found[object_id] = Found(object_id, (match.group(2) or "").lower(), where)
        elif isinstance(value, dict):
            inner = [(f"{where}.{key}" if where else str(key), item) for key, item in value.items() if _holds(item)]
            waiting.extend(reversed(inner))
        elif isinstance(value, list):
            items = enumerate(value)
            waiting.extend(reversed([(f"{where}[{index}]", item) for index, item in items if _holds(item)]))
    return list(found.values())


def _holds(value: object) -> bool:
    """Tell whether a reference may stand in a value: where numbers stand need not be told."""
    return isinstance(value, str | dict | list)
