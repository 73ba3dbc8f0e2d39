"""The check on `scores` that live forecasts keep their promise: coverage and skill in their band.

What counts as leaving the band is decided in `forecasting/live_check.py`; here a slice of the lake
goes in and a check's result comes out.
"""

import datetime as dt
from collections.abc import Sequence

import dagster as dg
import duckdb
import polars as pl

from stock_assets.assets.lake_resource import LakeResource
from stock_assets.forecasting.live_check import LiveVerdict, live_scores_start, live_verdict
from stock_assets.lake.views import rows
from stock_assets.settings import Settings
from stock_assets.slices import Slice

LIVE_CHECK = "forecasts_keep_their_promise"

_SERVING, _LATELY = ("day", "model"), dt.timedelta(days=14)

LIVE_CHECK_SPEC = dg.AssetCheckSpec(
    LIVE_CHECK,
    asset="scores",
    description=(
        "Warns when, over an exchange's latest target days up to the slice's last, the 80 or 90 % "
        "interval held too few or too many outcomes or the forecasts were worse than the "
        "baseline's, by more than luck explains. The band is set under [scores]."
    ),
)


def forecasts_keep_their_promise(
    lake: LakeResource, settings: Settings, area: Slice
) -> dg.AssetCheckResult:
    """The result over each exchange of the slice, whichever of its tickers the slice has."""
    exchanges = sorted({settings.instrument(ticker).exchange for ticker in area.tickers})
    with lake.get_connection("scores", "forecasts") as connection:
        verdicts = live_verdicts(connection, settings, area.last_date, exchanges)
    failed = [verdict for verdict in verdicts if verdict.failures]
    return dg.AssetCheckResult(
        asset_key="scores",
        check_name=LIVE_CHECK,
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        # What failed comes first: it is what one reads in a list.
        description="; ".join(
            verdict.sentence for verdict in sorted(verdicts, key=lambda item: not item.failures)
        ),
        metadata={
            # The UI plots every number over time.
            f"{verdict.exchange}: {100 * item.nominal:.0f} % coverage": round(item.covered, 4)
            for verdict in verdicts
            if verdict.days
            for item in verdict.coverages
        },
    )


def live_verdicts(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    day: dt.date,
    exchanges: Sequence[str],
    *,
    made_after: dt.date = dt.date.min,
) -> list[LiveVerdict]:
    """The verdict on the scores of each exchange up to `day`, of forecasts made after a day."""
    found = []
    for exchange in exchanges:
        tickers = [item.ticker for item in settings.universe if item.exchange == exchange]
        first = live_scores_start(exchange, day, settings.scores)
        scores = rows(connection, "scores", first, day, tickers=tickers).filter(
            pl.col("forecast_day") > made_after
        )
        lately = max(first, day - _LATELY)
        newest = rows(connection, "forecasts", lately, day, tickers=tickers, columns=_SERVING)
        serving = newest.filter(pl.col("day") == pl.col("day").max())["model"].unique()
        found.append(live_verdict(scores, exchange, settings.scores, serving=serving.to_list()))
    return found
