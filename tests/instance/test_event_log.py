"""The batched event log against its oracle, Dagster's own SQLite storage.

Whatever a reader may ask must have the answer that stock storage gives, whole batches at a time.
The last section pins what of Dagster's internals that rests on.
"""

import ast
import inspect
import json
import os
import re
import sqlite3
import textwrap
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as db
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    BATCH_WRITABLE_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._serdes import deserialize_value, serialize_value

from stock_assets.instance import event_log
from stock_assets.instance.batching import BATCH_SIZE_VARIABLE, enable_event_batching
from stock_assets.instance.event_log import MIRRORED_EVENTS, BatchedSqliteEventLogStorage

from .conftest import (
    CELLS,
    DAYS,
    TICKERS,
    bars,
    day_ticker,
    drifted,
    entry_of,
    failing,
    features,
    finite,
    instance_at,
    run_range,
    shards_of,
    statuses,
    summary,
)

pytestmark = pytest.mark.slow

SHARD_TABLES = ("event_logs", "asset_keys", "asset_event_tags", "asset_check_executions")


# ---------------------------------------------------------------------------------------------
# Instances and what they hold


def _but_for_what_is_left_out(
    index: dict[str, list[dict[str, Any]]],
) -> dict[str, list[dict[str, Any]]]:
    """Take from any index what ours leaves out of the copies of cells' events (ADR 1)."""
    cells = set()
    for row in index["event_logs"]:
        kind = row["dagster_event_type"]
        if row["partition"] is None or kind not in (
            "ASSET_MATERIALIZATION",
            "ASSET_MATERIALIZATION_PLANNED",
        ):
            continue
        entry = deserialize_value(row["event"], EventLogEntry)
        event = entry.dagster_event._replace(
            logging_tags={},
            message=None,
            pid=None,
            node_handle=None,
            step_handle=None,
            step_key=None,
            step_kind_value=None,
        )
        entry = entry._replace(dagster_event=event, user_message="", job_name=None)
        if kind == "ASSET_MATERIALIZATION_PLANNED":
            entry = entry._replace(step_key=None)
        else:
            cells.add(row["id"])
        row["event"] = serialize_value(entry)
    index["asset_event_tags"] = [
        {name: value for name, value in tag.items() if name != "id"}
        for tag in index["asset_event_tags"]
        if tag["event_id"] not in cells or not tag["key"].startswith("dagster/partition/")
    ]
    return index


def _dump(base_dir: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """All rows of all shards, by shard and table, but for the time they were written at.

    And but for what ours leaves out of the index; a run's own shard leaves out nothing.
    """
    dump: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for path in sorted(base_dir.glob("*.db")):
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            dump[path.stem] = {
                table: [
                    {name: row[name] for name in row.keys() if name != "create_timestamp"}  # noqa: SIM118
                    for row in connection.execute(f"select * from {table} order by id")
                ]
                for table in SHARD_TABLES
            }
    if "index" in dump:
        dump["index"] = _but_for_what_is_left_out(dump["index"])
    return dump


_RANDOM = (
    # (what differs between two runs of the same job, what to call it)
    (re.compile(r'(timestamp(?:": |=))-?[\d.]+'), r"\1<time>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d+"), "<time>"),
    (re.compile(r'("duration_ms": )[\d.]+'), r"\1<duration>"),
    (re.compile(r"\b[\d.]+(ms|s)\b"), "<duration>"),
    (re.compile(rf"\b{os.getpid()}\b"), "<pid>"),
    (re.compile(r'("(?:file|log)_key": )"[a-z]+"'), r'\1"<key>"'),
    (re.compile(r"/[^\"' ]*/(stock|ours)/"), "<home>/"),
)


def _normalised(text: str) -> str:
    for pattern, name in _RANDOM:
        text = pattern.sub(name, text)
    return text


