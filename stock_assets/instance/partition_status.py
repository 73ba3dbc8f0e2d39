"""What is materialized, failed and in progress of an asset, computed once for whoever asks.

Dagster keeps it in the log and adds what has happened since. A page of the UI asks for all assets
around one, and again every few seconds. Each time Dagster takes the kept text apart and puts it
together again, a fifth of a second an asset at 100,000 partitions; and while a run is under way it
looks through all that the run plans, a second an asset. Here the kept one is the answer as long as
nothing has happened.

Computed for the first time it takes seconds an asset, and each reload, tab and person begins anew
beside those before, all of them slower. Here who comes later waits for the first, and finds it
kept.

The computation itself is Dagster's, with a lighter query and lighter keys (docs/adr/0001, 0011).
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from dagster import DagsterEventType, DagsterRunStatus, RunsFilter
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.workspace.context import BaseWorkspaceRequestContext
from sqlalchemy import func, or_, select

from stock_assets.instance.light_keys import with_light_keys

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping, Sequence

    from dagster import AssetKey, DagsterInstance, PartitionsDefinition
    from dagster._core.instance import DynamicPartitionsStore
    from dagster._core.loader import LoadingContext
    from dagster._core.storage.event_log.base import AssetRecord, PlannedMaterializationInfo
    from dagster._core.storage.partition_status_cache import AssetStatusCacheValue

OFF_SWITCH = "STOCK_ASSETS_KEPT_STATUSES"
"""Environment variable: 0 leaves Dagster's own look at the statuses, and its own query."""

OF_A_STATUS = (
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_MATERIALIZATION,
)
"""Events that a status is made of."""


class PartitionStatusReads(SqlEventLogStorage):
    """How our event logs, on SQLite or Postgres, answer what the UI asks of partitions."""

    def get_asset_status_cache_values(
        self,
        partitions_defs_by_key: Iterable[tuple[AssetKey, PartitionsDefinition | None]],
        context: LoadingContext,
    ) -> Sequence[AssetStatusCacheValue | None]:
        """The status of each asset's partitions, computed once however many ask at once."""
        if os.environ.get(OFF_SWITCH) == "0":
            return super().get_asset_status_cache_values(partitions_defs_by_key, context)
        loader = (
            context.dynamic_partitions_loader
            if isinstance(context, BaseWorkspaceRequestContext)
            else None
        )
        return self._statuses.of(self, [*partitions_defs_by_key], loader)

    @property
    def instance(self) -> DagsterInstance:
        """The instance whose event log this is."""
        return self._instance

    @property
    def _statuses(self) -> KeptStatuses:
        found: KeptStatuses = self.__dict__.setdefault("_kept_statuses", KeptStatuses())
        return found

    def get_latest_asset_partition_materialization_attempts_without_materializations(
        self, asset_key: AssetKey, after_storage_id: int | None = None
    ) -> Mapping[str, tuple[str, int]]:
        """The run and the event's id of each partition whose last planned event is its last one.

        The parent fetches the last events of all partitions, two rows of each, and compares them
        itself: two thirds of the time of a status that is computed for the first time.
        """
        if os.environ.get(OFF_SWITCH) == "0":
            return super().get_latest_asset_partition_materialization_attempts_without_materializations(  # noqa: E501 - Dagster's name
                asset_key, after_storage_id
            )
        planned, materialized = (
            self._latest_event_ids_by_partition_subquery(
                asset_key, [kind], after_cursor=after_storage_id
            ).alias(kind.name)
            for kind in OF_A_STATUS
        )
        log = SqlEventLogStorageTable
        query = (
            select(planned.c.partition, log.c.run_id, planned.c.id)
            .join(log, log.c.id == planned.c.id)
            .outerjoin(materialized, materialized.c.partition == planned.c.partition)
            .where(or_(materialized.c.id.is_(None), materialized.c.id < planned.c.id))
        )
        with self.index_connection() as index:
            rows = index.execute(query).fetchall()
        return {partition: (run_id, event_id) for partition, run_id, event_id in rows}

    def count_events_of_partitions(self, asset_key: AssetKey) -> int:
        """How many events there are that the asset's status is made of."""
        log = SqlEventLogStorageTable
        query = select(func.count()).where(
            log.c.asset_key == asset_key.to_string(),
            log.c.dagster_event_type.in_([kind.value for kind in OF_A_STATUS]),
        )
        with self.index_connection() as index:
            found: int = index.execute(query).scalar_one()
        return found


class Events(NamedTuple):
    """Tells whether there are other events than before that an asset's status is made of.

    The last ones' ids would do, but that another event gets the id of one that is deleted with its
    run, and that Postgres shows ids out of order.
    """

    last_materialized: int
    run_of_materialized: str | None
    last_planned: PlannedMaterializationInfo | None
    count: int | None
    """None where nobody needs it."""

    @classmethod
    def now(
        cls, log: PartitionStatusReads, key: AssetKey, record: AssetRecord | None, *, counted: bool
    ) -> Events:
        """Those of the asset, whose `record` was just read."""
        entry = record.asset_entry if record else None
        last = entry.last_materialization if entry else None
        return cls(
            (entry and entry.last_materialization_storage_id) or 0,
            last.run_id if last else None,
            log.get_latest_planned_materialization_info(key),
            log.count_events_of_partitions(key) if counted else None,
        )

    @property
    def newest(self) -> int:
        """The id that Dagster notes beside a status; 0 when there is none."""
        return max(self.last_materialized, self.last_planned.storage_id if self.last_planned else 0)


