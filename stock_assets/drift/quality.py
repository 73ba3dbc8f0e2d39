"""Faults of the prices themselves: what no market does, whatever its mood.

Five detectors, each a number with a threshold from the ticker's own last year of bars, as rows of
`schemas.Drift` of kind quality. A pure function of bars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.drift.watched import QUALITY
from stock_assets.lake.schemas import Drift

if TYPE_CHECKING:
    import datetime as dt

    from stock_assets.settings import Instrument, Settings
    from stock_assets.slices import Slice

LEVEL, STUCK, LATE, CANDLES, VOLUME = (
    "price_level",
    "unchanged",
    "late",
    "candles_missing",
    "volume_collapse",
)

BLOCKING = frozenset({LEVEL, STUCK})
"""Faults after which nothing is forecast from the day's prices: they are not the market's."""

QUALITY_COLUMNS = ("day", "ticker", "open", "high", "low", "close", "volume", "candles")
"""Columns of `bars` that are read."""

REFERENCE = 250
"""Sessions before a day that say what has happened to the ticker before."""

MONTH = 30
"""Sessions before a day that say what is usual just now; after a longer halt nothing does."""

LEVEL_LEAST, LEVEL_TIMES = math.log(5), 8.0
"""A price is off that is five times the usual one, or a fifth of it, and eight times what the
ticker's prices usually are off. Stocks have halved within a session, and bad prints have been at a
third (ROSN 2022-02-24); wrong units begin with ten."""

LEVEL_BARS = 5
"""Bars whose median is a level: three bars in a row at a new one, and that is the level."""

VOLUME_LEAST, CANDLES_LEAST = math.log(20), 2.0
"""A twentieth of the usual volume, half of the usual candles: a working Saturday, and a half day,
have more."""

LONGEST_STUCK, LONGEST_LATE = 60, 5
"""Sessions after which a price that stands still, or a ticker that is silent, is told no more."""

_LEVEL_SAMPLES, _VOLUME_SAMPLES, _REFERENCE_SAMPLES = 3, 10, 20
_MARGIN, _USUAL, _VOLUME_MOST = 1.25, 0.98, math.log(1000)
_FEW_CANDLES = 4
_PRICES = ("open", "high", "low", "close")


def first_bar_needed(day: dt.date, settings: Settings) -> dt.date:
    """The earliest date whose bars the faults of `day` (or of any later day) can see.

    Of a price that stands still: the year before it began to, and how long it stood still then.
    """
    sessions = REFERENCE + 2 * LONGEST_STUCK + MONTH + 1
    return min(get_calendar(name).back(day, sessions) for name in settings.exchanges)


def faults(bars: pl.DataFrame, area: Slice, settings: Settings) -> pl.DataFrame:
    """The numbers of every cell of `area` that has a bar, or should have one.

    `bars` are rows of `schemas.Bars` (QUALITY_COLUMNS suffice) from `first_bar_needed` on; earlier
    and later ones change nothing. Detectors without enough history have no row. A ticker is
    expected on each session from its first bar (within what is needed) up to its delisting, and
    for 20 sessions after its last bar. Bars off the calendar count nowhere.

    Returns a frame with the columns of `schemas.Drift`, sorted by its key.
    """
    first = area.first_date or settings.partitions.first_day
    parts: list[pl.DataFrame] = [Drift.create_empty()]
    wanted = bars.filter(
        pl.col("ticker").is_in(list(area.tickers)) & (pl.col("day") <= area.last_date)
    ).select(QUALITY_COLUMNS)
    for (ticker,), rows in wanted.group_by("ticker"):
        instrument = settings.instrument(str(ticker))
        parts.append(_of_ticker(instrument, rows, first, area.last_date))
    return pl.concat(parts).sort(Drift.primary_key())


def fault_words(fault: str, distance: float, threshold: float) -> str:
    """What a number above its threshold means."""
    times, usual = math.exp(min(distance, 50)), math.exp(min(threshold, 50))
    words = {
        LEVEL: f"a price {times:,.1f} times that of the bars before, or as much lower "
        f"(alarm above {usual:,.1f}): a wrong unit, or a split that nobody declared",
        STUCK: f"the same price on {distance:.0f} sessions in a row after the first "
        f"(alarm above {threshold:.0f}): the feed may be stuck",
        LATE: f"no candle on {distance:.0f} session(s) in a row (alarm above {threshold:.0f})",
        CANDLES: f"{distance:.1f} times fewer candles than usual (alarm above {threshold:.1f})",
        VOLUME: f"volume {times:,.0f} times lower than usual (alarm above {usual:,.0f})",
    }
    return words[fault]


@dataclass(frozen=True)
class Episode:
    """A fault that blocks, for as long as it lasts."""

    ticker: str
    fault: str
    first: dt.date
    last: dt.date
    """As far as is known."""
    words: str
    """What it is, on its last day."""


def first_fault_needed(day: dt.date, settings: Settings) -> dt.date:
    """The earliest date on which a blocking fault of `day` (or of any later day) can have begun."""
    return min(get_calendar(name).back(day, 2 * LONGEST_STUCK) for name in settings.exchanges)


def episodes(drift: pl.DataFrame) -> list[Episode]:
    """The blocking faults in rows of `schemas.Drift`, the one that ended last first.

    A fault lasts until the same detector finds nothing: days without a number do not end it.
    """
    rows = (
        drift.filter((pl.col("kind") == QUALITY) & pl.col("feature").is_in(list(BLOCKING)))
        .sort("ticker", "feature", "day")
        .with_columns(number=pl.col("drifted").rle_id().over("ticker", "feature"))
        .filter("drifted")
    )
    found = rows.group_by("ticker", "feature", "number").agg(
        first=pl.col("day").first(),
        last=pl.col("day").last(),
        distance=pl.col("distance").last(),
        threshold=pl.col("threshold").last(),
    )
    return [
        Episode(
            row["ticker"],
            row["feature"],
            row["first"],
            row["last"],
            fault_words(row["feature"], row["distance"], row["threshold"]),
        )
        for row in found.sort(
            "last", "ticker", "feature", descending=[True, False, False]
        ).iter_rows(named=True)
    ]


def _of_ticker(
    instrument: Instrument, rows: pl.DataFrame, first: dt.date, last: dt.date
) -> pl.DataFrame:
    """Rows of one ticker; `rows` are its bars."""
    calendar = get_calendar(instrument.exchange)
    begin = rows["day"].min()
    end = min(last, instrument.delisted or last)
    days = calendar.between(begin, end)  # type: ignore[arg-type]
    if not days:
        return Drift.create_empty()
    # Windows count sessions: how many bars a ticker had in them must not change how far they reach.
    offset = calendar.index(days[0])
    sessions = pl.DataFrame(
        {"day": days, "session": range(offset, offset + len(days))},
        schema={"day": pl.Date, "session": pl.Int64},
    )
    bars = rows.drop("ticker").join(sessions, on="day").sort("session")
    empty = pl.lit(None, pl.Float64)
    return (
        pl.concat([*_of_bars(bars), _late(sessions, bars)])
        .filter((pl.col("day") >= first) & pl.col("distance").is_not_null())
        .drop_nulls("threshold")
        .select(
            "day",
            pl.lit(instrument.ticker).alias("ticker"),
            pl.lit(QUALITY).alias("kind"),
            "feature",
            "distance",
            "threshold",
            (pl.col("distance") > pl.col("threshold")).alias("drifted"),
            pl.col("reference_rows").cast(pl.Int32),
            pl.lit(1, pl.Int32).alias("current_rows"),
            empty.alias("ticker_alarm"),
            empty.alias("sector_alarm"),
            empty.alias("market_alarm"),
            pl.lit(None, pl.Int32).alias("market_tickers"),
            pl.lit(None, pl.Int32).alias("sector_tickers"),
        )
        .select(Drift.column_names())
    )


def _of_bars(bars: pl.DataFrame) -> list[pl.DataFrame]:
    """The detectors that compare a bar with those before it."""
    measured = (
        bars.with_columns(_began().alias("began"))
        .with_columns(
            *(_usual(name, samples).alias(f"usual_{name}") for name, samples in _MEDIANS.items()),
            _recent_level().alias("recent_level"),
        )
        .with_columns(
            _away().alias(LEVEL),
            _run().alias(STUCK),
            _collapse().alias(VOLUME),
            _fewer_candles().alias(CANDLES),
        )
        .with_columns(
            _highest(LEVEL, 0.5, _LEVEL_SAMPLES).alias("usual_away"),
            _highest(STUCK, 1.0, _REFERENCE_SAMPLES).alias("longest"),
            _highest(VOLUME, _USUAL, _REFERENCE_SAMPLES).alias("largest_collapse"),
            _highest(CANDLES, _USUAL, _REFERENCE_SAMPLES).alias("fewest_candles"),
        )
    )
    thresholds = {
        LEVEL: pl.max_horizontal(pl.lit(LEVEL_LEAST), LEVEL_TIMES * pl.col("usual_away")),
        # Of the runs before: the one that is going on does not make itself usual.
        STUCK: pl.col("longest").first().over("began") + 1,
        VOLUME: _at_least(VOLUME_LEAST, "largest_collapse"),
        CANDLES: _at_least(CANDLES_LEAST, "fewest_candles"),
    }
    return [
        measured.select(
            "day",
            pl.lit(name).alias("feature"),
            pl.col(name).alias("distance"),
            threshold.alias("threshold"),
            pl.col(name)
            .is_not_null()
            .cast(pl.Int32)
            .rolling_sum_by("session", window_size=_YEAR, closed="left")
            .alias("reference_rows"),
        )
        for name, threshold in thresholds.items()
    ]


def _highest(name: str, share: float, samples: int) -> pl.Expr:
    """The value that `share` of the bars of the year before did not exceed; null on too few."""
    return pl.col(name).rolling_quantile_by(
        "session",
        window_size=_YEAR,
        quantile=share,
        interpolation="higher",
        closed="left",
        min_samples=samples,
    )


def _at_least(least: float, name: str) -> pl.Expr:
    """A margin above what was usual, and at least so much; null where that is not known."""
    return pl.when(pl.col(name).is_not_null()).then(
        pl.max_horizontal(pl.lit(least), _MARGIN * pl.col(name))
    )


_YEAR = f"{REFERENCE}i"
_MEDIANS = {"close": _LEVEL_SAMPLES, "volume": _VOLUME_SAMPLES, "candles": _VOLUME_SAMPLES}


def _usual(name: str, samples: int) -> pl.Expr:
    """The median of the month before."""
    return pl.col(name).rolling_median_by(
        "session", window_size=f"{MONTH}i", closed="left", min_samples=samples
    )


def _recent_level() -> pl.Expr:
    """The median of the last few closes before, of the same month."""
    closes = [
        pl.when(pl.col("session") - pl.col("session").shift(age) <= MONTH).then(
            pl.col("close").shift(age)
        )
        for age in range(1, LEVEL_BARS + 1)
    ]
    return pl.concat_list(closes).list.median()


def _away() -> pl.Expr:
    """How far the bar's furthest price is from the nearest known level, in log.

    A level is that of the last days or that of the month: a wrong candle makes neither wrong, and
    after a few of them the right price is still known.
    """
    levels = (pl.col("recent_level"), pl.col("usual_close"))
    away = [
        pl.min_horizontal([(pl.col(price) / level).log().abs() for level in levels])
        for price in _PRICES
    ]
    return pl.when(pl.col("usual_close").is_not_null()).then(pl.max_horizontal(away))


def _began() -> pl.Expr:
    """The session from which on the price stands still: the bar's own where it has moved.

    Bars so far apart that nothing is usual any more are none in a row.
    """
    near = pl.col("session") - pl.col("session").shift(1) <= MONTH
    return pl.when(~(stands_still() & near.fill_null(value=False))).then("session").forward_fill()


def stands_still() -> pl.Expr:
    """Whether a bar repeats the one before, or is flat at its close; of one ticker's, in order."""
    flat = pl.all_horizontal([pl.col(name) == pl.col("close").shift(1) for name in _PRICES])
    repeated = pl.all_horizontal([pl.col(name) == pl.col(name).shift(1) for name in _PRICES])
    return (flat | repeated).fill_null(value=False)


