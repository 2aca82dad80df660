"""Writes docs/faults.md from the table: `python -m tests.faults.document`."""

from __future__ import annotations

from pathlib import Path

from tests.faults.expectations import DEADLINE_S, OPERATIONS, RULES, SERVICES, Expected, expected
from tests.faults.faults import FAULTS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/faults.md"
HEAD = f"""# What programs see when a service fails

Made from `tests/faults/faults.py` and `tests/faults/expectations.py` by `python -m tests.faults.document`; a test says
that it is what they say. Every cell is tried with a real mount of a really served service, behind a proxy that can
delay, stall, cut, corrupt, throttle and lie: a part of them in each run of `scripts/test`, in which any two of fault,
service and operation meet, and all by `scripts/torture faults`.

Each cell says what the program gets (`ok` or the errno), how many requests the service sees at most, and within how
many seconds it is over on a machine that has nothing else to do. The deadline (`timeout`) is {DEADLINE_S:.0f} s here;
it is 30 s unless configured.

## Rules
"""
OPERATIONS_TOLD = """
## Operations

* **list**, **stat**: of a directory that nobody has looked into yet, and of a name in it.
* **open**, **first read**: of a small file in a directory that is known.
* **later read**: of the end of a file that is open, 3 MiB large, and of which some has come.
* **write**: a new file is made and written to. **fsync**: of one that was made before the fault began.
* **umount**: `artifactfs umount` while a program waits for a file and a save waits for its service.
"""


def _cell(cell: Expected, notes: list[str]) -> str:
    mark = ""
    if cell.why:
        if cell.why not in notes:
            notes.append(cell.why)
        mark = f" [{notes.index(cell.why) + 1}]"
    return f"{cell.outcome}, {cell.most}, {cell.within_s:g} s{mark}"


def _table(service: str, notes: list[str]) -> list[str]:
    lines = [f"### {service}", "", f"| fault | {' | '.join(OPERATIONS)} |", "|---" * (len(OPERATIONS) + 1) + "|"]
    for fault in FAULTS:
        cells = (_cell(expected(fault, service, operation), notes) for operation in OPERATIONS)
        lines.append(f"| {fault.name} | {' | '.join(cells)} |")
    return [*lines, ""]


def render() -> str:
    """Return the document."""
    notes: list[str] = []
    tables = [line for service in SERVICES for line in _table(service, notes)]
    faults = [f"* **{fault.name}**: {fault.means}" for fault in FAULTS]
    parts = [
        HEAD,
        *(f"* {rule}" for rule in RULES),
        OPERATIONS_TOLD,
        "## Faults",
        "",
        *faults,
        "",
        "## The table",
        "",
        *tables,
    ]
    if notes:
        parts += ["## Notes", "", *(f"{number}. {note}" for number, note in enumerate(notes, 1)), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(render())
