"""Splits that sources declare: what counts, what is new, and that nothing heard is forgotten."""

from __future__ import annotations

import datetime as dt
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from stock_assets.lake.splits import Split, keep, splits_in_force, unheard
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

NOON = dt.datetime(2026, 6, 10, 12, tzinfo=dt.UTC)


def split(ticker: str, day: str, before: int, after: int) -> Split:
    return Split(ticker, dt.date.fromisoformat(day), Fraction(before), Fraction(after))


SBER, VTBR = split("SBER", "2007-07-19", 1, 1000), split("VTBR", "2024-07-15", 5000, 1)


TICKERS = ("SBER", "VTBR", "GMKN")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        lake={"path": tmp_path},
        partitions={"first_day": dt.date(2026, 1, 5)},
        universe=[{"tickers": list(TICKERS), "source": "moex"}],
        sources={"moex": {"kind": "moex"}},
    )


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake_dir)


def declared(settings: Settings, *rows: str) -> Settings:
    """The settings with a file of splits."""
    file = settings.lake.path / "splits.csv"
    file.write_text("\n".join(["ticker,date,before,after", *rows]) + "\n")
    return settings.model_copy(update={"lake": settings.lake.model_copy(update={"splits": file})})


def test_what_a_source_said_is_heard_once(settings: Settings, lake: Lake) -> None:
    said = {"moex": [SBER, VTBR], "cbr": []}
    assert unheard(lake, said, TICKERS) == {"moex": [SBER, VTBR]}
    keep(lake, unheard(lake, said, TICKERS), NOON)
    assert unheard(lake, said, TICKERS) == {}
    assert splits_in_force(settings, lake) == (SBER, VTBR)
    assert lake.read("splits").select("ticker", "source", "before", "after").rows() == [
        ("SBER", "moex", 1.0, 1000.0),
        ("VTBR", "moex", 5000.0, 1.0),
    ]


def test_news_count_before_they_are_kept(settings: Settings, lake: Lake) -> None:
    keep(lake, {"moex": [VTBR]}, NOON)
    moved = split("VTBR", "2024-07-16", 5000, 1)
    news = unheard(lake, {"moex": [moved]}, TICKERS)
    assert splits_in_force(settings, lake) == (VTBR,)
    assert splits_in_force(settings, lake, news) == (moved,)


def test_what_it_says_later_counts_and_what_it_said_stays(settings: Settings, lake: Lake) -> None:
    keep(lake, {"moex": [VTBR]}, NOON)
    corrected = split("VTBR", "2024-07-15", 500, 1)
    later = {"moex": [corrected]}
    assert unheard(lake, later, TICKERS) == later
    keep(lake, later, NOON + dt.timedelta(days=1))
    assert splits_in_force(settings, lake) == (corrected,)
    assert lake.read("splits")["before"].to_list() == [5000.0, 500.0]


def test_what_a_source_no_longer_lists_beside_others_is_taken_back(
    settings: Settings, lake: Lake
) -> None:
    """A split moved to another day must not count twice; other tickers were not asked for."""
    keep(lake, {"moex": [SBER, VTBR]}, NOON)
    moved = split("VTBR", "2024-07-16", 5000, 1)
    said = {"moex": [moved]}
    keep(lake, unheard(lake, said, ["VTBR"]), NOON + dt.timedelta(days=1))
    assert splits_in_force(settings, lake) == (SBER, moved)
    assert unheard(lake, said, ["VTBR"]) == {}
    # It comes back: so does the split.
    both = {"moex": [VTBR]}
    keep(lake, unheard(lake, both, ["VTBR"]), NOON + dt.timedelta(days=2))
    assert splits_in_force(settings, lake) == (SBER, VTBR)


def test_an_empty_list_takes_nothing_back(settings: Settings, lake: Lake) -> None:
    keep(lake, {"moex": [SBER, VTBR]}, NOON)
    assert unheard(lake, {"moex": []}, TICKERS) == {}
    other = {"moex": [], "other": [split("GMKN", "2024-04-04", 1, 100)]}
    assert unheard(lake, other, TICKERS).keys() == {"other"}
    assert splits_in_force(settings, lake) == (SBER, VTBR)


def test_the_file_has_the_word_where_both_speak_of_one_event(
    settings: Settings, lake: Lake
) -> None:
    gmkn = split("GMKN", "2024-04-04", 1, 100)
    keep(lake, {"moex": [SBER, VTBR, gmkn]}, NOON)
    mine = declared(settings, "VTBR,2024-07-12,5000,1", "GMKN,2025-02-03,1,2")
    assert splits_in_force(mine, lake) == (
        gmkn, split("GMKN", "2025-02-03", 1, 2), SBER, split("VTBR", "2024-07-12", 5000, 1),
    )  # fmt: skip


def test_a_row_that_says_the_market_did_it_speaks_of_its_day_alone(
    settings: Settings, lake: Lake
) -> None:
    keep(lake, {"moex": [SBER, VTBR]}, NOON)
    mine = declared(settings, "VTBR,2024-07-18,1,1", "SBER,2007-07-19,1,1")
    assert splits_in_force(mine, lake) == (
        split("SBER", "2007-07-19", 1, 1), VTBR, split("VTBR", "2024-07-18", 1, 1),
    )  # fmt: skip


def test_a_ratio_that_binary_fractions_do_not_hold_is_heard_once(lake: Lake) -> None:
    said = {"moex": [Split("SBER", dt.date(2026, 1, 6), Fraction("1.3"), Fraction("1.1"))]}
    keep(lake, said, NOON)
    assert unheard(lake, said, TICKERS) == {}


def test_candles_taken_as_they_are_need_no_splits_of_their_source(
    settings: Settings, lake: Lake
) -> None:
    keep(lake, {"moex": [VTBR]}, NOON)
    as_they_are = settings.sources["moex"].model_copy(update={"as_traded": False})
    other = settings.model_copy(update={"sources": {"moex": as_they_are}})
    assert splits_in_force(other, lake) == ()


def test_a_lake_that_nobody_told_of_splits_has_no_table_of_them(
    settings: Settings, lake: Lake
) -> None:
    assert unheard(lake, {"files": [], "cbr": ()}, TICKERS) == {}
    assert splits_in_force(settings, lake) == ()
    assert lake.open("splits") is None
