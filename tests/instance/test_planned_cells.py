"""A run's planned events come as one for each asset, and are stored as one for each cell.

The oracle is stock storage, which is handed the event of each cell by itself.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventType,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import EventLogStorage, SqliteEventLogStorage

from stock_assets.instance import event_log
from stock_assets.instance.batching import BATCH_SIZE_VARIABLE
from stock_assets.instance.event_log import BatchedSqliteEventLogStorage

from .conftest import entry_of
from .test_event_log import _dump

RUN = "11111111-2222-3333-4444-555555555555"
CELLS = ["2024-01-03|AAA", "2024-01-03|ББ", '2024-01-04|"', "2024-01-04|AAA", "2024-01-05|AAA"]


class Subset(DefaultPartitionsSubset):
    """Its keys in the order given."""

    def get_partition_keys(self) -> Sequence[str]:
        return CELLS


def _planned(asset: str, partition: str | None = None) -> EventLogEntry:
    key = AssetKey(asset)
    subset = None if partition else Subset(set(CELLS))
    data = AssetMaterializationPlannedData(key, partition=partition, partitions_subset=None)
    event = DagsterEvent.build_asset_materialization_planned_event("job", asset, data)
    data = data._replace(partitions_subset=subset)
    entry = entry_of(event._replace(event_specific_data=data), RUN)
    return entry._replace(timestamp=1700000000.25, step_key=asset)


def _one_by_one(base_dir: Path, assets: Sequence[str], before: Sequence[EventLogEntry]) -> Any:
    storage = SqliteEventLogStorage(str(base_dir))
    for entry in [*before, *(_planned(asset, cell) for asset in assets for cell in CELLS)]:
        storage.store_event(entry)
    return _dump(base_dir)


@pytest.mark.slow
@pytest.mark.parametrize("rows_at_once", [1, 3, 5, 100])
def test_planned_cells_are_stored_as_if_each_had_come_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(event_log, "ROWS_AT_ONCE", rows_at_once)
    before = [_planned("before", "2024-01-03|AAA")]
    ours = BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    ours.store_event(before[0])
    ours.store_event_batch([_planned("bars"), _planned("features")])
    expected = _one_by_one(tmp_path / "stock", ["bars", "features"], before)
    assert _dump(tmp_path / "ours") == expected
    assert len(expected[RUN]["event_logs"]) == 1 + 2 * len(CELLS)


def test_one_assets_planned_cells_come_alone(tmp_path: Path) -> None:
    """Dagster does not call a batch what is one event."""
    ours = BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    ours.store_event(_planned("bars"))
    assert _dump(tmp_path / "ours") == _one_by_one(tmp_path / "stock", ["bars"], [])


@pytest.mark.slow
@pytest.mark.parametrize("stored_before", range(4))
def test_rows_of_a_batch_that_failed_midway_are_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored_before: int
) -> None:
    """After a failure, Dagster stores the events one by one: here those that are left."""
    monkeypatch.setattr(event_log, "ROWS_AT_ONCE", 3)
    together = BatchedSqliteEventLogStorage._store_together
    calls: list[int] = []

    def fail_once(self: BatchedSqliteEventLogStorage, entries: Any) -> None:
        calls.append(len(entries))
        if len(calls) == stored_before + 1:
            raise OSError("disk full")
        together(self, entries)

    monkeypatch.setattr(BatchedSqliteEventLogStorage, "_store_together", fail_once)
    ours = BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    ordinary = _planned("before", "2024-01-03|AAA")
    batch = [ordinary, _planned("bars"), _planned("features")]
    with pytest.raises(OSError, match="disk full"):
        ours.store_event_batch(batch)
    for entry in batch:
        ours.store_event(entry)
    stock = _one_by_one(tmp_path / "stock", ["bars", "features"], [ordinary])
    assert _dump(tmp_path / "ours") == stock
    # Nothing is remembered of them: the same events, handed over again, are stored again.
    ours.store_event(ordinary)
    assert len(_dump(tmp_path / "ours")[RUN]["event_logs"]) == 2 + 2 * len(CELLS)


def test_what_a_failed_batch_left_is_forgotten_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody need come back after a failure."""
    monkeypatch.setattr(event_log, "ROWS_AT_ONCE", 3)
    together = BatchedSqliteEventLogStorage._store_together

    def fail_at_the_end(self: BatchedSqliteEventLogStorage, entries: Any) -> None:
        if len(entries) < 3:
            raise OSError("disk full")
        together(self, entries)

    ours = BatchedSqliteEventLogStorage(str(tmp_path))
    batch = [_planned("before", "2024-01-03|AAA"), _planned("bars"), _planned("features")]
    with monkeypatch.context() as patched:
        patched.setattr(BatchedSqliteEventLogStorage, "_store_together", fail_at_the_end)
        with pytest.raises(OSError, match="disk full"):
            ours.store_event_batch(batch)
    ours.store_event_batch(batch[1:])
    before = len(_dump(tmp_path)[RUN]["event_logs"])
    ours.store_event(batch[0])
    assert len(_dump(tmp_path)[RUN]["event_logs"]) == before + 1


def test_planned_cells_that_no_batch_takes_are_stored_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no batch")

    ours = BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    monkeypatch.setattr(ours, "_store_together", fail)
    with caplog.at_level(logging.WARNING):
        ours.store_event(_planned("bars"))
    assert "one by one" in caplog.text
    assert _dump(tmp_path / "ours") == _one_by_one(tmp_path / "stock", ["bars"], [])


def test_without_batches_dagster_makes_the_event_of_each_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = BatchedSqliteEventLogStorage(str(tmp_path))
    for size, expected in (("0", False), ("5", True)):
        monkeypatch.setenv(BATCH_SIZE_VARIABLE, size)
        assert ours.supports_partition_subset_in_asset_materialization_planned_events is expected


def test_dagster_hands_over_all_planned_cells_of_an_asset_as_one_event() -> None:
    of_stock = vars(EventLogStorage)[
        "supports_partition_subset_in_asset_materialization_planned_events"
    ]
    assert not of_stock.fget(None), (
        "Dagster changed: storages store planned cells as one event now, unless they say otherwise"
    )
    assert of_stock.fget.__name__ not in vars(SqliteEventLogStorage), "Dagster changed"
    assert AssetMaterializationPlannedData._fields == (
        "asset_key",
        "partition",
        "partitions_subset",
    ), "Dagster changed what a planned event says: see planned_cells"
    assert DagsterEventType.ASSET_MATERIALIZATION_PLANNED in event_log.MIRRORED_EVENTS