class Runs(NamedTuple):
    """Tells whether any run has begun or ended since."""

    unfinished: frozenset[str]
    last_ended: tuple[str, dt.datetime] | None
    """A run may end twice: taken for cancelled, it may yet fail by itself."""

    @classmethod
    def now(cls, instance: DagsterInstance) -> Runs:
        """Of all runs."""
        # Not Dagster's NOT_FINISHED_STATUSES: there is a status in neither of its lists.
        unfinished = [status for status in DagsterRunStatus if status not in FINISHED_STATUSES]
        ended = instance.get_run_records(
            RunsFilter(statuses=FINISHED_STATUSES), limit=1, order_by="update_timestamp"
        )
        return cls(
            frozenset(instance.get_run_ids(RunsFilter(statuses=unfinished))),
            (ended[0].dagster_run.run_id, ended[0].update_timestamp) if ended else None,
        )


class Look(NamedTuple):
    """What there is of an asset when somebody asks for its status."""

    kept: AssetStatusCacheValue | None
    events: Events
    runs: Runs | None
    """None where nobody needs them. Read after the events: those that a run has stored that is not
    in them, nor has ended, are later ones."""

    def is_what_dagster_would_find(self, definition: PartitionsDefinition, rested_on: int) -> bool:
        """Whether the kept status is, which rests on as much as `rested_on` says."""
        kept = self.kept
        return (
            kept is not None
            and kept.latest_storage_id == self.events.newest
            and kept.partitions_def_id == definition.get_serializable_unique_identifier()
            and (not _has_partitions_in_progress(kept) or hash(self) == rested_on)
        )


class KeptStatuses:
    """Statuses of assets' partitions, whose turn it is to compute one, and what they rest on."""

    def __init__(self) -> None:
        """None has been asked for."""
        self._turns: dict[AssetKey, threading.Lock] = {}
        self._rested_on: dict[AssetKey, int] = {}
        """The hash of a look that would find what this process computed last, and nothing new."""

    def of(
        self,
        log: PartitionStatusReads,
        asked: Sequence[tuple[AssetKey, PartitionsDefinition | None]],
        loader: DynamicPartitionsStore | None,
    ) -> list[AssetStatusCacheValue | None]:
        """What Dagster's `get_and_update_asset_status_cache_value` gives for each."""
        with partition_loading_context(None, loader or log.instance):
            looks = _looks(log, [key for key, _ in asked])
            return [
                self._answer(log, look, key, definition, loader)
                for look, (key, definition) in zip(looks, asked, strict=True)
            ]

    def _answer(
        self,
        log: PartitionStatusReads,
        look: Look,
        key: AssetKey,
        definition: PartitionsDefinition | None,
        loader: DynamicPartitionsStore | None,
    ) -> AssetStatusCacheValue | None:
        if not look.events.newest:
            return None
        if definition is None:
            return _computed(log, key, definition, loader)
        if look.is_what_dagster_would_find(definition, self._rested_on.get(key, 0)):
            return look.kept
        with self._turns.setdefault(key, threading.Lock()):
            # Another may have had its turn since, and whatever it rests on is to be from before.
            (look,) = _looks(log, [key], closely=True)
            if look.is_what_dagster_would_find(definition, self._rested_on.get(key, 0)):
                return look.kept
            value = _computed(log, key, definition, loader)
            self._rested_on[key] = hash(look._replace(kept=value))
            return value


def _looks(
    log: PartitionStatusReads, keys: Sequence[AssetKey], *, closely: bool = False
) -> list[Look]:
    """What there is of each asset; of those without partitions in progress less, if not `closely`.

    A status of runs under way rests on what has not happened as well.
    """
    records = {record.asset_entry.asset_key: record for record in log.get_asset_records(keys)}
    found, any_in_progress = [], closely
    for key in keys:
        record = records.get(key)
        kept = record.asset_entry.cached_status if record else None
        in_progress = closely or (kept is not None and _has_partitions_in_progress(kept))
        any_in_progress |= in_progress
        found.append((kept, Events.now(log, key, record, counted=in_progress)))
    runs = Runs.now(log.instance) if any_in_progress else None
    return [Look(kept, events, None if events.count is None else runs) for kept, events in found]


def _computed(
    log: PartitionStatusReads,
    key: AssetKey,
    definition: PartitionsDefinition | None,
    loader: DynamicPartitionsStore | None,
) -> AssetStatusCacheValue | None:
    # Without the request's own record of the asset, which is from before the others' turns.
    return get_and_update_asset_status_cache_value(
        log.instance, key, with_light_keys(definition), dynamic_partitions_loader=loader
    )


def _has_partitions_in_progress(status: AssetStatusCacheValue) -> bool:
    return status.earliest_in_progress_materialization_event_id is not None
