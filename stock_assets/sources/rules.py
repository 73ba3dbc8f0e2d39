"""The candle rules, row by row: what becomes a candle, what goes to quarantine and why.

What a candle must be by itself (prices positive and finite, high and low around open and close,
volume not negative) is stated once, in `lake.schemas.Candles`; here those rules get their words,
and what needs the calendar or the neighbouring rows is added: the day is a session and is over,
the candle lies inside its day, and there is one candle for each (ticker, interval, start). Reading
rows is the sources' affair.

Every row is counted exactly once: rows of the slice = candles + quarantine + held back.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dataframely as dy
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import Candles, Quarantine
from stock_assets.sources.base import PRICES, quote_parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stock_assets.settings import Instrument
    from stock_assets.slices import Slice

DAILY = "1d"

_POSITION = "position"
_REASONS = ["fault", "closed", "crossing"]


@dataclass(frozen=True)
class Judged:
    """The rows of a slice, each in one place."""

    candles: pl.DataFrame
    """Good rows, as `lake.schemas.Candles`, sorted by its key."""
    quarantine: pl.DataFrame
    """Rows that break a rule, as `lake.schemas.Quarantine`, sorted by its key."""
    held_back: int
    """Rows of sessions that are not over yet: stored nowhere, the next fetch brings them."""


class _Positioned(Candles):
    """Candles with their place in the source's order, which also tells duplicates apart."""

    position = dy.UInt32(primary_key=True)


def judge(
    raw: pl.DataFrame,
    instruments: Sequence[Instrument],
    area: Slice,
    *,
    now: dt.datetime,
    quote: Callable[[pl.DataFrame], pl.Series] = quote_parsed,
) -> Judged:
    """Sort the rows of `raw` (`base.RAW_SCHEMA`) that lie in `area` into good, bad and too early.

    - A session not over at `now` is held back whole, bad rows too.
    - A NaN volume counts as none (pandas writes a missing volume so); a NaN price breaks a rule.
    - Of several good rows for one (ticker, interval, start) the last in the source's order is the
      candle; a bad row supersedes nothing.

    `quote` gives the rows as they were read, asked only for those that end in quarantine.
    """
    inside = (pl.col("day") <= area.last_date) & pl.col("ticker").is_in(list(area.tickers))
    if area.first_date is not None:
        inside &= pl.col("day") >= area.first_date
    rows = raw.filter(inside).with_row_index(_POSITION)
    rows = rows.with_columns(pl.col("volume").fill_nan(None))
    rows = _with_sessions(rows, instruments, now)
    over = rows.filter("over")
    checked = over.with_columns(_crossing(instruments))

    suspect = pl.any_horizontal(pl.col(_REASONS).is_not_null())
    broken = _broken_rules(checked)
    good = checked.filter(~suspect).join(broken, on=_POSITION, how="anti", maintain_order="left")
    bad = checked.join(broken, on=_POSITION, how="left", maintain_order="left")
    bad = bad.filter(suspect | pl.col("broken").is_not_null())
    bad = bad.with_columns(
        # A fault already explains the numbers it left empty.
        pl.concat_str([*_REASONS, "broken"], separator="; ", ignore_nulls=True).alias("reason")
    )
    latest, superseded = _one_each(good)

    refused = pl.concat(
        [bad.select(*raw.columns, "reason"), superseded.select(*raw.columns, "reason")]
    )
    refused = refused.with_columns(
        quote(refused).alias("raw") if refused.height else pl.lit("").alias("raw")
    )
    return Judged(
        candles=latest.select(Candles.column_names()).sort(Candles.primary_key()),
        quarantine=refused.select(Quarantine.column_names()).sort(Quarantine.primary_key()),
        held_back=rows.height - over.height,
    )


def _with_sessions(
    rows: pl.DataFrame, instruments: Sequence[Instrument], now: dt.datetime
) -> pl.DataFrame:
    """Rows with `over` (is the session over?) and `closed` (why the day is none, else null)."""
    exchanges = pl.DataFrame(
        [(item.ticker, item.exchange) for item in instruments],
        schema={"ticker": pl.String, "exchange": pl.String},
        orient="row",
    )
    rows = rows.join(exchanges, on="ticker", how="left", maintain_order="left")
    days = rows.select("exchange", "day").unique()
    judged = []
    for exchange, day in days.iter_rows():
        calendar = get_calendar(exchange)
        why = calendar.why_closed(day)
        if why is not None:
            why = f"day: {why}; if it was traded, the ticker needs another exchange in the settings"
        judged.append((exchange, day, calendar.closes_at(day) <= now, why))
    sessions = pl.DataFrame(
        judged,
        schema={**days.schema, "over": pl.Boolean, "closed": pl.String},
        orient="row",
    )
    return rows.join(sessions, on=["exchange", "day"], how="left", maintain_order="left")


