"""`candles` and `quarantine`: one slice from each ticker's source, good rows and bad.

How sources are read and rows are judged is in `sources/`.
"""

import datetime as dt
from collections.abc import Mapping, Sequence

import dagster as dg

from stock_assets.assets.checks import table_check_results, table_check_specs
from stock_assets.assets.common import BACKFILL, report, slice_of, spec
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.lake.splits import Split, keep, unheard
from stock_assets.lake.store import Lake
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetched_slice

_REASONS_SHOWN = 5


def build_ingest(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The asset of candles and, from the same rows, of what was set aside."""

    @dg.multi_asset(
        name="ingest",
        specs=[spec("candles", grid), spec("quarantine", grid)],
        check_specs=[*table_check_specs("quarantine"), *table_check_specs("candles")],
        backfill_policy=BACKFILL,
        can_subset=False,
    )
    def ingest(context: dg.AssetExecutionContext, lake: LakeResource):  # noqa: ANN202
        area = slice_of(context, grid)
        with fetched_slice(settings, area) as fetched:
            _hear_of_splits(context, lake.lake, fetched.splits, area)
            # Quarantine first: if the run dies in between, no row is in neither table.
            set_aside = lake.write(context, "quarantine", fetched.quarantine, area)
            stored = lake.write(context, "candles", fetched.candles, area)
        reasons = fetched.quarantine["reason"].value_counts(sort=True).head(_REASONS_SHOWN)
        report(
            context,
            "quarantine",
            fetched.quarantine,
            area,
            grid,
            {
                "rows": set_aside.rows,
                "version": set_aside.version,
                "reasons": dg.MetadataValue.json(dict(reasons.iter_rows())),
            },
        )
        report(
            context,
            "candles",
            fetched.candles,
            area,
            grid,
            {
                "rows": stored.rows,
                "version": stored.version,
                "quarantined": set_aside.rows,
                "held back (session not over)": fetched.held_back,
            },
        )
        yield dg.MaterializeResult("quarantine")
        yield dg.MaterializeResult("candles")
        for name in ("quarantine", "candles"):
            yield from table_check_results(name, area, lake, settings, grid)

    return ingest


def _hear_of_splits(
    context: dg.AssetExecutionContext,
    lake: Lake,
    declared: Mapping[str, Sequence[Split]],
    area: Slice,
) -> None:
    """Keep what the sources declare of the slice's tickers."""
    new = unheard(lake, declared, area.tickers)
    if not new:
        return
    keep(lake, new, dt.datetime.now(tz=dt.UTC))
    for source, splits in new.items():
        for item in splits:
            context.log.info("source %s declares: %s", source, item)
