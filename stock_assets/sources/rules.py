"""The candle rules, row by row: what becomes a candle, what goes to quarantine and why.

What a candle must be by itself (prices positive and finite, high and low around open and close,
volume not negative) is stated once, in `lake.schemas.Candles`; here those rules get their words,
and what needs the calendar or the neighbouring rows is added: the day is a session and is over,
the candle lies inside its day, and there is one candle for each (ticker, interval, start). Reading
rows is the sources' affair.

Every row is counted exactly once: rows of the slice = candles + quarantine + held back + revised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dataframely as dy
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import Candles, Quarantine
from stock_assets.sources.base import (
    NUMBERS,
    PRICES,
    RAW_SCHEMA,
    quote_parsed,
    settles_with_session,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Mapping, Sequence

    from stock_assets.lake.splits import Split
    from stock_assets.settings import Instrument
    from stock_assets.slices import Slice

DAILY = "1d"

_POSITION = "position"
_ROWS_AT_ONCE = 250_000
"""Rows whose rules are checked together: bounds the memory of twenty-odd rule columns."""
_REASONS = ["fault", "closed", "unlisted", "crossing"]


@dataclass(frozen=True)
class Judged:
    """The rows of a slice, each in one place."""

    candles: pl.DataFrame
    """Good rows, as `lake.schemas.Candles`, sorted by its key."""
    quarantine: pl.DataFrame
    """Rows that break a rule, as `lake.schemas.Quarantine`, sorted by its key."""
    held_back: int
    """Rows of sessions that are not over yet: stored nowhere, the next fetch brings them."""
    revised: int = 0
    """Rows that another file of the inbox has the word for: stored nowhere, their file is kept."""
    splits: Mapping[str, Sequence[Split]] = field(default_factory=dict)
    """What each source declares of its instruments, of whichever days."""


class _Positioned(Candles):
    """Candles with their place in the source's order, which also tells duplicates apart."""

    position = dy.UInt32(primary_key=True)


def judge(  # noqa: PLR0913
    raw: pl.DataFrame,
    instruments: Sequence[Instrument],
    area: Slice,
    *,
    now: dt.datetime,
    quote: Callable[[pl.DataFrame], pl.Series] = quote_parsed,
    settles_at: Callable[[str, dt.date], dt.datetime] = settles_with_session,
    later_files_revise: bool = False,
) -> Judged:
    """Sort the rows of `raw` (`base.RAW_SCHEMA`) that lie in `area` into good, bad and too early.

    - A session that has not settled at `now` (`settles_at` of exchange and day, both in UTC) is
      held back whole, bad rows too.
    - A NaN volume counts as none (pandas writes a missing volume so); a NaN price breaks a rule.
    - Of several good rows for one (ticker, interval, start) the last in the source's order is the
      candle, and the others are set aside; a bad row supersedes nothing.
    - Where `later_files_revise`, that holds within a file. Of good rows in several files the last
      file's is the candle and the others are nothing that is broken; of a bad row that several
      files repeat, the first file's is set aside (docs/adr/0021).

    `quote` gives the rows as they were read, asked only for those that end in quarantine.
    """
    inside = (pl.col("day") <= area.last_date) & pl.col("ticker").is_in(list(area.tickers))
    if area.first_date is not None:
        inside &= pl.col("day") >= area.first_date
    rows = raw.filter(inside).with_columns(pl.col("volume").fill_nan(None))
    del raw  # a slice of all history is large: do not hold it twice
    rows = _with_sessions(rows.with_row_index(_POSITION), instruments, now, settles_at)
    waiting = int((~rows["over"]).sum())
    rows = rows.filter("over").drop("over")
    rows = rows.with_columns(_unlisted(instruments), _crossing(instruments)).drop("exchange")

    broken = _broken_rules(rows)
    suspect = pl.any_horizontal(pl.col(_REASONS).is_not_null())
    bad = rows.join(broken, on=_POSITION, how="left", maintain_order="left")
    bad = bad.filter(suspect | pl.col("is_broken")).with_columns(
        # A fault already explains the numbers it left empty.
        pl.concat_str([*_REASONS, "broken"], separator="; ", ignore_nulls=True).alias("reason")
    )
    good = rows.filter(~suspect).drop(_REASONS)
    good = good.join(broken, on=_POSITION, how="anti", maintain_order="left")
    candles, superseded = _one_each(good, within_files=later_files_revise)
    superseded = rows.drop(_REASONS).join(superseded, on=_POSITION, maintain_order="left")

    refused = [_POSITION, *RAW_SCHEMA.names()[:-1], "reason"]
    quarantine = pl.concat([bad.select(refused), superseded.select(refused)])
    if later_files_revise:
        quarantine = _said_first(quarantine)
    quarantine = quarantine.drop(_POSITION)
    raws = quote(quarantine) if quarantine.height else pl.Series([], dtype=pl.String)
    return Judged(
        candles=candles,
        quarantine=quarantine.with_columns(raws.alias("raw"))
        .select(Quarantine.column_names())
        .sort(Quarantine.primary_key()),
        held_back=waiting,
        revised=rows.height - candles.height - quarantine.height,
    )


