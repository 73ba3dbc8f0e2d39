"""Every question to the event log, asked of ours and of its oracle, Dagster's SQLite storage.

The same events are written to both, ours in batches, and taken away again: an asset is wiped, a run
deleted. And the indexes that these questions go through, of which ours has not all.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as db
from dagster import DagsterEventType as Kind
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage

from stock_assets.instance import index_shard
from stock_assets.instance.event_log import BatchedSqliteEventLogStorage

from .conftest import (
    CELLS,
    RANGE,
    bars,
    day_ticker,
    entry_of,
    failing,
    features,
    instance_at,
    run_range,
    statuses,
)

Storage = SqliteEventLogStorage
Question = Callable[[Storage], Any]
Asked = tuple[str, Question]

ASSETS = [bars.key, features.key, failing.key, dg.AssetKey("outside")]
CHECKS = [
    dg.AssetCheckKey(bars.key, "priced"),
    dg.AssetCheckKey(features.key, "drifted"),
    dg.AssetCheckKey(features.key, "finite"),
]
SOME_IDS = [5, 6, 20, 40, 41]
SOME_CELLS = ["2024-01-03|AAA", "2024-01-04|BBB", "p"]
OF_ASSETS = (Kind.ASSET_MATERIALIZATION, Kind.ASSET_OBSERVATION, Kind.ASSET_MATERIALIZATION_PLANNED)


# ---------------------------------------------------------------------------------------------
# The questions


def _of_records(records: Sequence[dg.EventLogRecord]) -> list[Any]:
    """What the index's copy of an event is to say; the rest of it is in the run's own shard."""
    return [
        (
            one.storage_id,
            one.run_id,
            one.timestamp,
            one.asset_key,
            one.partition_key,
            one.event_log_entry.asset_materialization,
            one.event_log_entry.asset_observation,
        )
        for one in records
    ]


def _pages(ask: Callable[[str | None], Any], tell: Callable[[Sequence[Any]], Any]) -> list[Any]:
    pages, cursor, more = [], None, True
    while more:
        page = ask(cursor)
        pages.append((tell(page.records), page.cursor, page.has_more))
        cursor, more = page.cursor, page.has_more
    return pages


def _of_runs(run_ids: Sequence[str]) -> Iterator[Asked]:
    for run in run_ids:
        for ascending, limit in ((True, 40), (False, 1000)):
            yield (
                f"run {run} by {limit}, ascending {ascending}",
                lambda log, run=run, ascending=ascending, limit=limit: _pages(
                    lambda cursor: log.get_records_for_run(
                        run, cursor=cursor, limit=limit, ascending=ascending
                    ),
                    lambda records: [(one.storage_id, one.event_log_entry) for one in records],
                ),
            )
        yield (
            f"materializations of {run}",
            lambda log, run=run: log.get_logs_for_run(run, of_type={Kind.ASSET_MATERIALIZATION}),
        )
        yield f"cells of {run}", lambda log, run=run: log.get_asset_partitions_for_run(run)
        yield f"stats of {run}", lambda log, run=run: log.get_stats_for_run(run)
        yield f"steps of {run}", lambda log, run=run: log.get_step_stats_for_run(run)


def _events(key: dg.AssetKey, run_id: str) -> Iterator[Asked]:
    for kind in OF_ASSETS:
        for ascending, more in (
            (True, {}),
            (False, {"asset_partitions": SOME_CELLS}),
            (False, {"after_cursor": 10, "before_cursor": 30}),
        ):
            asked = dg.EventRecordsFilter(kind, asset_key=key, **more)
            yield (
                f"events {asked}, ascending {ascending}",
                lambda log, asked=asked, ascending=ascending: _of_records(
                    log.get_event_records(asked, limit=5, ascending=ascending)
                ),
            )
    for asked in (
        dg.AssetRecordsFilter(key),
        dg.AssetRecordsFilter(key, asset_partitions=SOME_CELLS),
        dg.AssetRecordsFilter(key, storage_ids=SOME_IDS),
        dg.AssetRecordsFilter(key, after_timestamp=1.0, before_timestamp=4e9),
    ):
        yield (
            f"materializations {asked}",
            lambda log, asked=asked: _pages(
                lambda cursor: log.fetch_materializations(asked, limit=4, cursor=cursor),
                _of_records,
            ),
        )
    yield (
        f"observations of {key}",
        lambda log: _of_records(log.fetch_observations(key, limit=9, ascending=True).records),
    )
    yield (
        f"failures of {key}",
        lambda log: _of_records(log.fetch_failed_materializations(key, limit=9).records),
    )
    for more in (
        {"run_id": run_id, "after_storage_id": 2, "limit": 1},
        {"storage_ids": SOME_IDS, "limit": 5},
        {"after_storage_id": 3, "before_storage_id": 40, "limit": 4, "ascending": True},
    ):
        yield (
            f"summaries of {key}, {more}",
            lambda log, more=more: log.get_asset_event_summary_records(
                Kind.ASSET_MATERIALIZATION, asset_key=key, **more
            ),
        )


def _cells(key: dg.AssetKey) -> Iterator[Asked]:
    for kind, more in (
        (Kind.ASSET_MATERIALIZATION, {}),
        (Kind.ASSET_MATERIALIZATION, {"after_cursor": 20}),
        (Kind.ASSET_MATERIALIZATION, {"partitions": set(SOME_CELLS)}),
        (Kind.ASSET_MATERIALIZATION_PLANNED, {}),
    ):
        yield (
            f"latest ids {kind} of {key}, {more}",
            lambda log, kind=kind, more=more: log.get_latest_storage_id_by_partition(
                key, kind, **more
            ),
        )
    for more in ({}, {"before_cursor": 40, "after_cursor": 3}):
        yield (
            f"materialized of {key}, {more}",
            lambda log, more=more: log.get_materialized_partitions(key, **more),
        )
    for cells in (None, SOME_CELLS):
        yield (
            f"latest tags of {key}, {cells}",
            lambda log, cells=cells: log.get_latest_tags_by_partition(
                key, Kind.ASSET_MATERIALIZATION, ["dagster/data_version"], cells
            ),
        )
    for after in (None, 20):
        yield (
            f"planned only of {key} after {after}",
            lambda log, after=after: (
                log.get_latest_asset_partition_materialization_attempts_without_materializations(
                    key, after
                )
            ),
        )
    for cell in (None, SOME_CELLS[1]):
        yield (
            f"planned of {key}, {cell}",
            lambda log, cell=cell: log.get_latest_planned_materialization_info(key, cell),
        )
    yield (
        f"updated data versions of {key}",
        lambda log: log.get_updated_data_version_partitions(key, SOME_CELLS, 3),
    )
    yield f"has {key}", lambda log: log.has_asset_key(key)


def questions(run_ids: Sequence[str], assets: Sequence[dg.AssetKey]) -> Iterator[Asked]:
    """What readers may ask of a log: the UI, automation, sensors, backfills."""
    yield from _of_runs(run_ids)
    for key in assets:
        yield from _events(key, run_ids[0])
        yield from _cells(key)
    yield "assets", lambda log: log.all_asset_keys()
    yield (
        "records of assets",
        lambda log: {
            one.asset_entry.asset_key: (
                one.storage_id,
                one.asset_entry.last_run_id,
                _of_records(
                    [
                        latest
                        for latest in (
                            one.asset_entry.last_materialization_record,
                            one.asset_entry.last_observation_record,
                        )
                        if latest
                    ]
                ),
            )
            for one in log.get_asset_records(assets)
        },
    )
    yield (
        "latest materializations",
        lambda log: {
            key: event and event.asset_materialization
            for key, event in log.get_latest_materialization_events(assets).items()
        },
    )
    yield "last id", lambda log: log.get_maximum_record_id()
    yield "all ids", lambda log: list(log.get_logs_for_all_runs_by_log_id(after_cursor=4))
    for kind in (Kind.RUN_SUCCESS, Kind.RUN_FAILURE):
        yield (
            f"{kind}",
            lambda log, kind=kind: [
                (one.storage_id, one.event_log_entry)
                for one in log.fetch_run_status_changes(kind, 10, ascending=True).records
            ],
        )
    for check in CHECKS:
        yield (
            f"history of {check}",
            lambda log, check=check: [
                (one.status, one.partition, one.event)
                for one in log.get_asset_check_execution_history(check, limit=99)
            ],
        )
    yield (
        "latest checks",
        lambda log: {
            key: (one.status, one.partition, one.event)
            for key, one in log.get_latest_asset_check_execution_by_key(CHECKS).items()
        },
    )


def _assert_same_answers(
    stock: Storage, ours: Storage, run_ids: Sequence[str], assets: Sequence[dg.AssetKey]
) -> None:
    for name, ask in questions(run_ids, assets):
        assert ask(ours) == ask(stock), name


@pytest.fixture
def both(
    tmp_path: Path, recorded: list[EventLogEntry]
) -> tuple[SqliteEventLogStorage, BatchedSqliteEventLogStorage]:
    """The recorded events, written one by one by stock storage and by ours in batches."""
    stock = SqliteEventLogStorage(str(tmp_path / "stock"))
    ours = BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    for entry in recorded:
        stock.store_event(entry)
    for start in range(0, len(recorded), 7):
        ours.store_event_batch(recorded[start : start + 7])
    return stock, ours


# ---------------------------------------------------------------------------------------------
# The oracle


@pytest.mark.slow
def test_what_is_wiped_written_again_and_deleted_reads_as_in_stock_storage(
    both: tuple[SqliteEventLogStorage, BatchedSqliteEventLogStorage],
    recorded: list[EventLogEntry],
) -> None:
    stock, ours = both
    run_ids = sorted({entry.run_id for entry in recorded if entry.run_id})
    _assert_same_answers(stock, ours, run_ids, ASSETS)
    assert len(ours.get_materialized_partitions(bars.key)) == CELLS

    for log in both:
        log.wipe_asset(bars.key)
    _assert_same_answers(stock, ours, run_ids, ASSETS[:2])
    assert not ours.has_asset_key(bars.key)
    assert ours.get_materialized_partitions(bars.key) == set()
    assert len(ours.get_materialized_partitions(features.key)) == CELLS

    again = [
        entry._replace(timestamp=time.time() + 5)
        for entry in recorded
        if entry.dagster_event_type in OF_ASSETS and entry.dagster_event.asset_key == bars.key
    ]
    for entry in again:
        stock.store_event(entry)
    ours.store_event_batch(again)
    _assert_same_answers(stock, ours, run_ids, ASSETS[:2])
    assert len(ours.get_materialized_partitions(bars.key)) == CELLS

    for log in both:
        log.delete_events(run_ids[0])
    _assert_same_answers(stock, ours, run_ids, ASSETS[:2])
    assert not ours.get_logs_for_run(run_ids[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_cancelled_deleted_and_wiped_cells_show_as_in_stock_storage(tmp_path: Path) -> None:
    key = features.key
    job = dg.Definitions([features]).resolve_implicit_global_asset_job_def()
    shown = []
    for storage in (SqliteEventLogStorage, BatchedSqliteEventLogStorage):
        seen = {}
        with instance_at(tmp_path / storage.__name__, storage) as instance:
            run = instance.create_run_for_job(
                job,
                tags=RANGE,
                status=dg.DagsterRunStatus.STARTED,
                asset_selection=frozenset([key]),
            )
            seen["started"] = statuses(instance, key)
            instance.report_run_canceling(run)
            seen["cancelling"] = statuses(instance, key)
            instance.report_run_canceled(run)
            seen["cancelled"] = statuses(instance, key)
            run_id = run_range(instance, features).run_id
            seen["run"] = statuses(instance, key)
            instance.delete_run(run_id)
            seen["deleted"] = statuses(instance, key)
            instance.wipe_assets([key])
            seen["wiped"] = statuses(instance, key)
            run_range(instance, features)
            seen["run again"] = statuses(instance, key)
        shown.append(seen)
    stock, ours = shown
    assert ours == stock
    cells = day_ticker.get_partition_keys()
    assert ours == {
        "started": dict.fromkeys(cells, "IN_PROGRESS"),
        "cancelling": dict.fromkeys(cells, "IN_PROGRESS"),
        "cancelled": dict.fromkeys(cells),
        "run": dict.fromkeys(cells, "MATERIALIZED"),
        "deleted": dict.fromkeys(cells, "MATERIALIZED"),  # Dagster keeps its cache of statuses
        "wiped": {},
        "run again": dict.fromkeys(cells, "MATERIALIZED"),
    }


# ---------------------------------------------------------------------------------------------
# The indexes: what this rests on in Dagster


TAGS_OF_ASSET = "idx_asset_event_tags (asset_key=?)"


@contextmanager
def _statements_to(shard: str) -> Iterator[dict[str, Any]]:
    """The statements that Dagster has SQLite execute on this file, with parameters of each."""
    heard: dict[str, Any] = {}

    def hear(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if str(connection.engine.url).endswith(shard):
            heard.setdefault(statement, parameters)

    db.event.listen(db.engine.Engine, "before_cursor_execute", hear)
    try:
        yield heard
    finally:
        db.event.remove(db.engine.Engine, "before_cursor_execute", hear)


def _plans(index: Path, statements: dict[str, Any]) -> dict[str, list[str]]:
    """How SQLite goes about each statement; a tag's key, which tells few apart, left out."""
    with closing(sqlite3.connect(index)) as connection:
        return {
            statement: [
                row[3].replace("idx_asset_event_tags (asset_key=? AND key=?)", TAGS_OF_ASSET)
                for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]
            for statement, parameters in statements.items()
            if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE"))
        }


