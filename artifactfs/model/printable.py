"""Text that somebody else wrote, made harmless: titles are an agent's words, not the terminal's nor the log's."""

from __future__ import annotations


def printable(text: object) -> str:
    """Return text with control characters shown as escapes."""
    whole = str(text)
    if whole.isprintable():
        return whole
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)
