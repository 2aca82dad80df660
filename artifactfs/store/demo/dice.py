"""Chance that falls the same everywhere.

Rules of this file: SHAKE-256 and integers only. ``random`` promises its bits between Python versions but
not its choices, and floating point differs between C libraries.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

# Bytes drawn at a time: SHAKE starts anew for each draw, so few large ones are cheap.
DRAW = 4096

SENTENCES = (
    "The page answered within its budget and nothing on it had moved since the last visit.",
    "Two of the listed prices differ from the feed, both by the same rounding.",
    "No contact address was found below the fold.",
    "The form posts to a host that is not in the allow list.",
    "Images carry alternative text except for the three in the carousel.",
    "The heading order skips from one to three.",
    "A cookie notice covers the navigation at widths below 380 pixels.",
    "The canonical link points at the page itself.",
    "Structured data is present and parses.",
    "The product is in stock in four of six warehouses.",
    "Delivery is quoted as two to four working days.",
    "The footer still names last year.",
    "Search returns the page for its own title in first place.",
    "One link is broken: the size guide.",
    "The reviews are loaded after the first scroll and shift the layout by 40 pixels.",
    "Contrast of the secondary button is 3.9 to 1, which is below the target.",
    "The page was last changed on a Tuesday, as most of them were.",
    "A redirect from the old address is in place and permanent.",
    "The title is 71 characters long and is cut in results.",
    "The price is shown without tax until a country is chosen.",
    "Breadcrumbs match the catalogue tree.",
    "The video has captions in two languages.",
    "Nothing on the page asks for more permissions than it uses.",
    "The sitemap lists the page with the right date.",
)


class Dice:
    """A stream of numbers that its name alone decides."""

    def __init__(self, name: str) -> None:
        """Start the stream of that name."""
        self._name = name
        self._block = 0
        self._left = b""

    def bytes(self, count: int) -> bytes:
        """Return the next bytes."""
        while len(self._left) < count:
            seed = f"artifactfs demo {self._name} {self._block}".encode()
            self._left += hashlib.shake_256(seed).digest(max(DRAW, count))
            self._block += 1
        drawn, self._left = self._left[:count], self._left[count:]
        return drawn

    def below(self, end: int) -> int:
        """Return a number from 0 up to but not including ``end``, which is far below 2**32."""
        return int.from_bytes(self.bytes(4), "big") % end

    def between(self, first: int, last: int) -> int:
        """Return a number from ``first`` to ``last``, both included."""
        return first + self.below(last - first + 1)

    def pick(self, things: Sequence[T]) -> T:
        """Return one of them."""
        return things[self.below(len(things))]

    def prose(self, sentences: int) -> str:
        """Return that many sentences as one paragraph."""
        return " ".join(SENTENCES[byte % len(SENTENCES)] for byte in self.bytes(sentences))


def identify(kind: str, label: str, digits: int) -> str:
    """Return hex digits that belong to a label for ever."""
    return hashlib.shake_256(f"artifactfs demo id {kind}: {label}".encode()).hexdigest((digits + 1) // 2)[:digits]


def uuid_of(label: str) -> str:
    """Return a UUID that belongs to a label for ever, in the form of version 4."""
    raw = identify("uuid", label, 32)
    return f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-a{raw[17:20]}-{raw[20:]}"
