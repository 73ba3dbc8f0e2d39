"""Reading the dates and times that market-data files carry, whatever their form.

A column of text, numbers, dates or datetimes becomes the clock reading as written and, where the
file says it, its distance from UTC. Which form a column has is decided from the whole column, never
from a part of it, so that every slice reads the same. What a stamp means (a day's label or a moment
of a session) is decided in `files.py`.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

WALL = "wall"
"""Column with the clock reading as written: datetime, microseconds, without a zone."""
OFFSET = "offset"
"""Column with its distance from UTC (local minus UTC); null where the file does not say it."""

_SAMPLE = 1_000
_AT_ONCE = 500_000
_FIRST_YEAR, _LAST_YEAR = 1900, 2200
_US_PER_SECOND = 1_000_000

# Clock forms that may follow a date; the first is a date alone.
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %H:%M:%S%.f", " %H%M%S", " %H%M")
# Date forms: within one family any clock may follow. A column belongs to one family.
_FAMILIES: dict[str, tuple[str, ...]] = {
    "year first": ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d"),
    "compact": ("%Y%m%d",),
    "day first": ("%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%d.%m.%y", "%d/%m/%y", "%d-%m-%y"),
    "month first": ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y", "%m-%d-%y"),
    "month by name": ("%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %b %y", "%d-%b-%y"),
}
# Digits of a Unix time in seconds, milliseconds, microseconds, nanoseconds -> units a second.
_EPOCH_DIGITS = {10: 1, 13: 10**3, 16: 10**6, 19: 10**9}

_ZONE = r"(?i):\d{2}(?:\.\d+)?\s*(Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})$"


class AmbiguousDatesError(ValueError):
    """The column reads as well with the day first as with the month first."""


def read_stamps(column: pl.Series) -> pl.DataFrame:
    """`WALL` and `OFFSET` of each value, null where it is missing or no date.

    Raises `AmbiguousDatesError` for a text column in which 03/04/2018 could be March or April.
    """
    kind = column.dtype
    if kind == pl.Date:
        return _known(column.cast(pl.Datetime("us")))
    if isinstance(kind, pl.Datetime):
        if kind.time_zone is None:
            return _known(column.cast(pl.Datetime("us")))
        wall = column.dt.replace_time_zone(None).cast(pl.Datetime("us"))
        moment = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return _known(wall, wall - moment.cast(pl.Datetime("us")))
    if kind.is_float():
        column = column.fill_nan(None).cast(pl.Int64, strict=False)
    return _read_text(column.cast(pl.String))


def join_clock(dates: pl.Series, clocks: pl.Series) -> pl.Series:
    """Text of a date column and a time column put together, for `read_stamps`.

    A time of digits only is Finam's (100000 is ten o'clock, 93000 half past nine).
    """
    days = dates.cast(pl.String).str.strip_chars().str.replace(r"[ T]00:00:00(\.0+)?$", "")
    times = clocks.cast(pl.String).str.strip_chars()
    digits = times.str.contains(r"^\d+$")
    hours_minutes = times.str.len_chars() <= len("HHMM")
    frame = pl.DataFrame([days.alias("day"), times.alias("time")])
    padded = (
        pl.when(digits & hours_minutes)
        .then(pl.col("time").str.zfill(len("HHMM")))
        .when(digits)
        .then(pl.col("time").str.zfill(len("HHMMSS")))
        .otherwise("time")
    )
    return frame.select(pl.concat_str("day", padded, separator=" ")).to_series()


def to_utc(stamps: pl.DataFrame, timezone: str) -> pl.Series:
    """The moments (UTC) of `stamps`; those without an offset are read on the clock of `timezone`.

    Of an hour that the clock shows twice the first is taken; one that it skips gives null.
    """
    local = pl.col(WALL).dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    moment = (
        pl.when(pl.col(OFFSET).is_null())
        .then(local.dt.convert_time_zone("UTC"))
        .otherwise((pl.col(WALL) - pl.col(OFFSET)).dt.replace_time_zone("UTC"))
    )
    return stamps.select(moment.alias("start")).to_series()


def _known(wall: pl.Series, offset: pl.Series | None = None) -> pl.DataFrame:
    frame = pl.DataFrame({WALL: wall}).with_columns(
        (offset if offset is not None else pl.lit(None)).cast(pl.Duration("us")).alias(OFFSET)
    )
    # Years beyond any market are slips of the pen, and what Python's dates cannot hold.
    sane = pl.col(WALL).dt.year().is_between(_FIRST_YEAR, _LAST_YEAR)
    return frame.with_columns(pl.when(sane).then(WALL).alias(WALL))


def _read_text(text: pl.Series) -> pl.DataFrame:
    """What a column of text says, a part at a time: the text is much larger than what it says."""
    sample = text.drop_nulls().head(_SAMPLE).str.strip_chars()
    has_zone = bool(sample.str.contains(_ZONE).any())
    has_t = bool(_plain(sample, has_zone=has_zone).str.contains(r"\dT\d").any())

    def plain(part: pl.Series) -> pl.Series:
        return _plain(part, has_zone=has_zone, has_t=has_t)

    sample = plain(sample)
    is_epoch = _looks_like_epoch(sample)
    formats = [] if is_epoch else _formats_of(lambda: plain(text), sample)

    def read(part: pl.Series) -> pl.DataFrame:
        if is_epoch:
            moment = _from_epoch(plain(part))
            return _known(moment, pl.Series([dt.timedelta(0)]).new_from_index(0, len(moment)))
        offset = _offsets(part.str.strip_chars().str.extract(_ZONE)) if has_zone else None
        return _known(_parse(plain(part), formats), offset)

    parts = [read(text.slice(start, _AT_ONCE)) for start in range(0, max(1, len(text)), _AT_ONCE)]
    return pl.concat(parts)


def _plain(text: pl.Series, *, has_zone: bool, has_t: bool = False) -> pl.Series:
    """Dates and clocks alone, with a space between them."""
    text = text.str.strip_chars()
    if has_zone:
        text = text.str.replace(r"(?i)\s*(Z|UTC|GMT)$", "").str.replace(
            r"(:\d{2}(?:\.\d+)?)\s*[+-]\d{2}(?::?\d{2})?$", "${1}"
        )
    return text.str.replace(r"(\d)T(\d)", "${1} ${2}") if has_t else text


def _looks_like_epoch(sample: pl.Series) -> bool:
    counts = sample.str.contains(r"^\d+$") & sample.str.len_chars().is_in(list(_EPOCH_DIGITS))
    return bool(counts.sum() * 2 > len(sample))


def _from_epoch(text: pl.Series) -> pl.Series:
    frame = pl.DataFrame({"text": text})
    number = pl.col("text").cast(pl.Int64, strict=False)
    moment = pl.lit(None, pl.Int64)
    for digits, a_second in _EPOCH_DIGITS.items():
        scaled = (
            number * (_US_PER_SECOND // a_second)
            if a_second <= _US_PER_SECOND
            else number // (a_second // _US_PER_SECOND)
        )
        moment = pl.when(pl.col("text").str.len_chars() == digits).then(scaled).otherwise(moment)
    return frame.select(moment.cast(pl.Datetime("us"))).to_series()


def _offsets(zones: pl.Series) -> pl.Series:
    sign = pl.when(pl.col("zone").str.starts_with("-")).then(-1).otherwise(1)
    hours = pl.col("zone").str.extract(r"^[+-](\d{2})").cast(pl.Int64)
    minutes = pl.col("zone").str.extract(r"^[+-]\d{2}:?(\d{2})$").cast(pl.Int64).fill_null(0)
    named = pl.col("zone").str.contains(r"(?i)^(Z|UTC|GMT)$")
    total = pl.when(named).then(0).otherwise(sign * (hours * 60 + minutes))
    return pl.DataFrame({"zone": zones}).select(pl.duration(minutes=total)).to_series()


def _formats_of(text: Callable[[], pl.Series], sample: pl.Series) -> list[str]:
    """Formats of the family that reads most of the column, those that read more of it first.

    The whole column, `text()`, is looked at only where its beginning, `sample`, leaves it open.
    """
    scores = _scores(sample)
    if (
        scores["day first"]
        == scores["month first"]
        > max(scores["year first"], scores["compact"], scores["month by name"])
    ):
        # The sample leaves it open: 13/01 may come later in the column.
        scores = _scores(text().drop_nulls())
        if scores["day first"] == scores["month first"]:
            raise AmbiguousDatesError(sample[0])
    if not any(scores.values()) and len(sample) == _SAMPLE:
        scores = _scores(text().drop_nulls())
    family = max(scores, key=scores.__getitem__)
    hits = {form: _reads(sample, form) for form in _forms(family)}
    return sorted(hits, key=lambda form: -hits[form])


def _forms(family: str) -> list[str]:
    return [date + clock for date in _FAMILIES[family] for clock in _CLOCKS]


def _scores(values: pl.Series) -> dict[str, int]:
    """How many of the values each family reads."""
    scores = dict.fromkeys(_FAMILIES, 0)
    for family in _FAMILIES:
        scores[family] = len(values) - _parse(values, _forms(family)).null_count()
        if scores[family] == len(values) and family not in ("day first", "month first"):
            break  # no later family reads more
    return scores


def _reads(values: pl.Series, form: str) -> int:
    return len(values) - _parse(values, [form]).null_count()


def _parse(text: pl.Series, formats: list[str]) -> pl.Series:
    """Each value by the first of `formats` that reads it; null where none does."""
    parsed = pl.Series(WALL, [None] * len(text), dtype=pl.Datetime("us"))
    for form in formats:
        if parsed.null_count() == text.null_count():
            break
        read = text.str.to_datetime(form, time_unit="us", strict=False)
        # %Y also reads the year 18: that is what %y is for.
        sane = read.dt.year().is_between(_FIRST_YEAR, _LAST_YEAR)
        parsed = parsed.zip_with(
            parsed.is_not_null(), read.zip_with(sane.fill_null(value=False), parsed)
        )
    return parsed
