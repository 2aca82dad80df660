"""Removals that their services have not heard of, by directory and name.

Rules of this file: no I/O. One name may have had several artifacts, one after the other, each of which is to be
removed: the last is found by the name, those before it under the name with their number, which no name can be.
"""

from __future__ import annotations

from artifactfs.vfs.overlay import Overlay, Removal, Spot, key_of


def add(overlay: Overlay, removal: Removal) -> None:
    """Take a removal in; one before it of another artifact, or that is under way, goes on."""
    at = (key_of(removal.directory, removal.source), removal.name)
    before = overlay.removals.get(at)
    if before is not None and before is not removal:
        overlay.removals[at[0], f"{removal.name}/{before.number}"] = before
    overlay.removals[at] = removal


def drop(overlay: Overlay, removal: Removal) -> None:
    """Let go of a removal, wherever it is; one before it that still goes on is found by the name then."""
    key = key_of(removal.directory, removal.source)
    of_name = [at for at, one in overlay.removals.items() if one.name == removal.name and at[0] == key]
    left = [one for at in of_name if (one := overlay.removals.pop(at)) is not removal]
    for one in sorted(left, key=lambda one: one.number):
        add(overlay, one)


def under_way(overlay: Overlay, directory: Spot, source: str, name: str) -> Removal | None:
    """Return a removal of what had a name that is just being carried out."""
    key = key_of(directory, source)
    of_name = (one for (at, _), one in overlay.removals.items() if at == key and one.name == name)
    return next((one for one in of_name if one.is_under_way), None)
