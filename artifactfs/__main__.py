"""``python -m artifactfs`` and the ``artifactfs`` command."""

from __future__ import annotations

import sys

from artifactfs.cli import background
from artifactfs.daemon import confinement


def _load() -> background.Run:
    from artifactfs.cli.foreground import run_in_background

    return run_in_background


def main() -> None:
    """Run the command line."""
    confinement.no_core()  # any command may hold a token
    background.begin_early(sys.argv[1:], _load)
    try:
        from artifactfs.cli.app import run

        run()
    finally:
        background.abandon()


if __name__ == "__main__":
    main()
