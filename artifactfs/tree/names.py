"""From titles to names and back.

Rules of this file: pure, deterministic, independent of the order in which a service lists. Every name it returns is
legal: 1 to 255 bytes of UTF-8, no ``/``, no NUL, not ``.`` or ``..``.

The encoding. A title that is a legal and harmless name is shown as it is. Otherwise the bytes of what cannot stay are
written ``^XX`` (upper-case hex of the UTF-8): ``/``, NUL and other control characters, the bidi embeddings and
overrides, unpaired surrogates, trailing spaces of any kind, ``.`` and ``..``. The empty title is ``^empty``. A title of
more than 255 bytes is cut at a code point and ends in ``^~`` and 10 hex digits of its SHA-256, before the extension.
A ``^`` that would read as one of these is itself written ``^5E``; any other ``^`` stays.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Iterable
from dataclasses import dataclass

# What Linux allows in one directory entry; a FUSE daemon is handed up to 1024 and must refuse by itself.
NAME_MAX = 255
# 40 bits: two of a million equally cut titles meet with a chance below one in two million.
CUT_DIGITS = 10
# Longer "extensions" are parts of sentences; the longest in use (.crdownload, .markdown) have 10 to 11.
EXTENSION_MAX = 16

_EMPTY = "^empty"
# Of a path: what is no name.
_STEPS = frozenset(("", ".", ".."))
_CONTROL = "\x00-\x1f\x7f-\x9f"
_BIDI = "\u202a-\u202e"
_SURROGATE = "\ud800-\udfff"
_UNSAFE = re.compile(f"[/{_CONTROL}{_BIDI}{_SURROGATE}]|\\^(?=[0-9A-F]{{2}}|~|empty)")
# The space separators of Unicode (category Zs); other white space is among the control characters.
_SPACES = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_ESCAPES = re.compile(r"(?:\^[0-9A-F]{2})+")
# As surrogateescape has a byte that is not UTF-8.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_EXTENSION = re.compile(rf"\.[A-Za-z0-9_+-]{{1,{EXTENSION_MAX}}}\Z")

# Only what Python itself ships: the machine's mime.types would make names depend on the machine.
_TYPES = mimetypes.MimeTypes(filenames=())

# Where mimetypes' first answer is not what people expect to see, or it has none.
_EXTENSIONS = {
    "text/plain": ".txt",
    "text/markdown": ".md",
    "image/jpeg": ".jpg",
    "audio/mpeg": ".mp3",
    "application/yaml": ".yaml",
    "text/x-python": ".py",
    "text/x-typescript": ".ts",
    "application/octet-stream": "",
    "text/uri-list": "",
}


def _hex(text: str) -> str:
    return "".join(f"^{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _byte_length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def encode(title: str) -> str:
    """Return the name that stands for a title."""
    if not title:
        return _EMPTY
    name = _spell(title)
    return name if _byte_length(name) <= NAME_MAX else _cut(name, title)


def _spell(title: str) -> str:
    """Return a title as its name would be if names could be longer."""
    if title in {".", ".."}:
        return _hex(title)
    name = _UNSAFE.sub(lambda match: _hex(match[0]), title)
    # Not by a pattern: searching one that ends in \Z takes the square of a long run of spaces (100,000: 27 s).
    kept = name.rstrip(_SPACES)
    return kept + _hex(name[len(kept) :]) if len(kept) != len(name) else name


def _cut(name: str, title: str) -> str:
    digest = hashlib.sha256(title.encode("utf-8", "surrogatepass")).hexdigest()[:CUT_DIGITS]
    stem, extension = split_extension(name)
    return _shorten(stem, f"^~{digest}{extension}")


def _shorten(stem: str, tail: str) -> str:
    """Return ``stem`` + ``tail`` in at most 255 bytes, cutting the stem at a code point and never inside ``^XX``."""
    room = NAME_MAX - len(tail.encode())
    kept = stem.encode("utf-8")[:room].decode("utf-8", "ignore")
    if len(kept) < len(stem):
        kept = re.sub(r"\^[0-9A-F]?\Z", "", kept)
    return kept + tail


def decode(name: str) -> str | None:
    """Return the title a name stands for; None if it was cut (only its listing knows) or ``encode`` never gives it."""
    if name == _EMPTY:
        return ""
    try:
        title = _ESCAPES.sub(_unhex, name)
        # People type anything: only the one spelling of a title may resolve, or one thing would have many names.
        return title if encode(title) == name else None
    except UnicodeDecodeError:
        return None


def _unhex(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("^", "")).decode("utf-8", "surrogatepass")


def shown_target(target: str) -> str:
    """Return where a symlink of a tree leads by the names that the tree shows: its raw ones may be those of others."""
    return "/".join(map(_shown, target.split("/")))


def _shown(part: str) -> str:
    if part in _STEPS:
        return part
    # No member has a longer name, so nothing is listed under the cut one.
    return encode(part) if len(_NOT_UTF8.sub("x", part).encode("utf-8", "surrogatepass")) <= NAME_MAX else _spell(part)


def meant_target(shown: str) -> str | None:
    """Return the target that is shown like this, None if none is: it would not come back as it was typed."""
    try:
        target = _ESCAPES.sub(_unhex, shown)
    except UnicodeDecodeError:
        return None
    return target if shown_target(target) == shown else None


def raw_name(name: str, known: str = "") -> str:
    """Return the raw name of what a tree shows as ``name``, of one that was cut by its path ``known``, which is raw."""
    raw = known.rpartition("/")[2]
    if raw and encode(raw) == name:
        return raw
    title = decode(name)
    return name if title is None or title in _STEPS or "/" in title else title


def encoded(path: str) -> str:
    """Return a raw path as names of the mount."""
    return "/".join(map(encode, path.split("/"))) if path else ""


def is_legal(name: str) -> bool:
    """Tell whether a person may give this name to a new file: it must come back as it was typed."""
    return 0 < _byte_length(name) <= NAME_MAX and encode(name) == name


def split_extension(name: str) -> tuple[str, str]:
    """Return (stem, extension with its dot or "")."""
    match = _EXTENSION.search(name)
    return (name[: match.start()], match[0]) if match and match.start() > 0 else (name, "")


def with_extension(name: str, media_type: str | None) -> str:
    """Return the name of a single file: one without an extension gets that of its media type."""
    if not media_type or split_extension(name)[1]:
        return name
    kind = media_type.partition(";")[0].strip().lower()
    extension = _EXTENSIONS.get(kind)
    if extension is None:
        extension = _TYPES.guess_extension(kind, strict=False) or ""
    return name if _byte_length(name) + len(extension) > NAME_MAX else name + extension


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that wants a name in a directory.

    Attributes:
        title: raw.
        key: unique in the directory; the answer is given by it.
        id: what a person knows it by; its first characters distinguish equal titles.
        age: smaller is older; the oldest of equal titles keeps the plain name.
        folder: folders come before files, whose names nothing else depends on.
        media_type: of a single file, names a missing extension.
    """

    title: str
    key: str
    id: str
    age: tuple[float, str] = (float("inf"), "")
    folder: bool = False
    media_type: str | None = None


