"""What a client of HTTP tells of its requests, for `status`, `why` and the log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from artifactfs import errors
from artifactfs.observe import Observer
from artifactfs.providers.messages import bare
from artifactfs.providers.one_request import Answer


@dataclass(frozen=True, slots=True)
class Reports:
    """Tells an observer of the requests of one source."""

    observer: Observer
    source: str

    def received(self, answer: Answer) -> None:
        """Take note of an answer that has come to its end."""
        if 200 <= answer.response.status < 300:  # noqa: PLR2004 - the range of success
            self.observer.succeeded(self.source)

    def failed(self, error: errors.ArtifactFSError, url: str) -> None:
        """Take note of what nobody tries again."""
        self.observer.failed(self.source, bare(url), str(error), status=error.status, request_id=error.request_id)

    async def passed_on(self, chunks: AsyncIterator[bytes], url: str) -> AsyncGenerator[bytes, None]:
        """Pass the pieces of a body on, and take note of a failure in it."""
        try:
            async for chunk in chunks:
                yield chunk
        except errors.ArtifactFSError as failure:
            self.failed(failure, url)
            raise
