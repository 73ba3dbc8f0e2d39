"""One run for a rectangle of days x tickers, however it was asked for.

Dagster cuts a two-dimensional selection into ranges of one dimension: a backfill of 250 days x 50
tickers becomes 50 runs, in any order (dagster-io/dagster 23996, 27746, 28861). Here a selection is
cut into the rectangles that its rows give, and a rectangle stays whole: backfills from the UI,
GraphQL and automation all ask for ranges in one place, which is replaced. The daemon and the
webserver load this with the instance, code locations with the definitions (docs/adr/0008).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dagster import MultiPartitionKey, MultiPartitionsDefinition, PartitionKeyRange
from dagster._core.definitions.partitions.subset.default import DefaultPartitionsSubset

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from dagster import PartitionsDefinition

OFF_SWITCH = "STOCK_ASSETS_ONE_RUN_BACKFILLS"
"""Environment variable: 0 leaves Dagster's own ranges."""

_stock_ranges = DefaultPartitionsSubset.get_partition_key_ranges

Rectangle = tuple[int, int, int, int]
"""First row, last row, first column, last column: all included."""


def rectangles(cells: Collection[tuple[int, int]]) -> list[Rectangle]:
    """Cut cells (row, column) into rectangles: each cell in exactly one, sorted by first row.

    Neighbouring columns of a row are one stretch; equal stretches of consecutive rows are one
    rectangle. So a rectangle of cells is one, and n unlike rows are at least n.
    """
    columns: dict[int, list[int]] = {}
    for row, column in cells:
        columns.setdefault(row, []).append(column)
    found: list[Rectangle] = []
    growing: dict[tuple[int, int], int] = {}
    previous = None
    for row in sorted(columns):
        stretches = set(_stretches(sorted(set(columns[row]))))
        joins = previous is not None and row == previous + 1
        for stretch in [s for s in growing if not joins or s not in stretches]:
            assert previous is not None
            found.append((growing.pop(stretch), previous, *stretch))
        for stretch in stretches:
            growing.setdefault(stretch, row)
        previous = row
    if previous is not None:
        found += [(first, previous, *stretch) for stretch, first in growing.items()]
    return sorted(found)


def _stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


def rectangle_ranges(
    subset: DefaultPartitionsSubset, partitions_def: PartitionsDefinition
) -> Sequence[PartitionKeyRange]:
    """What replaces `get_partition_key_ranges`: rectangles where there are two dimensions."""
    if not isinstance(partitions_def, MultiPartitionsDefinition):
        return _stock_ranges(subset, partitions_def)
    rows, columns = partitions_def.primary_dimension, partitions_def.secondary_dimension
    row_keys = list(rows.partitions_def.get_partition_keys())
    column_keys = list(columns.partitions_def.get_partition_keys())
    row_of = {key: place for place, key in enumerate(row_keys)}
    column_of = {key: place for place, key in enumerate(column_keys)}
    cells = []
    for text in subset.subset:
        key = partitions_def.get_partition_key_from_str(text).keys_by_dimension
        if key[rows.name] in row_of and key[columns.name] in column_of:
            cells.append((row_of[key[rows.name]], column_of[key[columns.name]]))

    def cell(row: int, column: int) -> MultiPartitionKey:
        return MultiPartitionKey({rows.name: row_keys[row], columns.name: column_keys[column]})

    return [
        PartitionKeyRange(cell(first, left), cell(last, right))
        for first, last, left, right in rectangles(cells)
    ]


def install_one_run_backfills() -> None:
    """Have this process cut selections into rectangles, unless the off switch says no."""
    if os.environ.get(OFF_SWITCH) != "0":
        DefaultPartitionsSubset.get_partition_key_ranges = rectangle_ranges
