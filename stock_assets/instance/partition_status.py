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

import threading
from typing import TYPE_CHECKING, NamedTuple

from dagster import DagsterEventType, RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.partition_status_cache import (
    get_and_update_asset_status_cache_value,
)
from dagster._core.workspace.context import BaseWorkspaceRequestContext
from sqlalchemy import or_, select

from stock_assets.instance.light_keys import with_light_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dagster import AssetKey, DagsterInstance, PartitionsDefinition
    from dagster._core.instance import DynamicPartitionsStore
    from dagster._core.loader import LoadingContext
    from dagster._core.storage.event_log.base import AssetRecord, PlannedMaterializationInfo
    from dagster._core.storage.partition_status_cache import AssetStatusCacheValue


class PartitionStatusReads(SqlEventLogStorage):
    """How our event logs, on SQLite or Postgres, answer what the UI asks of partitions."""

    def get_asset_status_cache_values(
        self,
        partitions_defs_by_key: Iterable[tuple[AssetKey, PartitionsDefinition | None]],
        context: LoadingContext,
    ) -> Sequence[AssetStatusCacheValue | None]:
        """The status of each asset's partitions, computed once however many ask at once."""
        loader = (
            context.dynamic_partitions_loader
            if isinstance(context, BaseWorkspaceRequestContext)
            else None
        )
        return [
            self._statuses.of(self._instance, key, definition, loader)
            for key, definition in partitions_defs_by_key
        ]

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
        planned, materialized = (
            self._latest_event_ids_by_partition_subquery(
                asset_key, [kind], after_cursor=after_storage_id
            ).alias(kind.name)
            for kind in (
                DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
                DagsterEventType.ASSET_MATERIALIZATION,
            )
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


class AsOf(NamedTuple):
    """What a status rests on: when all of this is the same, Dagster would compute the same."""

    last_materialized: int
    """The id of the asset's last materialization."""
    last_planned: PlannedMaterializationInfo | None
    """With its run: where a run was deleted since, another's event may have got the same id."""
    unfinished: frozenset[str]
    """Runs; of the partitions that those plan it depends whether they have ended."""

    @classmethod
    def now(cls, instance: DagsterInstance, key: AssetKey, record: AssetRecord | None) -> AsOf:
        """What a status of the asset rests on that is computed next; `record` is its own.

        The events are read before the runs: those of a run that is not `unfinished` here, and has
        not ended either, come later and make another last event.
        """
        materialized = (record and record.asset_entry.last_materialization_storage_id) or 0
        planned = instance.get_latest_planned_materialization_info(key)
        unfinished = instance.get_run_ids(RunsFilter(statuses=NOT_FINISHED_STATUSES))
        return cls(materialized, planned, frozenset(unfinished))

    @property
    def newest_event(self) -> int:
        """What Dagster notes beside a status."""
        return max(self.last_materialized, self.last_planned.storage_id if self.last_planned else 0)


class KeptStatuses:
    """Statuses of assets' partitions, whose turn it is to compute one, and what they rest on."""

    def __init__(self) -> None:
        """None has been asked for."""
        self._turns: dict[AssetKey, threading.Lock] = {}
        self._computed: dict[AssetKey, tuple[int, AsOf]] = {}
        """The hash of what this process computed last, and what that rests on."""

    def of(
        self,
        instance: DagsterInstance,
        key: AssetKey,
        definition: PartitionsDefinition | None,
        loader: DynamicPartitionsStore | None,
    ) -> AssetStatusCacheValue | None:
        """What Dagster's `get_and_update_asset_status_cache_value` gives."""
        with self._turns.setdefault(key, threading.Lock()):
            record = next(iter(instance.get_asset_records([key])), None)
            as_of = AsOf.now(instance, key, record)
            kept = record.asset_entry.cached_status if record else None
            if kept and definition and self._is_of_now(key, kept, definition, as_of):
                return kept
            # Without the request's own record of the asset: it is from before the others.
            value = get_and_update_asset_status_cache_value(
                instance, key, with_light_keys(definition), dynamic_partitions_loader=loader
            )
            self._computed[key] = (hash(value), as_of)
            return value

    def _is_of_now(
        self,
        key: AssetKey,
        kept: AssetStatusCacheValue,
        definition: PartitionsDefinition,
        as_of: AsOf,
    ) -> bool:
        """Whether Dagster would find the status beside the asset the same."""
        if (
            kept.latest_storage_id != as_of.newest_event
            or kept.partitions_def_id != definition.get_serializable_unique_identifier()
        ):
            return False
        no_run_under_way = kept.earliest_in_progress_materialization_event_id is None
        return no_run_under_way or self._computed.get(key) == (hash(kept), as_of)
