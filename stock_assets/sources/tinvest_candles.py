"""T-Invest's candles: which moments to ask for, and what an answer's rows mean.

How they are asked for is in `tinvest.py`.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import polars as pl

from stock_assets.sources.api import MOSCOW, PARSED_SCHEMA
from stock_assets.sources.base import PRICES
from stock_assets.sources.quotation import read_integer, read_quotation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stock_assets.sources.windows import Window

DAILY = "1d"

INTERVALS = {
    "1m": "CANDLE_INTERVAL_1_MIN",
    "2m": "CANDLE_INTERVAL_2_MIN",
    "5m": "CANDLE_INTERVAL_5_MIN",
    "10m": "CANDLE_INTERVAL_10_MIN",
    "15m": "CANDLE_INTERVAL_15_MIN",
    "30m": "CANDLE_INTERVAL_30_MIN",
    "1h": "CANDLE_INTERVAL_HOUR",
    "4h": "CANDLE_INTERVAL_4_HOUR",
    DAILY: "CANDLE_INTERVAL_DAY",
}
"""Ours -> the API's."""

WINDOW_DAYS = {
    "1m": 1,
    "2m": 1,
    "5m": 7,
    "10m": 7,
    "15m": 21,
    "30m": 21,
    "1h": 84,
    "4h": 84,
    DAILY: 1826,
}
"""Days that one request may span. Of three months the shortest have 89 days, of six years 2191; the
candles of so many days are fewer than the most that an answer holds."""

_FIRST_YEAR, _LAST_YEAR = 1970, 2200


def spans(
    window: Window, interval: str, now: dt.datetime
) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    """From when to when (UTC) to ask for the candles of a window; nothing of the future.

    Daily candles are asked for by date, both included, up to noon: the same date in UTC and in
    Moscow, whose clocks were four hours ahead at times. Others from midnight to midnight of Moscow,
    the end excluded; in more than one request where clocks were set back, since a day of 25 hours
    is more than a day.
    """
    if window.first is None:
        raise ValueError("a window without a first day cannot be asked for")
    if interval == DAILY:
        start = dt.datetime.combine(window.first, dt.time(0), dt.UTC)
        end = dt.datetime.combine(window.last, dt.time(12), dt.UTC)
    else:
        start = _midnight(window.first)
        end = _midnight(window.last + dt.timedelta(1))
    end = min(end, now.replace(microsecond=0))
    longest = dt.timedelta(WINDOW_DAYS[interval])
    while start < end:
        yield start, min(start + longest, end)
        start += longest


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(0), MOSCOW).astimezone(dt.UTC)


def as_text(moment: dt.datetime) -> str:
    """A moment (UTC) as the API wants it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def candles_of(body: bytes) -> list[Any]:
    """The candles of an answer, unread. Raises `ValueError` for what is no such answer."""
    answer = json.loads(body)
    found = answer.get("candles") if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise ValueError("its answer holds no list of candles")  # noqa: TRY004 - it is data
    return found


def read_candles(bodies: Iterable[bytes], window: Window, *, daily: bool, lot: int) -> pl.DataFrame:
    """Rows (`PARSED_SCHEMA`) of the candles that lie in `window`.

    The day of a candle is its date in Moscow, whatever hour a daily one carries; a day of which a
    candle is still forming is left out whole. A candle that two answers repeat is one row, unless
    it has changed in between. Volume is in shares.
    """
    if window.first is None:
        raise ValueError("a window without a first day holds no rows")
    rows: list[tuple[Any, ...]] = []
    forming: set[dt.date] = set()
    day = window.first  # of a row whose own time cannot be read: that of the row before it
    for candle in _once(candle for body in bodies for candle in candles_of(body)):
        row = _read(candle, day, daily=daily, lot=lot)
        day = row[0]
        if isinstance(candle, dict) and candle.get("isComplete") is False:
            forming.add(day)
        rows.append(row)
    kept = [row for row in rows if window.first <= row[0] <= window.last and row[0] not in forming]
    return pl.DataFrame(kept, PARSED_SCHEMA, orient="row")


def _once(candles: Iterable[Any]) -> Iterator[Any]:
    """Each candle, but those repeated unchanged where one answer ends and the next begins."""
    seen: dict[str, Any] = {}
    for candle in candles:
        time = str(candle.get("time")) if isinstance(candle, dict) else ""
        if time and seen.get(time) == candle:
            continue
        seen[time] = candle
        yield candle


def _read(candle: Any, before: dt.date, *, daily: bool, lot: int) -> tuple[Any, ...]:
    raw = json.dumps(candle, ensure_ascii=False)
    if not isinstance(candle, dict):
        return (before, None, *[None] * (len(PRICES) + 1), "candle: is no object", raw)
    faults: list[str] = []
    day, start = before, None
    moment = _moment(candle.get("time"))
    if moment is None:
        faults.append(f"time: {candle.get('time')!r} is no moment in UTC")
    else:
        day = moment.astimezone(MOSCOW).date()
        # A daily candle's hour says nothing: it was 07:00, and is 00:00 since.
        label = dt.datetime.combine(day, dt.time(0), dt.UTC)
        start = label if daily else moment
    prices = [_price(candle, name, faults) for name in PRICES]
    volume = None
    try:
        volume = float(read_integer(candle.get("volume")) * lot)
    except ValueError as error:
        faults.append(f"volume: {error}")
    if not isinstance(candle.get("isComplete"), bool):
        faults.append("isComplete: is missing, so that the candle may still be forming")
    return (day, start, *prices, volume, "; ".join(faults) or None, raw)


def _moment(text: object) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    # Years beyond any market are what Python's dates and zones cannot hold.
    if moment.tzinfo is None or not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        return None
    return moment.astimezone(dt.UTC)


def _price(candle: dict[str, Any], name: str, faults: list[str]) -> float | None:
    try:
        return float(read_quotation(candle.get(name)))
    except ValueError as error:
        faults.append(f"{name}: {error}")
        return None
