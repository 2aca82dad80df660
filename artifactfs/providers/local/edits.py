"""How a tree's entries change.

Rules of this file: pure; takes and returns lists of ``TreeFile``. Directories that files imply need no
entry, so one that loses its last file gets an entry of its own: removing a file never removes its
directory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from artifactfs import errors
from artifactfs.providers.local.entries import is_legal_path
from artifactfs.store.rows import TreeFile
from artifactfs.store.trees import parents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Entries = dict[str, TreeFile]


def is_directory(file: TreeFile) -> bool:
    """Tell whether an entry is a directory."""
    return file.sha256 is None and file.target is None


def _implied(paths: Iterable[str]) -> set[str]:
    return {parent for path in paths for parent in parents(path)}


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _checked(path: str) -> str:
    if not is_legal_path(path):
        raise errors.NameNotAllowed("the path does not stay below its tree", subject=path)
    return path


def _demand_directories_above(entries: Entries, path: str) -> None:
    for parent in parents(path):
        if parent in entries and not is_directory(entries[parent]):
            raise errors.NotADirectory(f"{parent} is a file", subject=path)


def _keep_emptied(entries: Entries, emptied: Iterable[str]) -> None:
    """Give directories an entry that have lost what implied them."""
    implied = _implied(entries)
    for path in emptied:
        if path and path not in implied:
            entries.setdefault(path, TreeFile(path, None))


def change(
    files: Sequence[TreeFile], changes: Mapping[str, TreeFile | None], made: Sequence[str] = ()
) -> list[TreeFile]:
    """Return the tree with each entry put in its place, removed where None, and with directories made.

    What is to be removed and is not there, or to be made and is there, is as it should be.

    Raises:
        NameNotAllowed: a path is not legal.
        NotADirectory, IsADirectory, AlreadyExists: a file stands where a directory must, or the other way.
        DirectoryNotEmpty: a directory to be removed holds what is not.
    """
    entries = {file.path: file for file in files}
    emptied = _remove(entries, [path for path, file in changes.items() if file is None])
    holding = _implied(entries)
    for path, file in changes.items():
        if file is not None:
            if _checked(path) in holding:
                raise errors.IsADirectory(f"{path} is a directory that holds something", subject=path)
            entries[path] = replace(file, path=path)
    for path in made:
        if path in entries and not is_directory(entries[path]):
            raise errors.AlreadyExists(f"{path} is a file", subject=path)
        entries.setdefault(_checked(path), TreeFile(path, None))
    for path in [*made, *changes]:
        if path in entries:
            _demand_directories_above(entries, path)
    _keep_emptied(entries, emptied)
    return list(entries.values())


def _remove(entries: Entries, removed: Sequence[str]) -> set[str]:
    """Take entries out; return the directories that may have lost their last one."""
    holding = _implied(entries)
    emptied = {_parent(_checked(path)) for path in removed if path in entries or path in holding}
    for path in removed:
        entries.pop(path, None)
    holding = _implied(entries)
    for path in removed:
        if path in holding:
            raise errors.DirectoryNotEmpty(f"{path} is not empty", subject=path)
    return emptied - set(removed)


def move(files: Sequence[TreeFile], old: str, new: str) -> list[TreeFile]:
    """Return the tree with an entry at another path; a file there, or an empty directory, is replaced.

    Raises:
        NotFound: nothing is at ``old``.
        NameNotAllowed: ``new`` is not legal.
        InvalidRequest: a directory would go into itself.
        NotADirectory, IsADirectory, DirectoryNotEmpty: ``new`` is of the other kind, or holds something.
    """
    entries = {file.path: file for file in files}
    moving = {path: file for path, file in entries.items() if path == old or path.startswith(f"{old}/")}
    if not moving:
        raise errors.NotFound(f"{old} is not in the tree", subject=old)
    if old == _checked(new):
        return list(files)
    if new.startswith(f"{old}/"):
        raise errors.InvalidRequest("a directory cannot go into itself", subject=new)
    for path in moving:
        del entries[path]
    _demand_free(entries, new, for_directory=old not in moving or is_directory(moving[old]))
    _demand_directories_above(entries, new)
    entries.pop(new, None)
    for path, file in moving.items():
        moved = new + path[len(old) :]
        entries[moved] = replace(file, path=moved)
    _keep_emptied(entries, {_parent(old)})
    return list(entries.values())


def _demand_free(entries: Entries, path: str, *, for_directory: bool) -> None:
    is_held = path in _implied(entries)
    is_there = is_held or path in entries
    if is_there and not for_directory and (is_held or is_directory(entries[path])):
        raise errors.IsADirectory(f"{path} is a directory", subject=path)
    if is_held:
        raise errors.DirectoryNotEmpty(f"{path} is not empty", subject=path)
    if is_there and for_directory and not is_directory(entries[path]):
        raise errors.NotADirectory(f"{path} is a file", subject=path)


def same(one: TreeFile | None, other: TreeFile | None) -> bool:
    """Tell whether two entries say the same, times aside."""
    if one is None or other is None:
        return one is other
    return (one.sha256, one.executable, one.target) == (other.sha256, other.executable, other.target)


def overtaken(
    base: Sequence[TreeFile], present: Sequence[TreeFile], changes: Mapping[str, TreeFile | None]
) -> str | None:
    """Return a path that somebody else has changed since ``base``, otherwise than wanted; None if there is none."""
    before = {file.path: file for file in base}
    now = {file.path: file for file in present}
    for path, wanted in changes.items():
        if not same(before.get(path), now.get(path)) and not same(now.get(path), wanted):
            return path
    return None
