"""What befell the shares of a slice, worked out from its request and the candles of the lake.

Between what was declared (`splits.py`, `dividends.py`), what nobody declared (`undeclared.py`) and
the relations that `dbt/models/bars.sql` joins. Rules are in those modules; here candles are asked
for: no more than the rows of the slice need.
"""

from __future__ import annotations

import bisect
import datetime as dt
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.lake.daily import CANDLE_COLUMNS, daily
from stock_assets.lake.dividends import dividend_factors
from stock_assets.lake.store import YEAR, dataset
from stock_assets.lake.undeclared import PREVIOUS_SESSIONS, suspected_splits
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stock_assets.lake.dbt_request import DbtRequest, RequestedSessions
    from stock_assets.lake.store import Lake

    Prices = Callable[[Sequence[str], Sequence[dt.date]], pl.DataFrame]
    """Rows of `daily`, of some tickers on some days (in rising order)."""

_DIVIDENDS = {"ticker": pl.String, "day": pl.Date, "amount": pl.Float64, "since": pl.Date}
_FACTORS = {"ticker": pl.String, "day": pl.Date, "factor": pl.Float64}
_PRICES = ("open", "high", "low", "close")
_SAME = 1e-9
"""Relative: factors no further apart are one."""


def split_rows(request: DbtRequest) -> pl.DataFrame:
    """ticker, day, factor: the split factor in force from each split day on."""
    rows = [(item.ticker, item.day, item.factor) for item in request.splits]
    return pl.DataFrame(rows, schema=_FACTORS, orient="row")


def session_rows(request: DbtRequest) -> pl.DataFrame:
    """exchange, session, day, days_ahead_1, days_ahead_5 of the request's sessions."""
    return pl.DataFrame(
        [
            (item.exchange, item.first_session + place, *known)
            for item in request.sessions
            for place, known in enumerate(
                zip(item.days, item.days_ahead_1, item.days_ahead_5, strict=True)
            )
        ],
        schema={
            "exchange": pl.String,
            "session": pl.Int32,
            "day": pl.Date,
            "days_ahead_1": pl.Int32,
            "days_ahead_5": pl.Int32,
        },
        orient="row",
    )


def dividend_rows(request: DbtRequest, prices: Prices) -> pl.DataFrame:
    """ticker, day, factor: what reinvests the dividends so far, from each ex-date on."""
    if not request.dividends:
        return pl.DataFrame(schema=_FACTORS)
    rows = [(item.ticker, item.day, item.amount, item.since) for item in request.dividends]
    dividends = pl.DataFrame(rows, schema=_DIVIDENDS, orient="row")
    days = {
        item.since + dt.timedelta(number)
        for item in request.dividends
        for number in range((item.day - item.since).days)
    }
    closes = prices(dividends["ticker"].unique().to_list(), sorted(days))
    return dividend_factors(dividends, closes, split_rows(request))


def suspicion_rows(request: DbtRequest, prices: Prices) -> pl.DataFrame:
    """day, ticker, suspected_split of the slice's bars that look like an undeclared split."""
    by_name = {item.exchange: item for item in request.sessions}
    sessions = session_rows(request).select("exchange", "session", "day")
    splits, dividends = split_rows(request), dividend_rows(request, prices)
    parts = []
    for exchange, calendar in by_name.items():
        tickers = [item.ticker for item in request.tickers if item.exchange == exchange]
        days = _with_those_before(calendar, request.first_date)
        traded = prices(tickers, days).with_columns(pl.lit(exchange).alias("exchange"))
        parts.append(_adjusted(traded, splits, dividends))

    def market(exchange: str, session: int) -> pl.DataFrame:
        calendar = by_name[exchange]
        place = session - calendar.first_session
        days = calendar.days[max(0, place - PREVIOUS_SESSIONS) : place + 1]
        traded = prices(calendar.tickers, days).with_columns(pl.lit(exchange).alias("exchange"))
        return traded.join(sessions, on=["exchange", "day"])

    found = suspected_splits(pl.concat(parts).join(sessions, on=["exchange", "day"]), market)
    declared = pl.DataFrame(
        [(item.ticker, item.day) for item in request.no_splits],
        schema={"ticker": pl.String, "day": pl.Date},
        orient="row",
    )
    return (
        found.filter(pl.col("day") >= (request.first_date or dt.date.min))
        .join(declared, on=["ticker", "day"], how="anti")
        .select("day", "ticker", "suspected_split")
    )