def assign(claims: Iterable[Claim], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Return a distinct legal name for the key of each claim.

    A title equal to a reserved name never gets it plain. Equal names: the oldest keeps the plain one, the others get
    `` ~<short id>`` before the extension.
    """
    # Not sorted all together: a million are a call of seconds, in which no other thread runs.
    oldest: dict[str, Claim] = {}
    later: list[tuple[Claim, str]] = []
    names: dict[str, str] = {}
    taken = set(reserved)
    for claim in claims:
        plain = encode(claim.title)
        if not claim.folder:
            plain = with_extension(plain, claim.media_type)
        if plain in taken:
            later.append((claim, plain))
        elif (other := oldest.setdefault(plain, claim)) is claim:
            continue
        elif _precedence(claim) < _precedence(other):
            oldest[plain] = claim
            later.append((other, plain))
        else:
            later.append((claim, plain))
    for plain, claim in oldest.items():
        names[claim.key] = plain
    taken |= oldest.keys()
    # In key order: which suffix somebody gets must not depend on who else is listed before it.
    for claim, plain in sorted(later, key=lambda pair: pair[0].key):
        names[claim.key] = name = _distinct(claim, plain, taken)
        taken.add(name)
    return names


def _precedence(claim: Claim) -> tuple[bool, tuple[float, str], str]:
    """Return by what equal names are told apart: the least has it plain."""
    return (not claim.folder, claim.age, claim.key)


def _distinct(claim: Claim, plain: str, taken: set[str]) -> str:
    digest = hashlib.sha256(claim.key.encode("utf-8", "surrogatepass")).hexdigest()
    for mark in (short_id(claim.id), digest[:8], digest[:16], digest):
        stem, extension = (plain, "") if claim.folder else split_extension(plain)
        name = _shorten(stem, f" ~{mark}{extension}") if mark else plain
        if name not in taken:
            return name
    message = f"no free name for {claim.key!r}"  # four suffixes, the last of 256 bits, cannot all be taken
    raise ValueError(message)


def short_id(identifier: str) -> str:
    """Return the first 8 telling characters of an id: of ``art_7f3a2c`` the hex, of a UUID its first group."""
    return re.sub(r"[^A-Za-z0-9]", "", identifier.rpartition("_")[2])[:8]
