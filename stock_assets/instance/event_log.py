"""The event log of many partitions: Dagster's SQLite storage, writing a batch in one transaction.

Dagster reports two events for every partition of every asset in a run, and its SQLite storage
spends several transactions, about a dozen freshly compiled statements and 8 KB on each pair. Here a
batch of events costs one transaction per shard, and what the events of cells share is serialised
and stored once (cell_events.py, run_shard.py). The files can be read and written by either storage,
in any order; a run's own log reads the same to the byte, the index lacks what docs/adr/0001 names.

Only the writing of batches belongs here. How one event is stored, how anything is read, the schema
and its migrations are the parent's. In dagster.yaml:

    event_log_storage:
      module: stock_assets.instance.event_log
      class: BatchedSqliteEventLogStorage
      config:
        base_dir: /path/of/dagster_home/history/runs

That folder is where stock storage keeps its shards, so that either opens what the other wrote. It
must hold nothing else: to the parent every other `.db` file in it is the shard of a run.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    DagsterEventType,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetEventTagsTable
from dagster._serdes import deserialize_value
from sqlalchemy import inspect

from stock_assets.instance import unfinished_batches
from stock_assets.instance.batching import (
    batches_are_on,
    enable_event_batching,
    planned_check_rows,
)
from stock_assets.instance.cell_events import (
    CellEvent,
    Templates,
    planned_alone,
    planned_cells,
    stock_moment,
)
from stock_assets.instance.index_shard import choose_page_size, drop_unasked_indexes
from stock_assets.instance.partition_status import PartitionStatusReads
from stock_assets.instance.run_shard import (
    delete_events_of_run,
    insert_events,
    restore_stock_layout,
    stock_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from dagster._serdes import ConfigurableClassData
    from sqlalchemy.engine import Connection, Engine

_log = logging.getLogger(__name__)

MIRRORED_EVENTS = frozenset(
    {*ASSET_EVENTS, *ASSET_CHECK_EVENTS, *EVENT_TYPE_TO_PIPELINE_RUN_STATUS}
)
"""Events that the index shard holds as well as the run's own shard."""

_ASSET_KEY_EVENTS = frozenset(
    {
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_OBSERVATION,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    }
)
"""Asset events that write their asset's row in `asset_keys`; each kind always the same columns."""


ROWS_AT_ONCE = 10_000
"""Rows of one transaction. Others who write wait for the index as long, a fraction of a second."""

Stored = CellEvent | dict[str, Any]
"""How an event lies in a shard: as that of a cell, or as a row of `event_logs`."""


