"""The table of faults (docs/faults.md), cell by cell, through real mounts of really served services.

A part of the table, in which any two of fault, service and operation meet, unless ARTIFACTFS_TEST_FAULTS is ``all``:
`scripts/torture faults` sets that.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from itertools import combinations

import pytest

from tests.faults.expectations import EXCEPTIONS, OPERATIONS, SERVICES, expected, is_in_subset, table
from tests.faults.faults import BY_NAME, FAULTS
from tests.faults.rows import Row, carry_out, contents
from tests.faults.worlds import LARGE, SAVED
from tests.support.lab import TOKEN
from tests.support.log_guard import LogGuard

# A row takes some ten seconds, and several times as long on a machine that is busy with other things.
pytestmark = [pytest.mark.fuse, pytest.mark.timeout(400)]

CELLS = [key for key in table() if os.environ.get("ARTIFACTFS_TEST_FAULTS") == "all" or is_in_subset(key)]
NAMES = [fault.name for fault in FAULTS]
each_fault = pytest.mark.parametrize("fault", NAMES)


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """The lines to them are cut while they answer."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


@pytest.fixture(scope="module")
def row_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Row]:
    """Carry out each row once, when the first of its cells is asked for."""
    rows: dict[str, Row | Exception] = {}
    base = tmp_path_factory.mktemp("faults")

    def carried_out(fault: str) -> Row:
        if fault not in rows:
            place = base / str(len(rows))
            place.mkdir()
            cells = [key[1:] for key in CELLS if key[0] == fault]
            try:
                rows[fault] = carry_out(BY_NAME[fault], cells, place)
            except Exception as error:  # noqa: BLE001 - raised for each of its cells
                rows[fault] = error
        row = rows[fault]
        if isinstance(row, Exception):
            raise row
        return row

    return carried_out


@pytest.mark.parametrize(("fault", "service", "operation"), CELLS)
def test_each_cell(row_of: Callable[[str], Row], fault: str, service: str, operation: str) -> None:
    """The errno, the requests that the service saw, and the time."""
    found, wanted = row_of(fault).outcomes[service, operation], expected(BY_NAME[fault], service, operation)
    assert wanted.allows(found.number), f"{errno.errorcode.get(found.number, 'ok')}, not {wanted.outcome}"
    assert wanted.least <= len(found.seen) <= wanted.most, found.seen
    assert found.took_s <= wanted.within_s * found.crowd
    if not found.number and operation == "first read" and not wanted.is_unchecked:
        assert found.value in contents(BY_NAME[fault])
    if not found.number and operation == "later read" and not wanted.is_unchecked:
        assert found.value == LARGE[-len(found.value) :]  # type: ignore[arg-type]  # bytes, of a read


@each_fault
def test_no_list_is_shortened(row_of: Callable[[str], Row], fault: str) -> None:
    """What is listed is all that was there throughout, or said to be less."""
    for key, (given, lasting, is_marked) in row_of(fault).listed.items():
        assert lasting <= given or is_marked, (key, lasting - given)


@each_fault
def test_afterwards_all_is_there(row_of: Callable[[str], Row], fault: str) -> None:
    """Once the service is well the next mount shows every name and the right bytes: nothing false was kept."""
    for key, (given, lasting, content) in row_of(fault).afterwards.items():
        assert lasting <= given, key
        assert content in contents(BY_NAME[fault]), key


@each_fault
def test_what_was_saved_arrives(row_of: Callable[[str], Row], fault: str) -> None:
    """Once, and as it was saved, whatever became of earlier tries."""
    for key, held in row_of(fault).arrived.items():
        assert held == [SAVED], key


@each_fault
def test_nothing_is_unforeseen(row_of: Callable[[str], Row], fault: str) -> None:
    """Every failure of a service is one that the program knows; none of them shows the token."""
    log = row_of(fault).log
    assert " ERROR " not in log
    assert TOKEN not in log


def test_any_two_meet_in_every_run() -> None:
    """Of fault, service and operation: what is tried in every run leaves no pair out."""
    chosen = [key for key in table() if is_in_subset(key)]
    for one, other in combinations(range(3), 2):
        wanted = {(a, b) for a in (NAMES, SERVICES, OPERATIONS)[one] for b in (NAMES, SERVICES, OPERATIONS)[other]}
        assert {(key[one], key[other]) for key in chosen} == wanted


def test_every_exception_is_one_and_says_why() -> None:
    """An exception to the rules that nobody can explain is an expectation made to fit."""
    assert EXCEPTIONS.keys() <= table().keys()
    assert all(cell.why for cell in EXCEPTIONS.values())
