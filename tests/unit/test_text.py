"""What others have written, for a terminal: in the log, in `.artifactfs`, in headers."""

from __future__ import annotations

import logging
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs import observe
from artifactfs.model.text import printable
from artifactfs.providers.wire import headers_of
from artifactfs.vfs.control_dir import errors_text, pending_text, progress_text

EVIL = "\x1b]0;pwned\x07 \x9b31m \u202egnp.exe \r\n 2026-01-01 ERROR forged \ud800"


@given(st.text(st.characters()))
def test_what_is_printable_stays_and_nothing_else_leaves(text: str) -> None:
    """Lone surrogates, bidi controls, line ends: escapes; and what is printable is the text itself."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert (shown == text) == text.isprintable()


def test_the_files_of_the_mount_hold_a_line_for_each_thing_and_nothing_to_obey() -> None:
    """`cat .artifactfs/errors` shows messages of services and names that agents gave."""
    incident = {"time": "now", "source": "work", "message": EVIL, "subject": f"/{EVIL}"}
    row = {"archive": EVIL, "bytes": 1, "total": 2, "files": 3, "seconds": 4.0}
    waiting = {"number": 1, "state": "waits", "path": EVIL, "size": 2, "tries": 3, "error": EVIL}
    for text in (
        errors_text({"errors": [incident] * 2}),
        progress_text({"archives": [row] * 2}),
        pending_text({"pending": [waiting] * 2}),
    ):
        lines = text.split("\n")
        assert len(lines) == 3
        assert all(line.isprintable() for line in lines)
        assert "pwned" in lines[0]


@pytest.fixture
def log_file(tmp_path: Path):
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogger("artifactfs").level
    observe.set_up_logging("info", handler=logging.FileHandler(tmp_path / "log", encoding="utf-8"))
    yield tmp_path / "log"
    root.handlers[0].close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    logging.getLogger("artifactfs").setLevel(before[2])


def test_nobody_forges_a_line_of_the_log(log_file: Path) -> None:
    """A title with line ends and escapes is one line; a traceback keeps its lines, each with the head of its record."""
    log = logging.getLogger("artifactfs.test")
    log.info("the title %s is odd", EVIL)
    try:
        int(EVIL)
    except ValueError:
        log.info("failed", exc_info=True)
    text = log_file.read_text()
    assert all(line.isprintable() for line in text.split("\n"))
    assert all(" INFO artifactfs.test [" in line for line in text.splitlines())
    assert len([line for line in text.splitlines() if "] the title " in line or "] failed" in line]) == 2
    assert "Traceback" in text


@given(st.binary(max_size=60))
def test_a_header_is_text_for_a_line(raw: bytes) -> None:
    """h11 lets control characters through, and messages quote headers."""
    (value,) = headers_of([(b"Content-Type", raw)]).values()
    assert value.isprintable()
    letters = string.ascii_letters.encode()
    assert bytes(byte for byte in raw if byte in letters).decode() == "".join(
        c for c in value if c.isascii() and c.isalpha()
    )
