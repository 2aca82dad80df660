"""Which operation a task works for: an id that all log lines of one operation share, those of its requests too.

Rules of this file: tasks inherit the operation of who starts them. Beginning one costs 0.3 us (measured): what is told
of it, its id included, is found out only if a line is logged.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

# So that ids of a mount are not those of the one before it, whose lines stand in the same file.
RUN = os.urandom(2).hex()
_numbers = itertools.count(1)


class Describing(Protocol):
    """Who can say more of an operation."""

    def described(self, operation: str, args: Sequence[Any]) -> dict[str, object]:
        """Return what is known of it: inode, path, caller; called at most once, and only for a log line."""


class Operation:
    """One thing that is being done: a request of the kernel, or background work.

    Attributes:
        name: the kind, such as ``read`` or ``publish``.
    """

    __slots__ = ("_args", "_facts", "_id", "_who", "name")

    _id: str
    _facts: Mapping[str, object]

    def __init__(self, name: str, who: Describing | None = None, args: Sequence[Any] = ()) -> None:
        """Begin one; ``who`` can describe it by ``args``, which live as long as it does: no content is among them."""
        self.name = name
        self._who = who
        self._args = args

    def __str__(self) -> str:
        """Return the kind."""
        return self.name

    @property
    def id(self) -> str:
        """Return what to search the log for."""
        try:
            return self._id
        except AttributeError:
            self._id = f"{RUN}-{next(_numbers):x}"
            return self._id

    def facts(self) -> Mapping[str, object]:
        """Return what is known of it: ``ino``, ``path``, ``fh``, ``pid`` of the kernel's, what was said of others."""
        try:
            return self._facts
        except AttributeError:
            self._facts = {}
            # A log line must never be what makes an operation fail.
            with contextlib.suppress(Exception):
                if self._who is not None:
                    self._facts = self._who.described(self.name, self._args)
            return self._facts

    def say(self, **facts: object) -> None:
        """Set what is known of it."""
        self._facts = facts


operation: ContextVar[Operation | None] = ContextVar("operation", default=None)
"""What the running task works for; shown in every log line."""


def begin(name: str, **facts: object) -> None:
    """Let the running task work for something new: background work, which has ids of its own."""
    begun = Operation(name)
    begun.say(**facts)
    operation.set(begun)
