"""What each call does to each kind of place, as pjdfstest asks it of any filesystem: one row, one call, one answer.

The mount is one of a local store. Each row has a workflow of its own, called after it, which holds what ``PLACE`` says,
and a tree ``t`` in it, which holds the same: a row of both is done in the workflow and in the tree. ``EXCLUDED`` has
what POSIX says and the mount does not, with the reason.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import (
    EBADF,
    EBUSY,
    EEXIST,
    EFBIG,
    EILSEQ,
    EINVAL,
    EISDIR,
    ELOOP,
    ENAMETOOLONG,
    ENOENT,
    ENOSPC,
    ENOTDIR,
    ENOTEMPTY,
    ENXIO,
    EOPNOTSUPP,
    EPERM,
    EROFS,
    EXDEV,
)  # fmt: skip
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from artifactfs.store.rows import TreeFile
from tests.support.calls import (
    EXCHANGE,
    KEEP_SIZE,
    NOREPLACE,
    PUNCH_HOLE,
    WHITEOUT,
    fallocate,
    mapped,
    open_close,
    opened,
    put,
    renameat2,
)  # fmt: skip
from tests.support.lab import Mounted
from tests.support.saving import artifact_id, local_mount

pytestmark = pytest.mark.fuse

F, G = b"hello", b"world!"
PLACE = {"f": F, "g": G, "d/sub/f": F}
"""Files of a place: ``f`` and ``g``, a directory ``d`` that is not empty, and a directory ``e`` that is."""
R, W, RW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
C, X, T, A, D = os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY
Do = Callable[[Path], object]


@dataclass(frozen=True)
class Row:
    """A call and its answer: ``says`` is the errno, 0 is success; with ``gives`` it returns that, too."""

    what: str
    do: Do
    says: int = 0
    gives: object = ...


@dataclass(frozen=True)
class Excluded:
    """What POSIX says and the mount does not; as in ``Row`` 0 is success, and ``gives`` what is then seen."""

    what: str
    do: Do
    posix: str
    says: int
    reason: str
    gives: object = ...


# -- calls that are more than a line -------------------------------------------------------------------------


def fd_does(flags: int, do: Callable[[int], object], name: str = "f") -> Do:
    """Return a call on a descriptor of a file."""

    def call(place: Path) -> object:
        with opened(place / name, flags) as fd:
            return do(fd)

    return call


def unlinked(place: Path) -> object:
    """Remove a file that is open: it stays readable and writable, and has no name."""
    with opened(place / "f", RW) as fd:
        (place / "f").unlink()
        os.pwrite(fd, b"HE", 0)
        return os.pread(fd, 99, 0), os.fstat(fd).st_size, (place / "f").exists()


def unlinked_new(place: Path) -> object:
    with opened(place / "new", RW | C | X) as fd:
        (place / "new").unlink()
        os.write(fd, b"text")
        os.fsync(fd)
        os.ftruncate(fd, 2)
        return os.pread(fd, 99, 0), (place / "new").exists()


def unlinked_and_made_again(place: Path) -> object:
    with opened(place / "f", R) as fd:
        (place / "f").unlink()
        put(place / "f", b"new")
        return os.pread(fd, 99, 0), (place / "f").read_bytes()


def renamed_over_open(place: Path) -> object:
    with opened(place / "f", R) as fd:
        (place / "g").rename(place / "f")
        return os.pread(fd, 99, 0), (place / "f").read_bytes(), (place / "g").exists()


def renamed_over_written(place: Path) -> object:
    with opened(place / "f", RW) as fd:
        os.pwrite(fd, b"J", 0)
        (place / "g").rename(place / "f")
        os.pwrite(fd, b"LOST", 1)
        return os.pread(fd, 99, 0), (place / "f").read_bytes()


def renamed_while_written(place: Path) -> object:
    with opened(place / "f", RW) as fd:
        os.pwrite(fd, b"J", 0)
        (place / "f").rename(place / "h")
        os.pwrite(fd, b"!", 5)
    return (place / "h").read_bytes(), (place / "f").exists()


def appended_by_two(place: Path) -> object:
    with opened(place / "f", W | A) as one, opened(place / "f", W | A) as two:
        for fd, text in ((one, b"1"), (two, b"22"), (one, b"3")):
            os.write(fd, text)
        os.lseek(one, 0, os.SEEK_SET)
        os.write(one, b"4")
    return (place / "f").read_bytes()


def two_share(place: Path) -> object:
    with opened(place / "f", RW) as one, opened(place / "f", RW) as two:
        os.pwrite(one, b"HE", 0)
        return os.pread(two, 99, 0)


def dup_shares(place: Path) -> object:
    with opened(place / "f", RW) as fd:
        other = os.dup(fd)
        os.write(fd, b"HE")
        os.close(fd)
        try:
            os.write(other, b"LL")
        finally:
            os.dup2(other, fd)
            os.close(other)
    return (place / "f").read_bytes()


def sparse(place: Path) -> object:
    with opened(place / "f", RW) as fd:
        os.pwrite(fd, b"end", 1 << 20)
        size, middle = os.fstat(fd).st_size, os.pread(fd, 1 << 20, 0)
    return size, middle == F + bytes((1 << 20) - 5), (place / "f").read_bytes() == middle + b"end"


def grown(place: Path) -> object:
    os.truncate(place / "f", 10)
    return (place / "f").read_bytes()


def shrunk_and_grown(place: Path) -> object:
    with opened(place / "f", RW) as fd:
        os.ftruncate(fd, 2)
        os.ftruncate(fd, 5)
    return (place / "f").read_bytes()


def mapped_write(place: Path) -> object:
    with opened(place / "f", RW) as fd, mmap.mmap(fd, 0) as memory:
        memory[0:2] = b"HE"
        memory.flush()
        seen = os.pread(fd, 99, 0)
    return seen, (place / "f").read_bytes()


def mapped_privately(place: Path) -> object:
    with opened(place / "f", R) as fd, mmap.mmap(fd, 0, access=mmap.ACCESS_COPY) as memory:
        memory[0:2] = b"HE"
    return (place / "f").read_bytes()


def after(prepare: Do, then: Do) -> Do:
    """Return a call that does one thing and answers with another."""

    def call(place: Path) -> object:
        prepare(place)
        return then(place)

    return call


def bytes_of(name: str) -> Do:
    return lambda p: (p / name).read_bytes()


def names_of(name: str = ".") -> Do:
    return lambda p: set(os.listdir(p / name)) - {"by-id", "t"}


def locked_twice(place: Path) -> object:
    with opened(place / "f", RW) as one, opened(place / "f", RW) as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return None


def read_directory_in_pieces(place: Path) -> object:
    """Remove what a reader of a directory has been shown, as `rm -r` does: nothing is skipped."""
    for number in range(30):
        put(place / "d" / f"n{number}", b"x")
    with os.scandir(place / "d") as entries:
        for entry in entries:
            if entry.is_file():
                os.unlink(entry.path)
    return os.listdir(place / "d")


def mtime_of(place: Path) -> object:
    os.utime(place / "f", ns=(1_600_000_000 * 10**9, 1_500_000_000 * 10**9))
    return (place / "f").stat().st_mtime


def mtime_moves(place: Path) -> object:
    os.utime(place / "f", ns=(0, 10**18))
    put(place / "f", b"x")
    return time.time() - (place / "f").stat().st_mtime < 60


def mode_of(name: str) -> Do:
    return lambda p: stat.S_IMODE((p / name).stat().st_mode)


def path_of(length: int) -> str:
    return "/".join(["n" * 200] * (length // 201 + 1))[:length]


# -- what holds in a workflow and in a tree ------------------------------------------------------------------

LONG, FITS = "n" * 256, "n" * 255
BOTH = [
    # open, creat
    Row("open what is not there", lambda p: open_close(p / "none", R), ENOENT),
    Row("open for writing what is not there", lambda p: open_close(p / "none", W), ENOENT),
    Row("open below what is not there", lambda p: open_close(p / "none" / "x", R), ENOENT),
    Row("open below a file", lambda p: open_close(p / "f" / "x", R), ENOTDIR),
    Row("open a file with a slash behind it", lambda p: open_close(f"{p}/f/", R), ENOTDIR),
    Row("open an empty path", lambda p: open_close("", R), ENOENT),
    Row("open a file as a directory", lambda p: open_close(p / "f", R | D), ENOTDIR),
    Row("open a directory as a directory", lambda p: open_close(p / "d", R | D)),
    Row("open a directory for writing", lambda p: open_close(p / "d", W), EISDIR),
    Row("open a directory for reading and writing", lambda p: open_close(p / "d", RW), EISDIR),
    Row("empty a directory by open", lambda p: open_close(p / "d", W | T), EISDIR),
    Row("create over a directory", lambda p: open_close(p / "d", W | C), EISDIR),
    Row("create with a slash behind it", lambda p: open_close(f"{p}/new/", W | C), EISDIR),
    Row("create a new file", lambda p: put(p / "new", b"x"), gives=b"x"),
    Row("create an empty file", after(lambda p: open_close(p / "new", W | C), bytes_of("new")), gives=b""),
    Row("create exclusively", lambda p: put(p / "new", b"x", X), gives=b"x"),
    Row("create exclusively over a file", lambda p: open_close(p / "f", W | C | X), EEXIST),
    Row("create exclusively over a directory", lambda p: open_close(p / "d", W | C | X), EEXIST),
    Row("create below what is not there", lambda p: open_close(p / "none" / "x", W | C), ENOENT),
    Row("create below a file", lambda p: open_close(p / "f" / "x", W | C), ENOTDIR),
    Row("create over a file without emptying it", lambda p: put(p / "f", b"J"), gives=b"Jello"),
    Row("empty a file by open", after(lambda p: open_close(p / "f", W | T), bytes_of("f")), gives=b""),
    Row("empty a file by open and write", lambda p: put(p / "f", b"J", T), gives=b"J"),
    Row("open a file without following links", lambda p: open_close(p / "f", R | os.O_NOFOLLOW)),
    Row("open a name of 255 bytes", lambda p: put(p / FITS, b"x"), gives=b"x"),
    Row("open a name of 256 bytes", lambda p: open_close(p / LONG, R), ENAMETOOLONG),
    Row("create a name of 256 bytes", lambda p: open_close(p / LONG, W | C), ENAMETOOLONG),
    Row("open a path of 4096 bytes", lambda p: open_close(p / path_of(4096), R), ENAMETOOLONG),
    Row("create with mode 0755", after(lambda p: open_close(p / "n", W | C, 0o755), mode_of("n")), gives=0o755),
    # descriptors
    Row("read from what is open for writing", fd_does(W, lambda fd: os.read(fd, 1)), EBADF),
    Row("write to what is open for reading", fd_does(R, lambda fd: os.write(fd, b"x")), EBADF),
    Row("pwrite to what is open for reading", fd_does(R, lambda fd: os.pwrite(fd, b"x", 0)), EBADF),
    Row("ftruncate what is open for reading", fd_does(R, lambda fd: os.ftruncate(fd, 0)), EINVAL),
    Row("read a directory as a file", fd_does(R | D, lambda fd: os.read(fd, 1), "d"), EISDIR),
    Row("write to a path only descriptor", fd_does(os.O_PATH, lambda fd: os.write(fd, b"x")), EBADF),
    Row("read at the end", fd_does(R, lambda fd: os.pread(fd, 9, 5)), gives=b""),
    Row("read behind the end", fd_does(R, lambda fd: os.pread(fd, 9, 5000)), gives=b""),
    Row("read across the end", fd_does(R, lambda fd: os.pread(fd, 9, 3)), gives=b"lo"),
    Row("write nothing", fd_does(W, lambda fd: os.write(fd, b"")), gives=0),
    Row("fsync what is open for reading", fd_does(R, os.fsync)),
    Row("fsync what was not written", fd_does(RW, os.fsync)),
    Row("fsync a directory", fd_does(R | D, os.fsync, "d")),
    Row("fdatasync", fd_does(RW, os.fdatasync)),
    Row("seek before the beginning", fd_does(R, lambda fd: os.lseek(fd, -1, os.SEEK_SET)), EINVAL),
    Row("seek to the end", fd_does(R, lambda fd: os.lseek(fd, 0, os.SEEK_END)), gives=5),
    Row("seek behind the end", fd_does(R, lambda fd: os.lseek(fd, 99, os.SEEK_SET)), gives=99),
    Row("seek data", fd_does(R, lambda fd: os.lseek(fd, 2, os.SEEK_DATA)), gives=2),
    Row("seek data at the end", fd_does(R, lambda fd: os.lseek(fd, 5, os.SEEK_DATA)), ENXIO),
    Row("seek a hole", fd_does(R, lambda fd: os.lseek(fd, 0, os.SEEK_HOLE)), gives=5),
    Row("seek a hole behind the end", fd_does(R, lambda fd: os.lseek(fd, 6, os.SEEK_HOLE)), ENXIO),
    Row("advise", fd_does(R, lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED))),
    # open and without a name, or with another
    Row("unlink an open file", unlinked, gives=(b"HEllo", 5, False)),
    Row("unlink a new file that is being written", unlinked_new, gives=(b"te", False)),
    Row("unlink an open file and make it again", unlinked_and_made_again, gives=(F, b"new")),
    Row("rename over an open file", renamed_over_open, gives=(F, G, False)),
    Row("rename over a file that is being written", renamed_over_written, gives=(b"JLOST", G)),
    Row("rename a file that is being written", renamed_while_written, gives=(b"Jello!", False)),
    Row("append through two descriptors", appended_by_two, gives=b"hello12234"),
    Row("share what was written between descriptors", two_share, gives=b"HEllo"),
    Row("close one of two duplicates", dup_shares, gives=b"HELLo"),
    Row("lock", fd_does(RW, lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))),
    Row("lock what is locked", locked_twice, errno.EWOULDBLOCK),
    Row("lock a range", fd_does(RW, lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 3))),
    # length
    Row("truncate to less", after(lambda p: os.truncate(p / "f", 2), bytes_of("f")), gives=b"he"),
    Row("truncate to more", grown, gives=b"hello\0\0\0\0\0"),
    Row("truncate to less and to more", shrunk_and_grown, gives=b"he\0\0\0"),
    Row("truncate to the same", after(lambda p: os.truncate(p / "f", 5), bytes_of("f")), gives=F),
    Row("truncate to nothing", after(lambda p: os.truncate(p / "f", 0), bytes_of("f")), gives=b""),
    Row("truncate to less than nothing", lambda p: os.truncate(p / "f", -1), EINVAL),
    Row("truncate to more than the disk holds", lambda p: os.truncate(p / "f", 1 << 60), ENOSPC),
    Row("truncate a directory", lambda p: os.truncate(p / "d", 0), EISDIR),
    Row("truncate what is not there", lambda p: os.truncate(p / "none", 0), ENOENT),
    Row("truncate below a file", lambda p: os.truncate(p / "f" / "x", 0), ENOTDIR),
    Row("ftruncate to less than nothing", fd_does(RW, lambda fd: os.ftruncate(fd, -1)), EINVAL),
    Row("write far behind the end", sparse, gives=((1 << 20) + 3, True, True)),
    Row("write at a negative offset", fd_does(RW, lambda fd: os.pwrite(fd, b"x", -1)), EINVAL),
    Row("posix_fallocate", after(fd_does(RW, lambda fd: os.posix_fallocate(fd, 0, 9)), bytes_of("f")),
        gives=F + bytes(4)),
    # maps
    Row("map for reading", lambda p: mapped(p / "f", mmap.PROT_READ, R), gives=F),
    Row("map for writing", mapped_write, gives=(b"HEllo", b"HEllo")),
    Row("map privately", mapped_privately, gives=F),
    Row("map for writing what is open for reading", lambda p: mapped(p / "f", mmap.PROT_WRITE, R), errno.EACCES),
    # mkdir, rmdir
    Row("mkdir", after(lambda p: (p / "new").mkdir(), names_of("new")), gives=set()),
    Row("mkdir with a slash behind it", lambda p: os.mkdir(f"{p}/new/")),
    Row("mkdir over a file", lambda p: (p / "f").mkdir(), EEXIST),
    Row("mkdir over a directory", lambda p: (p / "d").mkdir(), EEXIST),
    Row("mkdir below what is not there", lambda p: (p / "none" / "x").mkdir(), ENOENT),
    Row("mkdir below a file", lambda p: (p / "f" / "x").mkdir(), ENOTDIR),
    Row("mkdir of 256 bytes", lambda p: (p / LONG).mkdir(), ENAMETOOLONG),
    Row("rmdir", after(lambda p: (p / "e").rmdir(), names_of()), gives={"f", "g", "d"}),
    Row("rmdir of what is not there", lambda p: (p / "none").rmdir(), ENOENT),
    Row("rmdir of a file", lambda p: (p / "f").rmdir(), ENOTDIR),
    Row("rmdir below a file", lambda p: (p / "f" / "x").rmdir(), ENOTDIR),
    Row("rmdir of what is not empty", lambda p: (p / "d").rmdir(), ENOTEMPTY),
    Row("rmdir of a dot", lambda p: os.rmdir(f"{p}/e/."), EINVAL),
    Row("rmdir of two dots", lambda p: os.rmdir(f"{p}/d/sub/.."), ENOTEMPTY),
    Row("rmdir of 256 bytes", lambda p: (p / LONG).rmdir(), ENAMETOOLONG),
    Row("remove a directory again", after(lambda p: (p / "e").rmdir(), lambda p: (p / "e").rmdir()), ENOENT),
    Row("remove what a reader of the directory is shown", read_directory_in_pieces, gives=["sub"]),
    # unlink
    Row("unlink", after(lambda p: (p / "f").unlink(), names_of()), gives={"g", "d", "e"}),
    Row("unlink what is not there", lambda p: (p / "none").unlink(), ENOENT),
    Row("unlink below a file", lambda p: (p / "f" / "x").unlink(), ENOTDIR),
    Row("unlink a directory", lambda p: (p / "d").unlink(), EISDIR),
    Row("unlink with a slash behind it", lambda p: os.unlink(f"{p}/f/"), ENOTDIR),
    Row("unlink 256 bytes", lambda p: (p / LONG).unlink(), ENAMETOOLONG),
    Row("unlink twice", after(lambda p: (p / "f").unlink(), lambda p: (p / "f").unlink()), ENOENT),
    # rename
    Row("rename a file", after(lambda p: (p / "f").rename(p / "h"), bytes_of("h")), gives=F),
    Row("rename a file over a file", after(lambda p: (p / "f").rename(p / "g"), bytes_of("g")), gives=F),
    Row("rename a file over itself", after(lambda p: (p / "f").rename(p / "f"), bytes_of("f")), gives=F),
    Row("rename a file over a directory", lambda p: (p / "f").rename(p / "d"), EISDIR),
    Row("rename a file over an empty directory", lambda p: (p / "f").rename(p / "e"), EISDIR),
    Row("rename a file to a name with a slash", lambda p: os.rename(p / "f", f"{p}/new/"), ENOTDIR),
    Row("rename what is not there", lambda p: (p / "none").rename(p / "x"), ENOENT),
    Row("rename to below what is not there", lambda p: (p / "f").rename(p / "none" / "x"), ENOENT),
    Row("rename to below a file", lambda p: (p / "f").rename(p / "g" / "x"), ENOTDIR),
    Row("rename from below a file", lambda p: (p / "f" / "x").rename(p / "x"), ENOTDIR),
    Row("rename to 256 bytes", lambda p: (p / "f").rename(p / LONG), ENAMETOOLONG),
    Row("rename from 256 bytes", lambda p: (p / LONG).rename(p / "x"), ENAMETOOLONG),
    Row("rename a directory", after(lambda p: (p / "d").rename(p / "h"), bytes_of("h/sub/f")), gives=F),
    Row("rename a directory over an empty one", after(lambda p: (p / "d").rename(p / "e"), bytes_of("e/sub/f")),
        gives=F),
    Row("rename a directory over one that is not", lambda p: (p / "e").rename(p / "d"), ENOTEMPTY),
    Row("rename a directory over a file", lambda p: (p / "d").rename(p / "f"), ENOTDIR),
    Row("rename a directory into itself", lambda p: (p / "d").rename(p / "d" / "x"), EINVAL),
    Row("rename a directory into its child", lambda p: (p / "d").rename(p / "d" / "sub" / "x"), EINVAL),
    Row("rename a directory over its parent", lambda p: (p / "d" / "sub").rename(p / "d"), ENOTEMPTY),
    Row("rename a dot", lambda p: os.rename(f"{p}/d/.", f"{p}/x"), EBUSY),
    Row("rename to a dot", lambda p: os.rename(f"{p}/e", f"{p}/d/."), EBUSY),
    Row("rename out of the mount", lambda p: (p / "f").rename("/tmp/f"), EXDEV),
    Row("rename without replacing", after(lambda p: renameat2(p / "f", p / "h", NOREPLACE), bytes_of("h")), gives=F),
    Row("rename without replacing what is there", lambda p: renameat2(p / "f", p / "g", NOREPLACE), EEXIST),
    Row("rename without replacing a directory", lambda p: renameat2(p / "d", p / "e", NOREPLACE), EEXIST),
    Row("rename without replacing and exchanging", lambda p: renameat2(p / "f", p / "g", NOREPLACE | EXCHANGE), EINVAL),
    Row("rename there and back", after(lambda p: (p / "f").rename(p / "h"), lambda p: (p / "h").rename(p / "f"))),
    # attributes
    Row("stat what is not there", lambda p: (p / "none").stat(), ENOENT),
    Row("stat below a file", lambda p: (p / "f" / "x").stat(), ENOTDIR),
    Row("stat 256 bytes", lambda p: (p / LONG).stat(), ENAMETOOLONG),
    Row("stat a file", lambda p: (p / "f").stat().st_size, gives=5),
    Row("stat the type of a directory", lambda p: stat.S_ISDIR((p / "d").stat().st_mode), gives=True),
    Row("access", lambda p: [os.access(p / n, os.R_OK | os.W_OK) for n in ("f", "d", "none")],
        gives=[True, True, False]),
    Row("access for execution of what is not executable", lambda p: os.access(p / "f", os.X_OK), gives=False),
    Row("chmod to executable", after(lambda p: (p / "f").chmod(0o755), mode_of("f")), gives=0o755),
    Row("chmod what is not there", lambda p: (p / "none").chmod(0o644), ENOENT),
    Row("chmod below a file", lambda p: (p / "f" / "x").chmod(0o644), ENOTDIR),
    Row("chown to the owner", lambda p: os.chown(p / "f", os.getuid(), os.getgid())),
    Row("chown to nobody in particular", lambda p: os.chown(p / "f", -1, -1)),
    Row("chown what is not there", lambda p: os.chown(p / "none", 0, 0), ENOENT),
    Row("utimens", mtime_of, gives=1_500_000_000),
    Row("utimens of a directory", lambda p: os.utime(p / "d")),
    Row("utimens of what is not there", lambda p: os.utime(p / "none"), ENOENT),
    Row("a write moves the time", mtime_moves, gives=True),
    Row("statfs", lambda p: os.statvfs(p / "f").f_namemax, gives=255),
    Row("statfs of what is not there", lambda p: os.statvfs(p / "none"), ENOENT),
    # links and special files
    Row("readlink of a file", lambda p: os.readlink(p / "f"), EINVAL),
    Row("readlink of a directory", lambda p: os.readlink(p / "d"), EINVAL),
    Row("readlink of what is not there", lambda p: os.readlink(p / "none"), ENOENT),
    Row("mknod of a regular file", after(lambda p: os.mknod(p / "n", 0o644 | stat.S_IFREG), bytes_of("n")), gives=b""),
    Row("mknod over a file", lambda p: os.mknod(p / "f", 0o644 | stat.S_IFREG), EEXIST),
    Row("link over a file", lambda p: os.link(p / "f", p / "g"), EEXIST),
    Row("link what is not there", lambda p: os.link(p / "none", p / "x"), ENOENT),
    Row("link a directory", lambda p: os.link(p / "d", p / "x"), EPERM),
    Row("symlink over a file", lambda p: os.symlink("f", p / "g"), EEXIST),
    Row("symlink below what is not there", lambda p: os.symlink("f", p / "none" / "x"), ENOENT),
    Row("opendir of a file", lambda p: os.listdir(p / "f"), ENOTDIR),
    Row("opendir of what is not there", lambda p: os.listdir(p / "none"), ENOENT),
    Row("list", names_of(), gives={"f", "g", "d", "e"}),
]  # fmt: skip

# -- what only a tree does, or only a workflow ---------------------------------------------------------------

TREE = [
    Row("rename a file into another directory", after(lambda p: (p / "f").rename(p / "d" / "x"), bytes_of("d/x")),
        gives=F),
    Row("rename a file over one in another directory", after(lambda p: (p / "g").rename(p / "d/sub/f"),
        bytes_of("d/sub/f")), gives=G),
    Row("rename a directory into another", after(lambda p: (p / "d").rename(p / "e" / "x"), bytes_of("e/x/sub/f")),
        gives=F),
    Row("mkdir of any depth", lambda p: (p / "a" / "b" / "c").mkdir(parents=True)),
    Row("create a name that is the tree's own elsewhere", lambda p: put(p / "latest", b"x"), gives=b"x"),
    Row("create the form of an id", lambda p: put(p / "art_123abc", b"x"), gives=b"x"),
]  # fmt: skip
TREE_LINKS = [
    Row("symlink", after(lambda p: os.symlink("f", p / "s"), lambda p: os.readlink(p / "s")), gives="f"),
    Row("open through a symlink", after(lambda p: os.symlink("f", p / "s"), bytes_of("s")), gives=F),
    Row("write through a symlink", after(lambda p: os.symlink("f", p / "s"), after(lambda p: put(p / "s", b"J"),
        bytes_of("f"))), gives=b"Jello"),
    Row("open a symlink without following it", after(lambda p: os.symlink("f", p / "s"),
        lambda p: open_close(p / "s", R | os.O_NOFOLLOW)), ELOOP),
    Row("a symlink to a directory", after(lambda p: os.symlink("d/sub", p / "s"), bytes_of("s/f")), gives=F),
    Row("a symlink to what is not there", after(lambda p: os.symlink("none", p / "s"), bytes_of("s")), ENOENT),
    Row("unlink a symlink", after(lambda p: os.symlink("f", p / "s"), after(lambda p: (p / "s").unlink(), names_of())),
        gives={"f", "g", "d", "e"}),
    Row("rename a symlink", after(lambda p: os.symlink("f", p / "s"), after(lambda p: (p / "s").rename(p / "l"),
        lambda p: os.readlink(p / "l"))), gives="f"),
    Row("rename a symlink over a file", after(lambda p: os.symlink("f", p / "s"), after(lambda p: (p / "s").rename(
        p / "g"), lambda p: os.readlink(p / "g"))), gives="f"),
    Row("rename a file over a symlink", after(lambda p: os.symlink("f", p / "s"), after(lambda p: (p / "g").rename(
        p / "s"), lambda p: ((p / "s").is_symlink(), (p / "f").read_bytes()))), gives=(False, F)),
    Row("stat a symlink", after(lambda p: os.symlink("f", p / "s"), lambda p: stat.S_ISLNK((p / "s").lstat().st_mode)),
        gives=True),
    Row("rmdir of a symlink", after(lambda p: os.symlink("d", p / "s"), lambda p: (p / "s").rmdir()), ENOTDIR),
    Row("create exclusively over a symlink", after(lambda p: os.symlink("none", p / "s"),
        lambda p: open_close(p / "s", W | C | X)), EEXIST),
    Row("symlink of 256 bytes", lambda p: os.symlink("f", p / LONG), ENAMETOOLONG),
    Row("symlink to nothing", lambda p: os.symlink("", p / "s"), ENOENT),
    Row("symlink to 4096 bytes", lambda p: os.symlink("t" * 4096, p / "s"), ENAMETOOLONG),
]  # fmt: skip
WORKFLOW = [
    Row("create a name of the tree itself", lambda p: open_close(p / "latest", W | C), EILSEQ),
    Row("create the form of an id", lambda p: open_close(p / "art_123abc", W | C), EILSEQ),
    Row("mkdir of a name of the tree itself", lambda p: (p / "by-id").mkdir(), EEXIST),
    Row("rename to the form of an id", lambda p: (p / "f").rename(p / "art_123abc"), EILSEQ),
    Row("rmdir of a workflow that is not empty", lambda p: p.rmdir(), ENOTEMPTY),
    Row("rename a file to another workflow", after(lambda p: (p / "f").rename(p.parent / "other" / f"f {p.name}"),
        lambda p: (p.parent / "other" / f"f {p.name}").read_bytes()), gives=F),
    Row("rename a tree to another workflow", after(lambda p: (p / "d").rename(p.parent / "other" / f"d {p.name}"),
        lambda p: (p.parent / "other" / f"d {p.name}" / "sub" / "f").read_bytes()), gives=F),
    Row("rename a file to a workflow that is not there", lambda p: (p / "f").rename(p.parent / "no" / "f"), ENOENT),
]  # fmt: skip

# -- places that take nothing --------------------------------------------------------------------------------

PAST = [
    Row("read", bytes_of("f"), gives=F),
    Row("open for writing", lambda p: open_close(p / "f", W), EROFS),
    Row("open for appending", lambda p: open_close(p / "f", W | A), EROFS),
    Row("empty by open", lambda p: open_close(p / "f", W | T), EROFS),
    Row("open for writing what is not there", lambda p: open_close(p / "none", W), ENOENT),
    Row("create", lambda p: open_close(p / "new", W | C), EROFS),
    Row("create exclusively over a file", lambda p: open_close(p / "f", W | C | X), EEXIST),
    Row("truncate", lambda p: os.truncate(p / "f", 0), EROFS),
    Row("mkdir", lambda p: (p / "new").mkdir(), EROFS),
    Row("mkdir over a file", lambda p: (p / "f").mkdir(), EEXIST),
    Row("unlink", lambda p: (p / "f").unlink(), EROFS),
    Row("unlink what is not there", lambda p: (p / "none").unlink(), ENOENT),
    Row("rename", lambda p: (p / "f").rename(p / "new"), EROFS),
    Row("rename what is not there", lambda p: (p / "none").rename(p / "new"), ENOENT),
    Row("rename out of it", lambda p: (p / "f").rename(p.parents[2] / "out"), EROFS),
    Row("rename into it", lambda p: (p.parents[2] / "f").rename(p / "in"), EROFS),
    Row("rmdir of a version", lambda p: p.rmdir(), EROFS),
    Row("rmdir of all versions", lambda p: p.parent.rmdir(), EROFS),
    Row("mkdir beside versions", lambda p: (p.parent / "v99").mkdir(), EROFS),
    Row("symlink", lambda p: os.symlink("f", p / "new"), EROFS),
    Row("link", lambda p: os.link(p / "f", p / "new"), EROFS),
    Row("mkfifo", lambda p: os.mkfifo(p / "new"), EROFS),
    Row("mknod", lambda p: os.mknod(p / "new", 0o644 | stat.S_IFREG), EROFS),
    Row("chmod", lambda p: (p / "f").chmod(0o600), EROFS),
    Row("utimens", lambda p: os.utime(p / "f"), EROFS),
    Row("chown", lambda p: os.chown(p / "f", 0, 0), EROFS),
    Row("map for reading", lambda p: mapped(p / "f", mmap.PROT_READ, R), gives=F),
    Row("write to what is open for reading", fd_does(R, lambda fd: os.write(fd, b"x")), EBADF),
]  # fmt: skip
SHELF = [
    Row("create", lambda p: open_close(p / "new", W | C), EROFS),
    Row("mkdir", lambda p: (p / "new").mkdir(), EROFS),
    Row("write artifact.json", lambda p: open_close(p / "artifact.json", W), EROFS),
    Row("unlink artifact.json", lambda p: (p / "artifact.json").unlink(), EROFS),
    Row("unlink latest", lambda p: (p / "latest").unlink(), EROFS),
    Row("open latest without following it", lambda p: open_close(p / "latest", R | os.O_NOFOLLOW), ELOOP),
    Row("readlink of latest", lambda p: os.readlink(p / "latest"), gives="versions/v1"),
    Row("rmdir of it", lambda p: p.rmdir(), EROFS),
    Row("rmdir of versions", lambda p: (p / "versions").rmdir(), EROFS),
    Row("rename versions", lambda p: (p / "versions").rename(p / "new"), EROFS),
    Row("an id that is none", lambda p: (p.parent / "art_000000").stat(), ENOENT),
]  # fmt: skip
BY_ID = [
    Row("create", lambda p: open_close(p / "new", W | C), EROFS),
    Row("mkdir", lambda p: (p / "new").mkdir(), EROFS),
    Row("rmdir of it, which is a symlink", lambda p: p.rmdir(), ENOTDIR),
    Row("unlink it", lambda p: p.unlink(), EROFS),
    Row("unlink what is not there", lambda p: (p / "none").unlink(), ENOENT),
    Row("rename into it", lambda p: (p.parent / "f").rename(p / "x"), EROFS),
    Row("rename it", lambda p: p.rename(p.parent / "x"), EROFS),
]  # fmt: skip
CONTROL = [
    Row("create", lambda p: open_close(p / "new", W | C), EROFS),
    Row("mkdir", lambda p: (p / "new").mkdir(), EROFS),
    Row("write", lambda p: open_close(p / "README", W), EROFS),
    Row("unlink", lambda p: (p / "README").unlink(), EROFS),
    Row("rename", lambda p: (p / "README").rename(p / "new"), EROFS),
    Row("rmdir of it", lambda p: p.rmdir(), EROFS),
    Row("open what is not there", lambda p: open_close(p / "none", R), ENOENT),
    Row("open below a file", lambda p: open_close(p / "README" / "x", R), ENOTDIR),
    Row("truncate", lambda p: os.truncate(p / "README", 0), EROFS),
    Row("chmod", lambda p: (p / "README").chmod(0o600), EROFS),
]  # fmt: skip
TOP = [
    Row("mkdir", after(lambda p: (p / "a workflow").mkdir(), lambda p: (p / "a workflow").is_dir()), gives=True),
    Row("mkdir over a workflow", lambda p: (p / "other").mkdir(), EEXIST),
    Row("mkdir of 256 bytes", lambda p: (p / LONG).mkdir(), ENAMETOOLONG),
    Row("mkdir of a name of the tree itself", lambda p: (p / ".artifactfs").mkdir(), EEXIST),
    Row("rmdir of an empty workflow", after(lambda p: (p / "x").mkdir(), lambda p: (p / "x").rmdir())),
    Row("rmdir of what is not there", lambda p: (p / "none").rmdir(), ENOENT),
    Row("rmdir of the mount", lambda p: p.rmdir(), EBUSY),
    Row("rename the mount", lambda p: p.rename(p.parent / "other name"), EBUSY),
    Row("unlink a workflow", lambda p: (p / "other").unlink(), EISDIR),
    Row("rename a workflow over another mount's directory", lambda p: (p / "other").rename(p.parent / "x"), EXDEV),
]  # fmt: skip

# -- what POSIX says and the mount does not ------------------------------------------------------------------

ONE_NAME = "an artifact has one name, and so has a file of a tree at every service"
NO_SPECIAL = "no service keeps special files"
NO_MODES = "services keep no modes but the x bit; programs that set others go on"
NO_TITLE = "control characters and what is no text can be no title at a service"
TWO_ARTIFACTS = "two artifacts have histories of their own; `mv` copies and removes on EXDEV"
EXCLUDED = [
    Excluded("link", lambda p: os.link(p / "f", p / "l"), "success", EPERM, ONE_NAME),
    Excluded("mkfifo", lambda p: os.mkfifo(p / "n"), "success", EPERM, NO_SPECIAL),
    Excluded("mknod of a device", lambda p: os.mknod(p / "n", stat.S_IFCHR | 0o600, os.makedev(1, 3)), "success", EPERM,
             NO_SPECIAL),
    Excluded("mknod of a socket", lambda p: os.mknod(p / "n", stat.S_IFSOCK | 0o600), "success", EPERM, NO_SPECIAL),
    Excluded("chmod", after(lambda p: (p / "f").chmod(0o600), mode_of("f")), "the mode is 0600", 0, NO_MODES, 0o644),
    Excluded("chmod of the setuid bit", after(lambda p: (p / "f").chmod(0o4755), mode_of("f")), "the mode is 04755", 0,
             NO_MODES, 0o755),
    Excluded("chmod of a directory", after(lambda p: (p / "d").chmod(0o700), mode_of("d")), "the mode is 0700", 0,
             NO_MODES, 0o755),
    Excluded("create with mode 0600", after(lambda p: open_close(p / "n", W | C, 0o600), mode_of("n")),
             "the mode is 0600", 0, NO_MODES, 0o644),
    Excluded("mkdir with mode 0700", after(lambda p: (p / "n").mkdir(0o700), mode_of("n")), "the mode is 0700", 0,
             NO_MODES, 0o755),
    Excluded("fallocate", fd_does(RW, lambda fd: fallocate(fd, 0, 0, 100)), "success", EOPNOTSUPP,
             "a draft grows as it is written; posix_fallocate emulates it"),
    Excluded("fallocate without growing", fd_does(RW, lambda fd: fallocate(fd, KEEP_SIZE, 0, 100)), "success",
             EOPNOTSUPP, "as fallocate"),
    Excluded("punch a hole", fd_does(RW, lambda fd: fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 0, 2)), "success", EOPNOTSUPP,
             "as fallocate"),
    Excluded("a file without a name", lambda p: open_close(p, RW | os.O_TMPFILE), "success", EOPNOTSUPP,
             "what has no name can be no artifact; programs make a temporary name instead"),
    Excluded("set an extended attribute", lambda p: os.setxattr(p / "f", "user.x", b"x"), "success", EOPNOTSUPP,
             "no service keeps them; cp -a goes on"),
    Excluded("exchange", lambda p: renameat2(p / "f", p / "g", EXCHANGE), "success, and optional", EINVAL,
             "no service changes two names at once"),
    Excluded("rename with a whiteout", lambda p: renameat2(p / "f", p / "g", WHITEOUT), "success, and optional", EINVAL,
             "for overlay filesystems only"),
    Excluded("get an extended attribute that is not there", lambda p: os.getxattr(p / "f", "user.none"), "ENODATA",
             EOPNOTSUPP, "there are none unless `--xattrs` is given; tools take it for the answer it is"),
    Excluded("create a name that cannot be given back", lambda p: open_close(p / "tab\tinside", W | C), "success",
             EILSEQ, NO_TITLE),
    Excluded("mkdir of a name that cannot be given back", lambda p: (p / "esc\x1b").mkdir(), "success", EILSEQ,
             NO_TITLE),
    Excluded("rename to a name that cannot be given back", lambda p: (p / "f").rename(p / "nl\n"), "success", EILSEQ,
             NO_TITLE),
    Excluded("the time of the last access", after(lambda p: os.utime(p / "f", ns=(10**18, 2 * 10**18)),
             lambda p: (p / "f").stat().st_atime), "10**9", 0, "reads change nothing, so it is the time of the content",
             2.0 * 10**9),
]  # fmt: skip
if os.getuid() == 0:  # nobody else may ask for it anywhere
    EXCLUDED.append(
        Excluded("chown", after(lambda p: os.chown(p / "f", 12345, 12345), lambda p: (p / "f").stat().st_uid),
                 "the owner is 12345", 0, "all files are the mounting user's; cp -p and tar go on", os.getuid())
    )  # fmt: skip
EXCLUDED_WORKFLOW = [
    Excluded("symlink", lambda p: os.symlink("f", p / "s"), "success", EPERM, "no service has an artifact that is one"),
    Excluded("rename a file into a tree", lambda p: (p / "f").rename(p / "d" / "x"), "success", EXDEV, TWO_ARTIFACTS),
    Excluded("rename a tree into another", lambda p: (p / "d").rename(p / "e" / "x"), "success", EXDEV, TWO_ARTIFACTS),
    Excluded("rename a workflow", lambda p: p.rename(p.parent / "another name"), "success", EPERM,
             "no service renames workflows"),
    Excluded("create a file beside workflows", lambda p: open_close(p.parent / "new", W | C), "success", EPERM,
             "a file needs a workflow to be in"),
    Excluded("rename a file beside workflows", lambda p: (p / "f").rename(p.parent / "new"), "success", EPERM,
             "a file needs a workflow to be in"),
]  # fmt: skip
EXCLUDED_TREE = [
    Excluded("rename a file out of the tree", lambda p: (p / "f").rename(p.parent / "x"), "success", EXDEV,
             TWO_ARTIFACTS),
    Excluded("rename a directory out of the tree", lambda p: (p / "d").rename(p.parent / "x"), "success", EXDEV,
             TWO_ARTIFACTS),
    Excluded("rename a file into another tree", lambda p: (p / "f").rename(p.parent / "e" / "x"), "success", EXDEV,
             TWO_ARTIFACTS),
    Excluded("rename a directory into another tree", lambda p: (p / "d").rename(p.parent / "e" / "x"), "success", EXDEV,
             TWO_ARTIFACTS),
]  # fmt: skip

# -- places --------------------------------------------------------------------------------------------------

Place = Callable[[Path], Path]

TABLES: list[tuple[str, Place, list[Row | Excluded]]] = [
    ("workflow", lambda own: own, [*BOTH, *WORKFLOW, *EXCLUDED, *EXCLUDED_WORKFLOW]),
    ("tree", lambda own: own / "t", [*BOTH, *TREE, *TREE_LINKS, *EXCLUDED, *EXCLUDED_TREE]),
    ("version of a tree", lambda own: own / artifact_id(own, "t") / "versions" / "v1", [*PAST]),
    ("version of a file", lambda own: own / artifact_id(own, "f") / "versions" / "v1", [*PAST]),
    ("an artifact's id", lambda own: own / "by-id" / artifact_id(own, "f"), [*SHELF]),
    ("by-id", lambda own: own / "by-id", [*BY_ID]),
    (".artifactfs", lambda own: own.parent / ".artifactfs", [*CONTROL]),
    ("the mount", lambda own: own.parent, [*TOP]),
]
ROWS = [(where, place, row) for where, place, rows in TABLES for row in rows]


def _named() -> Iterator[object]:
    for number, (where, place, row) in enumerate(ROWS):
        mark = "without" if isinstance(row, Excluded) else ""
        yield pytest.param(f"row {number}", place, row, id=" ".join(filter(None, (where, mark, row.what))))


def prepare(root: Path) -> None:
    """Fill a store with a place for each row: without a mount that takes no time."""
    store = Store(root)
    known = {data: store.objects.put(data, durable=False) for data in PLACE.values()}
    files = [TreeFile(path, known[data], len(data)) for path, data in PLACE.items()]
    with store.transaction():
        store.add_workflow("other")
        for number in range(len(ROWS)):
            workflow = store.add_workflow(f"row {number}").id
            for name in ("f", "g"):
                file = store.add_artifact(workflow, name, "file")
                store.save_file(file.id, known[PLACE[name]], len(PLACE[name]))
            inside = [TreeFile("sub/f", known[F], len(F))]
            for name, tree in (("t", [*files, TreeFile("e", None)]), ("d", inside), ("e", [])):
                store.save_tree(store.add_artifact(workflow, name, "tree").id, tree)
    store.close()


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    base = tmp_path_factory.mktemp("errno")
    prepare(base / "store")
    with local_mount(base) as mounted:
        yield mounted


@pytest.mark.parametrize(("own", "place", "row"), list(_named()))
def test_each_call_answers_as_its_row_says(mount: Mounted, own: str, place: Place, row: Row | Excluded):
    """One call in a place of its own."""
    where = place(mount.path / own)
    said, gave = 0, None
    try:
        gave = row.do(where)
    except OSError as error:
        said = error.errno or -1
    names = {**errno.errorcode, 0: "success"}
    assert names[said] == names[row.says], gave
    if row.gives is not ... and not said:
        assert gave == row.gives


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.what) for row in (*BOTH, *TREE, *TREE_LINKS) if row.says != EXDEV]
)
def test_a_disk_answers_the_same(tmp_path: Path, row: Row):
    """What is in no exclusion is what any filesystem of this machine does."""
    for path, data in PLACE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    (tmp_path / "e").mkdir()
    said, gave = 0, None
    try:
        gave = row.do(tmp_path)
    except OSError as error:
        said = error.errno or -1
    # A file with holes may be as long as that, or longer than any may be.
    assert said in ({ENOSPC, EFBIG, 0} if row.says == ENOSPC else {row.says})
    if row.gives is not ... and not said:
        assert gave == row.gives


def test_the_table_is_as_long_as_it_says():
    """At least 150 rows, each with an answer of its own, and no exclusion without a reason."""
    assert len(ROWS) >= 150
    assert all(row.reason and row.posix for _, _, row in ROWS if isinstance(row, Excluded))