def _run() -> pl.Expr:
    """Bars in a row, up to this one, on which the price stands still."""
    run = pl.int_range(pl.len(), dtype=pl.Int64).over("began")
    told = pl.col("session") - pl.col("began") <= LONGEST_STUCK
    return pl.when(told).then(run).cast(pl.Float64)


def _collapse() -> pl.Expr:
    """Log of the usual volume over the bar's; no volume counts as a thousandth."""
    usual = pl.col("usual_volume")
    volume = pl.max_horizontal("volume", usual / 1000)
    return pl.when(usual > 0).then((usual / volume).log().clip(0, _VOLUME_MOST))


def _fewer_candles() -> pl.Expr:
    """The usual number of candles over the bar's, at least 1; of few candles nothing is said."""
    usual = pl.col("usual_candles")
    return pl.when(usual >= _FEW_CANDLES).then((usual / pl.col("candles")).clip(1.0))


def _late(sessions: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """Sessions in a row without a bar, on each session; 0 where there is one."""
    there = bars.select("session", last="session")
    gap = pl.col("session") - pl.col("last").forward_fill()
    grid = sessions.join(there, on="session", how="left", maintain_order="left").with_columns(
        # A gap is counted no further than it is told: how a long one began may not be known.
        gap=pl.when(gap <= LONGEST_LATE).then(gap),
        began=pl.when(gap > 0).then(pl.col("last").forward_fill() + 1).otherwise("session"),
    )
    # A little more than a year: a holiday that the calendar does not know comes again.
    year = REFERENCE + LONGEST_STUCK
    longest = pl.col("gap").shift(1).rolling_max(year, min_samples=_REFERENCE_SAMPLES)
    bars_before = (
        pl.col("last").is_not_null().cast(pl.Int32).shift(1).rolling_sum(year, min_samples=1)
    )
    return grid.with_columns(longest=longest).select(
        "day",
        pl.lit(LATE).alias("feature"),
        pl.col("gap").cast(pl.Float64).alias("distance"),
        # Of the gaps before: the one that is going on does not make itself usual.
        pl.col("longest").first().over("began").cast(pl.Float64).alias("threshold"),
        bars_before.fill_null(0).alias("reference_rows"),
    )
