"""Declared dividends: reading them, and the factor that reinvests them.

From the ex-date on, prices are multiplied by previous close / (previous close - amount), so that
the fall by which a share pays for its dividend is no loss. As with splits, a later dividend never
changes an earlier day (docs/adr/0023). It is applied in `dbt/models/bars.sql`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.errors import SourceError
from stock_assets.lake.declared import read_declared

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

PREVIOUS_SESSIONS = 30
"""Sessions before an ex-date in which its previous close is looked for, as for a return."""


@dataclass(frozen=True, order=True)
class Dividend:
    """On `day`, the first day without it, a share of that day has paid `amount`."""

    ticker: str
    day: dt.date
    amount: float


def read_dividends(path: Path | None) -> tuple[Dividend, ...]:
    """Dividends declared in `path`, sorted by ticker and day; none without a path.

    See `read_declared`; the column is amount. Raises `SourceError` naming file and row.
    """
    return tuple(
        Dividend(row.ticker, row.day, _amount(row.where, *row.cells))
        for row in read_declared(path, "dividends", ("amount",))
    )


def dividend_factors(
    dividends: pl.DataFrame, closes: pl.DataFrame, splits: pl.DataFrame
) -> pl.DataFrame:
    """ticker, day, factor: price with all dividends up to that day reinvested / without.

    `dividends` have ticker, day, amount and since, the earliest day of a previous close; `closes`
    ticker, day and close as traded; `splits` ticker, day and the factor in force from then on. A
    dividend without a previous close counts for nothing: no return leads across it. Raises
    `SourceError` naming a dividend that is more than the share was worth.
    """
    # A close of other shares than those that were paid for, where a split came in between.
    before = closes.select("ticker", pl.col("day").alias("close_day"), "close").sort("close_day")
    found = (
        dividends.sort("day")
        .join_asof(
            _split_factors(before, "close_day", splits, "then"),
            left_on="day",
            right_on="close_day",
            by="ticker",
            strategy="backward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .filter(pl.col("close_day") >= pl.col("since"))
    )
    paid = _split_factors(found, "day", splits, "now").select(
        "ticker",
        "day",
        "amount",
        (pl.col("close") * pl.col("then") / pl.col("now")).alias("previous"),
    )
    for row in paid.filter(pl.col("amount") >= pl.col("previous")).iter_rows(named=True):
        message = (
            f"dividends: {row['ticker']} is said to have paid {row['amount']:g} a share on "
            f"{row['day']}, which is no less than its price before it ({row['previous']:g}); write "
            "what one share of that day paid, in the currency of its prices"
        )
        raise SourceError(message)
    step = pl.col("previous") / (pl.col("previous") - pl.col("amount"))
    return paid.sort("ticker", "day").select(
        "ticker", "day", step.cum_prod().over("ticker").alias("factor")
    )


def _split_factors(rows: pl.DataFrame, day: str, splits: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows, sorted by their `day`, with the split factor in force on it as `name`."""
    factors = splits.sort("day").select(
        "ticker", pl.col("day").alias("split_day"), pl.col("factor").alias(name)
    )
    return (
        rows.sort(day)
        .join_asof(
            factors,
            left_on=day,
            right_on="split_day",
            by="ticker",
            strategy="backward",
            check_sortedness=False,
        )
        .with_columns(pl.col(name).fill_null(1.0))
        .drop("split_day")
    )


def _amount(where: str, text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not (amount > 0 and math.isfinite(amount)):
        message = (
            f"{where}: amount {text!r} is not a positive sum of money; write what one share of "
            "that day paid, in the currency of its prices"
        )
        raise SourceError(message)
    return amount
