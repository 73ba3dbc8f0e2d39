"""One run for a rectangle of days x tickers, however it was asked for.

Dagster cuts a two-dimensional selection into ranges of one dimension: a backfill of 250 days x 50
tickers becomes 50 runs, in any order (dagster-io/dagster 18852, 23996). Here a selection is cut
into the rectangles that its rows give, a rectangle stays whole, and runs are cut between days only
where they would be too large. Backfills from the UI, GraphQL and automation all ask for ranges in
one place, which is replaced. The daemon and the webserver load this with the instance
(scheduler.py), code locations with the definitions (docs/adr/0008).

How many days fit into a run is decided in `slices.py`; the backfills of jobs, which go about it in
another way, are mended in `job_backfills.py`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from dagster import MultiPartitionKey, MultiPartitionsDefinition, PartitionKeyRange
from dagster._core.definitions import automation_tick_evaluation_context as run_requests
from dagster._core.definitions.partitions.subset.default import DefaultPartitionsSubset
from dagster._core.definitions.partitions.utils.multi import MULTIPARTITION_KEY_DELIMITER

from stock_assets.errors import SettingsError
from stock_assets.instance import job_backfills
from stock_assets.slices import day_pieces, why_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dagster import PartitionsDefinition, RunRequest

OFF_SWITCH = "STOCK_ASSETS_ONE_RUN_BACKFILLS"
"""Environment variable: 0 leaves Dagster's own ranges."""

CELLS_VARIABLE = "STOCK_ASSETS_CELLS_PER_RUN"
"""Environment variable that tells `partitions.cells_per_run` to processes without settings."""

_P = ParamSpec("_P")

_stock_ranges = DefaultPartitionsSubset.get_partition_key_ranges
_stock_run_requests = run_requests._build_run_requests_with_backfill_policy  # noqa: SLF001

Rectangle = tuple[int, int, int, int]
"""First row, last row, first column, last column: all included."""

_cut_for_runs: ContextVar[list[Rectangle] | None] = ContextVar("_cut_for_runs", default=None)
"""Where ranges become runs, the rectangles that were too large for one; else None."""


def rectangles(cells: Iterable[tuple[int, int]]) -> list[Rectangle]:
    """Cut cells (row, column) into rectangles: each cell in exactly one, sorted by first row.

    Neighbouring columns of a row are one stretch, which is never divided: features span the
    tickers of a day. Equal stretches of consecutive rows are one rectangle, so there are as few
    as there can be without dividing a stretch.
    """
    columns: dict[int, set[int]] = {}
    for row, column in cells:
        columns.setdefault(row, set()).add(column)
    found: list[Rectangle] = []
    growing: dict[tuple[int, int], int] = {}
    previous = None
    for row in sorted(columns):
        stretches = set(_stretches(sorted(columns[row])))
        joins = previous is not None and row == previous + 1
        for stretch in [s for s in growing if not joins or s not in stretches]:
            assert previous is not None
            found.append((growing.pop(stretch), previous, *stretch))
        for stretch in stretches:
            growing.setdefault(stretch, row)
        previous = row
    if previous is not None:
        found += [(first, previous, *stretch) for stretch, first in growing.items()]
    return sorted(found, key=_by_first_row)


def _stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


def _by_first_row(rectangle: Rectangle) -> tuple[int, int]:
    return rectangle[0], rectangle[2]


def cut(found: Iterable[Rectangle], cells: int) -> list[Rectangle]:
    """Cut rectangles of more than `cells` cells between rows, sorted by first row."""
    pieces = [
        (first + rows[0], first + rows[-1], left, right)
        for first, last, left, right in found
        for rows in day_pieces(last - first + 1, right - left + 1, cells)
    ]
    return sorted(pieces, key=_by_first_row)


