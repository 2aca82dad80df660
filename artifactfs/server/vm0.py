"""VM0's dialect of the store: its public /v1 API in one of the two spellings it had, and /api/storages.

Rules of this file: composition only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from artifactfs.server import vm0_storages, vm0_v1

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from artifactfs.server.context import Context
    from artifactfs.store.catalog import Store


def routes(store: Store, context: Context, *, use_snake: bool = False) -> list[BaseRoute]:
    """Return the routes below the dialect's base URL.

    Args:
        store: what is served.
        context: who may ask, and where links lead.
        use_snake: spell /v1 in snake_case, as the service did until January 2026, instead of camelCase.
    """
    return [*vm0_v1.routes(store, context, use_snake=use_snake), *vm0_storages.routes(store, context)]
