"""Templates against their oracle, Dagster's serialisation of each event.

A cell's event that goes through a template must come out of the run's shard byte for byte as stock
storage serialises it, whatever its partition, tags, metadata and time; or not go through one.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as db
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.handle import StepHandle
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import (
    SqlEventLogStorageMetadata,
    SqlEventLogStorageTable,
)
from dagster._serdes import deserialize_value, serialize_value
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.instance import cell_events
from stock_assets.instance.cell_events import LEFT_OUT, CellEvent, Templates
from stock_assets.instance.event_log import BatchedSqliteEventLogStorage
from stock_assets.instance.run_shard import insert_events, restore_stock_layout

RUN = "11111111-2222-3333-4444-555555555555"
HANDLE = NodeHandle("bars", None)

nasty = st.one_of(
    st.sampled_from(['"', "\\", "a|b", "|", "é", "\n", "\x7f", "2024-01-03", "%", "'"]),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
)
metadata_values = st.one_of(
    st.integers(-5, 5),
    st.booleans(),
    st.floats(allow_nan=False),
    nasty,
    st.just(dg.MetadataValue.md("*rows*")),
    # Equal, and written otherwise.
    st.sampled_from([dg.IntMetadataValue(1), dg.IntMetadataValue(value=True)]),
    st.just(dg.MetadataValue.json({"a": [1, None]})),
)


def _materialized(
    partition: str | dg.MultiPartitionKey | None,
    metadata: dict[str, Any],
    tags: dict[str, str] | None,
    timestamp: float,
    asset: str = "bars",
) -> EventLogEntry:
    if isinstance(partition, dg.MultiPartitionKey):
        tags = {
            **(tags or {}),
            **{
                f"dagster/partition/{name}": key
                for name, key in partition.keys_by_dimension.items()
            },
        }
    made = dg.AssetMaterialization(asset, metadata=metadata, partition=partition, tags=tags)
    return _entry(
        DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name="job",
            step_handle=StepHandle(HANDLE),
            node_handle=HANDLE,
            step_kind_value="COMPUTE",
            logging_tags={"run_id": RUN, "op_name": "bars"},
            event_specific_data=StepMaterializationData(made, []),
            message=f"Materialized value {asset}.",
            pid=7,
        ),
        timestamp,
    )


def _planned(partition: str | None, timestamp: float, asset: str = "bars") -> EventLogEntry:
    return _entry(
        DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
            job_name="job",
            message=f'job intends to materialize asset ["{asset}"]',
            event_specific_data=AssetMaterializationPlannedData(
                dg.AssetKey(asset), partition=partition and str(partition)
            ),
            step_key="bars",
        ),
        timestamp,
    )


def _entry(event: DagsterEvent, timestamp: float) -> EventLogEntry:
    return EventLogEntry(
        error_info=None,
        level=10,
        user_message=event.message or "",
        run_id=RUN,
        timestamp=timestamp,
        step_key="bars",
        job_name="job",
        dagster_event=event,
    )


two_dimensional = st.builds(
    lambda day, ticker: dg.MultiPartitionKey({"day": day, "ticker": ticker}), nasty, nasty
)
moments = st.one_of(
    st.floats(0, 4e9),
    st.sampled_from([0.0, 5.0, 1700000000.5, 1700000000.1234565, 1e-7, 1700000000.9999999]),
)
events = st.one_of(
    st.builds(
        _materialized,
        st.one_of(two_dimensional, nasty, st.none()),
        st.dictionaries(st.sampled_from(["rows", "näme"]), metadata_values, max_size=2),
        st.sampled_from([None, {}, {"dagster/data_version": "7"}, {"dagster/code_version": "v"}]),
        moments,
        st.sampled_from(["bars", "features"]),
    ),
    st.builds(_planned, st.one_of(two_dimensional, nasty, st.none()), moments),
)


def _rows(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as shard:
        return shard.execute(f"SELECT {ROW} FROM event_logs ORDER BY id").fetchall()


ROW = "id, run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition"


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(batches=st.lists(st.lists(events, min_size=1, max_size=6), min_size=1, max_size=2))
def test_the_runs_log_reads_byte_for_byte_as_stock_storage_writes_it(
    batches: list[list[EventLogEntry]],
) -> None:
    row_of = object.__new__(SqliteEventLogStorage)._event_to_row
    shards = []
    for ours in (False, True):
        engine = db.create_engine("sqlite://")
        SqlEventLogStorageMetadata.create_all(engine)
        with engine.begin() as shard:
            for batch in batches:
                templates = Templates()
                if ours:
                    insert_events(shard, [templates.cell(one) or row_of(one) for one in batch])
                else:
                    shard.execute(SqlEventLogStorageTable.insert(), [row_of(one) for one in batch])
            found = shard.exec_driver_sql(f"SELECT {ROW} FROM event_logs ORDER BY id")
            shards.append(found.fetchall())
    assert shards[1] == shards[0]


@settings(max_examples=200, deadline=None)
@given(batch=st.lists(events, min_size=1, max_size=8))
def test_the_indexs_text_is_the_event_but_for_what_is_left_out(batch: list[EventLogEntry]) -> None:
    templates = Templates()
    for entry in batch:
        cell = templates.cell(entry)
        if cell is not None:
            short = deserialize_value(cell.index_values()[1] or "", EventLogEntry)
            assert _left_out(short) == _left_out(entry)


def _left_out(entry: EventLogEntry) -> str:
    names = {"solid_handle": "node_handle"}
    assert entry.dagster_event
    empty = {names.get(name, name): None for name in LEFT_OUT} | {"logging_tags": {}}
    step = entry.step_key if entry.asset_materialization else None
    return serialize_value(
        entry._replace(
            dagster_event=entry.dagster_event._replace(**empty),
            user_message="",
            job_name=None,
            step_key=step,
        )
    )


def _cells(batch: Sequence[EventLogEntry]) -> list[CellEvent | None]:
    templates = Templates()
    return [templates.cell(entry) for entry in batch]


def test_no_template_is_made_for_a_key_that_json_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_events, "Template", None)
    batch = [_materialized("СБЕР", {}, None, 1.5), _planned("СБЕР", 1.5), _planned(None, 1.5)]
    assert _cells(batch) == [None] * 3


def test_events_of_cells_share_a_template() -> None:
    """The property above would hold of templates that never match."""
    keys = [dg.MultiPartitionKey({"day": f"2024-01-0{n}", "ticker": "AAA"}) for n in range(1, 5)]
    batch = [_planned(key, 1.5) for key in keys]
    batch += [_materialized(key, {"rows": n}, {}, 2.5) for n, key in enumerate(keys)]
    found = _cells(batch)
    assert len({cell and cell.template for cell in found}) == 2, (
        "Dagster changed its events of cells: no template stands for them, see cell_events.py"
    )
    assert None not in found


@pytest.mark.parametrize(
    "change",
    [
        {"level": 20},
        {"user_message": "another"},
        {"run_id": "another"},
        {"step_key": "another"},
        {"job_name": "another"},
    ],
)
def test_an_entry_that_differs_elsewhere_has_another_template(change: dict[str, Any]) -> None:
    one = _materialized("a", {}, {}, 1.5)
    first, second = _cells([one, one._replace(**change)])
    assert first is not None
    assert second is not None
    assert first.template is not second.template


@pytest.mark.parametrize(
    "change",
    [
        {"pid": 8},
        {"message": "another"},
        {"logging_tags": {"run_id": "another"}},
        {"step_kind_value": "another"},
        {"job_name": "another"},
        {"step_key": "another"},
        {"node_handle": NodeHandle("another", None)},
        {"step_handle": StepHandle(NodeHandle("another", None))},
    ],
)
def test_an_event_that_differs_elsewhere_has_another_template(change: dict[str, Any]) -> None:
    one = _materialized("a", {}, {}, 1.5)
    assert one.dagster_event
    other = one._replace(dagster_event=one.dagster_event._replace(**change))
    first, second = _cells([one, other])
    assert first is not None
    assert second is not None
    assert first.template is not second.template


@pytest.mark.parametrize("name", ["stock", "ours"])
def test_stock_storage_changes_and_deletes_events_through_the_view(
    tmp_path: Path, name: str
) -> None:
    storage_of = {"stock": SqliteEventLogStorage, "ours": BatchedSqliteEventLogStorage}
    batch = [_materialized(f"p{n}", {}, {}, 1.5) for n in range(4)]
    storage_of[name](str(tmp_path)).store_event_batch(batch)
    stock = SqliteEventLogStorage(str(tmp_path))
    other = _materialized("p9", {"rows": 1}, {}, 2.5)
    stock.update_event_log_record(2, other)
    stock.store_event(other)
    assert list(stock.get_logs_for_run(RUN)) == [batch[0], other, *batch[2:], other]
    assert [row[0] for row in _rows(tmp_path / f"{RUN}.db")] == [1, 2, 3, 4, 5]
    stock.delete_events(RUN)
    assert stock.get_logs_for_run(RUN) == []


def test_a_migration_finds_the_tables_of_stock_storage(tmp_path: Path) -> None:
    ours = BatchedSqliteEventLogStorage(str(tmp_path))
    batch = [_materialized(f"p{n}", {"rows": n}, {}, 1.5) for n in range(4)]
    ours.store_event_batch(batch)
    before = _rows(tmp_path / f"{RUN}.db")
    ours.upgrade()
    with ours.run_connection(RUN) as shard:
        assert "event_logs" in db.inspect(shard).get_table_names()
        restore_stock_layout(shard)  # once more does nothing
    assert _rows(tmp_path / f"{RUN}.db") == before
    ours.store_event_batch(batch)
    assert list(ours.get_logs_for_run(RUN)) == [*batch, *batch]


def test_a_page_of_a_runs_events_reads_a_page(tmp_path: Path) -> None:
    """The run page asks for a thousand events at a time: each page must not read what follows."""
    ours = BatchedSqliteEventLogStorage(str(tmp_path))
    ours.store_event_batch([_materialized(f"p{n}", {}, {}, 1.5) for n in range(4)])
    with closing(sqlite3.connect(tmp_path / f"{RUN}.db")) as shard:
        for question in (
            "SELECT id, event FROM event_logs WHERE run_id = 'x' AND id > 2 ORDER BY id LIMIT 2",
            "SELECT id FROM event_logs WHERE dagster_event_type IN ('a', 'b') ORDER BY id",
        ):
            plan = [row[3] for row in shard.execute(f"EXPLAIN QUERY PLAN {question}")]
            assert "MERGE (UNION ALL)" in plan
            assert "SCAN cell" not in plan
