"""Hard conditions, for as long as wanted: `scripts/torture kills`, `fsx`, `faults`, `soak` and `many`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.torture.kills import torture
from tests.torture.long_fsx import PLACES, fsx
from tests.torture.many import many
from tests.torture.services import SERVICES
from tests.torture.soak import soak


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    kills = commands.add_parser("kills", help="kill -9 of a mount under a writing load")
    kills.add_argument("--service", choices=[*SERVICES, "all"], default="all")
    kills.add_argument("--kills", type=int, default=1000, help="of each service (default: %(default)s)")
    long = commands.add_parser("fsx", help="random operations on one file")
    long.add_argument("--operations", type=int, default=50_000, help="on each kind of file (default: %(default)s)")
    mixed = commands.add_parser("soak", help="programs that read and write while the services fail; looks for leaks")
    mixed.add_argument("--minutes", type=float, default=60.0, help="(default: %(default)s)")
    for command in (kills, long, mixed):
        command.add_argument("--seed", type=int, default=1)
    crowd = commands.add_parser("many", help="many artifacts: seconds, memory, and how long others wait meanwhile")
    crowd.add_argument("--service", choices=["local", "syntropic137", "vlmrun"], default="syntropic137")
    crowd.add_argument("--artifacts", type=int, default=1_000_000, help="in each folder (default: %(default)s)")
    crowd.add_argument("--folders", type=int, default=1, help="workflows (default: %(default)s)")
    table = commands.add_parser("faults", help="every cell of the table of faults (docs/faults.md)")
    table.add_argument("--only", default="", metavar="WORDS", help="cells whose names have them, as pytest's -k")
    given = parser.parse_args(arguments)
    if given.command == "faults":
        return _faults(given.only)
    if given.command == "fsx":
        parts = {place: partial(fsx, place=place, operations=given.operations, seed=given.seed) for place in PLACES}
    elif given.command == "many":
        size = {"folders": given.folders, "artifacts": given.artifacts}
        parts = {"many": partial(_many, service=given.service, **size)}
    elif given.command == "soak":
        parts = {"soak": partial(soak, seconds=60 * given.minutes, seed=given.seed, told=_say)}
    else:
        names = list(SERVICES) if given.service == "all" else [given.service]
        parts = {name: partial(torture, SERVICES[name], kills=given.kills, seed=given.seed) for name in names}
    return max(_run(name, part) for name, part in parts.items())


def _many(base: Path, *, service: str, folders: int, artifacts: int) -> str:
    many(base, service=service, folders=folders, artifacts=artifacts, told=_say)
    return f"many: {folders} x {artifacts} artifacts of {service}"


def _faults(only: str) -> int:
    """Run the whole table; the tests are those of which a part is in every run."""
    command = [sys.executable, "-m", "pytest", "tests/faults/test_fault_table.py", *(["-k", only] if only else [])]
    return subprocess.run(command, env={**os.environ, "ARTIFACTFS_TEST_FAULTS": "all"}, check=False).returncode


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _run(name: str, part: Callable[[Path], str]) -> int:
    """Run one part in a directory of its own, which stays if it fails."""
    base = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        sys.stdout.write(part(base) + "\n")
    except AssertionError as error:
        sys.stdout.write(f"FAILED {name}; what it left is in {base}\n{error}\n")
        return 1
    finally:
        sys.stdout.flush()
    return 0


def _ended(*_: object) -> None:
    sys.exit(143)


# So that what is mounted is unmounted on the way out.
signal.signal(signal.SIGTERM, _ended)
sys.exit(main(sys.argv[1:]))