class BatchedSqliteEventLogStorage(PartitionStatusReads, SqliteEventLogStorage):
    """`SqliteEventLogStorage` whose `store_event_batch` is one transaction per shard."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        """Open the shards in `base_dir`, as the parent does, and finish what a kill cut off."""
        # First: the parent's own set-up connects to the index.
        self._batch = threading.local()
        super().__init__(base_dir, inst_data)
        # A batch holds several shards open at once; the parent's lock would wait for itself.
        self._db_lock = threading.RLock()  # type: ignore[assignment]
        self._mirror_batches_of_killed_runs()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> BatchedSqliteEventLogStorage:
        """Build this class, and switch on the batches; the parent's method names the parent."""
        enable_event_batching()
        return cls(inst_data=inst_data, **config_value)

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:  # noqa: FBT001, FBT002
        if for_index_shard:
            with engine.connect() as index:
                choose_page_size(index)
        super()._initdb(engine, for_index_shard)
        if for_index_shard:
            with engine.connect() as index:
                drop_unasked_indexes(index)

    def upgrade(self) -> None:
        """Migrate the schema, as the parent does, of shards in the parent's own layout."""
        for run_id in self.get_all_run_ids():
            with self.run_connection(run_id) as shard:
                shard.exec_driver_sql("BEGIN IMMEDIATE")
                restore_stock_layout(shard)
        super().upgrade()

    def index_connection(self) -> AbstractContextManager[Connection]:
        """Connect to the index shard, or join the batch that this thread is writing to it.

        So the parent's bookkeeping of an event becomes part of the batch's transaction.
        """
        joined = getattr(self._batch, "index", None)
        return super().index_connection() if joined is None else nullcontext(joined)

    @property
    def supports_partition_subset_in_asset_materialization_planned_events(self) -> bool:
        """Whether a run is created with one planned event for each asset, for all its cells.

        What is stored are the events of the cells, which Dagster need not make then.
        """
        return batches_are_on()

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event, or those of all cells that it says are planned.

        But for what there is of it since the batch that it came in failed (`store_event_batch`).
        """
        _, stored = self._failed_batch.pop(id(event), (event, 0))
        cells = planned_cells(event)
        if cells is None:
            if not stored:
                super().store_event(event)
            return
        try:
            self._store_rows([event], stored)
        except Exception as failure:  # noqa: BLE001 - as Dagster does with batches
            _log.warning("planned cells are stored one by one", exc_info=failure)
            _, stored = self._failed_batch.pop(id(event), (event, 0))
            for cell in islice(cells, stored, None):
                super().store_event(planned_alone(event, str(cell)))

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of any kinds and runs, in order.

        When this raises an `Exception`, Dagster stores the same events one by one, with
        `store_event`; in this thread, that stores no row a second time.
        """
        self._failed_batch.clear()
        self._store_rows(events)

    @property
    def _failed_batch(self) -> dict[int, tuple[EventLogEntry, int]]:
        """Of this thread's last batch, if it failed, the events that have rows, and how many.

        By the events' ids, which no other events get as long as these are kept.
        """
        found: dict[int, tuple[EventLogEntry, int]] = self._batch.__dict__.setdefault("failed", {})
        return found

    def _store_rows(self, events: Sequence[EventLogEntry], begin: int = 0) -> None:
        """Store the rows of events from number `begin` on, `ROWS_AT_ONCE` in each transaction."""
        done = begin
        rows = islice(self._rows(events), begin, None)
        try:
            # Serialised before any shard is locked, and once for both.
            while together := list(islice(rows, ROWS_AT_ONCE)):
                self._store_together(together)
                done += len(together)
        except Exception:
            stored = Counter(id(event) for event, _ in islice(self._rows(events), done))
            for event in events:
                if rows_of_event := stored[id(event)]:
                    self._failed_batch[id(event)] = (event, rows_of_event)
            raise

    def _rows(self, events: Iterable[EventLogEntry]) -> Iterator[tuple[EventLogEntry, Stored]]:
        """Each event with what is stored of it: with each of its cells where it plans many."""
        templates = Templates()
        for event in events:
            if planned_cells(event) is None:
                yield event, templates.cell(event) or self._event_to_row(event)
                continue
            for cell in templates.planned(event):
                yield event, cell if isinstance(cell, CellEvent) else self._event_to_row(cell)

    def _store_together(self, entries: Sequence[tuple[EventLogEntry, Stored]]) -> None:
        """Store rows in order, all of them or none.

        Who hears of a failure stores the events once more: a shard that kept its part would then
        hold it twice. So rows that are in their runs' shards to stay count as stored, though the
        index may get its copy later; the log says so.
        """
        of_run: dict[str, list[Stored]] = {}
        for event, stored in entries:
            of_run.setdefault(event.run_id, []).append(stored)
        mirrored = [
            entry
            for entry in entries
            if isinstance(entry[1], CellEvent) or entry[0].dagster_event_type in MIRRORED_EVENTS
        ]
        if not mirrored:
            self._store_in_runs(of_run)
            return
        batch = str(uuid.uuid4())
        with super().index_connection() as index:
            unfinished_batches.announce(index, batch, of_run)
        try:
            with self._batch_in_index() as index:
                self._mirror(index, mirrored)
                for run_id in of_run:
                    unfinished_batches.finish(index, batch, run_id)
                unfinished = [one.batch for one in unfinished_batches.announced(index)]
                # Committed first: the index never shows an event that its run does not have.
                self._store_in_runs(of_run, batch, unfinished)
        except BaseException as failure:
            try:
                self._forget(batch)
            except Exception:  # noqa: BLE001 - logged; what the shards hold decides below
                _log.warning("batch %s could not be taken back", batch, exc_info=True)
            if isinstance(failure, Exception) and self._is_in_runs(batch, of_run):
                _log.warning(
                    "batch %s of %s is stored, though not without an error; if the index lacks it,"
                    " the next process that opens the event log copies it there",
                    batch,
                    ", ".join(f"run {run_id}" for run_id in of_run),
                    exc_info=failure,
                )
                return
            raise

    def delete_events_for_run(self, conn: Connection, run_id: str) -> None:
        """Delete a run's events from a shard, and the tags of its asset events.

        The parent names each tagged event in the statement: more than SQLite takes from 250,000.
        """
        delete_events_of_run(conn, run_id)
        unfinished_batches.remove_signatures(conn)

    def _store_in_runs(
        self,
        of_run: Mapping[str, Sequence[Stored]],
        batch: str | None = None,
        unfinished: Sequence[str] = (),
    ) -> None:
        with ExitStack() as shards:
            for run_id, events in of_run.items():
                shard = shards.enter_context(self.run_connection(run_id))
                shard.exec_driver_sql("BEGIN IMMEDIATE")
                ids = insert_events(shard, events)
                if batch is not None:
                    unfinished_batches.sign(shard, batch, ids, unfinished)

    def _forget(self, batch: str) -> None:
        """Take a batch that the index refused out of the runs' shards that have it."""
        with self._batch_in_index() as index:
            for one in unfinished_batches.announced(index):
                # Not announced any more, the index has it after all: then the runs keep theirs.
                if one.batch != batch:
                    continue
                # The shard's commit comes first. A kill before the index's leaves an announcement
                # of what nobody signed.
                if self._shard_exists(one.run_id):
                    with self.run_connection(one.run_id) as shard:
                        shard.exec_driver_sql("BEGIN IMMEDIATE")
                        unfinished_batches.remove(shard, batch)
                unfinished_batches.finish(index, batch, one.run_id)

    def _is_in_runs(self, batch: str, run_ids: Iterable[str]) -> bool:
        return all(self._signed_events(batch, run_id) is not None for run_id in run_ids)

    def _signed_events(self, batch: str, run_id: str) -> list[str] | None:
        if not self._shard_exists(run_id):
            return None
        with self.run_connection(run_id) as shard:
            return unfinished_batches.signed(shard, batch)

    def _shard_exists(self, run_id: str) -> bool:
        """Whether a run has a shard: to connect to one that was removed would make it anew."""
        return Path(self.path_for_shard(run_id)).exists()

    def _mirror_batches_of_killed_runs(self) -> None:
        """Give the index the batches whose process died between the commits of two shards."""
        with super().index_connection() as index:
            unfinished = unfinished_batches.announced(index)
        for one in unfinished:
            try:
                self._mirror_if_unfinished(one)
            except Exception:  # noqa: BLE001 - one batch must not keep everybody from the instance
                # It stays announced.
                _log.warning(
                    "the index lacks batch %s of run %s, which could not be copied there;"
                    " the next process that opens the event log tries again",
                    one.batch,
                    one.run_id,
                    exc_info=True,
                )

    def _mirror_if_unfinished(self, one: unfinished_batches.Announcement) -> None:
        with self._batch_in_index() as index:
            # Read again under the write lock: a process that is between its commits holds it.
            if one not in unfinished_batches.announced(index):
                return
            texts = self._signed_events(one.batch, one.run_id)
            if texts is None and not one.is_abandoned():
                return
            found = [deserialize_value(text, EventLogEntry) for text in texts or ()]
            templates = Templates()
            mirrored = [
                (event, templates.cell(event) or self._event_to_row(event))
                for event in found
                if event.dagster_event_type in MIRRORED_EVENTS
            ]
            # None are left of a run that was deleted since.
            if mirrored:
                self._mirror(index, mirrored)
            unfinished_batches.finish(index, one.batch, one.run_id)

    @contextmanager
    def _batch_in_index(self) -> Iterator[Connection]:
        with super().index_connection() as index:
            index.exec_driver_sql("BEGIN IMMEDIATE")
            self._batch.index = index
            try:
                yield index
            finally:
                self._batch.index = None

    def _store_asset_check_evaluation_planned(
        self, event: EventLogEntry, event_id: int | None
    ) -> None:
        """Note the planned evaluation of each partition of a check, however many they are."""
        rows = planned_check_rows(event, event_id, self._event_insert_timestamp(event))
        with self.index_connection() as index:
            index.execute(AssetCheckExecutionsTable.insert(), rows)

    def _mirror(
        self,
        index: Connection,
        entries: Sequence[tuple[EventLogEntry, Stored]],
    ) -> None:
        """Store events in the index, and all that stock storage notes there of each."""
        ids = _insert_in_index(index, [stored for _, stored in entries])
        self._index_assets(index, entries, ids)
        for (event, stored), event_id in zip(entries, ids, strict=True):
            if isinstance(stored, dict) and event.dagster_event_type in ASSET_CHECK_EVENTS:
                self.store_asset_check_event(event, event_id)

    def _index_assets(
        self,
        index: Connection,
        entries: Sequence[tuple[EventLogEntry, Stored]],
        ids: range,
    ) -> None:
        """Tag the batch's asset events, and bring each of its assets up to date once."""
        tags: list[tuple[int, str, str, str, str]] = []
        # A later event of a kind overwrites all that an earlier one of that kind wrote, so the
        # last of each will do, written in the order they came.
        last: dict[str, dict[str, tuple[int, EventLogEntry]]] = {}
        for (event, stored), event_id in zip(entries, ids, strict=True):
            if isinstance(stored, CellEvent):
                template = stored.template
                asset_key, kind = template.kind
                last.setdefault(asset_key, {})[kind] = (event_id, event)
                for key, value in template.tags_to_index:
                    tags.append((event_id, asset_key, key, value, stored.moment.in_utc))
            elif event.dagster_event_type in ASSET_EVENTS:
                asset_key, moment = stored["asset_key"], stock_moment(stored["timestamp"])
                if asset_key and event.dagster_event_type in _ASSET_KEY_EVENTS:
                    kind = stored["dagster_event_type"]
                    last.setdefault(asset_key, {})[kind] = (event_id, event)
                for key, value in self._tags_for_asset_event(event).items():
                    tags.append((event_id, asset_key, key, value, moment))
        if tags and inspect(index).has_table(AssetEventTagsTable.name):
            index.exec_driver_sql(
                "INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)"
                " VALUES (?, ?, ?, ?, ?)",
                tags,
            )
        for kinds in last.values():
            for event_id, event in sorted(kinds.values(), key=itemgetter(0)):
                self._store_asset_event(index, event, event_id)


def _insert_in_index(index: Connection, events: Sequence[Stored]) -> range:
    """Insert events in order; return their ids. The transaction must hold the write lock."""
    first = (index.exec_driver_sql("SELECT max(id) FROM event_logs").scalar() or 0) + 1
    index.exec_driver_sql(
        "INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key,"
        " asset_key, partition, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (*(stock_values(event) if isinstance(event, dict) else event.index_values()), event_id)
            for event_id, event in enumerate(events, first)
        ],
    )
    return range(first, first + len(events))