def rectangle_ranges(
    subset: DefaultPartitionsSubset, partitions_def: PartitionsDefinition
) -> Sequence[PartitionKeyRange]:
    """What replaces `get_partition_key_ranges`: rectangles where there are two dimensions.

    They are cut into runs only where they become runs: who asks for the range of a run that there
    is expects one.
    """
    if not isinstance(partitions_def, MultiPartitionsDefinition):
        return _stock_ranges(subset, partitions_def)
    rows, columns = partitions_def.primary_dimension, partitions_def.secondary_dimension
    row_keys = rows.partitions_def.get_partition_keys()
    column_keys = columns.partitions_def.get_partition_keys()
    row_of = {key: place for place, key in enumerate(row_keys)}
    column_of = {key: place for place, key in enumerate(column_keys)}
    # The text of a key is that of its dimensions, by name. Dagster's own reading of it makes
    # several objects a key: seconds for a large selection.
    rows_first = rows.name < columns.name
    cells = []
    for text in subset.subset:
        one, _, other = text.partition(MULTIPARTITION_KEY_DELIMITER)
        row, column = (one, other) if rows_first else (other, one)
        if row in row_of and column in column_of:
            cells.append((row_of[row], column_of[column]))
    found = rectangles(cells)
    too_large = _cut_for_runs.get()
    if too_large is not None:
        limit = cells_per_run()
        too_large += [one for one in found if len(cut([one], limit)) > 1]
        found = cut(found, limit)

    def cell(row: int, column: int) -> MultiPartitionKey:
        return MultiPartitionKey({rows.name: row_keys[row], columns.name: column_keys[column]})

    return [
        PartitionKeyRange(cell(first, left), cell(last, right))
        for first, last, left, right in found
    ]


@contextmanager
def ranges_that_become_runs() -> Iterator[list[Rectangle]]:
    """Ranges asked for in here are the ranges of runs: none larger than a run is to be.

    Gives the list of those that were, and have been cut.
    """
    too_large: list[Rectangle] = []
    token = _cut_for_runs.set(too_large)
    try:
        yield too_large
    finally:
        _cut_for_runs.reset(token)


def _making_runs(
    make: Callable[_P, Sequence[RunRequest]],
) -> Callable[_P, Sequence[RunRequest]]:
    @wraps(make)
    def making(*arguments: _P.args, **options: _P.kwargs) -> Sequence[RunRequest]:
        with ranges_that_become_runs() as too_large:
            requests = make(*arguments, **options)
        if not too_large:
            return requests
        return [
            request.with_replaced_attrs(tags={**request.tags, **why_part(number, len(requests))})
            for number, request in enumerate(requests, 1)
        ]

    return making


def limit_cells_per_run(cells: int) -> None:
    """Tell this process, and those it starts, how many cells a run may have."""
    os.environ[CELLS_VARIABLE] = str(cells)


def cells_per_run() -> int:
    """How many cells a run may have; what the settings say where the environment does not.

    The environment does where a command of ours, or the definitions, were loaded first: not in
    `dagster job backfill`, or in a daemon that was started by itself. Raises `SettingsError` when
    the variable does not hold a positive number, or the settings cannot be read.
    """
    text = os.environ.get(CELLS_VARIABLE)
    if text is None:
        # A tenth of a second that the webserver need not spend.
        from stock_assets.settings import load_settings  # noqa: PLC0415

        return load_settings().partitions.cells_per_run
    if not text.isdecimal() or int(text) < 1:
        message = f"environment variable {CELLS_VARIABLE}={text!r} is not a positive whole number"
        raise SettingsError(message)
    return int(text)


def install_one_run_backfills() -> None:
    """Have this process make one run of a rectangle, unless the off switch says no."""
    if os.environ.get(OFF_SWITCH) == "0":
        return
    DefaultPartitionsSubset.get_partition_key_ranges = rectangle_ranges
    run_requests._build_run_requests_with_backfill_policy = _making_runs(_stock_run_requests)  # noqa: SLF001
    job_backfills.install(ranges_that_become_runs)
