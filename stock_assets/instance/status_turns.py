"""What is materialized, failed and in progress of an asset, computed by one request at a time.

Dagster keeps it in the log and adds what has happened since. A page of the UI asks for all assets
around one; computed for the first time that takes seconds an asset at 100,000 partitions, and each
reload, tab and person begins anew beside those before, all of them slower. Here who comes later
waits for the first, and finds it kept.

The computation itself is Dagster's.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.workspace.context import BaseWorkspaceRequestContext

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dagster import AssetKey, DagsterInstance, PartitionsDefinition
    from dagster._core.loader import LoadingContext
    from dagster._core.storage.partition_status_cache import AssetStatusCacheValue


class StatusTurns:
    """Whose turn it is, asset by asset, among the threads of this process."""

    def __init__(self) -> None:
        """Nobody's yet."""
        self._locks: dict[AssetKey, threading.Lock] = {}

    def values(
        self,
        instance: DagsterInstance,
        definitions: Iterable[tuple[AssetKey, PartitionsDefinition | None]],
        context: LoadingContext,
    ) -> list[AssetStatusCacheValue | None]:
        """What Dagster's `get_asset_status_cache_values` gives, in the same order."""
        loader = (
            context.dynamic_partitions_loader
            if isinstance(context, BaseWorkspaceRequestContext)
            else None
        )
        found = []
        for key, definition in definitions:
            with self._locks.setdefault(key, threading.Lock()):
                # Without the request's own record of the asset: it is from before the others.
                value = get_and_update_asset_status_cache_value(
                    instance, key, definition, dynamic_partitions_loader=loader
                )
            found.append(value)
        return found
