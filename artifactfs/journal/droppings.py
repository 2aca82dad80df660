"""Names that editors and desktops leave behind. Pure.

Rules of this file: the lists are about names made through the mount; what a service lists is always shown. None of them
may lose anything: a dropping stays on this machine, over remounts too, until it is renamed to a name that is none, and
so does what is made in a local directory until it is moved out of it; a passing name is saved like any other, only a
moment later.
"""

from __future__ import annotations

import re

# Directories whose whole subtree is of use on this machine alone: trash cans, indexes, and the working state of version
# control, of which one `git commit` makes some forty files.
_DIRECTORIES = re.compile(
    r"""
      \.(Trash|Trashes|Trash-\d+) | \$RECYCLE\.BIN
    | \.(Spotlight-V100|fseventsd|TemporaryItems|DocumentRevisions-V100|AppleDouble)
    | \.(git|hg|svn|bzr|jj)
    """,
    re.VERBOSE,
)
# Taken from recorded saves of vim, emacs, nano, gio, VS Code, JetBrains, Kate, LibreOffice, Chromium, sqlite3 and the
# desktops' own litter. Only forms that nobody gives to a document.
_DROPPINGS = re.compile(
    r"""
      \.DS_Store | \._.+ | \.(Trash|Trashes|Trash-\d+|Spotlight-V100|fseventsd|TemporaryItems|apdisk|AppleDouble)
    | \.(nfs|fuse_hidden|smbdelete)[0-9A-Fa-f]+ | \.~lock\..+\# | lu\d+[0-9a-z]+\.tmp | ~\$.+ | Thumbs\.db
    | \..+\.sw[a-z] | \.sw[a-p] | \..+\.un~ | .+~ | \#.+\# | \.\#.+ | \.goutputstream-.+ | .+\.vsctmp | .+\.crswap
    | .+___jb_(tmp|old|bak)___ | .+\.kate-swp | \.directory | desktop\.ini | .+\.crdownload
    | .+\.(db3?|sqlite[23]?)-(journal|wal|shm)
    """,
    re.VERBOSE,
)
# Of recorded saves too (vim's 4913, sed, perl, patch, rsync, zip, git, browsers, sqlite3, mktemp), but people name
# files so as well: `poetry.lock`, `2024`, `zipfiles`, `trip-journal`.
_PASSING = re.compile(
    r"""
      \d{4,5} | .+\.(tmp|temp|part|partial|download|lock) | .+\.tmp\.\d+(\..+)?
    | .+-(journal|wal|shm) | sed[A-Za-z0-9]{6} | \..+\.[A-Za-z0-9]{6} | .+\.o[A-Za-z0-9]{6} | tmp[A-Za-z0-9_]{6,}
    | tmp\.[A-Za-z0-9]{10} | d2utmp.{6} | zi[A-Za-z0-9]{6} | XX[A-Za-z0-9]{6} | tmp_obj_.+
    """,
    re.VERBOSE,
)


def is_dropping(name: str) -> bool:
    """Tell whether a new file of this name stays on this machine."""
    return _DROPPINGS.fullmatch(name) is not None


def is_passing(name: str) -> bool:
    """Tell whether a new file of this name, which is no dropping, is probably about to be renamed or removed."""
    return _PASSING.fullmatch(name) is not None and not is_dropping(name)


def is_local_directory(name: str) -> bool:
    """Tell whether a new directory of this name stays on this machine with all that is made in it."""
    return _DIRECTORIES.fullmatch(name) is not None
