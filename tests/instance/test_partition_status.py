"""A partition status is Dagster's own, computed once, and not again until something happens."""

from __future__ import annotations

import hashlib
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
from dagster._core.storage.event_log import (
    SqlEventLogStorage,
    SqliteEventLogStorage,
    sql_event_log,
)
from dagster._core.storage.event_log.base import AssetRecord, EventLogStorage
from dagster_postgres import PostgresEventLogStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.instance import partition_status
from stock_assets.instance.event_log import BatchedSqliteEventLogStorage

from .conftest import (
    CELLS,
    DAYS,
    TICKERS,
    bars,
    day_ticker,
    entry_of,
    features,
    instance_at,
    run_range,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dagster._core.storage.partition_status_cache import AssetStatusCacheValue

ASKING = 6
KEY = bars.key
ATTEMPTS = "get_latest_asset_partition_materialization_attempts_without_materializations"
KEYS = list(day_ticker.get_partition_keys())
Cells = dg.MultiPartitionsDefinition
days = dg.StaticPartitionsDefinition(DAYS)
FEW_CELLS = Cells({"day": days, "ticker": dg.StaticPartitionsDefinition(TICKERS[:1])})


def value_of(
    instance: dg.DagsterInstance,
    key: dg.AssetKey = KEY,
    definition: dg.PartitionsDefinition = day_ticker,
) -> AssetStatusCacheValue | None:
    """What a page gets that asks now."""
    context = LoadingContextForTest(instance)
    (value,) = instance.event_log_storage.get_asset_status_cache_values(
        [(key, definition)], context
    )
    return value


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


def store(instance: dg.DagsterInstance, run_id: str, events: list[DagsterEvent]) -> None:
    """Store events of now, as a batch."""
    entries = [entry_of(event, run_id)._replace(timestamp=time.time()) for event in events]
    instance.event_log_storage.store_event_batch(entries)


def plan(instance: dg.DagsterInstance, run_id: str, *cells: str, key: dg.AssetKey = KEY) -> None:
    planned = [AssetMaterializationPlannedData(key, partition=cell) for cell in cells]
    build = DagsterEvent.build_asset_materialization_planned_event
    store(instance, run_id, [build("job", "bars", one) for one in planned])


def materialize(
    instance: dg.DagsterInstance, run_id: str, *cells: str, key: dg.AssetKey = KEY
) -> None:
    done = [StepMaterializationData(dg.AssetMaterialization(key, partition=cell)) for cell in cells]
    kind = DagsterEventType.ASSET_MATERIALIZATION.value
    store(instance, run_id, [DagsterEvent(kind, "job", event_specific_data=one) for one in done])


def end(instance: dg.DagsterInstance, run_id: str, kind: DagsterEventType) -> None:
    """End a run; no event of an asset says so."""
    instance.run_storage.handle_run_event(run_id, DagsterEvent(kind.value, "job"))


FAILED, DONE = DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_SUCCESS
CANCELED = DagsterEventType.RUN_CANCELED


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
runs = st.integers(0, 2)
some_cells = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("plan"), runs, some_cells),
    st.tuples(st.just("materialize"), runs, some_cells),
    st.tuples(st.just("end"), runs, st.sampled_from([FAILED, DONE, CANCELED])),
    st.tuples(st.just("end_again"), runs, st.sampled_from([FAILED, CANCELED])),
    st.tuples(st.just("delete"), runs, st.none()),
    st.tuples(st.just("delete_ended"), runs, st.none()),
    st.tuples(st.just("report"), runs, st.sampled_from(KEYS)),
    st.tuples(st.just("wipe"), runs, st.none()),
    # By which of two processes, and with how many tickers as partitions.
    st.tuples(st.just("look"), st.integers(0, 1), st.sampled_from([FEW_CELLS, day_ticker])),
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[list[dg.DagsterInstance]]]:
    """Two processes' instances of stock storage, and of ours. A history has an asset of its own."""
    home = tmp_path_factory.mktemp("both")
    with ExitStack() as stack:
        yield [
            [stack.enter_context(instance_at(home / storage.__name__, storage)) for _ in range(2)]
            for storage in (SqliteEventLogStorage, BatchedSqliteEventLogStorage)
        ]


class Life:
    """An asset's history on one kind of storage: a method for each kind of step."""

    def __init__(self, processes: list[dg.DagsterInstance], key: dg.AssetKey) -> None:
        self.processes, self.key = processes, key
        self.instance = processes[0]
        self.running: dict[int, str] = {}
        self.ended: dict[int, str] = {}
        self.seen: list[Any] = []

    def _run(self, number: int) -> str:
        if number not in self.running:
            self.running[number] = str(uuid.uuid4())
            begin(self.instance, self.running[number])
        return self.running[number]

    def plan(self, number: int, cells: list[str]) -> None:
        plan(self.instance, self._run(number), *cells, key=self.key)

    def materialize(self, number: int, cells: list[str]) -> None:
        materialize(self.instance, self._run(number), *cells, key=self.key)

    def end(self, number: int, kind: DagsterEventType) -> None:
        self.ended[number] = self._run(number)
        end(self.instance, self.running.pop(number), kind)

    def end_again(self, number: int, kind: DagsterEventType) -> None:
        if number in self.ended:
            end(self.instance, self.ended[number], kind)

    def delete(self, number: int, _: None) -> None:
        self.instance.delete_run(self._run(number))
        del self.running[number]

    def delete_ended(self, number: int, _: None) -> None:
        if number in self.ended:
            self.instance.delete_run(self.ended.pop(number))

    def report(self, _: int, cell: str) -> None:
        self.instance.report_runless_asset_event(dg.AssetMaterialization(self.key, partition=cell))

    def wipe(self, _: int, __: None) -> None:
        self.instance.wipe_assets([self.key])

    def look(self, process: int, definition: dg.PartitionsDefinition) -> None:
        value = value_of(self.processes[process], self.key, definition)
        attempts = getattr(self.instance.event_log_storage, ATTEMPTS)
        newest = value.latest_storage_id if value else 0
        found = [
            {cell: event_id for cell, (_, event_id) in attempts(self.key, cursor).items()}
            for cursor in (None, newest - 4)
        ]
        self.seen.append((value, found))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(history=st.lists(steps, min_size=1, max_size=14))
