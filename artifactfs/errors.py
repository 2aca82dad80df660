"""What can go wrong, in words that say what is true.

Rules of this file: no errno, no HTTP status, no import of anything else in the package. Which errno a class
becomes is decided in one table, ``fuse/errno_map.py``; which class an HTTP answer becomes is decided by the
providers. Names say what is true, not who noticed.

    ArtifactFSError
    ├── NotFound              the service, or a complete listing, said it is not there
    ├── AlreadyExists
    ├── NotADirectory
    ├── IsADirectory
    ├── DirectoryNotEmpty
    ├── NameNotAllowed        the name cannot be stored or is not legal text
    ├── NameTooLong
    ├── ReadOnly              nothing can be written in this place
    ├── NotPermitted          this operation is not offered (by this server, or here)
    ├── AccessDenied          the service refused the credentials
    │   └── Barred            what stands before the service refused, not the service
    ├── QuotaExceeded         credits, plan or request budget are used up
    ├── InvalidRequest        the service called the request malformed
    ├── Conflict              somebody else changed it first
    ├── TooLarge              over a limit of the service
    ├── LimitExceeded         over a limit of ours, named in the message
    ├── Unavailable           the service failed, also after retries
    │   └── RateLimited
    ├── Unreachable           no connection to the service
    ├── TimedOut              no answer within the deadline
    ├── CrossesArtifacts      a rename between two artifacts: only a copy can do it
    ├── StaleContent          the bytes asked for have been replaced
    ├── CorruptContent        the bytes do not verify, or are not what they should be
    ├── NoLocalSpace          the disk of the cache or the journal is full
    ├── BadHandle
    ├── Unsupported           a server without the API this needs
    ├── ProviderMisbehaved    the service answered something it must not
    └── ConfigError           the configuration cannot be used
"""

from __future__ import annotations


class ArtifactFSError(Exception):
    """Base of every error artifactfs raises on purpose.

    Args:
        message: one sentence for a person.
        provider: name of the source concerned, if any.
        subject: what it was about: a path, an id, a URL without its query.
        status: HTTP status of the answer behind it, if there was one.
        request_id: the service's id of that request, if it gave one.
    """

    def __init__(
        self,
        message: str = "",
        *,
        provider: str = "",
        subject: str = "",
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        """Keep the facts; the message alone is what ``str()`` shows."""
        super().__init__(message or type(self).__name__)
        self.provider = provider
        self.subject = subject
        self.status = status
        self.request_id = request_id


class NotFound(ArtifactFSError):
    """The service, or a complete listing, said that it does not exist."""


class AlreadyExists(ArtifactFSError):
    """The name is taken."""


class NotADirectory(ArtifactFSError):
    """A directory was needed."""


class IsADirectory(ArtifactFSError):
    """Something other than a directory was needed."""


class DirectoryNotEmpty(ArtifactFSError):
    """Only an empty directory can be removed."""


class NameNotAllowed(ArtifactFSError):
    """The name cannot be stored where it was to be stored."""


class NameTooLong(ArtifactFSError):
    """The name has more than 255 bytes."""


class ReadOnly(ArtifactFSError):
    """Nothing can be written in this place."""


class NotPermitted(ArtifactFSError):
    """The operation is not offered here or by this server."""


class AccessDenied(ArtifactFSError):
    """The service refused the credentials, or what they may see."""


class Barred(AccessDenied):
    """What stands before the service refused, in words that are not the service's: a firewall, a sign-in page."""


class QuotaExceeded(ArtifactFSError):
    """Credits, plan or request budget are used up."""


class InvalidRequest(ArtifactFSError):
    """The request, or what was to be stored, is not acceptable."""


class Conflict(ArtifactFSError):
    """Somebody else changed it first."""


class TooLarge(ArtifactFSError):
    """Over a limit of the service."""


class LimitExceeded(ArtifactFSError):
    """Over a limit of ours; the message names the limit."""


class Unavailable(ArtifactFSError):
    """The service failed, also after retries."""


class RateLimited(Unavailable):
    """The service asked for a pause that is longer than the deadline."""

    def __init__(self, message: str = "", *, retry_after_s: float | None = None, **facts: object) -> None:
        """Keep how long the service asked to wait, in seconds."""
        super().__init__(message, **facts)  # type: ignore[arg-type]  # the facts are the base's keywords
        self.retry_after_s = retry_after_s


class Unreachable(ArtifactFSError):
    """No connection to the service can be made."""


class TimedOut(ArtifactFSError):
    """No answer came within the deadline."""


class CrossesArtifacts(ArtifactFSError):
    """A rename between two artifacts; the caller can copy and remove instead."""


class StaleContent(ArtifactFSError):
    """The bytes asked for have been replaced by others."""


class CorruptContent(ArtifactFSError):
    """The bytes do not verify, or are not what they should be."""


class NoLocalSpace(ArtifactFSError):
    """The disk under the cache or the journal is full."""


class BadHandle(ArtifactFSError):
    """The file handle is not one of ours, or not for this operation."""


class Unsupported(ArtifactFSError):
    """The server does not offer the API that this needs."""


class ProviderMisbehaved(ArtifactFSError):
    """The service answered something that its contract does not allow."""


class ConfigError(ArtifactFSError):
    """The configuration cannot be used; the message says where and what would be valid."""
