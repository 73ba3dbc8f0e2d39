"""Sessions of exchanges, as the markets kept them."""

from __future__ import annotations

import datetime as dt
import functools

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_assets.calendars import CBR, WEEKDAYS, get_calendar, union_sessions
from stock_assets.errors import SettingsError


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


NAMES = st.sampled_from([WEEKDAYS, CBR, "XMOS", "XNYS"])
DAYS = st.dates(day("2005-01-01"), day("2026-12-31"))


def test_moscow_was_shut_from_2022_02_28_to_03_23():
    calendar = get_calendar("XMOS")

    assert calendar.between(day("2022-02-25"), day("2022-03-24")) == (
        day("2022-02-25"),
        day("2022-03-24"),
    )
    assert calendar.after(day("2022-02-25"), 1) == (day("2022-03-24"),)


@pytest.mark.parametrize(
    "extra", ["2025-02-24", "2025-03-10", "2025-11-01", "2026-03-09", "2026-05-11"]
)
def test_moscow_traded_on_days_that_the_package_does_not_know(extra):
    assert get_calendar("XMOS").is_session(day(extra))


@pytest.mark.parametrize(
    ("exchange", "on", "count", "ahead"),
    [
        ("XMOS", "2022-02-18", 1, 3),  # a Friday
        ("XMOS", "2022-02-25", 1, 3),  # the next week was closed, unannounced
        ("XMOS", "2022-02-25", 5, 7),
        ("XMOS", "2022-03-04", 1, 5),  # a holiday on Tuesday, transferred to Monday too
        ("XMOS", "2025-02-21", 1, 3),  # a Monday that the package takes for a holiday
        ("XNYS", "2001-09-10", 1, 1),
        ("XNYS", "2012-10-26", 1, 3),
        ("XNYS", "2024-12-24", 1, 2),
    ],
)
def test_the_next_session_is_as_far_off_as_was_planned(exchange, on, count, ahead):
    assert get_calendar(exchange).days_ahead(day(on), count) == ahead


def test_what_nobody_foresaw_was_a_closure_on_a_weekday():
    for exchange in ("XMOS", "XNYS", "XNAS", "XLON"):
        calendar = get_calendar(exchange)
        assert calendar.unforeseen
        assert not calendar.unforeseen & {*calendar.sessions}
        assert all(day.isoweekday() <= 5 for day in calendar.unforeseen)


@pytest.mark.parametrize(
    ("exchange", "closed"),
    [
        ("XMOS", "2024-05-09"),
        ("XMOS", "2024-06-12"),
        ("XNYS", "2024-07-04"),
        ("XNYS", "2018-12-05"),
        ("XNYS", "2025-01-09"),
    ],
)
def test_holidays_are_no_sessions_and_are_explained(exchange, closed):
    calendar = get_calendar(exchange)

    assert not calendar.is_session(day(closed))
    assert closed in (calendar.why_closed(day(closed)) or "")
    assert exchange in (calendar.why_closed(day(closed)) or "")


def test_a_session_needs_no_explanation_and_ancient_days_get_another():
    calendar = get_calendar(WEEKDAYS)

    assert calendar.why_closed(day("2024-07-04")) is None
    assert "before the first session" in (calendar.why_closed(day("1989-12-29")) or "")


def test_rates_of_the_bank_of_russia_are_dated_tuesday_to_saturday():
    calendar = get_calendar(CBR)

    week = calendar.between(day("2024-11-11"), day("2024-11-18"))
    assert [item.isoweekday() for item in week] == [2, 3, 4, 5, 6]
    assert calendar.is_session(day("2022-03-05")), "rates were set while the exchange was shut"
    assert calendar.is_session(day("2020-01-01")), "a rate dated on a holiday"