def _crossing(instruments: Sequence[Instrument]) -> pl.Expr:
    """Why a candle is not inside its day, by the exchange's clock; null when it is."""
    start = pl.col("start")
    # The last microsecond of the candle: one that ends at midnight lies inside.
    end = start.dt.offset_by(pl.col("interval")) - pl.duration(microseconds=1)
    first, last = pl.lit(None, pl.Date), pl.lit(None, pl.Date)
    for exchange in sorted({item.exchange for item in instruments}):
        zone = get_calendar(exchange).timezone
        here = pl.col("exchange") == exchange
        first = pl.when(here).then(start.dt.convert_time_zone(zone).dt.date()).otherwise(first)
        last = pl.when(here).then(end.dt.convert_time_zone(zone).dt.date()).otherwise(last)
    daily = pl.col("interval") == DAILY
    label = pl.col("day").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    stamp = start.dt.strftime("%Y-%m-%d %H:%M UTC")
    outside = pl.when(daily).then(start != label)
    outside = outside.otherwise((first != pl.col("day")) | (last != pl.col("day")))
    words = pl.format(
        "start: the {} candle from {} is not inside the day {}", "interval", stamp, "day"
    )
    return pl.when(outside).then(words).alias("crossing")


def _broken_rules(rows: pl.DataFrame) -> pl.DataFrame:
    """`position` of each row that breaks rules of `Candles`, and all of them in words."""
    _, failures = _Positioned.filter(rows.select(_Positioned.column_names()))
    details = failures.details()
    rules = [name for name in details.columns if name not in rows.columns]
    explained = details.join(
        rows.select(_POSITION, "fault"), on=_POSITION, how="left", maintain_order="left"
    )
    words = [pl.when(pl.col(rule) == "invalid").then(_in_words(rule)) for rule in rules]
    broken = pl.concat_str(words, separator="; ", ignore_nulls=True)
    return explained.select(
        _POSITION, pl.when(broken != "").then(broken).alias("broken")  # noqa: PLC1901
    )


def _in_words(rule: str) -> pl.Expr:
    """What a broken rule of `Candles` says of a row, naming column and value."""
    name, _, kind = rule.partition("|")
    value = pl.col(name).cast(pl.String) if kind else None
    if kind == "nullability":
        return pl.when(pl.col("fault").is_null()).then(pl.lit(f"{name} is missing"))
    if kind == "nan":
        return pl.lit(f"{name} is not a number (NaN)")
    if kind == "inf":
        return pl.lit(f"{name} is infinite")
    if kind == "min_exclusive":
        return pl.format(f"{name} {{}} is not above zero", value)
    if kind == "min":
        return pl.format(f"{name} {{}} is negative", value)
    # Comparing says nothing new where a price is no number at all.
    finite = pl.all_horizontal(pl.col(PRICES).is_finite())
    if rule == "high_is_highest":
        top = pl.max_horizontal("open", "low", "close")
        return pl.when(finite).then(
            pl.format("high {} is below {}, the highest of open, low and close", "high", top)
        )
    if rule == "low_is_lowest":
        bottom = pl.min_horizontal("open", "high", "close")
        return pl.when(finite).then(
            pl.format("low {} is above {}, the lowest of open, high and close", "low", bottom)
        )
    return pl.lit(f"breaks the rule {rule}")


def _one_each(good: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The last row of each (ticker, interval, start), and the superseded ones with their reason."""
    key = ["ticker", "interval", "start"]
    is_last = pl.struct(key).is_last_distinct()
    latest = good.filter(is_last)
    superseded = good.filter(~is_last)
    by = latest.select(*key, pl.col("file").alias("by_file"), pl.col("row").alias("by_row"))
    superseded = superseded.join(by, on=key, how="left", maintain_order="left")
    return latest, superseded.with_columns(
        pl.format(
            "start: a later row has the same ticker, interval and start (row {} of {})",
            "by_row",
            pl.when(pl.col("by_file") == "").then(pl.lit("the source")).otherwise("by_file"),  # noqa: PLC1901
        ).alias("reason")
    )
