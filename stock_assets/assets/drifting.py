"""`drift`: how far the slice's tickers have moved, the Evidently page, and the check on it.

The distances and the verdict are in `drift/`; what a failed check sets off is in `automation`.
"""

import datetime as dt
from collections.abc import Iterator
from urllib.parse import quote

import dagster as dg
import polars as pl

from stock_assets.assets.checks import checked_asset
from stock_assets.assets.common import report, slice_of, spec
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.drift.distances import DRIFT_FEATURES, distances, first_needed
from stock_assets.drift.pages import page_file
from stock_assets.drift.verdict import Verdict, universe_verdict
from stock_assets.lake.views import rows
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice

DRIFT_CHECK = "universe_has_not_moved"

DRIFT_CHECK_SPEC = dg.AssetCheckSpec(
    DRIFT_CHECK,
    asset="drift",
    description=(
        "Fails when so many (ticker, feature) pairs drifted by the slice's last day that the "
        "market is another one. A warning: nothing stops, a training is asked for."
    ),
    # It warns, so it stops nothing; `blocking` marks it as the one that automation follows.
    blocking=True,
)


def build_drift(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The asset of distances: one row a day, ticker and feature; and the check on its verdict."""

    def verdict_check(
        context: dg.AssetExecutionContext, lake: LakeResource
    ) -> Iterator[dg.AssetCheckResult]:
        yield _universe_has_not_moved(lake, settings, grid.days_of(slice_of(context, grid))[-1])

    @checked_asset(
        spec("drift", grid, deps=("features",)),
        settings,
        grid,
        more_specs=[DRIFT_CHECK_SPEC],
        more_results=verdict_check,
    )
    def drift(context: dg.AssetExecutionContext, lake: LakeResource) -> None:
        area = slice_of(context, grid)
        measured = distances(_features(lake, settings, area), area, settings)
        written = lake.write(context, "drift", measured, area)
        day = grid.days_of(area)[-1]
        _save_page(context, lake, settings, day)
        summary = {"rows": written.rows, "version": written.version, "evaluated": str(day)}
        report(context, "drift", measured, area, grid, {**summary, **_page_links(settings, day)})

    return drift


def _universe_has_not_moved(
    lake: LakeResource, settings: Settings, day: dt.date
) -> dg.AssetCheckResult:
    """Fails when the universe has moved on the slice's last day: the sign to retrain."""
    verdict = _verdict(lake, settings, day)
    if verdict is None:
        return dg.AssetCheckResult(
            asset_key="drift",
            check_name=DRIFT_CHECK,
            passed=True,
            description=f"{day}: nothing to compare (too few sessions, or no session)",
        )
    return dg.AssetCheckResult(
        asset_key="drift",
        check_name=DRIFT_CHECK,
        passed=not verdict.moved,
        severity=dg.AssetCheckSeverity.WARN,
        description=verdict.sentence,
        metadata={
            # The UI plots every number over time: only the share is worth a plot.
            "share": round(verdict.share, 4),
            "alarm from": f"{verdict.alarm_share:.0%}",
            "drifted pairs": f"{verdict.drifted:,} of {verdict.pairs:,}",
            **_page_links(settings, day),
        },
    )


def _verdict(lake: LakeResource, settings: Settings, day: dt.date) -> Verdict | None:
    with lake.get_connection("drift") as connection:
        verdicts = universe_verdict(rows(connection, "drift", day, day), settings)
    return verdicts[-1] if verdicts else None


def _features(lake: LakeResource, settings: Settings, area: Slice) -> pl.DataFrame:
    first = None if area.first_date is None else first_needed(area.first_date, settings)
    columns = ["day", "ticker", "exchange", *DRIFT_FEATURES]
    with lake.get_connection("features") as connection:
        return rows(
            connection, "features", first, area.last_date, tickers=area.tickers, columns=columns
        )


def _save_page(
    context: dg.AssetExecutionContext, lake: LakeResource, settings: Settings, day: dt.date
) -> None:
    """Save the page of the whole universe, whatever part of it the run was asked for."""
    verdict = _verdict(lake, settings, day)
    if verdict is None:
        context.log.info("no drift page for %s: nothing to compare", day)
        return
    # Evidently costs seconds to import: only here, where a page is drawn.
    from stock_assets.drift.reports import write_report  # noqa: PLC0415

    found = _features(lake, settings, Slice(day, day, verdict.tickers))
    write_report(found, verdict, settings, page_file(settings, day))


def _page_links(settings: Settings, day: dt.date) -> dict[str, dg.MetadataValue]:
    """The saved page, as a link that `stock-assets dev` serves and as the file's place."""
    page = page_file(settings, day)
    if not page.exists():
        return {}
    path = quote(page.relative_to(settings.reports_dir).as_posix())
    address = f"http://{settings.server.host}:{settings.server.reports_port}/{path}"
    return {
        "evidently report": dg.MetadataValue.url(address),
        "evidently report file": dg.MetadataValue.path(str(page)),
    }
