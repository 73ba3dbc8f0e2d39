from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.sources.timestamps import (
    AmbiguousDatesError,
    join_clock,
    read_stamps,
    to_utc,
)


def utc(values: pl.Series, timezone: str = "UTC") -> list[dt.datetime | None]:
    return to_utc(read_stamps(values), timezone).to_list()


NOON = dt.datetime(2018, 1, 30, 12, 30, tzinfo=dt.UTC)
DAY = dt.datetime(2018, 1, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2018-01-30 12:30:00", NOON),
        ("2018-01-30T12:30:00", NOON),
        ("2018-01-30 12:30", NOON),
        ("2018-01-30 12:30:00.000", NOON),
        ("2018-01-30T12:30:00Z", NOON),
        ("2018-01-30T15:30:00+03:00", NOON),
        ("2018-01-30 15:30:00+0300", NOON),
        ("2018-01-30 07:30:00-05:00", NOON),
        (" 2018-01-30 ", DAY),
        ("2018/01/30", DAY),
        ("2018.01.30 12:30", NOON),
        ("20180130", DAY),
        ("20180130 123000", NOON),
        ("30.01.2018", DAY),
        ("30.01.2018 12:30:00", NOON),
        ("30.01.18", DAY),
        ("30/01/2018", DAY),
        ("01/30/2018", DAY),
        ("30 Jan 2018", DAY),
        ("Jan 30, 2018", DAY),
        ("1517315400", NOON),
        ("1517315400000", NOON),
        ("1517315400000000", NOON),
        ("1517315400000000000", NOON),
    ],
)
def test_text_of_any_usual_form_is_read(text: str, moment: dt.datetime) -> None:
    assert utc(pl.Series([text])) == [moment]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_typed_columns_are_read(unit: str) -> None:
    naive = NOON.replace(tzinfo=None)
    column = pl.Series([naive, None], dtype=pl.Datetime(unit))  # type: ignore[arg-type]
    assert utc(column) == [NOON, None]
    assert utc(column.dt.replace_time_zone("Europe/Moscow")) == [NOON - dt.timedelta(hours=3), None]
    assert utc(pl.Series([DAY.date()])) == [DAY]
    assert utc(pl.Series([20180130, None])) == [DAY, None]
    assert utc(pl.Series([1517315400.0, float("nan")])) == [NOON, None]


def test_what_is_no_date_is_null_and_spoils_nothing() -> None:
    texts = ["2018-01-30", "soon", "", None, "2018-02-31", "0018-01-30", "2018-01-30 12:30"]
    assert utc(pl.Series(texts)) == [DAY, None, None, None, None, None, NOON]


def test_years_beyond_any_market_are_no_dates() -> None:
    assert utc(pl.Series([dt.date(1, 1, 1), dt.date(9999, 12, 31), DAY.date()])) == [
        None,
        None,
        DAY,
    ]


def test_days_and_months_that_could_be_either_are_refused() -> None:
    with pytest.raises(AmbiguousDatesError, match="03/04/2018"):
        read_stamps(pl.Series(["03/04/2018", "05/04/2018"]))


def test_a_late_row_settles_which_comes_first() -> None:
    texts = ["03/04/2018"] * 2_000 + ["13/04/2018"]
    assert utc(pl.Series(texts))[0] == dt.datetime(2018, 4, 3, tzinfo=dt.UTC)


def test_a_zone_applies_only_to_stamps_that_carry_none() -> None:
    texts = pl.Series(["2018-01-30 15:30:00", "2018-01-30 12:30:00Z"])
    assert utc(texts, "Europe/Moscow") == [NOON, NOON]


def test_the_clock_that_is_turned() -> None:
    skipped = pl.Series(["2021-03-28 02:30:00", "2021-10-31 02:30:00"])
    assert utc(skipped, "Europe/Berlin") == [None, dt.datetime(2021, 10, 31, 0, 30, tzinfo=dt.UTC)]


@pytest.mark.parametrize(
    ("clock", "hour", "minute"),
    [
        ("100000", 10, 0),
        ("93000", 9, 30),
        ("0930", 9, 30),
        ("930", 9, 30),
        ("0", 0, 0),
        ("9:30", 9, 30),
        ("10:00:00", 10, 0),
    ],
)
def test_a_date_and_a_time_column_make_one_stamp(clock: str, hour: int, minute: int) -> None:
    joined = join_clock(pl.Series(["20180130"]), pl.Series([clock]))
    assert utc(joined) == [dt.datetime(2018, 1, 30, hour, minute, tzinfo=dt.UTC)]


@given(
    st.lists(st.integers(631_152_000, 1_900_000_000), min_size=1, max_size=20),
    st.sampled_from(
        ["%Y-%m-%d %H:%M:%S", "%Y%m%d %H%M%S", "%d.%m.%Y %H:%M:%S", "%Y-%m-%dT%H:%M:%S"]
    ),
)
@settings(max_examples=60, deadline=None)
def test_what_python_writes_is_read_back(seconds: list[int], form: str) -> None:
    moments = [dt.datetime.fromtimestamp(number, dt.UTC) for number in seconds]
    assert utc(pl.Series([moment.strftime(form) for moment in moments])) == moments
