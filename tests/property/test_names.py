"""Names: every title, however hostile, has one legal name of its own, and every name leads back to its title."""

import hashlib
import random
import re
import time
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from artifactfs.tree import names
from artifactfs.tree.names import Claim

# Pieces that mean something to the encoding, to Linux, or to a terminal, between pieces that do not.
PIECES = [
    *"/\0^~.- aZ09%\\\t\n\x1b\x07\x7f\x9b\u202e\u2066\u200b\ud800\udcff\udfff\u00a0\u3000\u2028\ufeff\uff0f\u2215",
    *("..", "^2F", "^5E", "^2f", "^~", "^empty", "^~0123456789", " ~deadbeef", ".tar.gz", ".md", "e\u0301", "\u00e9"),
    *("\U0001f468\u200d\U0001f469", "n" * 60, "\u65e5" * 40, "\u00e9" * 64, "by-id", "latest", "versions"),
]
pieces = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
# Surrogates included: JSON can carry them.
titles = st.one_of(pieces, st.text(st.characters(), max_size=300), st.text(alphabet="^/.0aAF~", max_size=8))
media_types = st.sampled_from([None, "", "text/plain", "image/png", "text/markdown; charset=utf-8", "no/such", "../x"])


def is_a_name(name: str) -> bool:
    """Tell whether Linux takes it, and UTF-8 can say it."""
    raw = name.encode("utf-8")
    return 1 <= len(raw) <= 255 and b"/" not in raw and b"\0" not in raw and name not in {".", ".."}


@given(titles)
@example("")
@example("^empty")
@example(" ")
@example("\u3000\u00a0 ")
@example("a" * 256)
@example("x" + "\u65e5" * 85)
@example("\ude00\ud83d")
def test_every_title_has_a_legal_name_that_leads_back_to_it(title):
    """Legal, no control, bidi override or surrogate; decodes to its title unless it was cut; the same each time."""
    name = names.encode(title)
    assert is_a_name(name)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", name)
    assert name == names.encode(title)
    was_cut = re.search(r"\^~[0-9a-f]{10}(\.[A-Za-z0-9_+-]{1,16})?$", name) is not None
    assert names.decode(name) == (None if was_cut else title)
    assert was_cut == (len(spelled_out(title)) > 255)


def spelled_out(title: str) -> bytes:
    """Return the name before any cut, by another road than the product's: character by character."""
    spaces = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
    if not title:
        return b"^empty"
    tail = len(title) - len(title.rstrip(spaces))
    found = b""
    for at, char in enumerate(title):
        raw = char.encode("utf-8", "surrogatepass")
        rest = title[at + 1 :]
        escapes = char == "^" and (re.match(r"[0-9A-F]{2}", rest) or rest.startswith(("~", "empty")))
        bad = char == "/" or unicodedata.category(char) in {"Cc", "Cs"} or "\u202a" <= char <= "\u202e"
        if escapes or bad or title in {".", ".."} or at >= len(title) - tail:
            found += b"".join(b"^%02X" % byte for byte in raw)
        else:
            found += raw
    return found


@given(titles, titles)
@example("a/b", "a^2Fb")
@example("a\uff0fb", "a/b")
@example("a", "a ")
@example("\u00e9", "e\u0301")
@example("Readme", "README")
def test_two_titles_never_share_a_name(one, other):
    """Injective: also for titles that spell an escape, NFC and NFD, cases, lookalikes and trailing spaces."""
    assume(one != other)
    assert names.encode(one) != names.encode(other)


@given(st.one_of(titles, st.text(alphabet="^0123456789ABCDEFabcdef~.empty/", max_size=12)))
@example("^FF")
@example("^C3")
@example("^41")
@example("^")
@example("^5E")
@example("^ED^A0")
def test_what_anybody_types_is_one_spelling_or_none(name):
    """``decode`` takes any text without an error, and what it accepts is the one name of that title."""
    title = names.decode(name)
    assert title is None or names.encode(title) == name


@given(titles)
def test_a_name_that_a_person_may_give_stays_as_typed(name):
    """Creating a file sends exactly its name as the title, and the listing shows exactly that name."""
    if names.is_legal(name):
        assert names.encode(name) == name
        assert names.assign([Claim(name, "k", "art_7f3a2c")]) == {"k": name}
    else:
        assert names.encode(name) != name


