"""Which symbol is asked for over which days."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.settings import Instrument
from stock_assets.sources.windows import Window, windows_of

DAYS = st.dates(dt.date(2010, 1, 1), dt.date(2026, 12, 31))


def instrument(**more: object) -> Instrument:
    return Instrument.model_validate({"ticker": "YDEX", "source": "moex", **more})


def spans(found: list[Window]) -> list[tuple[str, str, str]]:
    return [(item.symbol, str(item.first), str(item.last)) for item in found]


RENAMED = instrument(formerly=[{"symbol": "YNDX", "until": "2024-06-14"}], listed="2014-06-04")


def test_a_renamed_ticker_keeps_the_history_of_its_former_symbol() -> None:
    found = windows_of(RENAMED, dt.date(2024, 6, 10), dt.date(2024, 8, 1))
    assert spans(found) == [
        ("YNDX", "2024-06-10", "2024-06-14"),
        ("YDEX", "2024-06-15", "2024-08-01"),
    ]
    assert {item.ticker for item in found} == {"YDEX"}


def test_all_of_history_begins_where_it_was_listed() -> None:
    assert spans(windows_of(RENAMED, None, dt.date(2020, 1, 1))) == [
        ("YNDX", "2014-06-04", "2020-01-01")
    ]


def test_a_stranger_s_past_and_future_under_the_symbol_are_not_asked_for() -> None:
    reused = instrument(listed="2015-01-05", delisted="2020-03-31")
    assert spans(windows_of(reused, None, dt.date(2026, 1, 1))) == [
        ("YDEX", "2015-01-05", "2020-03-31")
    ]
    assert windows_of(reused, dt.date(2020, 4, 1), dt.date(2026, 1, 1)) == []
    assert windows_of(reused, None, dt.date(2015, 1, 4)) == []


def test_without_a_listing_day_history_begins_with_the_source() -> None:
    assert spans(windows_of(instrument(symbol="YDEX_TQBR"), None, dt.date(2026, 1, 1))) == [
        ("YDEX_TQBR", "None", "2026-01-01")
    ]


@settings(deadline=None)
@given(DAYS, st.integers(0, 3000), st.integers(1, 800))
def test_a_cut_window_covers_each_day_once_at_fixed_dates(
    first: dt.date, days: int, longest: int
) -> None:
    last = first + dt.timedelta(days)
    whole = Window("A", "A", first, last)
    parts = list(whole.cut(longest))
    assert parts[0].first == first
    assert parts[-1].last == last
    for before, after in pairwise(parts):
        assert after.first == before.last + dt.timedelta(1)
    assert all((item.last - item.first).days < longest for item in parts if item.first)
    later = Window("A", "A", min(first + dt.timedelta(1), last), last)
    assert set(parts[1:]) >= set(list(later.cut(longest))[1:]), (
        "a later start cuts at the same days"
    )


@settings(deadline=None)
@given(st.lists(DAYS, min_size=4, max_size=4, unique=True), DAYS, st.integers(0, 4000))
def test_no_day_is_asked_for_under_two_symbols_and_none_between_listing_and_delisting_is_left_out(
    days: list[dt.date], first: dt.date, length: int
) -> None:
    listed, one, two, delisted = sorted(days)
    own = instrument(
        listed=listed, delisted=delisted,
        formerly=[{"symbol": "A", "until": one}, {"symbol": "B", "until": two}],
    )  # fmt: skip
    last = first + dt.timedelta(length)
    expected = {}
    day = max(first, listed)
    while day <= min(last, delisted):
        expected[day] = "A" if day <= one else "B" if day <= two else "YDEX"
        day += dt.timedelta(1)
    found: dict[dt.date, str] = {}
    for window in windows_of(own, first, last):
        assert window.first is not None
        day = window.first
        while day <= window.last:
            assert day not in found
            found[day] = window.symbol
            day += dt.timedelta(1)
    assert found == expected


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"listed": "2020-01-02", "delisted": "2020-01-01"}, "swap them"),
        (
            {
                "formerly": [
                    {"symbol": "A", "until": "2020-01-01"},
                    {"symbol": "B", "until": "2019-01-01"},
                ]
            },
            "in the order of its days",
        ),
    ],
)
def test_days_that_contradict_each_other_are_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        instrument(**wrong)
