from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from stock_assets.sources.intervals import interval_of, usual_distance

NINE = dt.datetime(2018, 1, 3, 9, tzinfo=dt.UTC)


def guess(*minutes: int) -> str | None:
    starts = [NINE + dt.timedelta(minutes=number) for number in minutes]
    distance = usual_distance(pl.DataFrame({"ticker": ["A"] * len(starts), "start": starts}))
    return interval_of(distance) if distance else None


@pytest.mark.parametrize(
    ("minutes", "interval"),
    [
        ((0, 5, 10, 20, 25), "5m"),
        ((25, 5, 20, 10, 0), "5m"),
        ((0, 60, 120, 1440, 1500), "1h"),
        ((0, 1440, 2880, 7200), "1d"),
        ((0, 0, 15, 15, 30), "15m"),
        ((0, 7, 14), None),
        ((0,), None),
    ],
)
def test_the_interval_is_the_smallest_usual_distance(
    minutes: tuple[int, ...], interval: str | None
) -> None:
    assert guess(*minutes) == interval


def test_one_slip_does_not_change_the_interval() -> None:
    assert guess(*range(0, 600, 5), 7) == "5m"


def test_distances_are_taken_within_a_ticker() -> None:
    frame = pl.DataFrame(
        {
            "ticker": ["A", "B", "A", "B"],
            "start": [NINE + dt.timedelta(minutes=number) for number in (0, 1, 30, 31)],
        }
    )
    assert usual_distance(frame) == dt.timedelta(minutes=30)
