"""Reads that the kernel makes twice: ahead of the program, and after that has failed once more for the page alone.

Rules of this file: the second one gets the answer of the first, so that nobody waits for two deadlines, nor is a
service that fails asked twice as often. Only at once, only for bytes that the first one was about, and only once; but
as often as it is asked where the first one was cut short: a program that is told to end while it waits for a page of
its memory sees its signal, and then the kernel asks anew for that page, with no signal pending any more.
"""

from __future__ import annotations

import trio

from artifactfs import errors

# The kernel asks again as soon as it has the first answer, which takes microseconds; a busy machine may add to that. A
# program that tries again by itself so soon is told the same once.
AT_ONCE_S = 0.1


class Rereads:
    """The failures of the last moment, by handle."""

    __slots__ = ("_failed",)

    def __init__(self) -> None:
        """Know of none."""
        self._failed: dict[int, tuple[float, range, errors.ArtifactFSError, bool]] = {}

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self._failed)

    def failed(
        self, handle: int, offset: int, length: int, error: errors.ArtifactFSError, *, is_cut: bool = False
    ) -> None:
        """Note a failure, or that a read was cut short."""
        now = trio.current_time()
        for other in [other for other, (at, *_) in self._failed.items() if at < now - AT_ONCE_S]:
            del self._failed[other]
        self._failed[handle] = now, range(offset, offset + length), error, is_cut

    def check(self, handle: int, offset: int) -> None:
        """Fail as the read did that this one repeats, if it does.

        Raises:
            ArtifactFSError: that of the first.
        """
        found = self._failed.pop(handle, None)
        if found is None:
            return
        at, about, error, is_cut = found
        if offset in about and trio.current_time() - at <= AT_ONCE_S:
            if is_cut:
                self._failed[handle] = found
            raise error.with_traceback(None)