def _with_those_before(calendar: RequestedSessions, first: dt.date | None) -> Sequence[dt.date]:
    """Sessions from `first` on, and those before it in which its bars' previous ones may be."""
    if first is None:
        return calendar.days
    return calendar.days[max(0, bisect.bisect_left(calendar.days, first) - PREVIOUS_SESSIONS) :]


def _adjusted(traded: pl.DataFrame, splits: pl.DataFrame, dividends: pl.DataFrame) -> pl.DataFrame:
    """Prices and volume as `bars.sql` adjusts them."""
    return (
        _with_factors(traded, splits, dividends)
        .with_columns(
            *(pl.col(name) * pl.col("split") * pl.col("dividend") for name in _PRICES),
            pl.col("volume") / pl.col("split"),
        )
        .drop("split", "dividend")
    )


def _with_factors(
    rows: pl.DataFrame, splits: pl.DataFrame, dividends: pl.DataFrame
) -> pl.DataFrame:
    """The rows by day, with the factors in force on theirs as `split` and `dividend`."""
    rows = rows.sort("day")
    for name, factors in (("split", splits), ("dividend", dividends)):
        known = factors.sort("day").select("ticker", "day", pl.col("factor").alias(name))
        rows = rows.join_asof(
            known, on="day", by="ticker", strategy="backward", check_sortedness=False
        ).with_columns(pl.col(name).fill_null(1.0))
    return rows


def otherwise_adjusted(
    request: DbtRequest, lake: Lake, first: dt.date | None, last: dt.date
) -> dict[str, dt.date]:
    """Of each ticker whose bars are not adjusted as the request says: the first such day.

    Bars from `first` (the beginning without one) to `last` are compared. They are so where
    something was declared, or a close before an ex-date revised, after they were made.
    """
    area = Slice(first, last, tuple(item.ticker for item in request.tickers))
    columns = ["day", "ticker", "split_factor", "dividend_factor"]
    bars = lake.read("bars", area, columns=columns)
    if bars.is_empty():
        return {}
    splits, dividends = split_rows(request), dividend_rows(request, prices_of(lake))
    rows = _with_factors(bars, splits, dividends)
    apart = pl.any_horizontal(
        (pl.col(f"{name}_factor").fill_null(1.0) / pl.col(name) - 1).abs() > _SAME
        for name in ("split", "dividend")
    )
    found = rows.filter(apart).group_by("ticker").agg(pl.col("day").min())
    return dict(found.sort("ticker").iter_rows())


def prices_of(lake: Lake) -> Prices:
    """Daily prices from the lake's candles."""
    import pyarrow.dataset as pds  # noqa: PLC0415

    found = lake.open("candles")
    empty = _empty()

    def prices(tickers: Sequence[str], days: Sequence[dt.date]) -> pl.DataFrame:
        if found is None or not days:
            return empty
        candles = dataset("candles", found)
        parts = [empty]
        # Year by year: intraday candles of all of history need not lie in memory at once.
        for year, of_year in _by_year(days):
            wanted = (
                (pds.field(YEAR) == year)
                & pds.field("ticker").isin(list(tickers))
                & (pds.field("day") >= of_year[0])
                & (pds.field("day") <= of_year[-1])
            )
            rows = pl.from_arrow(candles.to_table(columns=CANDLE_COLUMNS, filter=wanted))
            assert isinstance(rows, pl.DataFrame)
            parts.append(daily(rows.filter(pl.col("day").is_in(of_year))))
        return pl.concat(parts)

    return prices


def _by_year(days: Iterable[dt.date]) -> Iterable[tuple[int, list[dt.date]]]:
    years: dict[int, list[dt.date]] = {}
    for day in sorted(days):
        years.setdefault(day.year, []).append(day)
    return years.items()


def _empty() -> pl.DataFrame:
    from stock_assets.lake.schemas import Candles  # noqa: PLC0415

    return daily(Candles.create_empty().select(CANDLE_COLUMNS))
