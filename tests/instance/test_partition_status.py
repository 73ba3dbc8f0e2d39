"""A partition status is Dagster's own, computed once, and not again until something happens."""

from __future__ import annotations

import inspect
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage import partition_status_cache
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.base import AssetRecord, EventLogStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.instance.event_log import BatchedSqliteEventLogStorage

from .conftest import CELLS, bars, day_ticker, entry_of, features, instance_at, run_range

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dagster._core.storage.partition_status_cache import AssetStatusCacheValue

ASKING = 6
KEY = bars.key
ATTEMPTS = "get_latest_asset_partition_materialization_attempts_without_materializations"
KEYS = list(day_ticker.get_partition_keys())


def value_of(instance: dg.DagsterInstance, key: dg.AssetKey = KEY) -> AssetStatusCacheValue | None:
    """What a page gets that asks now."""
    asked = [(key, day_ticker)]
    context = LoadingContextForTest(instance)
    return instance.event_log_storage.get_asset_status_cache_values(asked, context)[0]


def counts(instance: dg.DagsterInstance) -> tuple[int, int, int]:
    """Materialized, failed and in progress partitions, as a page shows them now."""
    value = value_of(instance)
    assert value is not None
    return (
        len(value.deserialize_materialized_partition_subsets(day_ticker)),
        len(value.deserialize_failed_partition_subsets(day_ticker)),
        len(value.deserialize_in_progress_partition_subsets(day_ticker)),
    )


def begin(instance: dg.DagsterInstance, run_id: str) -> None:
    instance.add_run(dg.DagsterRun("job", run_id=run_id, status=dg.DagsterRunStatus.STARTED))


def plan(instance: dg.DagsterInstance, run_id: str, *cells: str, key: dg.AssetKey = KEY) -> None:
    for cell in cells:
        planned = AssetMaterializationPlannedData(key, partition=cell)
        event = DagsterEvent.build_asset_materialization_planned_event("job", "bars", planned)
        instance.event_log_storage.store_event(entry_of(event, run_id))


def materialize(
    instance: dg.DagsterInstance, run_id: str, *cells: str, key: dg.AssetKey = KEY
) -> None:
    for cell in cells:
        event = DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION.value,
            "job",
            event_specific_data=StepMaterializationData(
                dg.AssetMaterialization(key, partition=cell)
            ),
        )
        instance.event_log_storage.store_event(entry_of(event, run_id))


def end(instance: dg.DagsterInstance, run_id: str, kind: DagsterEventType) -> None:
    """End a run; no event of an asset says so."""
    instance.run_storage.handle_run_event(run_id, DagsterEvent(kind.value, "job"))


FAILED, DONE = DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_SUCCESS


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_at(tmp_path / "home", BatchedSqliteEventLogStorage) as instance:
        yield instance


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[dg.AssetKey]:
    """The asset of each status that Dagster computes, or brings up to date."""
    calls: list[dg.AssetKey] = []
    build = partition_status_cache._build_status_cache

    def counted(**given: Any) -> Any:
        calls.append(given["asset_key"])
        return build(**given)

    monkeypatch.setattr(partition_status_cache, "_build_status_cache", counted)
    return calls


# What may happen to the partitions of an asset, run by run.
Step = tuple[str, int, Any]
some_cells = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("plan"), st.integers(0, 2), some_cells),
    st.tuples(st.just("materialize"), st.integers(0, 2), some_cells),
    st.tuples(st.just("end"), st.integers(0, 2), st.sampled_from([FAILED, DONE])),
    st.tuples(st.just("delete"), st.integers(0, 2), st.none()),
    st.tuples(st.just("look"), st.just(0), st.none()),
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dg.DagsterInstance]]:
    """Instances of stock storage and of ours; each history is that of an asset of its own."""
    home = tmp_path_factory.mktemp("both")
    with ExitStack() as stack:
        yield [
            stack.enter_context(instance_at(home / storage.__name__, storage))
            for storage in (SqliteEventLogStorage, BatchedSqliteEventLogStorage)
        ]


def lived(
    instance: dg.DagsterInstance, key: dg.AssetKey, history: list[Step], ids: list[str]
) -> list[Any]:
    """What every look at the asset saw; the last two come at once."""
    seen: list[Any] = []
    running: dict[int, str] = {}
    for what, number, detail in [*history, ("look", 0, None), ("look", 0, None)]:
        if what == "look":
            attempts = getattr(instance.event_log_storage, ATTEMPTS)(key)
            seen.append((value_of(instance, key), attempts))
        elif what == "delete":
            if number in running:
                instance.delete_run(running.pop(number))
        else:
            if number not in running:
                running[number] = ids.pop()
                begin(instance, running[number])
            if what == "plan":
                plan(instance, running[number], *detail, key=key)
            elif what == "materialize":
                materialize(instance, running[number], *detail, key=key)
            else:
                end(instance, running.pop(number), detail)
    return seen


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(history=st.lists(steps, min_size=1, max_size=12))
def test_after_whatever_happens_the_status_is_the_one_of_stock_storage(
    both: list[dg.DagsterInstance], history: list[Step]
) -> None:
    """Looked at in between as well: what one look keeps, the next builds on."""
    key = dg.AssetKey(str(uuid.uuid4()))
    ids = [str(uuid.uuid4()) for _ in history]
    stock, ours = (lived(instance, key, history, [*ids]) for instance in both)
    assert ours == stock


