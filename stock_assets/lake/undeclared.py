"""Bars whose move from the previous bar looks like a split that nobody declared.

Pure: prices in, suspicions out; where the prices come from is in `actions.py`, what a suspicion
does in `dbt/models/features`, `forecasting/labels.py` and `forecasting/scoring.py`. How the
thresholds were found, and what they miss, is in docs/adr/0023.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN_RATIOS: tuple[Fraction, ...] = (
    Fraction(3, 2),
    *map(Fraction, (2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 40, 50)),
    *map(Fraction, (100, 200, 500, 1000, 2000, 5000, 10_000)),
)
"""New shares for an old one that companies choose, or old ones for a new one.

Not below 3:2: a day that halves the profit looks like 5:4."""

PREVIOUS_SESSIONS = 30
"""Sessions before a bar in which its previous bar, and what is usual of it, is looked for."""

SHARE_OF_RATIO, FARTHEST = 0.1, 0.15
"""Open and close lie this near to the ratio, in log: this share of its own log, and at most so."""

RANGE_SHARE = 0.5
"""The session's own range is at most this share of the jump, in log: the jump is overnight."""

TIMES_OWN, FEWEST_OWN = 10.0, 5
"""The jump is so many times the ticker's median move, where it has so many moves."""

TIMES_MARKET = 6.0
"""The jump is so many times the market's median move of that day."""

TURNOVER_SHARE, LEAST_TURNOVER = 1.5, math.log(3.0)
"""Shares traded are the usual ones times the ratio, in log: within this share of its own, and at
least so."""

TURNOVER_UP_TO = math.log(5.5)
"""Of jumps beyond, in log, no turnover is asked: prices say enough, and volumes may be in lots or
money, which no split changes."""

_LOGS = pl.DataFrame(
    [
        (math.log(ratio) * sign, float(ratio if sign < 0 else 1 / ratio))
        for ratio in PLAIN_RATIOS
        for sign in (-1, 1)
    ],
    schema={"log": pl.Float64, "ratio": pl.Float64},
    orient="row",
)
"""What each plain ratio makes of the log price, and new shares for an old one."""

_SMALLEST = (1 - SHARE_OF_RATIO) * math.log(PLAIN_RATIOS[0])


def suspected_splits(
    bars: pl.DataFrame, market: Callable[[str, int], pl.DataFrame]
) -> pl.DataFrame:
    """day, ticker, exchange, suspected_split (new shares for an old one) of suspected bars.

    `bars` have day, ticker, exchange, session (the calendar's running number), open, high, low,
    close and volume, adjusted by what was declared; further bars before or after change nothing,
    as long as each has those of the 30 sessions before it. `market` gives the prices as traded
    of all tickers of an exchange over those sessions up to the one asked for; it is asked only
    when there is something to compare.
    """
    found = looking_like_splits(bars)
    kept = [
        row
        for row in found.iter_rows(named=True)
        if _beyond_market(row, market(row["exchange"], row["session"]))
    ]
    return pl.DataFrame(kept, schema=found.schema).select(
        "day", "ticker", "exchange", "suspected_split"
    )


def before_and_after(ratio: float) -> tuple[int, int]:
    """A suspected split's ratio as it is declared: so many old shares for so many new ones."""
    shares = Fraction(ratio).limit_denominator(PLAIN_RATIOS[-1].numerator)
    return shares.denominator, shares.numerator


def looking_like_splits(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars that look like splits by their ticker's own prices and volume: day ... session, move."""
    log = pl.col("log").abs()
    near = pl.min_horizontal(SHARE_OF_RATIO * log, pl.lit(FARTHEST))
    jumps = _nearest_ratio(_moves(bars).filter(pl.col("move").abs() >= _SMALLEST)).filter(
        ((pl.col("move") - pl.col("log")).abs() <= near)
        & ((pl.col("gap") - pl.col("log")).abs() <= near)
        & ((pl.col("high") / pl.col("low")).log() <= RANGE_SHARE * log)
    )
    if not jumps.is_empty():
        volume = pl.when(pl.col("volume") > 0).then("volume")
        turnover = (volume / pl.col("usual_volume")).log() + pl.col("log")
        tolerated = pl.max_horizontal(TURNOVER_SHARE * log, pl.lit(LEAST_TURNOVER))
        usual_turnover = turnover.abs() <= tolerated
        unusual_move = pl.col("move").abs() >= TIMES_OWN * pl.col("usual_move")
        jumps = jumps.join(
            _usual(bars, jumps), on=["ticker", "exchange", "session"], how="left"
        ).filter(
            unusual_move.fill_null(value=True)
            & (usual_turnover.fill_null(value=True) | (log > TURNOVER_UP_TO))
        )
    return jumps.select(*_KEY, "move", "suspected_split")


_KEY = ("day", "ticker", "exchange", "session")


def _moves(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars, sorted, with the logs of close and open over the previous close if it is near."""
    # By numbers, for names take twice as long; a ticker trades by one exchange.
    number = pl.col("ticker").cast(pl.Categorical).to_physical()
    ordered = bars.with_columns(number.alias("number")).sort("number", "session")
    same = (pl.col("number") == pl.col("number").shift(1)) & (
        pl.col("session") - pl.col("session").shift(1) <= PREVIOUS_SESSIONS
    )
    previous = pl.when(same).then(pl.col("close").shift(1))
    return ordered.with_columns(
        (pl.col("close") / previous).log().alias("move"),
        (pl.col("open") / previous).log().alias("gap"),
    ).drop("number")


def _nearest_ratio(jumps: pl.DataFrame) -> pl.DataFrame:
    """The jumps with the plain ratio nearest to their move, and its log."""
    ratios = _LOGS.sort("log")
    return (
        jumps.sort("move")
        .join_asof(ratios, left_on="move", right_on="log", strategy="nearest")
        .rename({"ratio": "suspected_split"})
    )


def _usual(bars: pl.DataFrame, jumps: pl.DataFrame) -> pl.DataFrame:
    """The median move and volume of each jump's ticker over the sessions before it."""
    asked = jumps.select("ticker", "exchange", "session")
    before = (
        bars.join(asked, on=["ticker", "exchange"], suffix="_asked")
        .filter(
            (pl.col("session") < pl.col("session_asked"))
            & (pl.col("session") >= pl.col("session_asked") - PREVIOUS_SESSIONS)
        )
        .sort("ticker", "exchange", "session_asked", "session")
    )
    group = ["ticker", "exchange", "session_asked"]
    steps = (pl.col("close") / pl.col("close").shift(1).over(group)).log().abs()
    return (
        before.with_columns(steps.alias("step"))
        .group_by(group)
        .agg(
            pl.when(pl.col("step").count() >= FEWEST_OWN)
            .then(pl.col("step").median())
            .alias("usual_move"),
            pl.col("volume").filter(pl.col("volume") > 0).median().alias("usual_volume"),
        )
        .rename({"session_asked": "session"})
    )


def _beyond_market(jump: dict[str, Any], market: pl.DataFrame) -> bool:
    """Whether no such thing befell the others: those that look like splits themselves aside."""
    others = market.filter(pl.col("ticker") != jump["ticker"])
    alike = looking_like_splits(others).filter(pl.col("session") == jump["session"])["ticker"]
    moves = _moves(others).filter(
        (pl.col("session") == jump["session"]) & ~pl.col("ticker").is_in(alike.implode())
    )["move"]
    usual: Any = moves.abs().median()
    return usual is None or bool(abs(jump["move"]) >= TIMES_MARKET * usual)
