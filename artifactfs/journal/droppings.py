"""Names that editors and desktops leave behind. Pure.

Rules of this file: the list is about names made through the mount; what a service lists is always shown. A name here stays
on this machine until it is renamed to one that is not.
"""

from __future__ import annotations

import re

# Taken from recorded saves of vim, emacs, nano, sed, perl, patch, rsync, gio, VS Code, LibreOffice, git, sqlite3, zip and
# the desktops' own litter. The last group can be real names: they are only saved later, not never (see ``is_passing``).
_DROPPINGS = re.compile(
    r"""
      \.DS_Store | \._.+ | \.(Trash|Trashes|Trash-\d+|Spotlight-V100|fseventsd|TemporaryItems|apdisk|AppleDouble)
    | \.(nfs|fuse_hidden|smbdelete)[0-9A-Fa-f]+ | \.~lock\..+\# | lu[0-9a-z]+\.tmp | ~\$.+ | Thumbs\.db | desktop\.ini
    | \..+\.sw[a-z] | \..+\.un~ | \d{4,5} | .+~ | \#.+\# | \.\#.+ | \.goutputstream-.+ | .+\.vsctmp | .+\.crswap
    | .+___jb_(tmp|old|bak)___ | .+\.kate-swp | \.directory | .+\.(tmp|temp|part|crdownload|partial|download)
    | .+\.tmp\.\d+(\..+)? | .+-(journal|wal|shm) | .+\.lock
    """,
    re.VERBOSE,
)
_PASSING = re.compile(
    r"sed[A-Za-z0-9]{6} | \..+\.[A-Za-z0-9]{6} | .+\.o[A-Za-z0-9]{6} | tmp[a-z0-9_]{8} | d2utmp.{6} | zi[A-Za-z0-9]{6}"
    r" | XX[A-Za-z0-9]{6}",
    re.VERBOSE,
)


def is_dropping(name: str) -> bool:
    """Tell whether a new file of this name stays on this machine."""
    return _DROPPINGS.fullmatch(name) is not None


def is_passing(name: str) -> bool:
    """Tell whether a new file of this name is probably about to be renamed."""
    return _PASSING.fullmatch(name) is not None