def _with_sessions(
    rows: pl.DataFrame,
    instruments: Sequence[Instrument],
    now: dt.datetime,
    settles_at: Callable[[str, dt.date], dt.datetime],
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
        judged.append((exchange, day, settles_at(exchange, day) <= now, why))
    sessions = pl.DataFrame(
        judged,
        schema={**days.schema, "over": pl.Boolean, "closed": pl.String},
        orient="row",
    )
    return rows.join(sessions, on=["exchange", "day"], how="left", maintain_order="left")


def _unlisted(instruments: Sequence[Instrument]) -> pl.Expr:
    """Why a row is a stranger's, who had the symbol before or has it after; null when it is not."""
    why = pl.lit(None, pl.String)
    for item in instruments:
        theirs, day = pl.col("ticker") == item.ticker, pl.col("day")
        if item.listed is not None:
            words = pl.lit(f"day: {item.ticker} is listed from {item.listed} on in the settings")
            why = pl.when(theirs & (day < item.listed)).then(words).otherwise(why)
        if item.delisted is not None:
            words = pl.lit(f"day: {item.ticker} is listed until {item.delisted} in the settings")
            why = pl.when(theirs & (day > item.delisted)).then(words).otherwise(why)
    return why.alias("unlisted")


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
    elsewhere = (first != pl.col("day")) | (last != pl.col("day"))
    outside = pl.when(daily).then(start != label).otherwise(elsewhere)
    words = pl.format(
        "start: the {} candle from {} is not inside the day {}", "interval", stamp, "day"
    )
    return pl.when(outside).then(words).alias("crossing")


def _broken_rules(rows: pl.DataFrame) -> pl.DataFrame:
    """`position` of each row that breaks rules of `Candles`; all of them in words, as `broken`."""
    columns = _Positioned.column_names()
    parts = [
        pl.DataFrame(schema={_POSITION: pl.UInt32, "is_broken": pl.Boolean, "broken": pl.String})
    ]
    for part in rows.iter_slices(_ROWS_AT_ONCE):
        details = _Positioned.filter(part.select(columns))[1].details()
        words = [
            pl.when(pl.col(rule) == "invalid").then(_in_words(rule))
            for rule in details.columns
            if rule not in columns
        ]
        explained = details.join(part.select(_POSITION, "fault"), on=_POSITION, how="left")
        broken = pl.concat_str(words, separator="; ", ignore_nulls=True)
        parts.append(
            explained.select(
                _POSITION,
                pl.lit(value=True).alias("is_broken"),
                pl.when(broken != "").then(broken).alias("broken"),
            )
        )
    return pl.concat(parts)


def _in_words(rule: str) -> pl.Expr:  # noqa: PLR0911
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


def _one_each(good: pl.DataFrame, *, within_files: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The candles, and `position` and `reason` of the rows that a later one supersedes.

    With `within_files` only a row of the same file supersedes; the candle is the last one's.
    """
    ordered = good.sort([*Candles.primary_key(), _POSITION])
    same = pl.all_horizontal(pl.col(key).eq(pl.col(key).shift(-1)) for key in Candles.primary_key())
    has_later = ordered.select(same.fill_null(value=False).alias("same")).to_series()
    candles = ordered.filter(~has_later).select(Candles.column_names())
    is_superseded = has_later
    if within_files:
        is_superseded = has_later & (ordered["file"] == ordered["file"].shift(-1))
    # Of three rows for one candle the first too is superseded by the last.
    latest = pl.when(~is_superseded)
    place = pl.when(pl.col("file") == "").then(pl.lit("the source")).otherwise("file")
    if within_files:
        place = pl.lit("the same file")  # not its name, so that files that repeat it say the same
    words = pl.format(
        "start: a later row has the same ticker, interval and start (row {} of {})", "row", place
    )
    reasons = ordered.select(_POSITION, latest.then(words).backward_fill().alias("reason"))
    return candles, reasons.filter(is_superseded)


def _said_first(quarantine: pl.DataFrame) -> pl.DataFrame:
    """Without the rows that an earlier file has just so: a file that is dropped again, longer."""
    content = ["ticker", "day", "interval", "start", *NUMBERS, "reason"]
    ordered = quarantine.sort(_POSITION)
    return ordered.filter(pl.col("file") == pl.col("file").first().over(content))
