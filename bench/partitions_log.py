"""An event log as large as years of runs leave it, without the work: what `ui.py` looks at.

    python bench/partitions_log.py SETTINGS [ASSET ...]

Fills the Dagster home of the settings: assets with the names, dependencies and partitions of ours
that compute nothing are run over all days x tickers, in a handful of runs, so that the log is what
Dagster itself writes. A fifth of the tickers failed on the last tenth of the days, and one day in
about a hundred was never asked for, so that the UI has all its colours to draw.
"""

import datetime as dt
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import dagster as dg

from stock_assets.assets.common import BACKFILL, ROW_COUNT
from stock_assets.graph import asset_names, build_definitions
from stock_assets.launch import open_instance, prepare_home
from stock_assets.partitions import Grid
from stock_assets.settings import Settings, load_settings
from stock_assets.slices import Slice

FAILED_DAYS, FAILED_TICKERS = 0.1, 0.2
"""The share of the last days, and of the last tickers, whose runs failed."""
MISSING_EVERY = 97
"""Every so many days, a day that nobody ran."""

_FAIL_TAG = "bench/fail"


@dataclass(frozen=True)
class Filled:
    """How many cells of each asset ended how."""

    materialized: int = 0
    failed: int = 0
    missing: int = 0


def main() -> None:
    """Fill the home of the settings file given."""
    file = Path(sys.argv[1])
    settings = load_settings(file)
    prepare_home(settings, file)
    filled = fill(settings, sys.argv[2:] or asset_names())
    print(json.dumps(asdict(filled)))


def fill(settings: Settings, assets: Sequence[str]) -> Filled:
    """Run stand-ins of our assets over the whole grid, but for the days that are left out."""
    grid = Grid.of(settings)
    job = _stand_ins(settings, grid, assets)
    logging.disable(logging.CRITICAL)
    days = grid.days()
    materialized = failed = 0
    with open_instance() as instance:
        for area, fails in _runs(grid):
            tags = {**grid.tags(area), **({_FAIL_TAG: "yes"} if fails else {})}
            result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
            if result.success == fails:
                raise RuntimeError(f"the run of {area} was to {'fail' if fails else 'succeed'}")
            cells = len(grid.days_of(area)) * len(area.tickers)
            materialized += 0 if fails else cells
            failed += cells if fails else 0
    return Filled(materialized, failed, len(days) * len(grid.tickers) - materialized - failed)


def _runs(grid: Grid) -> Iterator[tuple[Slice, bool]]:
    """The slices to run, and whether each is to fail."""
    days = grid.days()
    last_good = len(days) - round(FAILED_DAYS * len(days))
    few = len(grid.tickers) - round(FAILED_TICKERS * len(grid.tickers))
    for stretch in _stretches(days, last_good):
        if stretch[0] < days[last_good]:
            yield grid.slice(stretch[0], stretch[-1], grid.tickers), False
        else:
            yield grid.slice(stretch[0], stretch[-1], grid.tickers[:few]), False
            yield grid.slice(stretch[0], stretch[-1], grid.tickers[few:]), True


def _stretches(days: tuple[dt.date, ...], cut: int) -> Iterator[tuple[dt.date, ...]]:
    """Days without the missing ones, in one piece each, cut also before day number `cut`."""
    missing = range(MISSING_EVERY // 2, len(days), MISSING_EVERY)
    begin = 0
    for end in sorted({*missing, cut, len(days)}):
        if begin < end:
            yield days[begin:end]
        begin = end + (end in missing)


def _stand_ins(settings: Settings, grid: Grid, assets: Sequence[str]) -> dg.JobDefinition:
    """A job of assets that compute nothing, in the place of ours."""
    graph = build_definitions(settings).resolve_asset_graph()

    def stand_in(key: dg.AssetKey) -> dg.AssetsDefinition:
        @dg.asset(
            key=key,
            deps=list(graph.get(key).parent_keys),
            partitions_def=grid.definition,
            backfill_policy=BACKFILL,
        )
        def computes_nothing(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            if _FAIL_TAG in context.run.tags:
                raise RuntimeError("made to fail")
            return dg.MaterializeResult(metadata={ROW_COUNT: 1})

        return computes_nothing

    stand_ins = [
        stand_in(key) for key in graph.toposorted_asset_keys if key.to_user_string() in assets
    ]
    return dg.Definitions(
        stand_ins, executor=dg.in_process_executor
    ).resolve_implicit_global_asset_job_def()


if __name__ == "__main__":
    main()
