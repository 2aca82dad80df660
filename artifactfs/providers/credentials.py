"""What a source sends to its service to say who it is, and how it comes to newer ones while it is mounted.

Rules of this file: it shows the names of headers, never their values. Newer ones are looked for when the service has
refused those that were used, or when somebody asks: a token that was renewed, wherever it is kept, needs no remount.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from urllib.parse import quote

import trio

from artifactfs import errors, observe

log = logging.getLogger(__name__)

# A refusal is no reason to look again sooner: keyrings and disks are asked as often as services refuse, else.
LOOK_S = 2.0
TOKEN = "Authorization"  # noqa: S105 - the name of a header

HIDDEN = b"***"
# Shorter ones are no tokens, and may stand in any word.
SHORTEST = 8

Look = Callable[[], tuple[Mapping[str, str], str]]
"""Returns headers and where they come from, in words; may block, and raises ``ConfigError`` if there are none."""


class Credentials:
    """The headers of one source that only its own origin gets.

    Attributes:
        where: where the token comes from, in words.
        renewed: called after it has changed.
    """

    def __init__(self, headers: Mapping[str, str] | None = None, where: str = "", look: Look | None = None) -> None:
        """Begin with ``headers``; ``look`` finds newer ones."""
        self.where = where
        self.renewed: Callable[[], None] = lambda: None
        self._headers = dict(headers or {})
        self._secrets = _secrets(self._headers.get(TOKEN, ""))
        observe.hide(*(secret.decode("latin-1") for secret in self._secrets))
        self._look = look
        self._looked_at = -LOOK_S
        self._looking = trio.Lock()

    def __repr__(self) -> str:
        """Tell what it holds, not what that is."""
        return f"<Credentials {', '.join(self._headers) or 'none'}>"

    @property
    def headers(self) -> Mapping[str, str]:
        """Return what is sent; another object once it has changed."""
        return self._headers

    def hidden(self, said: bytes) -> bytes:
        """Return what a service said without our secrets in it: some repeat what they refuse, and it goes to logs."""
        for secret in self._secrets:
            said = said.replace(secret, HIDDEN)
        return said

    async def others_than(self, used: Mapping[str, str]) -> bool:
        """Tell whether there are others than those that the service has just refused; looks for them if need be."""
        async with self._looking:  # who comes while somebody looks waits for what is found
            if self._headers is used and trio.current_time() - self._looked_at >= LOOK_S:
                await self._find(forget=False)
        return self._headers is not used

    async def look(self, *, forget: bool = False) -> bool:
        """Look for newer ones; tell whether there are any. With ``forget`` none is an answer, too."""
        async with self._looking:
            return await self._find(forget=forget)

    async def _find(self, *, forget: bool) -> bool:
        if self._look is None:
            return False
        self._looked_at = trio.current_time()
        try:
            found, where = await trio.to_thread.run_sync(self._look, abandon_on_cancel=True)
        except errors.ConfigError as error:
            log.info("no newer token was found: %s", error)
            if not forget:
                return False
            found, where = {name: value for name, value in self._headers.items() if name != TOKEN}, ""
        self.where = where
        if found == self._headers:
            return False
        # Answers to what was sent with the old ones may still come.
        self._headers, self._secrets = dict(found), self._secrets | _secrets(found.get(TOKEN, ""))
        observe.hide(*(secret.decode("latin-1") for secret in self._secrets))
        self.renewed()
        return True


def _secrets(authorization: str) -> frozenset[bytes]:
    """Return how the secrets of a header can be repeated: as they are, and as JSON and URLs have them."""
    scheme, _, value = authorization.partition(" ")
    found = {value}
    if scheme == "Basic":
        with contextlib.suppress(ValueError):
            found.add(base64.b64decode(value).decode().partition(":")[2])
    spelled = {
        form for one in found for form in (one, json.dumps(one)[1:-1], one.replace("/", "\\/"), quote(one, safe=""))
    }
    return frozenset(form.encode() for form in spelled if len(form) >= SHORTEST)
