"""The status of an asset's partitions is computed once, however many ask for it at once."""

from __future__ import annotations

import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage import partition_status_cache
from dagster._core.storage.event_log.base import AssetRecord, EventLogStorage

from stock_assets.instance.event_log import BatchedSqliteEventLogStorage

from .conftest import CELLS, bars, day_ticker, features, instance_at, run_range

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import dagster as dg

ASKING = 6


def asked(instance: dg.DagsterInstance, context: LoadingContextForTest) -> list[int]:
    """Materialized partitions of two assets, as a page asks for them."""
    keys = [(asset.key, day_ticker) for asset in (bars, features)]
    values = instance.event_log_storage.get_asset_status_cache_values(keys, context)
    found = []
    for value in values:
        assert value is not None
        found.append(len(value.deserialize_materialized_partition_subsets(day_ticker)))
    return found


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_at(tmp_path / "home", BatchedSqliteEventLogStorage) as instance:
        yield instance


def test_requests_at_once_compute_a_status_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_range(instance, bars, features)
    instance.wipe_asset_cached_status([bars.key, features.key])
    anew: list[dg.AssetKey] = []
    build = partition_status_cache._build_status_cache

    def slowly(**given: Any) -> Any:
        if given["stored_cache_value"] is None:
            anew.append(given["asset_key"])
            time.sleep(0.3)
        return build(**given)

    monkeypatch.setattr(partition_status_cache, "_build_status_cache", slowly)
    # Each request has read what is kept before any of them has computed it.
    contexts = [LoadingContextForTest(instance) for _ in range(ASKING)]
    for context in contexts:
        AssetRecord.blocking_get_many(context, [bars.key, features.key])
    with ThreadPoolExecutor(ASKING) as pool:
        found = list(pool.map(lambda context: asked(instance, context), contexts))
    assert found == [[CELLS, CELLS]] * ASKING
    assert sorted(anew) == [bars.key, features.key]


def test_dagster_still_computes_it_in_the_place_that_is_replaced() -> None:
    """Else its way has changed: compare `StatusTurns.values` with it."""
    source = inspect.getsource(EventLogStorage.get_asset_status_cache_values)
    assert "get_and_update_asset_status_cache_value(" in source
    assert "loading_context=context" in source