def _columns_of_indexes(index: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(index)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")
        return {
            name: [
                row[2] for row in connection.execute(f"SELECT * FROM pragma_index_info('{name}')")
            ]
            for (name,) in names.fetchall()
        }


def test_the_index_has_all_of_stock_storages_indexes_but_those_that_nobody_asks(
    tmp_path: Path,
) -> None:
    SqliteEventLogStorage(str(tmp_path / "stock"))
    BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    expected = _columns_of_indexes(tmp_path / "stock" / "index.db")
    for unasked in ("idx_step_key", "idx_events_by_run_id"):
        assert expected.pop(unasked, None), (
            f"Dagster changed its indexes: it has no {unasked}, which index_shard.py drops"
        )
    assert expected["idx_asset_event_tags"] == ["asset_key", "key", "value"], (
        "Dagster changed idx_asset_event_tags: see index_shard.py"
    )
    expected["idx_asset_event_tags"] = ["asset_key"]
    assert _columns_of_indexes(tmp_path / "ours" / "index.db") == expected


def test_no_question_to_the_index_asks_for_what_is_dropped(tmp_path: Path) -> None:
    stock = SqliteEventLogStorage(str(tmp_path / "stock"))
    BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    with _statements_to("index.db") as asked:
        for cell in SOME_CELLS:
            made = dg.AssetMaterialization(
                bars.key, partition=cell, tags={"dagster/data_version": "7"}
            )
            event = DagsterEvent(
                Kind.ASSET_MATERIALIZATION.value,
                job_name="job",
                step_key="bars",
                event_specific_data=StepMaterializationData(made, []),
            )
            stock.store_event(entry_of(event, "run"))
        for _, ask in questions(["run"], [bars.key]):
            ask(stock)
        stock.wipe_asset(bars.key)
        for _, ask in questions(["run"], [bars.key]):
            ask(stock)
    plans = _plans(tmp_path / "stock" / "index.db", asked)
    assert any("idx_events_by_asset_partition" in step for plan in plans.values() for step in plan)
    ours = _plans(tmp_path / "ours" / "index.db", asked)
    for statement, plan in plans.items():
        assert ours[statement] == plan, (
            "Dagster changed what it asks the index: for this, stock storage's index has an index"
            f" that index_shard.py drops ({index_shard._UNASKED}):\n{statement}"
        )
