"""Where an artifact stands below its workflow, as its title says.

Rules of this file: pure. Titles are hostile; what is made of them are raw path components that
``tree/names.py`` encodes, so nothing is cleaned or dropped here. The engine titles outputs ``<phase name>:
artifacts/output/<relative path>`` (service source, May 2026); phase names may hold ``: `` and ``/``
themselves, so the last occurrence separates.
"""

from __future__ import annotations

SEPARATOR = ": artifacts/output/"
# Directories this deep still fit PATH_MAX (4096 bytes) with names of useful length. A title of 100,000
# characters is accepted by the service (measured), and must not become 50,000 directories.
MAX_DEPTH = 64


def split(title: str) -> tuple[str, tuple[str, ...]] | None:
    """Return phase name and path components of an output's title; None for a title of another form.

    A path with a component that no file system has (empty, ``.``, ``..``), or too deep, stays in one piece.
    """
    phase, separator, path = title.rpartition(SEPARATOR)
    if not separator:
        return None
    parts = tuple(path.split("/"))
    if len(parts) > MAX_DEPTH or any(part in {"", ".", ".."} for part in parts):
        return phase, (path,)
    return phase, parts


def retitled(title: str, path: tuple[str, ...], phase_id: str | None) -> str:
    """Return the title of an artifact that is to stand at ``path`` below its workflow, as far as a title can say it.

    An output's title keeps its phase; the run is in no title.
    """
    found = split(title)
    if found is None or len(path) == 1:
        return path[-1]
    phase, _ = found
    outside = 2 if phase or phase_id else 1
    return f"{phase}{SEPARATOR}{'/'.join(path[outside:])}"


def place(title: str | None, artifact_id: str, phase_id: str | None, run: str | None) -> tuple[str, ...]:
    """Return the path below the workflow.

    Args:
        title: raw; an artifact without one is named by its id.
        artifact_id: its id.
        phase_id: the phase it names.
        run: the execution it belongs to, or None: then it was made by POST and its title is its name.
    """
    name = artifact_id if title is None else title
    if run is None:
        return (name,)
    found = split(name)
    phase, parts = found or (None, (name,))
    shown = phase or phase_id
    return (run, shown, *parts) if shown else (run, *parts)