def test_nothing_is_computed_again_while_nothing_happens(
    instance: dg.DagsterInstance, computed: list[dg.AssetKey]
) -> None:
    begin(instance, "one")
    plan(instance, "one", *KEYS)
    materialize(instance, "one", KEYS[0])
    assert counts(instance) == (1, 0, CELLS - 1)
    computed.clear()
    assert counts(instance) == (1, 0, CELLS - 1)
    assert not computed, "a run under way"
    end(instance, "one", FAILED)
    assert counts(instance) == (1, CELLS - 1, 0)
    assert computed == [KEY]
    assert counts(instance) == (1, CELLS - 1, 0)
    assert computed == [KEY], "no run under way"


def test_a_run_that_ends_without_an_event_of_the_asset_is_noticed(
    instance: dg.DagsterInstance,
) -> None:
    """And one that has nothing to do with it changes nothing."""
    for run_id, cell in zip(("one", "two"), KEYS, strict=False):
        begin(instance, run_id)
        plan(instance, run_id, cell)
    assert counts(instance) == (0, 0, 2)
    begin(instance, "elsewhere")
    end(instance, "elsewhere", DONE)
    assert counts(instance) == (0, 0, 2)
    end(instance, "two", FAILED)
    assert counts(instance) == (0, 1, 1)
    instance.delete_run("one")
    assert counts(instance) == (0, 1, 0)


def test_a_status_that_another_process_kept_is_not_taken_for_ours(
    instance: dg.DagsterInstance, computed: list[dg.AssetKey]
) -> None:
    """It may have looked at the runs before we did, and written after."""
    begin(instance, "one")
    plan(instance, "one", *KEYS)
    assert counts(instance) == (0, 0, CELLS)
    value = value_of(instance)
    assert value is not None
    nothing = day_ticker.empty_subset().serialize()
    late = value._replace(serialized_in_progress_partition_subset=nothing)
    instance.update_asset_cached_status_data(KEY, late)
    computed.clear()
    assert counts(instance) == (0, 0, CELLS)
    assert computed == [KEY]


def test_requests_at_once_compute_a_status_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_range(instance, bars, features)
    keys = [bars.key, features.key]
    instance.wipe_asset_cached_status(keys)
    anew: list[dg.AssetKey] = []
    build = partition_status_cache._build_status_cache

    def slowly(**given: Any) -> Any:
        anew.append(given["asset_key"])
        time.sleep(0.3)
        return build(**given)

    def asked(context: LoadingContextForTest) -> list[int]:
        wanted = [(key, day_ticker) for key in keys]
        values = instance.event_log_storage.get_asset_status_cache_values(wanted, context)
        return [
            len(value.deserialize_materialized_partition_subsets(day_ticker))
            for value in values
            if value is not None
        ]

    monkeypatch.setattr(partition_status_cache, "_build_status_cache", slowly)
    # Each request has read what is kept before any of them has computed it.
    contexts = [LoadingContextForTest(instance) for _ in range(ASKING)]
    for context in contexts:
        AssetRecord.blocking_get_many(context, keys)
    with ThreadPoolExecutor(ASKING) as pool:
        found = list(pool.map(asked, contexts))
    assert found == [[CELLS, CELLS]] * ASKING
    assert sorted(anew) == keys


def test_dagster_still_computes_it_in_the_place_that_is_replaced() -> None:
    """Else its way has changed: compare `KeptStatuses.of` with it."""
    source = inspect.getsource(EventLogStorage.get_asset_status_cache_values)
    assert "get_and_update_asset_status_cache_value(" in source
    assert "loading_context=context" in source


def test_dagster_still_fetches_two_rows_of_each_partition() -> None:
    """Else its own query may do: compare `PartitionStatusReads` with it."""
    source = inspect.getsource(getattr(SqliteEventLogStorage, ATTEMPTS))
    assert source.count("db_fetch_mappings(") == 2, "Dagster changed"


def test_dagster_still_looks_at_nothing_else() -> None:
    """A status rests on the asset's events and, of those planned, on whether their runs ended."""
    source = inspect.getsource(partition_status_cache._build_status_cache)
    assert "earliest_in_progress_materialization_event_id - 1" in source, "Dagster changed"
    incomplete = inspect.getsource(
        partition_status_cache.build_failed_and_in_progress_partition_subset
    )
    assert "r.status in FINISHED_STATUSES" in incomplete, "Dagster changed"
    assert "last_planned_materialization_storage_id > after_storage_id" in incomplete, (
        "Dagster changed"
    )
