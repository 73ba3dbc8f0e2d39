"""Metadata for many cells of one run at once.

`context.add_asset_metadata(partition_key=...)` lists all keys of the run and copies all metadata
at each call: 12,500 cells would take a quarter of an hour. This hands Dagster the same mapping in
one step. It reaches inside; tests/instance/test_cell_metadata.py says when Dagster changed.
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