def test_after_whatever_happens_the_status_is_the_one_of_stock_storage(
    both: list[list[dg.DagsterInstance]], history: list[Step]
) -> None:
    """Looked at in between as well: what one look keeps, the next builds on."""
    key = dg.AssetKey(str(uuid.uuid4()))
    lives = [Life(processes, key) for processes in both]
    # The last looks come at once, the very last by another process.
    for step, number, detail in [*history, *[("look", one, day_ticker) for one in (0, 0, 1)]]:
        for life in lives:
            getattr(life, step)(number, detail)
    stock, ours = lives
    assert ours.seen == stock.seen


def test_a_run_that_has_ended_and_is_deleted_takes_its_materializations_along(
    instance: dg.DagsterInstance,
) -> None:
    """While another is under way that planned the same cell, and not as the last that ended."""
    begin(instance, "all")
    plan(instance, "all", *KEYS[:2])
    for run_id in ("one", "elsewhere"):
        begin(instance, run_id)
    materialize(instance, "one", KEYS[1])
    for run_id in ("one", "elsewhere"):
        end(instance, run_id, DONE)
    assert counts(instance) == (1, 0, 1)
    instance.delete_run("one")
    assert counts(instance) == (1, 0, 2)


def test_a_run_that_ends_twice_ends_as_it_did_last(instance: dg.DagsterInstance) -> None:
    """Taken for cancelled, it may yet say itself that it has failed; another is under way."""
    begin(instance, "first")
    plan(instance, "first", KEYS[0])
    begin(instance, "second")
    plan(instance, "second", KEYS[1])
    end(instance, "second", CANCELED)
    assert counts(instance) == (0, 0, 1)
    end(instance, "second", FAILED)
    assert counts(instance) == (0, 1, 1)


def test_partitions_that_are_made_as_one_goes_are_asked_for_outside_of_a_request(
    instance: dg.DagsterInstance,
) -> None:
    """Where nobody has said which instance knows them."""
    tickers = dg.DynamicPartitionsDefinition(name="tickers")
    instance.add_dynamic_partitions("tickers", ["AAA"])
    for definition in (tickers, Cells({"day": days, "ticker": tickers})):
        key = dg.AssetKey(type(definition).__name__)
        cell = "AAA" if definition is tickers else f"{DAYS[0]}|AAA"
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=cell))
        for _ in range(2):
            value = value_of(instance, key, definition)
            assert value is not None
            found = value.deserialize_materialized_partition_subsets(definition)
            assert set(found.get_partition_keys()) == {cell}


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


READ_AT_WRITING = {
    EventLogStorage.get_asset_status_cache_values: "67570af734ba01be",
    getattr(SqlEventLogStorage, ATTEMPTS): "ccc3a330429c03bc",
    partition_status_cache.get_and_update_asset_status_cache_value: "ecfbf48fca827cf3",
    partition_status_cache._build_status_cache: "bb95c041897a4f09",
    partition_status_cache.build_failed_and_in_progress_partition_subset: "3be467aca6662280",
    partition_status_cache.get_last_planned_storage_id: "eccd086beb7bbee9",
}
"""What a status is computed from, or is replaced here, by a hash of its text."""


@pytest.mark.parametrize("function", READ_AT_WRITING, ids=lambda function: function.__name__)
def test_dagster_still_computes_a_status_as_it_did(function: Callable[..., Any]) -> None:
    text = inspect.getsource(function)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == READ_AT_WRITING[function], (
        "Dagster changed: see whether it looks at more than `Look` has, and compare its own query"
    )


@pytest.mark.parametrize("parent", [SqliteEventLogStorage, PostgresEventLogStorage])
def test_no_parent_has_its_own_way(parent: type[SqlEventLogStorage]) -> None:
    """Ours would hide it."""
    values = "get_asset_status_cache_values"
    assert getattr(parent, values) is getattr(EventLogStorage, values), "Dagster changed"
    assert getattr(parent, ATTEMPTS) is getattr(SqlEventLogStorage, ATTEMPTS), "Dagster changed"


def test_the_off_switch_leaves_dagsters_own_look(
    instance: dg.DagsterInstance, computed: list[dg.AssetKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(instance, "one")
    plan(instance, "one", *KEYS)
    materialize(instance, "one", KEYS[0])
    monkeypatch.setenv(partition_status.OFF_SWITCH, "0")
    fetched: list[Any] = []
    fetch = sql_event_log.db_fetch_mappings

    def counted(*given: Any) -> Any:
        fetched.append(given)
        return fetch(*given)

    monkeypatch.setattr(sql_event_log, "db_fetch_mappings", counted)
    for looks in (1, 2):
        fetched.clear()
        assert counts(instance) == (1, 0, CELLS - 1)
        assert computed == [KEY] * looks
        assert len(fetched) >= 2
