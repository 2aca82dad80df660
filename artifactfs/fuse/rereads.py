"""Reads that the kernel makes twice: ahead of the program, and after that has failed once more for the page alone.

Rules of this file: the second one gets the answer of the first, so that nobody waits for two deadlines, nor is a
service that fails asked twice as often. Only once, only at once, and only for bytes that the first one was about.
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
        self._failed: dict[int, tuple[float, range, errors.ArtifactFSError]] = {}

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self._failed)

    def failed(self, handle: int, offset: int, length: int, error: errors.ArtifactFSError) -> None:
        """Note a failure."""
        now = trio.current_time()
        for other in [other for other, (at, _, _) in self._failed.items() if at < now - AT_ONCE_S]:
            del self._failed[other]
        self._failed[handle] = now, range(offset, offset + length), error

    def check(self, handle: int, offset: int) -> None:
        """Fail as the read did that this one repeats, if it does.

        Raises:
            ArtifactFSError: that of the first.
        """
        at, about, error = self._failed.pop(handle, (0.0, range(0), None))
        if error is not None and offset in about and trio.current_time() - at <= AT_ONCE_S:
            raise error.with_traceback(None)
