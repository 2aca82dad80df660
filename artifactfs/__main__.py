"""``python -m artifactfs`` and the ``artifactfs`` command."""

from __future__ import annotations

from artifactfs.cli.app import run


def main() -> None:
    """Run the command line."""
    run()


if __name__ == "__main__":
    main()