def _comparable(home: Path, run_ids: Sequence[str]) -> dict[str, Any]:
    """Dump the home, its runs named by their order and what is random replaced."""
    names = {run_id: f"run {n}" for n, run_id in enumerate(run_ids)}
    dump = {names.get(shard, shard): tables for shard, tables in _dump(shards_of(home)).items()}
    text = json.dumps(dump, ensure_ascii=False, indent=1, sort_keys=True).replace('\\"', '"')
    for run_id, name in names.items():
        text = text.replace(run_id, name)
    # lines, for a readable difference
    return dict(enumerate(_normalised(text).splitlines()))


def _both(
    tmp_path: Path, use: Callable[[dg.DagsterInstance], tuple[list[str], Any]]
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(rows, answers) under stock storage and under ours, of the same use of an instance."""
    seen = []
    for name, storage in (("stock", SqliteEventLogStorage), ("ours", BatchedSqliteEventLogStorage)):
        with instance_at(tmp_path / name, storage) as instance:
            run_ids, answers = use(instance)
        seen.append((_comparable(tmp_path / name, run_ids), _normalised(repr(answers))))
    return seen[0], seen[1]


# ---------------------------------------------------------------------------------------------
# The oracle: the same runs


def _answers(instance: dg.DagsterInstance, assets: Sequence[Any], checks: Sequence[Any]) -> Any:
    """Ask what readers ask: the UI, automation, sensors."""
    storage = instance.event_log_storage
    planned_only = (
        storage.get_latest_asset_partition_materialization_attempts_without_materializations
    )
    answers: dict[str, Any] = {}
    for asset in assets:
        key = asset.key
        record = instance.get_asset_records([key])[0]
        answers[str(key)] = {
            "materialized": sorted(instance.get_materialized_partitions(key)),
            "storage ids": sorted(
                storage.get_latest_storage_id_by_partition(
                    key, DagsterEventType.ASSET_MATERIALIZATION
                ).items()
            ),
            "tags by partition": sorted(
                storage.get_latest_tags_by_partition(
                    key, DagsterEventType.ASSET_MATERIALIZATION, ["dagster/data_version"]
                ).items()
            ),
            "event tags": sorted(
                sorted(
                    item for item in tags.items() if not item[0].startswith("dagster/partition/")
                )
                for tags in storage.get_event_tags_for_asset(key)
            ),
            "latest": instance.get_latest_materialization_event(key),
            "record": (record.storage_id, record.asset_entry.last_materialization_record),
            "last run": instance.get_run_by_id(record.asset_entry.last_run_id or "") is not None,
            "planned only": sorted(
                (name, event_id) for name, (_, event_id) in planned_only(key).items()
            ),
            "observations": len(instance.fetch_observations(key, limit=99).records),
        }
        if asset.partitions_def:
            answers[str(key)]["statuses"] = statuses(instance, key)
            cache = get_and_update_asset_status_cache_value(instance, key, day_ticker)
            assert cache
            answers[str(key)]["cache"] = [
                sorted(subset.get_partition_keys())
                for subset in (
                    cache.deserialize_materialized_partition_subsets(day_ticker),
                    cache.deserialize_failed_partition_subsets(day_ticker),
                    cache.deserialize_in_progress_partition_subsets(day_ticker),
                )
            ]
    for key in checks:
        history = storage.get_asset_check_execution_history(key, limit=99)
        answers[str(key)] = [(one.status, one.partition, one.event) for one in history]
    return answers


@pytest.mark.filterwarnings("ignore")
def test_a_run_over_a_range_is_recorded_as_by_stock_storage(tmp_path: Path) -> None:
    checks = [
        dg.AssetCheckKey(bars.key, "priced"),
        dg.AssetCheckKey(features.key, "drifted"),
        dg.AssetCheckKey(features.key, "finite"),
    ]

    def twice(instance: dg.DagsterInstance) -> tuple[list[str], Any]:
        runs = [
            run_range(instance, bars, features, drifted, finite),
            run_range(instance, summary, tags=None),
            run_range(instance, bars, features, drifted, finite),
        ]
        assert all(run.success for run in runs)
        return [run.run_id for run in runs], _answers(instance, [bars, features, summary], checks)

    (stock_rows, stock_answers), (rows, answers) = _both(tmp_path, twice)
    assert rows == stock_rows
    assert answers == stock_answers
    assert f"{DAYS[-1]}|{TICKERS[-1]}" in answers


@pytest.mark.filterwarnings("ignore")
def test_failed_and_unfinished_partitions_show_as_in_stock_storage(tmp_path: Path) -> None:
    def fail(instance: dg.DagsterInstance) -> tuple[list[str], Any]:
        run = run_range(instance, bars, failing)
        assert not run.success
        assert set(statuses(instance, failing.key).values()) == {"FAILED"}
        messages = [entry.message for entry in instance.all_logs(run.run_id)]
        assert sum(message.count("IN_PROGRESS") for message in messages) == CELLS
        return [run.run_id], _answers(instance, [bars, failing], [])

    stock, ours = _both(tmp_path, fail)
    assert ours == stock


def test_a_run_makes_batches_of_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    stored = BatchedSqliteEventLogStorage.store_event_batch

    def spy(self: BatchedSqliteEventLogStorage, events: Sequence[EventLogEntry]) -> None:
        sizes.append(len(events))
        stored(self, events)

    monkeypatch.setattr(BatchedSqliteEventLogStorage, "store_event_batch", spy)
    with instance_at(tmp_path / "ours", BatchedSqliteEventLogStorage) as instance:
        run_range(instance, bars, features)
    # one planned event an asset with bars' planned check, then each asset's materializations
    assert sizes == [3, CELLS, CELLS], "Dagster changed which events of a run it reports as a batch"


# ---------------------------------------------------------------------------------------------
# The oracle: the same events, byte for byte


def _stock_dump(base_dir: Path, entries: Sequence[EventLogEntry]) -> dict[str, Any]:
    storage = SqliteEventLogStorage(str(base_dir))
    for entry in entries:
        storage.store_event(entry)
    return _dump(base_dir)


def _as_it_came(entries: list[EventLogEntry]) -> list[EventLogEntry]:
    return entries


def _runs_and_assets_interleaved(entries: list[EventLogEntry]) -> list[EventLogEntry]:
    return sorted(entries, key=lambda entry: str(entry.dagster_event_type))


def _backwards(entries: list[EventLogEntry]) -> list[EventLogEntry]:
    # stock storage refuses to plan a check after its evaluation
    planned = DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
    return [entry for entry in reversed(entries) if entry.dagster_event_type != planned]


@pytest.mark.parametrize("order", [_as_it_came, _runs_and_assets_interleaved, _backwards])
def test_batches_of_any_events_leave_the_rows_of_stock_storage(
    tmp_path: Path,
    recorded: list[EventLogEntry],
    order: Callable[[list[EventLogEntry]], list[EventLogEntry]],
) -> None:
    entries = order(recorded)
    expected = _stock_dump(tmp_path / "stock", entries)
    for size in (5, len(entries)):
        ours = BatchedSqliteEventLogStorage(str(tmp_path / f"by {size}"))
        for start in range(0, len(entries), size):
            ours.store_event_batch(entries[start : start + size])
        assert _dump(tmp_path / f"by {size}") == expected


def test_an_empty_batch_writes_nothing(tmp_path: Path) -> None:
    ours = BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    ours.store_event_batch([])
    assert _dump(tmp_path / "ours") == _stock_dump(tmp_path / "stock", [])


def test_each_storage_reads_and_continues_what_the_other_wrote(
    tmp_path: Path, recorded: list[EventLogEntry]
) -> None:
    half = len(recorded) // 2
    run_id = recorded[0].run_id
    BatchedSqliteEventLogStorage(str(tmp_path / "mixed")).store_event_batch(recorded[:half])
    stock = SqliteEventLogStorage(str(tmp_path / "mixed"))
    assert list(stock.get_logs_for_run(run_id)) == [
        entry for entry in recorded[:half] if entry.run_id == run_id
    ]
    assert stock.get_materialized_partitions(bars.key) == set(day_ticker.get_partition_keys())
    for entry in recorded[half : half + 5]:
        stock.store_event(entry)
    BatchedSqliteEventLogStorage(str(tmp_path / "mixed")).store_event_batch(recorded[half + 5 :])
    assert _dump(tmp_path / "mixed") == _stock_dump(tmp_path / "stock", recorded)


@pytest.mark.filterwarnings("ignore")
def test_an_instance_written_by_ours_opens_with_stock_storage(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with instance_at(home, BatchedSqliteEventLogStorage) as instance:
        run = run_range(instance, bars, failing)
        ours = _answers(instance, [bars, failing], [dg.AssetCheckKey(bars.key, "priced")])
    with instance_at(home, SqliteEventLogStorage) as instance:
        stock = _answers(instance, [bars, failing], [dg.AssetCheckKey(bars.key, "priced")])
        assert instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_FAILURE)
    assert stock == ours


def test_a_check_of_more_partitions_than_a_statement_takes_is_planned(tmp_path: Path) -> None:
    keys = [f"p{n:05d}" for n in range(5000)]
    planned = DagsterEvent(
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
        job_name="job",
        event_specific_data=AssetCheckEvaluationPlanned(
            asset_key=bars.key,
            check_name="finite",
            partitions_subset=DefaultPartitionsSubset(set(keys)),
        ),
    )
    storage = BatchedSqliteEventLogStorage(str(tmp_path))
    storage.store_event_batch([entry_of(planned, "run"), entry_of(planned, "other run")])
    rows = _dump(tmp_path)["index"]["asset_check_executions"]
    assert sorted(row["partition"] for row in rows if row["run_id"] == "run") == keys
    history = storage.get_asset_check_execution_history(
        dg.AssetCheckKey(bars.key, "finite"), limit=3
    )
    assert [one.status.value for one in history] == ["PLANNED"] * 3
    assert max(len(row["evaluation_event"]) for row in rows) < 2000


@pytest.mark.parametrize("deleted", [0, -1])
def test_a_run_is_deleted_as_by_stock_storage(
    tmp_path: Path, recorded: list[EventLogEntry], deleted: int
) -> None:
    stock = SqliteEventLogStorage(str(tmp_path / "stock"))
    ours = BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    for entry in recorded:
        stock.store_event(entry)
    ours.store_event_batch(recorded)
    for storage in (stock, ours):
        storage.delete_events(recorded[deleted].run_id)
        for entry in recorded[:5]:
            storage.store_event(entry)
    assert _dump(tmp_path / "ours") == _dump(tmp_path / "stock")


def test_a_run_of_more_events_than_a_statement_takes_is_deleted(tmp_path: Path) -> None:
    variables = 40

    def limit(connection: sqlite3.Connection, _: Any) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, variables)

    def made(number: int, run_id: str) -> EventLogEntry:
        cell = dg.AssetMaterialization(
            "bars", partition=f"p{number}", tags={"dagster/data_version": "7"}
        )
        event = DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name="job",
            step_key="bars",
            event_specific_data=StepMaterializationData(cell, []),
        )
        return entry_of(event, run_id)

    storage = BatchedSqliteEventLogStorage(str(tmp_path))
    for run_id in ("run", "other run"):
        storage.store_event_batch([made(number, run_id) for number in range(2 * variables)])
    db.event.listen(db.engine.Engine, "connect", limit)
    try:
        storage.delete_events("run")
    finally:
        db.event.remove(db.engine.Engine, "connect", limit)
    dump = _dump(tmp_path)
    assert dump["run"]["event_logs"] == []
    assert {row["run_id"] for row in dump["index"]["event_logs"]} == {"other run"}
    ids = {row["id"] for row in dump["index"]["event_logs"]}
    assert {tag["event_id"] for tag in dump["index"]["asset_event_tags"]} == ids
    assert len(storage.get_logs_for_run("other run")) == 2 * variables


def test_stock_storage_still_deletes_by_naming_each_event() -> None:
    source = inspect.getsource(SqliteEventLogStorage.delete_events_for_run)
    assert ".in_(asset_event_ids)" in source, (
        "Dagster changed delete_events_for_run: compare it with ours, or drop ours"
    )


# ---------------------------------------------------------------------------------------------
# Whole batches or nothing


def _batchable_of_one_run(recorded: Sequence[EventLogEntry]) -> list[EventLogEntry]:
    run_id = recorded[0].run_id
    return [
        entry
        for entry in recorded
        if entry.run_id == run_id and entry.dagster_event_type in BATCH_WRITABLE_EVENTS
    ]


@pytest.mark.parametrize(
    "step", ["_tags_for_asset_event", "_store_asset_event", "store_asset_check_event"]
)
def test_a_batch_that_fails_midway_leaves_both_shards_as_they_were(
    tmp_path: Path, recorded: list[EventLogEntry], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first, second = recorded[:4], _batchable_of_one_run(recorded)
    ours = BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    ours.store_event_batch(first)
    before = _dump(tmp_path / "ours")

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(ours, step, fail)
        with pytest.raises(OSError, match="disk full"):
            ours.store_event_batch(second)
    assert _dump(tmp_path / "ours") == before

    ours.store_event_batch(second)
    assert _dump(tmp_path / "ours") == _stock_dump(tmp_path / "stock", [*first, *second])


def test_a_row_that_the_index_refuses_leaves_both_shards_as_they_were(
    tmp_path: Path, recorded: list[EventLogEntry]
) -> None:
    base_dir = tmp_path / "ours"
    ours = BatchedSqliteEventLogStorage(str(base_dir))
    ours.store_event_batch(recorded[:4])
    before = _dump(base_dir)
    with closing(sqlite3.connect(base_dir / "index.db")) as index:
        index.execute(
            "create trigger refuse before insert on asset_event_tags when new.event_id > 20"
            " begin select raise(abort, 'refused'); end"
        )
    with pytest.raises(Exception, match="refused"):
        ours.store_event_batch(_batchable_of_one_run(recorded))
    assert _dump(base_dir) == before


def test_events_of_a_failed_batch_are_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dagster stores the events of a batch that failed one by one."""
    failed = []

    def fail_in_the_index(_: Any, rows: Sequence[Any]) -> range:
        failed.append(len(rows))
        raise OSError("disk full")

    with instance_at(tmp_path / "stock", SqliteEventLogStorage) as instance:
        stock = _comparable(tmp_path / "stock", [run_range(instance, features).run_id])
    with instance_at(tmp_path / "ours", BatchedSqliteEventLogStorage) as instance:
        monkeypatch.setattr(event_log, "_insert_in_index", fail_in_the_index)
        ours = _comparable(tmp_path / "ours", [run_range(instance, features).run_id])
    assert failed == [CELLS, CELLS]
    assert "Falling back" in capsys.readouterr().err
    assert ours == stock


def test_writers_at_once_keep_their_ids(tmp_path: Path, recorded: list[EventLogEntry]) -> None:
    """Two runs in two processes share the index: tags and asset index must name their events."""
    batch = [
        entry
        for entry in _batchable_of_one_run(recorded)
        if entry.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION
    ]
    base_dir, rounds, writers = tmp_path / "ours", 8, 3
    BatchedSqliteEventLogStorage(str(base_dir))

    def write(run_id: str) -> None:
        # a storage of its own, as another process has
        storage = BatchedSqliteEventLogStorage(str(base_dir))
        for n in range(rounds):
            mine = [entry._replace(run_id=run_id) for entry in batch]
            if n % 3 == 0:
                storage.store_event(mine[0])
            else:
                storage.store_event_batch(mine)

    threads = [threading.Thread(target=write, args=(f"run{n}",)) for n in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index = _dump(base_dir)["index"]
    singles = len(range(0, rounds, 3))
    assert len(index["event_logs"]) == writers * (singles + (rounds - singles) * len(batch))
    events = {row["id"]: row for row in index["event_logs"]}
    for tag in index["asset_event_tags"]:
        event = events[tag["event_id"]]
        made = deserialize_value(event["event"], EventLogEntry).asset_materialization
        assert made.tags[tag["key"]] == tag["value"]
        assert event["asset_key"] == tag["asset_key"] == made.asset_key.to_string()
    latest = json.loads(index["asset_keys"][0]["last_materialization"])
    assert events[latest["storage_id"]]["run_id"] == latest["event_log_entry"]["run_id"]


def test_a_reader_in_another_thread_sees_whole_batches(
    tmp_path: Path, recorded: list[EventLogEntry]
) -> None:
    batch = [
        entry
        for entry in _batchable_of_one_run(recorded)
        if entry.dagster_event_type in ASSET_EVENTS
    ]
    ours = BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    done = threading.Event()
    seen = set()

    def read() -> None:
        while not done.is_set():
            seen.add(len(ours.get_logs_for_run(batch[0].run_id)))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            ours.store_event_batch(batch)
    finally:
        done.set()
        reader.join()
    assert seen <= {n * len(batch) for n in range(6)}


# ---------------------------------------------------------------------------------------------
# Switching it on


def test_enabling_batches_leaves_a_value_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    enable_event_batching()
    assert os.environ[BATCH_SIZE_VARIABLE] == "5000"
    monkeypatch.setenv(BATCH_SIZE_VARIABLE, "0")
    enable_event_batching(50)
    assert os.environ[BATCH_SIZE_VARIABLE] == "0"


# ---------------------------------------------------------------------------------------------
# What this rests on in Dagster


def test_dagster_makes_batches_by_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance_at(tmp_path, SqliteEventLogStorage) as instance:
        for value, expected in ((None, False), ("0", False), ("5", True)):
            if value is None:
                monkeypatch.delenv(BATCH_SIZE_VARIABLE, raising=False)
            else:
                monkeypatch.setenv(BATCH_SIZE_VARIABLE, value)
            assert instance._is_batch_writing_enabled() is expected, (
                "Dagster changed how batches of events are switched on: see enable_event_batching"
            )


def test_dagster_batches_these_kinds_of_events() -> None:
    kinds = DagsterEventType
    assert {
        kinds.ASSET_MATERIALIZATION,
        kinds.ASSET_OBSERVATION,
        kinds.ASSET_FAILED_TO_MATERIALIZE,
        kinds.ASSET_MATERIALIZATION_PLANNED,
        kinds.ASSET_CHECK_EVALUATION_PLANNED,
    } == BATCH_WRITABLE_EVENTS, (
        "Dagster changed which events come in batches: give the new kind to the `recorded` events"
    )


def test_dagster_mirrors_an_event_for_one_reason_only() -> None:
    groups = [set(ASSET_EVENTS), set(ASSET_CHECK_EVENTS), set(EVENT_TYPE_TO_PIPELINE_RUN_STATUS)]
    assert sum(map(len, groups)) == len(MIRRORED_EVENTS), (
        "Dagster changed the kinds of mirrored events: one kind is now in two groups, and stock "
        "storage inserts it into the index twice"
    )


def test_stock_storage_builds_itself_from_config(tmp_path: Path) -> None:
    config = {"base_dir": str(tmp_path)}
    built = super(BatchedSqliteEventLogStorage, BatchedSqliteEventLogStorage).from_config_value(
        None, config
    )
    assert type(built) is SqliteEventLogStorage, (
        "Dagster changed from_config_value to build the class it is called on: drop our override"
    )
    assert list(inspect.signature(SqliteEventLogStorage.__init__).parameters) == [
        "self",
        "base_dir",
        "inst_data",
    ], "Dagster changed the parameters of SqliteEventLogStorage"


def test_stock_storage_still_has_no_batch_of_its_own() -> None:
    assert "store_event_batch" not in vars(SqliteEventLogStorage), (
        "Dagster changed SqliteEventLogStorage: it writes batches itself now, measure and drop ours"
    )


def _calls_on_self(function: Callable[..., Any]) -> set[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
    }


def test_stock_storage_stores_an_event_in_these_steps() -> None:
    assert _calls_on_self(SqliteEventLogStorage.store_event) == {
        "prepare_insert_event",
        "run_connection",
        "index_connection",
        "index_transaction",
        "_store_asset_event",
        "_store_asset_event_tags",
        "store_asset_check_event",
    }, "Dagster changed SqliteEventLogStorage.store_event: compare it with store_event_batch"
    assert _calls_on_self(SqliteEventLogStorage.prepare_insert_event) == {"_event_to_row"}, (
        "Dagster changed how an event becomes a row: compare prepare_insert_event with ours"
    )


def test_stock_storage_connects_under_one_lock(tmp_path: Path) -> None:
    stock = SqliteEventLogStorage(str(tmp_path))
    assert isinstance(stock._db_lock, type(threading.Lock())), (
        "Dagster changed SqliteEventLogStorage._db_lock: is ours still needed?"
    )
    for connect in (stock.index_connection, lambda: stock.run_connection("some_run")):
        with connect() as connection:
            assert stock._db_lock.locked(), (
                "Dagster changed SqliteEventLogStorage._connect: it no longer holds _db_lock"
            )
            assert connection.in_transaction(), (
                "Dagster changed SqliteEventLogStorage._connect: a connection is no transaction"
            )


def test_a_row_of_an_event_fills_all_columns_but_the_id(
    tmp_path: Path, recorded: list[EventLogEntry]
) -> None:
    stock = SqliteEventLogStorage(str(tmp_path))
    columns = {column.name for column in SqlEventLogStorageTable.columns} - {"id"}
    for entry in recorded:
        assert set(stock._event_to_row(entry)) == columns, (
            "Dagster changed the rows of event_logs: a batch inserts the columns of its first row"
        )


def test_asset_events_of_a_kind_write_the_same_columns(
    tmp_path: Path, recorded: list[EventLogEntry]
) -> None:
    written: dict[DagsterEventType | None, set[frozenset[str]]] = {}
    stock = SqliteEventLogStorage(str(tmp_path))
    for entry in recorded:
        if entry.dagster_event_type in ASSET_EVENTS:
            values = stock._get_asset_entry_values(entry, 1, has_asset_key_index_cols=True)
            written.setdefault(entry.dagster_event_type, set()).add(frozenset(values))
    assert all(len(columns) == 1 for columns in written.values()), (
        "Dagster changed asset_keys: events of one kind write different columns, so that the last "
        "of a batch does not stand for all"
    )
    assert {kind for kind, (columns,) in written.items() if columns} == (
        event_log._ASSET_KEY_EVENTS
    ), "Dagster changed which events write asset_keys: see _ASSET_KEY_EVENTS"


def test_ids_of_rows_inserted_together_have_no_gap(tmp_path: Path) -> None:
    SqliteEventLogStorage(str(tmp_path))
    with closing(sqlite3.connect(tmp_path / "index.db")) as index:
        (ddl,) = index.execute("select sql from sqlite_master where name = 'event_logs'").fetchone()
        triggers = index.execute("select count(*) from sqlite_master where type = 'trigger'")
        assert re.search(r"\bid INTEGER NOT NULL", ddl), "Dagster changed the ids of event_logs"
        assert "PRIMARY KEY (id)" in ddl, "Dagster changed the ids of event_logs"
        assert triggers.fetchone() == (0,), "Dagster changed event_logs: a trigger may insert rows"
