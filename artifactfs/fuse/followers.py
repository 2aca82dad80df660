"""Programs that the kernel makes wait one behind the other, for what the first one has already waited for in vain.

The kernel asks for a name once at a time, reads a page once at a time, and changes one directory, or one file, for one
program at a time; the others wait in it, where nothing ends them. When the first one has had its whole deadline, the
next one's question comes, and would have a deadline of its own: ten `cat` of one file of a service that hangs would
have ended after ten deadlines (measured: 10.8 s for the second with a deadline of 5.4 s, 21.6 s for the fourth reader).

Rules of this file: who comes right behind a wait in vain is asked to wait only briefly, and then gets the answer of the
first. What is known by then is answered all the same; what is on its way goes on, and the next one finds it. Who comes
later waits as everybody does, and so does who comes again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import trio

from artifactfs import errors

# Shorter waits are nothing to add up.
LONG_S = 0.5
# The next question comes when the kernel has the answer of the one before and has woken its program: at once, but on a
# busy machine. A program that tries again by itself within this time is one of them.
BEHIND_S = 1.0
# So long after the first wait in vain its followers are taken for those who stood in line with it: a hundred at one
# name, twenty in one directory. A program that tries again twice a second is not kept from its answer for longer.
LINE_S = 10.0
# For the same question: what is known is answered within milliseconds, and a hundred programs within five seconds.
SAME_S = 0.05
# For another name in the directory: longer than a listing that is known is waited for anew (``listings.GRACE_S``).
NEAR_S = 0.5
PASSES = (errors.TimedOut, errors.Unavailable, errors.Unreachable)
IN_A_DIRECTORY = frozenset({"lookup", "create", "mknod", "mkdir", "symlink", "unlink", "rmdir", "rename"})
OF_A_FILE = frozenset({"setattr", "fsync"})

Keys = tuple[tuple[Hashable, float], ...]
"""What an operation waits behind, and how long it may take then; what is nearest first."""


@dataclass(frozen=True, slots=True)
class _Vain:
    """A wait in vain.

    Attributes:
        first: when the first one of its line ended, by trio's clock.
        last: when the last one did.
        about: which bytes of a file it was about.
        error: what the first one was told.
    """

    first: float
    last: float
    about: range | None
    error: errors.ArtifactFSError

    def is_followed(self, now: float) -> bool:
        """Tell whether who comes now comes right behind it."""
        return now - self.last <= BEHIND_S and now - self.first <= LINE_S


class Followers:
    """The waits in vain of the last moment; ``inode_of`` says which file a handle is of, None if it is unknown."""

    __slots__ = ("_inode_of", "_vain")

    def __init__(self, inode_of: Callable[[int], int | None]) -> None:
        """Know of none."""
        self._inode_of = inode_of
        self._vain: dict[Hashable, _Vain] = {}

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self._vain)

    def behind(self, name: str, args: tuple[Any, ...]) -> tuple[float, errors.ArtifactFSError] | None:
        """Return how long an operation may take, in seconds, and how it fails then; None if it is behind nobody's."""
        now = trio.current_time()
        for key, allowed_s in self._keys(name, args):
            vain = self._vain.get(key)
            if vain is not None and vain.is_followed(now) and (vain.about is None or args[1] in vain.about):
                return allowed_s, vain.error
        return None

    def waited(self, name: str, args: tuple[Any, ...], error: errors.ArtifactFSError, *, behind: bool = False) -> None:
        """Note that an operation has waited in vain, the whole time or ``behind`` another one that did."""
        now, keys = trio.current_time(), [key for key, _ in self._keys(name, args)]
        first = min((self._vain[key].first for key in keys if key in self._vain), default=now) if behind else now
        for old in [key for key, vain in self._vain.items() if not vain.is_followed(now)]:
            del self._vain[old]
        if isinstance(error, PASSES):
            about = range(args[1], args[1] + args[2]) if name == "read" else None
            for key in keys:
                self._vain[key] = _Vain(first, now, about, error)

    def _keys(self, name: str, args: tuple[Any, ...]) -> Keys:
        if name in IN_A_DIRECTORY:
            return ((name, *args[:2]), SAME_S), (("in", args[0]), NEAR_S)
        if name in OF_A_FILE:
            return (((name, args[0]), SAME_S),)
        inode = self._inode_of(args[0]) if name == "read" else None
        return () if inode is None else ((("read", inode), SAME_S),)
