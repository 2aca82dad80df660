"""Server-sent events: from the bytes of a stream to the data of its events.

Rules of this file: pure. Only ``data`` is told; names, ids and pauses of events are not needed here. What is fed is a
stranger's: an event has a bounded size.
"""

from __future__ import annotations

import re

from artifactfs import errors

# An event of Syntropic137 carries the whole content of an artifact, of which a request takes 1 MB (its gateway).
MAX_EVENT = 16 * 1024 * 1024
# As the standard has it (WHATWG HTML, 9.2.6); a CR at the end may be half of a CRLF.
LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class Events:
    """Takes a stream apart."""

    def __init__(self) -> None:
        """Begin at the beginning."""
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def __repr__(self) -> str:
        """Tell how much of an event is here."""
        return f"<Events {self._size + len(self._rest)} bytes of the next one>"

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that a piece of the stream ends.

        Raises:
            ProviderMisbehaved: an event is too large.
        """
        searched = max(0, len(self._rest) - 1)
        self._rest += piece
        found: list[bytes] = []
        begin = 0
        for end in LINE_END.finditer(self._rest, searched):
            self._line(bytes(self._rest[begin : end.start()]), found)
            begin = end.end()
        del self._rest[:begin]
        if self._size + len(self._rest) > MAX_EVENT:
            message = f"an event is larger than {MAX_EVENT >> 20} MiB"
            raise errors.ProviderMisbehaved(message)
        return found

    def _line(self, line: bytes, found: list[bytes]) -> None:
        if not line:
            if self._data:
                found.append(b"\n".join(self._data))
            self._data, self._size = [], 0
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._size += len(line)
