"""Which names stay on this machine, which are saved a moment later, and which are just names."""

import pytest

from artifactfs.journal.droppings import is_dropping, is_local_directory, is_passing

DROPPINGS = [
    ".DS_Store", "._doc.md", ".Trash-1000", ".Trashes", ".fuse_hidden0000002a00000001", ".nfs0a1b", ".~lock.doc.odt#",
    "~$report.docx", "Thumbs.db", "desktop.ini", ".doc.md.swp", ".doc.md.swx", ".doc.md.un~", "doc.md~", "#doc.md#",
    ".#doc.md", ".#-emacsL3jaH4", ".goutputstream-PBAGZ3", "settings.json.vsctmp", "x.crswap", "a.py___jb_tmp___",
    "a.py___jb_old___", "f.kate-swp", ".directory",
    "data.db-journal", "places.sqlite-wal", "data.db-shm", "lu1482ojzfb.tmp", "x.crdownload", ".swp", "doc.md.~1~",
]  # fmt: skip
PASSING = [
    "4913", "5036", "sed9Lt8n1", "XX9VgLp7", "tmphfewm2l5", "zioPjiqn", ".doc.md.hbTStp", "doc.md.oAbCdEf",
    "d2utmpAbCdEf",
    "doc.md.tmp.32320.17", "doc.md.tmp.321.1700000000", "x.tmp", "x.part", "index.lock", "HEAD.lock",
    "data-journal", "trip-journal", "lunch.tmp", "tmp_obj_Ab12Cd", "tmp.aB3dE5gH7i",
]  # fmt: skip
# Names that people give, some of which only look like the others.
NAMES = [
    "doc.md", "README", "notes.txt", "report.final.md", ".gitignore", ".env", "Makefile", "a~b", "#", "x#", "2024.md",
    "20",
    "123456", "template", "sedan", "tmp", "data.db", "swp", "x.swp", "~", "été.txt", ".config", "main.o", "lock", "wal",
]  # fmt: skip
LOCAL = [
    ".git", ".hg", ".svn", ".Trash-1000", ".Trash", ".Trashes", ".Spotlight-V100", ".fseventsd", ".TemporaryItems",
    "$RECYCLE.BIN",
]  # fmt: skip
NOT_LOCAL = [".github", ".gitignore", "git", "src.git", ".config", "node_modules", ".Trash-", ".trash", "svn"]


@pytest.mark.parametrize("name", DROPPINGS)
def test_droppings_stay_here(name: str):
    """What editors and desktops leave behind, in forms that nobody gives to a document."""
    assert is_dropping(name)
    assert not is_passing(name)


@pytest.mark.parametrize("name", PASSING)
def test_passing_names_are_saved_later(name: str):
    """Temporary names that a person might give too are no droppings: they must reach the service in the end."""
    assert is_passing(name)
    assert not is_dropping(name)


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_names_are_neither(name: str):
    """They are saved when they are closed."""
    assert not is_dropping(name)
    assert not is_passing(name)
    assert not is_local_directory(name)


@pytest.mark.parametrize("name", LOCAL)
def test_directories_of_use_here_alone_stay_here(name: str):
    """Trash cans and the working state of version control: with all that is made in them."""
    assert is_local_directory(name)


@pytest.mark.parametrize("name", NOT_LOCAL)
def test_other_directories_are_the_services(name: str):
    """Names that only look like those that stay."""
    assert not is_local_directory(name)
