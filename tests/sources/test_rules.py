from __future__ import annotations

import datetime as dt
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import Candles, Quarantine
from stock_assets.settings import Instrument
from stock_assets.slices import Slice
from stock_assets.sources.base import RAW_SCHEMA
from stock_assets.sources.rules import Judged, judge

LATE = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
WEDNESDAY = dt.date(2018, 6, 6)
MOSCOW = Instrument(ticker="SBER", source="mine", exchange="XMOS")
WEEKDAYS = Instrument(ticker="GOLD", source="mine")
AREA = Slice(None, dt.date(2026, 12, 31), ("SBER", "GOLD"))


def row(**changes: object) -> dict[str, object]:
    day = changes.get("day", WEDNESDAY)
    assert isinstance(day, dt.date)
    usual: dict[str, object] = {
        "ticker": "SBER",
        "day": day,
        "interval": "1d",
        "start": dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC),
        "open": 10.0,
        "high": 12.0,
        "low": 9.0,
        "close": 11.0,
        "volume": 100.0,
        "source": "mine",
        "file": "a.csv",
        "row": 1,
        "fault": None,
    }
    return usual | changes


def judged(*rows: dict[str, object], now: dt.datetime = LATE, area: Slice = AREA) -> Judged:
    numbered = [{**item, "row": number} for number, item in enumerate(rows, start=1)]
    raw = pl.DataFrame(numbered, schema=RAW_SCHEMA)
    return judge(raw, [MOSCOW, WEEKDAYS], area, now=now)


def reason(**changes: object) -> str:
    found = judged(row(**changes))
    assert found.candles.is_empty()
    return str(found.quarantine["reason"].item())


def test_a_sound_row_becomes_a_candle_as_it_is() -> None:
    found = judged(row())
    assert found.quarantine.is_empty()
    assert found.candles.row(0, named=True) == {
        name: value for name, value in row().items() if name in Candles.column_names()
    }


@pytest.mark.parametrize("volume", [None, float("nan"), 0.0])
def test_no_volume_and_zero_volume_are_no_fault(volume: float | None) -> None:
    found = judged(row(volume=volume))
    assert found.candles["volume"].item() == (0.0 if volume == 0.0 else None)


def test_rounding_of_a_float_is_no_fault() -> None:
    assert judged(row(high=11.0 * (1 - 1e-12), open=11.0, low=9.0)).candles.height == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"open": None}, ["open is missing"]),
        ({"close": float("nan")}, ["close is not a number (NaN)"]),
        ({"high": float("inf")}, ["high is infinite"]),
        ({"low": 0.0}, ["low 0.0 is not above zero"]),
        ({"open": -3.5}, ["open -3.5 is not above zero"]),
        ({"volume": -1.0}, ["volume -1.0 is negative"]),
        ({"volume": float("inf")}, ["volume is infinite"]),
        ({"high": 10.5}, ["high 10.5 is below 11.0"]),
        ({"low": 10.5}, ["low 10.5 is above 10.0"]),
        ({"fault": "open 'x' is not a number", "open": None}, ["open 'x' is not a number"]),
        ({"low": -1.0, "volume": -2.0}, ["low -1.0 is not above zero", "volume -2.0 is negative"]),
        ({"day": dt.date(2018, 6, 10)}, ["Sunday 2018-06-10 is not a session of XMOS"]),
        (
            {"day": dt.date(2018, 6, 10), "close": -1.0},
            ["Sunday 2018-06-10", "close -1.0 is not above zero"],
        ),
    ],
)
def test_a_bad_row_is_set_aside_with_all_its_reasons(
    changes: dict[str, object], words: list[str]
) -> None:
    given_reason = reason(**changes)
    for word in words:
        assert word in given_reason


def test_a_fault_is_not_explained_twice() -> None:
    assert reason(fault="open 'x' is not a number", open=None) == "open 'x' is not a number"


def test_nan_prices_say_so_and_nothing_about_high_and_low() -> None:
    nan = float("nan")
    words = reason(open=nan, high=nan, low=nan, close=nan)
    assert words.count("(NaN)") == 4
    assert "below" not in words
    assert "above" not in words


@pytest.mark.parametrize(
    ("interval", "utc_hour", "minute", "fits"),
    [
        ("1h", 7, 0, True),
        ("1h", 20, 0, True),  # 23:00 in Moscow, ends at midnight
        ("1h", 20, 30, False),  # ends half past midnight
        ("5m", 20, 55, True),
        ("5m", 21, 0, False),  # midnight in Moscow: the next day
        ("1d", 0, 0, True),
        ("1d", 7, 0, False),
    ],
)
def test_a_candle_lies_inside_its_day_by_the_clock_of_the_exchange(
    interval: str, utc_hour: int, minute: int, *, fits: bool
) -> None:
    start = dt.datetime(2018, 6, 6, utc_hour, minute, tzinfo=dt.UTC)
    found = judged(row(interval=interval, start=start))
    assert found.candles.height == fits
    if not fits:
        assert "is not inside the day 2018-06-06" in found.quarantine["reason"].item()


