"""What both batched event logs share, SQLite's and Postgres': their switch, and planned checks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._serdes import serialize_value

if TYPE_CHECKING:
    import datetime as dt

    from dagster._core.events.log import EventLogEntry

BATCH_SIZE_VARIABLE = "DAGSTER_EVENT_BATCH_SIZE"
"""The environment variable by which Dagster makes batches; unset or 0, it makes none."""

PLANNED_CHECKS_WITH_ALL_PARTITIONS = 1_000
"""Above so many partitions, the rows of a planned check do not each name all of them."""


def enable_event_batching(size: int = 5000) -> None:
    """Have Dagster hand over the events of a run in batches of at most `size`.

    Called where a batched event log is opened, and where definitions load: any other storage
    gets its batches too. A value that is already in the environment wins, so that
    `DAGSTER_EVENT_BATCH_SIZE=0` turns batching off.
    """
    os.environ.setdefault(BATCH_SIZE_VARIABLE, str(size))


def batches_are_on() -> bool:
    """Whether Dagster makes batches in this process."""
    return int(os.environ.get(BATCH_SIZE_VARIABLE, "0")) > 0


def planned_check_rows(
    event: EventLogEntry, event_id: int | None, moment: dt.datetime
) -> list[dict[str, Any]]:
    """The rows of `asset_check_executions` of a planned check: one for each of its partitions.

    Stock storage writes the same, with all partitions in each row's event: the square of their
    number in bytes, and more parameters of one statement than SQLite takes. Where there are
    thousands, a row's event says nothing of the others, and its column `partition` which it is of.
    """
    planned = event.get_dagster_event().asset_check_planned_data
    subset = planned.partitions_subset
    keys: list[str | None] = list(subset.get_partition_keys()) if subset else [None]
    if len(keys) > PLANNED_CHECKS_WITH_ALL_PARTITIONS:
        alone = AssetCheckEvaluationPlanned(
            asset_key=planned.asset_key, check_name=planned.check_name
        )
        of_one = event.get_dagster_event()._replace(event_specific_data=alone)
        event = event._replace(dagster_event=of_one)
    row = {
        "asset_key": planned.asset_key.to_string(),
        "check_name": planned.check_name,
        "run_id": event.run_id,
        "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
        "evaluation_event": serialize_value(event),
        "evaluation_event_timestamp": moment,
        "evaluation_event_storage_id": event_id,
    }
    return [{**row, "partition": key} for key in keys]