HARMLESS = [
    *("...", ".hidden", ".DS_Store", "foo~", "#foo#", ".~lock.foo#", ".Trash-1000", "lost+found", "nul.txt", "COM1"),
    *("a\\b", 'a<b>c|d?e*f"g', " lead", "-rf", "*", "`id`", "%2e%2e%2f", "%", "~", "C:\\x", "^", "^^", "100^", "^2f"),
    *("a\u2215b", "a\uff0fb", "zero\u200bwidth", "\ufeffbom", "\u65e5\u672c\u8a9e", "\U0010ffff", "\uffff"),
    *("\u65e5" * 85, "n" * 255, "Z" + "\u0351" * 40, "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
]


@pytest.mark.parametrize("title", HARMLESS)
def test_harmless_titles_are_shown_as_they_are(title):
    """What Linux can show and no terminal minds is not touched, however odd it looks elsewhere."""
    assert names.encode(title) == title


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("", "^empty"),
        (".", "^2E"),
        ("..", "^2E^2E"),
        ("a/b", "a^2Fb"),
        ("/etc/passwd", "^2Fetc^2Fpasswd"),
        ("\0", "^00"),
        (" ", "^20"),
        ("x  ", "x^20^20"),
        ("\u3000", "^E3^80^80"),
        ("red\x1b[31m", "red^1B[31m"),
        ("c1\x9b31m", "c1^C2^9B31m"),
        ("a\u202etxt.exe", "a^E2^80^AEtxt.exe"),
        ("x\udc00y", "x^ED^B0^80y"),
        ("^2F", "^5E2F"),
        ("^empty", "^5Eempty"),
        ("^~0123456789", "^5E~0123456789"),
        ("^5E2F", "^5E5E2F"),
    ],
)
def test_the_encoding_is_the_documented_one(title, name):
    """The names that people and scripts may rely on: this table is the format."""
    assert names.encode(title) == name
    assert names.decode(name) == title


@pytest.mark.parametrize("char", ["n", "\u00e9", "\u65e5", "\U0001f600", "/", "\udc00", "^2F"])
@pytest.mark.parametrize("extension", ["", ".md", ".tar.gz", ".verylongextension"])
def test_long_titles_are_cut_between_characters_and_keep_their_extension(char, extension):
    """255 bytes at most, at a code point, never inside an escape, with a mark that tells equal beginnings apart."""
    for length in [*range(60, 90), *range(120, 135), 255, 256, 100_000]:
        title = char * length + extension
        name = names.encode(title)
        assert is_a_name(name)
        if names.decode(name) == title:
            continue
        assert names.decode(name) is None
        kept, tail = name.rsplit("^~", 1)
        _, last = names.split_extension("x" + extension)
        assert tail == hashlib.sha256(title.encode("utf-8", "surrogatepass")).hexdigest()[:10] + last
        assert re.sub("\\^[0-9A-F]{2}", "", kept).count("^") == 0
        other = names.encode("n" + title)
        assert other.rsplit("^~", 1)[1] != tail


