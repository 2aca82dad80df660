"""From a configured source to its provider; the only importer of concrete providers."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never
from urllib.parse import urlsplit

from artifactfs import config, errors
from artifactfs.model.limits import ANSWERS, AnswerLimits
from artifactfs.observe import Observer
from artifactfs.providers.base import Memory, Provider
from artifactfs.providers.credentials import Credentials
from artifactfs.providers.limits import Budget
from artifactfs.providers.window import MinuteBudget

if TYPE_CHECKING:
    from artifactfs.providers.http import HttpClient

# What a source may send unless the configuration says otherwise. VLM Run's public service: requests a minute of its
# cheapest plan. Syntropic137: its gateway's 30 a second with a burst of 50. Elsewhere there is no known limit, and a
# 429 is obeyed when it comes.
PUBLIC_VLMRUN_HOSTS = frozenset({"api.vlm.run", "agent.vlm.run"})
PUBLIC_VLMRUN_PER_MINUTE = 10.0
SYNTROPIC137_PER_S, SYNTROPIC137_BURST = 30.0, 50.0


def budget_of(source: config.Source) -> Budget:
    """Return the request budget of a source: as configured, else what its service is known to allow."""
    if source.requests_per_minute is not None:
        return MinuteBudget(source.requests_per_minute)
    if source.service == "vlmrun" and urlsplit(source.url).hostname in PUBLIC_VLMRUN_HOSTS:
        return MinuteBudget(PUBLIC_VLMRUN_PER_MINUTE)
    if source.service == "syntropic137":
        return Budget(SYNTROPIC137_PER_S, SYNTROPIC137_BURST)
    return Budget()


def credentials_of(source: config.Source) -> Credentials:
    """Return what a source sends to its service to say who it is; newer ones come from where these did."""
    again = source.again

    def look() -> tuple[dict[str, str], str]:
        found = again() if again else source
        if found.url != source.url:
            # What the service's own settings say has changed; its token is for that address.
            message = f"source {source.name!r} has another address now: mount it again"
            raise errors.ConfigError(message)
        return _headers(found), found.token_from

    return Credentials(_headers(source), source.token_from, look if again else None)


def _headers(source: config.Source) -> dict[str, str]:
    headers = {"Authorization": source.authorization.get_secret_value()} if source.authorization else {}
    if source.service == "vlmrun":
        headers["X-Client-Id"] = "artifactfs"
    return headers


def _http(
    source: config.Source, credentials: Credentials, observer: Observer, deadline_s: float, limits: AnswerLimits
) -> HttpClient:
    from artifactfs.providers.http import HttpClient  # noqa: PLC0415 - 0.15 s that a local mount need not spend

    return HttpClient(
        source.name, source.url, headers=credentials, budget=budget_of(source), observer=observer,
        deadline_s=deadline_s, allow_private=source.allow_private_urls, answer_limits=limits,
    )  # fmt: skip


def create(
    source: config.Source,
    memory: Memory,
    observer: Observer,
    deadline_s: float,
    limits: AnswerLimits = ANSWERS,
    credentials: Credentials | None = None,
) -> Provider:
    """Return the provider of a source; nothing is asked yet. It sends ``credentials``, or those of the source.

    Modules are imported when they are needed: a mount of one service does not wait for the others' code.
    """
    if source.service == "local":
        from artifactfs.providers.local.provider import LocalProvider  # noqa: PLC0415 - only what is mounted is imported
        from artifactfs.store.catalog import Store  # noqa: PLC0415 - only what is mounted is imported

        if source.path is None:
            raise TypeError(source)
        return LocalProvider(source.name, Store(source.path))
    http = _http(source, credentials or credentials_of(source), observer, deadline_s, limits)
    match source.service:
        case "vm0":
            from artifactfs.providers.vm0.provider import Vm0Provider  # noqa: PLC0415 - only what is mounted is imported

            return Vm0Provider(source.name, http, memory)
        case "syntropic137":
            from artifactfs.providers.syntropic.provider import Syntropic137Provider  # noqa: PLC0415 - only what is mounted is imported

            return Syntropic137Provider(source.name, http, memory)
        case "vlmrun":
            from artifactfs.providers.vlmrun.provider import VlmRunProvider  # noqa: PLC0415 - only what is mounted is imported

            return VlmRunProvider(source.name, http, memory)
        case _:
            assert_never(source.service)
