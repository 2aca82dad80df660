"""Text by others, for lines that a terminal may show."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text with all that a terminal would obey as escapes: titles, names and messages are an agent's words."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