@pytest.mark.parametrize("char", [" ", "\u3000", "^", "/", ".", "\udc00", "a", "^2F", ". ", "\n"])
def test_a_huge_title_is_named_at_once(char):
    """Time grows with the length, not with its square: a listing with one title of 100 kB must not stop the mount."""
    title = char * (100_000 // len(char)) + "x"
    began = time.process_time()
    assert is_a_name(names.with_extension(names.encode(title), "text/plain"))
    assert names.decode(title[:4096]) in {None, title[:4096]}
    # Takes 0.1 s at most; the square of the length took 27 s.
    assert time.process_time() - began < 5


# -- several in one directory --------------------------------------------------------------------------------

# Few titles and ids, so that they meet: names, the forms that suffixes have, and what the tree reserves.
SHORT = ["a", "a.md", "a ~7f3a2c.md", "a ~7f3a2c", "", "..", "by-id", "latest", "n" * 250 + ".md", "a/b", "^2F", "A.md"]
IDS = ["art_7f3a2c", "art_7f3a2d", "7f3a2c", "", "0b6f6a52-93f8-4c11", "0b6f6a52-93f8-4c12", "___", "\u65e5"]
claims = st.lists(
    st.builds(
        Claim,
        title=st.one_of(st.sampled_from(SHORT), titles),
        key=st.integers(0, 1000).map(str),
        id=st.sampled_from(IDS),
        age=st.tuples(st.sampled_from([1, 2, float("inf")]), st.sampled_from(IDS)),
        folder=st.booleans(),
        media_type=media_types,
    ),
    max_size=12,
    unique_by=lambda claim: claim.key,
)
reserved = st.sets(st.sampled_from(["by-id", "latest", ".artifacts", "a", "a ~7f3a2c.md", "a.md.txt"]))


def plain(claim: Claim) -> str:
    name = names.encode(claim.title)
    return name if claim.folder else names.with_extension(name, claim.media_type)


@given(claims, reserved, st.randoms(use_true_random=False))
def test_names_in_a_directory_are_distinct_legal_and_independent_of_order(wanted, taken, chance: random.Random):
    """Everybody gets a legal name of their own, none that is reserved, whatever the order or paging of the listing."""
    given_names = names.assign(wanted, taken)
    assert set(given_names) == {claim.key for claim in wanted}
    assert len(set(given_names.values())) == len(wanted)
    assert all(is_a_name(name) for name in given_names.values())
    assert taken.isdisjoint(given_names.values())
    shuffled = list(wanted)
    chance.shuffle(shuffled)
    assert names.assign(shuffled, taken) == given_names


@given(claims, reserved)
def test_the_oldest_keeps_the_plain_name(wanted, taken):
    """Of equal names the oldest folder, else the oldest file, has it plain; whose name nobody else wants has it too."""
    given_names = names.assign(wanted, taken)
    for claim in wanted:
        rivals = [other for other in wanted if plain(other) == plain(claim)]
        first = min(rivals, key=lambda c: (not c.folder, c.age, c.key))
        assert (given_names[claim.key] == plain(claim)) == (first is claim and plain(claim) not in taken)


@given(claims, claims)
def test_later_arrivals_rename_nobody_who_is_older(before, after):
    """A directory that only grows by younger ones of the same kind keeps every plain name it has given."""
    old = [Claim(c.title, c.key, c.id, (1.0, c.key), c.folder, c.media_type) for c in before]
    new = [Claim(c.title, "new" + c.key, c.id, (2.0, c.key), False, c.media_type) for c in after]
    had, has = names.assign(old), names.assign([*old, *new])
    for claim in old:
        if had[claim.key] == plain(claim):
            assert has[claim.key] == plain(claim)


def test_the_suffix_is_the_short_id_before_the_extension():
    """Files keep their extension, folders have none; equal short ids fall back to a digest of the key."""
    wanted = [
        Claim("notes.md", "1", "art_7f3a2c", (2.0, "")),
        Claim("notes.md", "2", "art_0d0e01", (1.0, "")),
        Claim("notes.md", "3", "0b6f6a52-93f8-4c11-8a57-2f6f0f6a1c11", (3.0, "")),
        Claim("notes.md", "4", "0b6f6a52-ffff-4c11-8a57-2f6f0f6a1c11", (4.0, "")),
        Claim("v1.2", "5", "exec-1", (1.0, ""), folder=True),
        Claim("v1.2", "6", "exec-2", (2.0, ""), folder=True),
    ]
    digest = hashlib.sha256(b"4").hexdigest()[:8]
    assert names.assign(wanted) == {
        "1": "notes ~7f3a2c.md",
        "2": "notes.md",
        "3": "notes ~0b6f6a52.md",
        "4": f"notes ~{digest}.md",
        "5": "v1.2",
        "6": "v1.2 ~exec2",
    }


@pytest.mark.parametrize("char", ["n", "\u00e9", "\u65e5", "\U0001f600"])
@pytest.mark.parametrize("size", range(235, 258))
def test_there_is_room_for_a_suffix_in_255_bytes(char, size):
    """Two of one long title: both legal, distinct, with their extension."""
    title = char * (size // len(char.encode())) + ".md"
    wanted = [Claim(title, "a", "art_7f3a2c", (1.0, "")), Claim(title, "b", "art_7f3a2d", (2.0, ""))]
    found = names.assign(wanted)
    assert found["a"] == names.encode(title)
    assert found["b"].endswith(" ~7f3a2d.md")
    assert all(is_a_name(name) for name in found.values())


def test_case_and_normal_form_tell_names_apart():
    """Nothing is folded: two spellings that look alike are two names, and neither needs a suffix."""
    spellings = ["\u00e9.md", "e\u0301.md", "README", "readme", "Stra\u00dfe", "STRASSE"]
    found = names.assign(Claim(title, title, title) for title in spellings)
    assert found == {title: title for title in spellings}


@pytest.mark.parametrize(
    ("name", "media_type", "shown"),
    [
        ("report", "text/markdown", "report.md"),
        ("report", "text/plain; charset=utf-8", "report.txt"),
        ("report", "IMAGE/PNG", "report.png"),
        ("report.final version", "text/plain", "report.final version.txt"),
        ("report.md", "text/plain", "report.md"),
        ("report", "application/octet-stream", "report"),
        ("report", "no/such-type", "report"),
        ("report", None, "report"),
        ("n" * 253, "text/plain", "n" * 253),
    ],
)
def test_a_file_without_extension_gets_that_of_its_type(name, media_type, shown):
    """Only where it has none, the type is known, and there is room."""
    assert names.with_extension(name, media_type) == shown


# -- targets of symlinks -------------------------------------------------------------------------------------------


@given(st.lists(titles, max_size=5).map("/".join))
@example("t\x01/../d^01/./x")
@example("/a//b/")
@example("\udcff" * 255)
@example("\x01" * 300)
def test_a_target_is_shown_by_the_names_that_are_listed(target):
    """Whatever stands in it; and who types it as it is shown means the same."""
    target = target.replace("\0", "")
    shown = names.shown_target(target)
    shown.encode()
    parts, raw = shown.split("/"), target.split("/")
    assert len(parts) == len(raw)
    for part, title in zip(parts, raw, strict=True):
        is_step = title in {"", ".", ".."}
        if is_step or len(title.encode("utf-8", "surrogatepass")) <= 255:
            assert part == (title if is_step else names.encode(title))
    if not any(len(names.encode(part).encode()) > 200 for part in raw):
        assert names.meant_target(shown) == target


@given(st.one_of(pieces, st.text(alphabet="^/.0aAF~5E2 ", max_size=12)))
@example("^2F")
@example("..")
@example("^2E^2E/x")
@example("a^80")
@example("x ")
@example("^empty")
def test_a_target_that_is_typed_comes_back_as_typed_or_is_refused(typed):
    """And is never one that leads through names which no tree has."""
    meant = names.meant_target(typed)
    if meant is not None:
        assert names.shown_target(meant) == typed
        assert meant.count("/") == typed.count("/")
