"""Splits that sources declare: what counts, what is new, and that nothing heard is forgotten."""

from __future__ import annotations

import datetime as dt
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from stock_assets.lake.splits import Split, keep, splits_in_force, unheard
from stock_assets.lake.store import Lake

if TYPE_CHECKING:
    from pathlib import Path

NOON = dt.datetime(2026, 6, 10, 12, tzinfo=dt.UTC)


def split(ticker: str, day: str, before: int, after: int) -> Split:
    return Split(ticker, dt.date.fromisoformat(day), Fraction(before), Fraction(after))


SBER, VTBR = split("SBER", "2007-07-19", 1, 1000), split("VTBR", "2024-07-15", 5000, 1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_what_a_source_said_is_heard_once(lake: Lake) -> None:
    said = {"moex": [SBER, VTBR], "cbr": []}
    assert unheard(lake, said) == {"moex": [SBER, VTBR]}
    keep(lake, unheard(lake, said), NOON)
    assert unheard(lake, said) == {}
    assert splits_in_force(None, lake) == (SBER, VTBR)
    assert lake.read("splits").select("ticker", "source", "before", "after").rows() == [
        ("SBER", "moex", 1.0, 1000.0),
        ("VTBR", "moex", 5000.0, 1.0),
    ]


def test_what_it_says_later_counts_and_what_it_said_stays(lake: Lake) -> None:
    keep(lake, {"moex": [VTBR]}, NOON)
    corrected = split("VTBR", "2024-07-15", 500, 1)
    later = {"moex": [corrected]}
    assert unheard(lake, later) == later
    keep(lake, later, NOON + dt.timedelta(days=1))
    assert splits_in_force(None, lake) == (corrected,)
    assert lake.read("splits")["before"].to_list() == [5000.0, 500.0]


def test_what_a_source_no_longer_says_stays(lake: Lake) -> None:
    keep(lake, {"moex": [SBER, VTBR]}, NOON)
    assert unheard(lake, {"moex": [SBER]}) == {}
    assert splits_in_force(None, lake) == (SBER, VTBR)


def test_the_file_has_the_word_for_tickers_that_it_names(lake: Lake, tmp_path: Path) -> None:
    keep(lake, {"moex": [SBER, VTBR]}, NOON)
    file = tmp_path / "splits.csv"
    file.write_text("ticker,date,before,after\nVTBR,2024-07-12,5000,1\n")
    assert splits_in_force(file, lake) == (SBER, split("VTBR", "2024-07-12", 5000, 1))


def test_a_lake_that_nobody_told_of_splits_has_no_table_of_them(lake: Lake) -> None:
    assert unheard(lake, {"files": [], "cbr": ()}) == {}
    assert splits_in_force(None, lake) == ()
    assert lake.open("splits") is None
