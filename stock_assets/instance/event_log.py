"""The event log of many partitions: Dagster's SQLite storage, writing a batch in one transaction.

Dagster reports two events for every partition of every asset in a run, and its SQLite storage
spends several transactions and about a dozen freshly compiled statements on each of them. Here a
batch of events costs one transaction per shard, and leaves the rows that stock storage would have
left: the files can be read and written by either storage, in any order.

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

import os
import threading
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    DagsterEventType,
)
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from sqlalchemy import func, select

from stock_assets.instance.backfills import install_one_run_backfills
from stock_assets.instance.partition_hash import install_kept_partition_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from dagster._core.events.log import EventLogEntry
    from dagster._serdes import ConfigurableClassData
    from sqlalchemy.engine import Connection

BATCH_SIZE_VARIABLE = "DAGSTER_EVENT_BATCH_SIZE"
"""The environment variable by which Dagster makes batches; unset or 0, it makes none."""

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


def enable_event_batching(size: int = 1000) -> None:
    """Have Dagster hand over the events of a run in batches of at most `size`.

    To be called before a run is created in this process (its planned events are a batch) and
    where definitions load (the run's own process reports the rest). A value that is already in
    the environment wins, so that `DAGSTER_EVENT_BATCH_SIZE=0` turns batching off.
    """
    os.environ.setdefault(BATCH_SIZE_VARIABLE, str(size))


class BatchedSqliteEventLogStorage(SqliteEventLogStorage):
    """`SqliteEventLogStorage` whose `store_event_batch` is one transaction per shard."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        """Open the shards in `base_dir`, as the parent does."""
        # First: the parent's own set-up connects to the index.
        self._batch = threading.local()
        super().__init__(base_dir, inst_data)
        # A batch holds several shards open at once; the parent's lock would wait for itself.
        self._db_lock = threading.RLock()  # type: ignore[assignment]

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> BatchedSqliteEventLogStorage:
        """Build this class; the parent's method names the parent.

        Called in every process that loads the instance: where the one-run backfills and the
        kept hash belong too.
        """
        install_one_run_backfills()
        install_kept_partition_hash()
        return cls(inst_data=inst_data, **config_value)

    def index_connection(self) -> AbstractContextManager[Connection]:
        """Connect to the index shard, or join the batch that this thread is writing to it.

        So the parent's bookkeeping of an event becomes part of the batch's transaction.
        """
        joined = getattr(self._batch, "index", None)
        return super().index_connection() if joined is None else nullcontext(joined)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of any kinds and runs, in order, all of them or none.

        When this raises, Dagster stores the same events one by one: a shard that kept its part
        of a failed batch would then hold it twice.
        """
        # Serialised before any shard is locked, and once for both.
        entries = [(event, self._event_to_row(event)) for event in events]
        rows_of_run: dict[str, list[dict[str, Any]]] = {}
        for event, row in entries:
            rows_of_run.setdefault(event.run_id, []).append(row)
        mirrored = [entry for entry in entries if entry[0].dagster_event_type in MIRRORED_EVENTS]

        with ExitStack() as shards:
            # Entered first, so committed last: as in stock storage, the index never shows an
            # event that its run does not have. And locked last, for it is the one all share.
            if mirrored:
                index = shards.enter_context(self._batch_in_index())
            for run_id, rows in rows_of_run.items():
                _insert_events(shards.enter_context(self.run_connection(run_id)), rows)
            if mirrored:
                ids = _insert_events(index, [row for _, row in mirrored])
                stored = [(event, at) for (event, _), at in zip(mirrored, ids, strict=True)]
                self._index_assets(index, stored)
                for event, event_id in stored:
                    if event.dagster_event_type in ASSET_CHECK_EVENTS:
                        self.store_asset_check_event(event, event_id)

    @contextmanager
    def _batch_in_index(self) -> Iterator[Connection]:
        with super().index_connection() as index:
            self._batch.index = index
            try:
                yield index
            finally:
                self._batch.index = None

    def _index_assets(self, index: Connection, stored: Iterable[tuple[EventLogEntry, int]]) -> None:
        """Tag the batch's asset events, and bring each of its assets up to date once."""
        of_assets = [
            (event, event_id)
            for event, event_id in stored
            if event.dagster_event_type in ASSET_EVENTS
        ]
        if not of_assets:
            return
        self._store_asset_event_tags(
            index, [event for event, _ in of_assets], [event_id for _, event_id in of_assets]
        )
        # A later event of a kind overwrites all that an earlier one of that kind wrote, so the
        # last of each will do, written in the order they came.
        last: dict[str, dict[DagsterEventType, tuple[EventLogEntry, int]]] = {}
        for event, event_id in of_assets:
            asset_key = event.get_dagster_event().asset_key
            if asset_key and event.dagster_event_type in _ASSET_KEY_EVENTS:
                kinds = last.setdefault(asset_key.to_string(), {})
                kinds[event.dagster_event_type] = (event, event_id)
        for kinds in last.values():
            for event, event_id in sorted(kinds.values(), key=lambda entry: entry[1]):
                self._store_asset_event(index, event, event_id)


def _insert_events(shard: Connection, rows: list[dict[str, Any]]) -> range:
    """Insert rows of events in order; return their ids.

    The transaction's first statement, so it takes the write lock: until the commit nobody else
    adds rows, and the ids that SQLite gave are the last ones, without a gap.
    """
    shard.execute(SqlEventLogStorageTable.insert(), rows)
    last: int = shard.execute(select(func.max(SqlEventLogStorageTable.c.id))).scalar_one()
    return range(last - len(rows) + 1, last + 1)