def test_weekdays_are_monday_to_friday_whatever_the_holiday():
    calendar = get_calendar(WEEKDAYS)

    assert calendar.between(day("2024-12-21"), day("2025-01-02")) == tuple(
        day(text)
        for text in (
            "2024-12-23", "2024-12-24", "2024-12-25", "2024-12-26", "2024-12-27",
            "2024-12-30", "2024-12-31", "2025-01-01", "2025-01-02",
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("exchange", "session", "over"),
    [
        ("XNYS", "2024-01-16", "2024-01-16T21:00"),
        ("XNYS", "2024-07-16", "2024-07-16T20:00"),
        ("XNYS", "2024-03-08", "2024-03-08T21:00"),
        ("XNYS", "2024-03-11", "2024-03-11T20:00"),
        ("XLON", "2024-01-16", "2024-01-16T16:30"),
        ("XLON", "2024-07-16", "2024-07-16T15:30"),
        ("XTKS", "2024-12-16", "2024-12-16T06:30"),
        (WEEKDAYS, "2024-07-16", "2024-07-17T00:00"),
        (CBR, "2024-07-16", "2024-07-16T21:00"),
    ],
)
def test_a_session_is_over_at_the_local_close_in_winter_and_in_summer(exchange, session, over):
    assert get_calendar(exchange).closes_at(day(session)) == utc(over)


def test_sessions_reach_beyond_today_so_that_target_days_exist():
    today = dt.datetime.now(tz=dt.UTC).date()
    for name in (WEEKDAYS, CBR, "XMOS", "XNYS"):
        assert len(get_calendar(name).after(today, 5)) == 5


@pytest.mark.parametrize("name", ["", "MOON", "xnys ", "a'; drop"])
def test_an_unknown_exchange_is_named_with_what_there_is(name):
    with pytest.raises(SettingsError, match="unknown exchange") as caught:
        get_calendar(name)
    assert repr(name) in str(caught.value)
    assert "weekdays" in str(caught.value)


def test_the_union_holds_each_day_once_in_order():
    days = union_sessions(("XMOS", "XNYS", WEEKDAYS))

    assert list(days) == sorted(set(days))
    assert set(days) >= set(get_calendar("XMOS").sessions)
    assert day("2025-11-01") in days, "a Saturday on which Moscow traded"


@given(NAMES, DAYS)
def test_index_back_and_after_agree_with_counting(name, when):
    calendar = get_calendar(name)
    before = [item for item in calendar.sessions if item < when]

    assert calendar.index(when) == len(before)
    assert calendar.back(when, 3) == before[-3]
    assert calendar.after(when, 4) == _first_after(name, when)[:4]


@functools.lru_cache
def _first_after(name: str, when: dt.date) -> tuple[dt.date, ...]:
    return tuple(item for item in get_calendar(name).sessions if item > when)


@given(NAMES, DAYS, DAYS)
def test_between_is_what_is_session_says_day_by_day(name, one, other):
    calendar = get_calendar(name)
    first, last = min(one, other), min(max(one, other), min(one, other) + dt.timedelta(60))

    every = [first + dt.timedelta(n) for n in range((last - first).days + 1)]
    assert list(calendar.between(first, last)) == [d for d in every if calendar.is_session(d)]


@given(NAMES, DAYS, st.integers(0, 300))
def test_going_back_and_coming_again_ends_where_it_began(name, when, count):
    calendar = get_calendar(name)
    session = calendar.after(when, 1)[0]

    earlier = calendar.back(session, count)
    assert ([earlier, *calendar.after(earlier, count)])[-1] == session


@given(NAMES, DAYS)
def test_sessions_end_in_the_order_of_their_days(name, when):
    calendar = get_calendar(name)
    ends = [calendar.closes_at(item) for item in calendar.after(when, 5)]

    assert ends == sorted(set(ends))


@given(DAYS)
def test_going_back_beyond_the_first_session_stops_there(when):
    calendar = get_calendar(WEEKDAYS)

    assert calendar.back(when, 1_000_000) == calendar.sessions[0]


@pytest.mark.slow
def test_the_moscow_calendar_is_the_record_of_the_exchange(shared_data):
    """Independent of the package: the days on which at least half of 50 stocks traded."""
    candles = pl.read_parquet(shared_data / "moex_daily_dev_tqbr.parquet")
    per_day = candles.group_by(pl.col("timestamp").dt.date().alias("day")).len().sort("day")
    traded = set(per_day.filter(pl.col("len") >= 10)["day"])
    calendar = get_calendar("XMOS")

    listed = set(calendar.between(min(traded), max(traded)))

    assert sorted(traded - listed) == []
    assert sorted(listed - traded) == []


@pytest.mark.slow
def test_the_bank_of_russia_calendar_is_its_record(shared_data):
    dates = pl.read_parquet(shared_data / "gold_cbr_daily.parquet")["timestamp"].dt.date()
    calendar = get_calendar(CBR)

    record = set(dates)
    listed = set(calendar.between(min(record), max(record)))

    assert sorted(record - listed) == []
    # The exchange trades on some public holidays (early May, January) for which no rate is set.
    assert len(listed - record) / len(listed) < 0.03, sorted(listed - record)
