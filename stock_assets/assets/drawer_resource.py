"""The resource of the process that draws drift pages: begun with the run, ended with it.

What the process does is in `drift/drawing.py`.
"""

import datetime as dt
import logging
from collections.abc import Iterator

import dagster as dg

from stock_assets.drift.drawing import Drawer
from stock_assets.errors import StockAssetsError
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid

DRAWER = "drift_drawer"

_SHORT = dt.timedelta(days=31)
"""Runs over more days do not notice the seconds, and have a better use for the memory."""


def build_drawer(grid: Grid) -> dg.ResourceDefinition:
    """The resource: a `Drawer` that in a short run has begun to load when the first step does."""

    @dg.resource(description="Draws drift pages in a process of its own.")
    def drawer(context: dg.InitResourceContext) -> Iterator[Drawer]:
        with Drawer() as drawer:
            if _is_short(context, grid):
                _start(context, drawer)
            yield drawer

    return drawer


def _start(context: dg.InitResourceContext, drawer: Drawer) -> None:
    """Begin early where that is possible; where it is not, the step that draws tries again."""
    try:
        drawer.start()
    except StockAssetsError as error:
        (context.log or logging.getLogger(__name__)).warning(str(error))


def _is_short(context: dg.InitResourceContext, grid: Grid) -> bool:
    tags = {} if context.run is None else context.run.tags
    if RANGE_START_TAG not in tags or RANGE_END_TAG not in tags:
        return False
    days = grid.days_of(grid.slice_of_range(tags[RANGE_START_TAG], tags[RANGE_END_TAG]))
    return days[-1] - days[0] <= _SHORT
