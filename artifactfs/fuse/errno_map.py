"""Which errno an error becomes. The one table; a test walks every class of ``errors`` through it."""

from __future__ import annotations

import errno

from artifactfs import errors

TABLE: dict[type[errors.ArtifactFSError], int] = {
    errors.NotFound: errno.ENOENT,
    errors.AlreadyExists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.DirectoryNotEmpty: errno.ENOTEMPTY,
    # The bytes of the name cannot be a title: what iconv and filesystems with an encoding say.
    errors.NameNotAllowed: errno.EILSEQ,
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.ReadOnly: errno.EROFS,
    errors.NotPermitted: errno.EPERM,
    # 401 and 403 alike: the caller cannot mend either by asking again.
    errors.AccessDenied: errno.EACCES,
    errors.Barred: errno.EACCES,
    errors.QuotaExceeded: errno.EDQUOT,
    errors.InvalidRequest: errno.EINVAL,
    # Both versions are kept; the writer's base is no longer the current one.
    errors.Conflict: errno.ESTALE,
    errors.TooLarge: errno.EFBIG,
    errors.LimitExceeded: errno.EFBIG,
    # Never EAGAIN: a Python read() returns None on it (measured).
    errors.Unavailable: errno.EIO,
    errors.RateLimited: errno.EIO,
    errors.Unreachable: errno.EHOSTUNREACH,
    errors.TimedOut: errno.ETIMEDOUT,
    # mv then copies and removes, which is what a change of artifact is.
    errors.CrossesArtifacts: errno.EXDEV,
    errors.StaleContent: errno.ESTALE,
    errors.CorruptContent: errno.EIO,
    errors.NoLocalSpace: errno.ENOSPC,
    errors.BadHandle: errno.EBADF,
    errors.Unsupported: errno.EOPNOTSUPP,
    errors.ProviderMisbehaved: errno.EIO,
    errors.ConfigError: errno.EINVAL,
    errors.ArtifactFSError: errno.EIO,
}

# What the local disk says and the caller should hear, and what no service could give back (EINVAL, `vfs.sealing`);
# everything else of the disk is EIO.
PASSED_ON = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EINVAL})


def errno_of(error: BaseException) -> int:
    """Return the errno for any exception; of a group, that of its first member."""
    if isinstance(error, BaseExceptionGroup):
        return errno_of(error.exceptions[0])
    if isinstance(error, errors.ArtifactFSError):
        return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    if isinstance(error, OSError) and error.errno in PASSED_ON:
        return int(error.errno or errno.EIO)
    return errno.EIO
