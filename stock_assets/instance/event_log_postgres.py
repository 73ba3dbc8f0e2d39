"""The event log of many partitions on Postgres: planned events come in batches too.

dagster-postgres writes a batch of materializations, or of observations, in a few statements, but
the planned events of a run one by one, each with a connection and three transactions of its own:
minutes before a run of thousands of cells starts (dagster-io/dagster 32242, 33832). Here a batch of
planned events is one transaction, of the rows that dagster-postgres would have written. Everything
else is the parent's. In dagster.yaml, beside `run_storage` and `schedule_storage` of
`dagster_postgres`:

    event_log_storage:
      module: stock_assets.instance.event_log_postgres
      class: BatchedPostgresEventLogStorage
      config:
        postgres_url: {env: POSTGRES_URL}

What SQLite's event log does beyond that, texts stored once, is not done here (docs/adr/0001).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster._core.events import DagsterEventType
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config

from stock_assets.instance.batching import enable_event_batching, planned_check_rows
from stock_assets.instance.partition_status import PartitionStatusReads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dagster._core.events.log import EventLogEntry
    from dagster._serdes import ConfigurableClassData

PLANNED_EVENTS = frozenset(
    {
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    }
)
"""What Dagster reports when it creates a run, in batches of both kinds."""


class BatchedPostgresEventLogStorage(PartitionStatusReads, PostgresEventLogStorage):
    """`PostgresEventLogStorage` that writes a batch of planned events in one transaction."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> BatchedPostgresEventLogStorage:
        """Build this class, and switch on the batches; the parent's method names the parent."""
        enable_event_batching()
        return cls(
            inst_data=inst_data,
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            token_provider=get_token_provider_from_config(config_value),
        )

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in order; planned ones all of them or none.

        When this raises, Dagster stores the same events one by one.
        """
        kinds = {event.dagster_event_type for event in events}
        if not kinds or not kinds <= PLANNED_EVENTS:
            super().store_event_batch(events)
            return
        with self.index_transaction() as index:
            insert = self.prepare_insert_event_batch(events)
            ids = index.execute(insert.returning(SqlEventLogStorageTable.c.id)).scalars().all()
            checks: list[dict[str, Any]] = []
            # All that a later planned event of an asset leaves of an earlier one is nothing.
            last_of_asset: dict[str, tuple[EventLogEntry, int]] = {}
            for event, event_id in zip(events, ids, strict=True):
                planned = event.get_dagster_event()
                if planned.is_asset_materialization_planned:
                    last_of_asset[planned.asset_key.to_string()] = (event, event_id)
                else:
                    moment = self._event_insert_timestamp(event)
                    checks += planned_check_rows(event, event_id, moment)
            if checks:
                index.execute(AssetCheckExecutionsTable.insert(), checks)
            # In one order everywhere: two runs that are created at once lock the same rows.
            for _, (event, event_id) in sorted(last_of_asset.items()):
                self._store_asset_event(index, event, event_id)
