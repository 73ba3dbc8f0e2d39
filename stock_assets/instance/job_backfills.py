"""Range runs for backfills of jobs: `dagster job backfill`, and GraphQL with a partition set.

Assets are backfilled through `backfills.py` alone. A job's backfill takes the same ranges, but
Dagster loses cells of theirs in three ways, each mended here (docs/adr/0008):

- A range's run is given the tags of the range's first cell, and works on that cell only
  (dagster-io/dagster 28861).
- Ranges are submitted 25 at a time, and cells that come before the last one of those are taken as
  submitted.
- `dagster job backfill` does not ask for ranges at all: it makes a run for each cell.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dagster import MultiPartitionsDefinition, PartitionKeyRange
from dagster._core.execution import job_backfill
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    MULTIDIMENSIONAL_PARTITION_PREFIX,
    PARTITION_NAME_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from dagster import DagsterInstance, DagsterRun
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.remote_representation.external import RemotePartitionSet

COMMAND = "dagster._cli.job"
"""The module of `dagster job backfill`; only the `dagster` program loads it."""

_stock_chunk = job_backfill._get_partitions_chunk  # noqa: SLF001
_stock_run = job_backfill.create_backfill_run


def install(ranges_that_become_runs: Callable[[], AbstractContextManager[Any]]) -> None:
    """Mend the backfills of jobs in this process; ranges of runs are asked for in the context."""

    def ranges_of(backfill: PartitionBackfill, cells: RemotePartitionSet) -> list[Any]:
        definition = cells.get_partitions_definition()
        with ranges_that_become_runs():
            subset = definition.subset_with_partition_keys(backfill.partition_names or ())
            return list(subset.get_partition_key_ranges(definition))

    def partitions_chunk(
        instance: DagsterInstance,
        logger: Any,
        backfill: PartitionBackfill,
        size: int,
        cells: RemotePartitionSet,
    ) -> tuple[Sequence[str | PartitionKeyRange], str, bool]:
        if not makes_ranges(cells):
            return _stock_chunk(instance, logger, backfill, size, cells)
        definition = cells.get_partitions_definition()
        # Cells in the order of the ranges that they are submitted in: none before the last
        # submitted one is then still to be submitted.
        names = [
            key
            for found in ranges_of(backfill, cells)
            for key in definition.get_partition_keys_in_range(found)
        ]
        with ranges_that_become_runs():
            ordered = backfill._replace(partition_names=names)
            return _stock_chunk(instance, logger, ordered, size, cells)

    ranges: dict[str, dict[str, PartitionKeyRange]] = {}

    def run_of_command(  # noqa: PLR0913, PLR0917
        workspace: Any,
        instance: DagsterInstance,
        code_location: Any,
        job: Any,
        cells: RemotePartitionSet,
        backfill: PartitionBackfill,
        name: str,
        tags: Mapping[str, str],
        run_config: Mapping[str, Any],
    ) -> DagsterRun | None:
        """The run of the range that begins with the cell `name`, if one does."""
        common = (workspace, instance, code_location, job, cells, backfill)
        if not makes_ranges(cells):
            return _stock_run(*common, name, tags, run_config)
        if backfill.backfill_id not in ranges:
            found = ranges_of(backfill, cells)
            ranges[backfill.backfill_id] = {str(item.start): item for item in found}
        begun = ranges[backfill.backfill_id].get(name)
        if begun is None:
            return None
        ends = {
            ASSET_PARTITION_RANGE_START_TAG: str(begun.start),
            ASSET_PARTITION_RANGE_END_TAG: str(begun.end),
        }
        return run_of_range(*common, begun, {**tags, **ends}, run_config)

    job_backfill._get_partitions_chunk = partitions_chunk  # noqa: SLF001
    job_backfill.create_backfill_run = run_of_range
    if COMMAND in sys.modules:
        sys.modules[COMMAND].create_backfill_run = run_of_command  # type: ignore[attr-defined]


def makes_ranges(cells: RemotePartitionSet) -> bool:
    """Whether the job's runs are ranges of two dimensions."""
    policy = cells.backfill_policy
    return (
        policy is not None
        and policy.max_partitions_per_run != 1
        and cells.has_partitions_definition()
        and isinstance(cells.get_partitions_definition(), MultiPartitionsDefinition)
    )


def run_of_range(  # noqa: PLR0913, PLR0917 - the function's that it replaces
    workspace: Any,
    instance: DagsterInstance,
    code_location: Any,
    job: Any,
    cells: RemotePartitionSet,
    backfill: PartitionBackfill,
    key_or_range: str | PartitionKeyRange,
    tags: Mapping[str, str],
    run_config: Mapping[str, Any],
) -> DagsterRun | None:
    """What replaces `create_backfill_run`: the run of a range is not tagged as one of its cells."""
    if isinstance(key_or_range, PartitionKeyRange):
        of_a_cell = (MULTIDIMENSIONAL_PARTITION_PREFIX, PARTITION_NAME_TAG)
        tags = {name: value for name, value in tags.items() if not name.startswith(of_a_cell)}
    return _stock_run(
        workspace,
        instance,
        code_location,
        job,
        cells,
        backfill,
        key_or_range,
        tags,
        run_config,
    )
