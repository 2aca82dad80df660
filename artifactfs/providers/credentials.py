"""What a source sends to its service to say who it is, and how it comes to newer ones while it is mounted.

Rules of this file: it shows the names of headers, never their values. Newer ones are looked for when the service has
refused those that were used, or when somebody asks: a token that was renewed, wherever it is kept, needs no remount.
One look at a time counts, and whoever waits for it may leave: it goes on, and what it finds is taken.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import trio

from artifactfs import errors, observe

log = logging.getLogger(__name__)

# A refusal is no reason to look again sooner: keyrings and disks are asked as often as services refuse, else.
LOOK_S = 2.0
# So long requests wait for one look, all for the same: a keyring that asks its user first may take for ever.
LOOKING_S = 5.0
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
        self._looking: _Looking | None = None

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

    async def others_than(self, used: Mapping[str, str], end: float = math.inf) -> bool:
        """Tell whether there are others than those that the service has just refused; looks for them if need be.

        Waits until ``end`` by trio's clock at most. What is found later is taken all the same.
        """
        if self._headers is used and self._look is not None:
            if self._looking is None and trio.current_time() - self._looked_at >= LOOK_S:
                self._begin(self._look)
            with trio.move_on_at(min(end, self._looked_at + LOOKING_S)):
                await self._settled()
        return self._headers is not used

    async def look(self, *, forget: bool = False) -> bool:
        """Look for newer ones, as they are now; tell whether there are any. With ``forget`` none is an answer, too."""
        if self._look is None:
            return False
        before = self._headers
        looking = self._begin(self._look)
        await self._settled()
        if forget and looking.found_none:
            self.where = ""
            self._change({name: value for name, value in self._headers.items() if name != TOKEN})
        return self._headers is not before

    async def _settled(self) -> None:
        """Wait until nobody looks."""
        while self._looking is not None:
            await self._looking.done.wait()

    def _begin(self, look: Look) -> _Looking:
        """Look in a thread that nobody waits for in the end, not one of those that all share: it may never come back.

        A look that is under way may have seen what was there before; it counts no more.
        """
        looking, token = _Looking(), trio.lowlevel.current_trio_token()

        def deliver(unwrap: Look) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._take, looking, unwrap)

        trio.lowlevel.start_thread_soon(look, lambda found: deliver(found.unwrap))
        if self._looking is not None:
            self._looking.done.set()  # who waits for that waits for this one now
        self._looking, self._looked_at = looking, trio.current_time()
        return looking

    def _take(self, looking: _Looking, unwrap: Look) -> None:
        """Take what was found; runs between two steps of the loop, where nothing may be raised."""
        if looking is not self._looking:
            return
        self._looking = None
        try:
            found, self.where = unwrap()
            if found != self._headers:
                self._change(found)
        except errors.ConfigError as error:
            log.info("no newer token was found: %s", error)
            looking.found_none = True
        except Exception:
            log.exception("a newer token could not be looked for")
        finally:
            looking.done.set()

    def _change(self, found: Mapping[str, str]) -> None:
        # Answers to what was sent with the old ones may still come.
        self._headers, self._secrets = dict(found), self._secrets | _secrets(found.get(TOKEN, ""))
        observe.hide(*(secret.decode("latin-1") for secret in self._secrets))
        self.renewed()


@dataclass(slots=True, eq=False)
class _Looking:
    """A look on its way; ``found_none`` if there are no credentials at all where they are kept."""

    done: trio.Event = field(default_factory=trio.Event)
    found_none: bool = False


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
