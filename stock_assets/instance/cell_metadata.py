"""Metadata for many cells of one run at once.

`context.add_asset_metadata(partition_key=...)` lists all keys of the run and copies all metadata
at each call: 12,500 cells would take a quarter of an hour. This hands Dagster the same mapping in
one step. It reaches inside; tests/instance/test_cell_metadata.py says when Dagster changed.

The UI shows an asset's latest event: on its overview, and in its list of events alone for the whole
run, because events of one batch carry one timestamp. Dagster reports the cells of a run in the
order of a set, so which cell that is has to be asked for.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.execution.context.metadata_logging import (
    AssetMetadataHandle,
    OutputMetadataAccumulator,
)


def add_cell_metadata(
    context: dg.AssetExecutionContext, asset: str, cells: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add metadata to the materialization of each cell (partition key -> metadata) of `asset`."""
    step = context._step_execution_context  # noqa: SLF001 - the public call is quadratic
    key = dg.AssetKey(asset)
    known = dict(step._metadata_accumulator.per_output_metadata)  # noqa: SLF001
    for cell, metadata in cells.items():
        handle = AssetMetadataHandle(asset_key=key, partition_key=cell)
        known[handle] = {**known.get(handle, {}), **metadata}
    step._metadata_accumulator = OutputMetadataAccumulator(per_output_metadata=known)  # noqa: SLF001


def last_reported_cell(
    context: dg.AssetExecutionContext, partitions: dg.PartitionsDefinition
) -> str:
    """The cell of the run whose materialization Dagster reports last.

    Dagster goes through the keys of a set that it builds as it is built here: in one process the
    same keys, added in the same order, come out in the same order.
    """
    cells = partitions.empty_subset().with_partition_key_range(
        partitions, context.partition_key_range
    )
    return str(list(cells.get_partition_keys())[-1])