def test_of_several_rows_for_one_candle_the_last_is_it_and_the_others_say_so() -> None:
    found = judged(row(close=10.1), row(close=10.2), row(close=10.3))
    assert found.candles["close"].to_list() == [10.3]
    assert found.quarantine["row"].to_list() == [1, 2]
    assert found.quarantine["reason"].str.contains("later row .*row 3 of a.csv").all()


def test_a_bad_row_supersedes_nothing() -> None:
    found = judged(row(close=10.1), row(close=-1.0))
    assert found.candles["close"].to_list() == [10.1]
    assert found.quarantine["row"].to_list() == [2]


def test_a_session_that_is_not_over_is_held_back_bad_rows_too() -> None:
    close = get_calendar("XMOS").closes_at(WEDNESDAY)
    rows = [row(), row(close=-1.0), row(day=dt.date(2018, 6, 5))]
    early = judged(*rows, now=close - dt.timedelta(seconds=1))
    assert (early.candles.height, early.quarantine.height, early.held_back) == (1, 0, 2)
    after = judged(*rows, now=close)
    assert (after.candles.height, after.quarantine.height, after.held_back) == (2, 1, 0)


def test_a_row_in_quarantine_is_kept_whole() -> None:
    found = judged(row(close=-1.0))
    raw = json.loads(found.quarantine["raw"].item())
    assert raw["close"] == -1.0
    assert raw["volume"] == 100.0


def test_each_ticker_is_judged_by_its_own_calendar() -> None:
    holiday = dt.date(2018, 6, 12)  # Russia Day
    found = judged(row(day=holiday), row(day=holiday, ticker="GOLD"))
    assert found.candles["ticker"].to_list() == ["GOLD"]
    assert found.quarantine["ticker"].to_list() == ["SBER"]


def test_nothing_to_judge_gives_empty_tables_of_the_right_shape() -> None:
    found = judged()
    Candles.validate(found.candles)
    Quarantine.validate(found.quarantine)
    assert found.held_back == 0


prices = st.one_of(
    st.none(),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 9.0, 10.0, 11.0, 12.0]),
)
days = st.dates(dt.date(2018, 6, 1), dt.date(2018, 6, 14))


@st.composite
def raw_rows(draw: st.DrawFn) -> dict[str, object]:
    day = draw(days)
    hour = draw(st.integers(0, 23))
    start = dt.datetime(day.year, day.month, day.day, hour, tzinfo=dt.UTC)
    return row(
        ticker=draw(st.sampled_from(["SBER", "GOLD"])),
        day=day,
        interval=draw(st.sampled_from(["1d", "1h", "4h"])),
        start=draw(st.sampled_from([start, start.replace(hour=0), None])),
        open=draw(prices),
        high=draw(prices),
        low=draw(prices),
        close=draw(prices),
        volume=draw(prices),
        fault=draw(st.sampled_from([None, None, "close 'x' is not a number"])),
    )


@pytest.mark.slow
@given(st.lists(raw_rows(), max_size=30), days, days)
@settings(max_examples=60, deadline=None)
def test_every_row_of_the_slice_ends_in_exactly_one_place(
    rows: list[dict[str, object]], first: dt.date, last: dt.date
) -> None:
    first, last = min(first, last), max(first, last)
    area = Slice(first, last, ("SBER",))
    now = dt.datetime(2018, 6, 12, 9, tzinfo=dt.UTC)
    found = judged(*rows, area=area, now=now)
    inside = [
        item
        for item in rows
        if item["ticker"] == "SBER" and area.contains(item["day"])  # type: ignore[arg-type]
    ]
    assert found.candles.height + found.quarantine.height + found.held_back == len(inside)
    Candles.validate(found.candles)
    Quarantine.validate(found.quarantine)
    assert (found.quarantine["reason"] != "").all()


def test_rows_of_a_stranger_who_had_the_symbol_are_set_aside() -> None:
    own = MOSCOW.model_copy(update={"listed": dt.date(2018, 6, 5), "delisted": dt.date(2018, 6, 7)})
    days = [dt.date(2018, 6, 4 + number) for number in range(5)]
    numbered = [{**row(day=day), "row": place} for place, day in enumerate(days, start=1)]
    raw = pl.DataFrame(numbered, schema=RAW_SCHEMA)
    found = judge(raw, [own, WEEKDAYS], AREA, now=LATE)
    assert found.candles["day"].to_list() == days[1:4]
    assert dict(found.quarantine.select("day", "reason").iter_rows()) == {
        days[0]: "day: SBER is listed from 2018-06-05 on in the settings",
        days[4]: "day: SBER is listed until 2018-06-07 in the settings",
    }


def test_a_session_that_its_source_has_not_settled_is_held_back() -> None:
    def settles_at(exchange: str, day: dt.date) -> dt.datetime:
        closes = get_calendar(exchange).closes_at(day)
        return closes + dt.timedelta(hours=5)

    raw = pl.DataFrame([row()], schema=RAW_SCHEMA)
    closed = get_calendar("XMOS").closes_at(WEDNESDAY)
    for hours, candles in ((1, 0), (5, 1)):
        now = closed + dt.timedelta(hours=hours)
        found = judge(raw, [MOSCOW, WEEKDAYS], AREA, now=now, settles_at=settles_at)
        assert (found.candles.height, found.held_back) == (candles, 1 - candles)
