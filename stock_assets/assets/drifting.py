"""`drift`: how far the slice's tickers have moved, the Evidently page, and the check on it.

The distances and the verdict are in `drift/`; what a failed check sets off is in `automation`.
"""

import datetime as dt
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import polars as pl

from stock_assets.assets.common import BACKFILL, report, slice_of, spec
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.drift.distances import DRIFT_FEATURES, distances, first_needed
from stock_assets.drift.verdict import universe_verdict
from stock_assets.lake.views import rows
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice

DRIFT_CHECK = "universe_has_not_moved"


def report_file(settings: Settings, day: dt.date) -> Path:
    """Where the Evidently page of `day` is saved."""
    return settings.reports_dir / "drift" / f"{day.isoformat()}.html"


def report_link(settings: Settings, page: Path) -> str:
    """The address at which `stock-assets dev` serves a saved page."""
    path = quote(page.relative_to(settings.reports_dir).as_posix())
    return f"http://{settings.server.host}:{settings.server.reports_port}/{path}"


def _page_metadata(settings: Settings, day: dt.date) -> dict[str, dg.MetadataValue]:
    page = report_file(settings, day)
    if not page.exists():
        return {}
    return {
        "evidently report": dg.MetadataValue.url(report_link(settings, page)),
        "evidently report file": dg.MetadataValue.path(str(page)),
    }


def build_drift(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The asset of distances, one row a ticker, feature and day."""

    @dg.asset(**_as_asset(spec("drift", grid, deps=("features",))), backfill_policy=BACKFILL)
    def drift(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        area = slice_of(context, grid)
        found = _features(lake, settings, area)
        measured = distances(found, area, settings)
        written = lake.write(context, "drift", measured, area)
        day = grid.days_of(area)[-1]
        _save_page(context, lake, settings, day)
        summary = {"rows": written.rows, "version": written.version, "evaluated": str(day)}
        report(context, "drift", measured, area, grid, {**summary, **_page_metadata(settings, day)})
        return dg.MaterializeResult()

    return drift


def build_drift_check(settings: Settings, grid: Grid) -> dg.AssetChecksDefinition:
    """Fails when the universe has moved on the slice's last day: the sign to retrain."""

    @dg.asset_check(
        asset="drift",
        name=DRIFT_CHECK,
        description="Share of drifted (ticker, feature) pairs of the universe on the last day.",
    )
    def universe_has_not_moved(
        context: dg.AssetCheckExecutionContext, lake: LakeResource
    ) -> dg.AssetCheckResult:
        day = grid.days_of(slice_of(context, grid))[-1]
        with lake.get_connection() as connection:
            measured = rows(connection, "drift", day, day)
        verdicts = universe_verdict(measured, settings)
        if not verdicts:
            return dg.AssetCheckResult(
                passed=True,
                description=f"{day}: nothing to compare yet (too few sessions, or no session)",
            )
        verdict = verdicts[-1]
        return dg.AssetCheckResult(
            passed=not verdict.moved,
            severity=dg.AssetCheckSeverity.WARN,
            description=verdict.sentence,
            metadata={
                "share": verdict.share,
                "threshold": settings.drift.universe_share,
                "pairs": verdict.pairs,
                **_page_metadata(settings, day),
            },
        )

    return universe_has_not_moved


def _features(lake: LakeResource, settings: Settings, area: Slice) -> pl.DataFrame:
    first = None if area.first_date is None else first_needed(area.first_date, settings)
    columns = ["day", "ticker", "exchange", *DRIFT_FEATURES]
    with lake.get_connection() as connection:
        return rows(
            connection, "features", first, area.last_date, tickers=area.tickers, columns=columns
        )


def _save_page(
    context: dg.AssetExecutionContext, lake: LakeResource, settings: Settings, day: dt.date
) -> None:
    """The page shows the universe, whatever part of it the run was asked for."""
    # Evidently costs seconds to import: only here, where a page is written.
    from stock_assets.drift.reports import write_report  # noqa: PLC0415

    universe = Slice(day, day, settings.tickers)
    found = _features(lake, settings, universe)
    page = write_report(found, day, settings, report_file(settings, day))
    if page is None:
        context.log.info(f"no drift page for {day}: too few sessions to compare")


def _as_asset(asset_spec: dg.AssetSpec) -> dict[str, object]:
    """A spec as arguments of `@dg.asset`, which has no `spec` parameter of its own."""
    return {
        "key": asset_spec.key,
        "deps": list(asset_spec.deps),
        "description": asset_spec.description,
        "group_name": asset_spec.group_name,
        "kinds": asset_spec.kinds,
        "owners": list(asset_spec.owners),
        "partitions_def": asset_spec.partitions_def,
        "metadata": asset_spec.metadata,
        "automation_condition": asset_spec.automation_condition,
        "freshness_policy": asset_spec.freshness_policy,
    }
