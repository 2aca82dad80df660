"""The table of errnos is complete, and says what the design says."""

from __future__ import annotations

import errno
import inspect

import pytest

from artifactfs import errors
from artifactfs.fuse.errno_map import PASSED_ON, TABLE, errno_of

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ArtifactFSError)]
# Section 7 of the design: cause and errno. The fault tables of the mount tests are the same from the outside.
PROMISED = {
    errors.AccessDenied: errno.EACCES,
    errors.Barred: errno.EACCES,
    errors.QuotaExceeded: errno.EDQUOT,
    errors.NotFound: errno.ENOENT,
    errors.InvalidRequest: errno.EINVAL,
    errors.StaleContent: errno.ESTALE,
    errors.Conflict: errno.ESTALE,
    errors.TooLarge: errno.EFBIG,
    errors.LimitExceeded: errno.EFBIG,
    errors.NoLocalSpace: errno.ENOSPC,
    errors.Unavailable: errno.EIO,
    errors.RateLimited: errno.EIO,
    errors.TimedOut: errno.ETIMEDOUT,
    errors.Unreachable: errno.EHOSTUNREACH,
    errors.NotPermitted: errno.EPERM,
    errors.ReadOnly: errno.EROFS,
    errors.CorruptContent: errno.EIO,
    errors.NameNotAllowed: errno.EILSEQ,
    errors.NameTooLong: errno.ENAMETOOLONG,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_row_of_its_own(kind: type[errors.ArtifactFSError]) -> None:
    """Nobody gets an errno by inheritance without somebody having thought of it; and none says EAGAIN."""
    assert kind in TABLE
    assert errno_of(kind("text")) == TABLE[kind]
    assert TABLE[kind] in errno.errorcode
    assert TABLE[kind] not in {errno.EAGAIN, errno.EINTR, errno.ENOSYS}


@pytest.mark.parametrize("kind", PROMISED, ids=lambda kind: kind.__name__)
def test_the_table_keeps_what_is_promised(kind: type[errors.ArtifactFSError]) -> None:
    """Cause by cause."""
    assert errno.errorcode[TABLE[kind]] == errno.errorcode[PROMISED[kind]]


def test_no_transient_failure_says_that_nothing_is_there() -> None:
    """ENOENT is an answer; what may pass never becomes it."""
    absent = {kind for kind, number in TABLE.items() if number in {errno.ENOENT, errno.ENOTDIR}}
    assert absent == {errors.NotFound, errors.NotADirectory}


def test_a_subclass_counts_as_what_it_is() -> None:
    """Providers have their own; the nearest row above is theirs."""

    class Special(errors.RateLimited):
        """One more kind."""

    assert errno_of(Special("x")) == TABLE[errors.RateLimited]


@pytest.mark.parametrize("number", sorted(PASSED_ON), ids=lambda number: errno.errorcode[number])
def test_what_the_disk_says_is_passed_on_where_it_helps(number: int) -> None:
    """A full disk is a full disk."""
    assert errno_of(OSError(number, "text")) == number


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, "a cache file is gone"),
        FileNotFoundError("no number"),
        PermissionError(errno.EACCES, "the cache"),
        OSError("no number"),
        ValueError("a bug"),
        RecursionError(),
        MemoryError(),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_everything_else_is_eio(error: BaseException) -> None:
    """What the disk of the cache lacks is not what the caller lacks."""
    assert errno_of(error) == errno.EIO


def test_groups_are_looked_into() -> None:
    """However deep, also with several members: the first decides."""
    deep = ExceptionGroup("a", [ExceptionGroup("b", [errors.TooLarge("x")]), ValueError("y")])
    assert errno_of(deep) == errno.EFBIG
    assert errno_of(BaseExceptionGroup("a", [KeyboardInterrupt()])) == errno.EIO
