"""What a source corrects replaces what it said, with all that depends on it; both can be asked."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
import pytest

from stock_assets.automation.schedules import LOOKS
from stock_assets.lake.history import versions_at
from stock_assets.lake.schemas import TABLES, lineage_columns
from stock_assets.lake.views import connect, rows
from stock_assets.settings import load_settings

from .market import MOSCOW, SETTINGS, Market, date

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stock_assets.lake.store import Lake

pytestmark = pytest.mark.slow

MADE = ("candles", "quarantine", "bars", "forecasts", "scores")


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Market(tmp_path / "market", instance)


def tables(lake: Lake, moment: dt.datetime | None = None) -> dict[str, pl.DataFrame]:
    """The tables now, or as of a moment, without what tells how they came about."""
    versions = None if moment is None else versions_at(lake, moment, MADE)
    with connect(lake, versions=versions) as connection:
        return {
            name: rows(connection, name, None, dt.date.max).drop(lineage_columns(TABLES[name]))
            for name in MADE
        }


def at(day: str, look: int = 0) -> dt.datetime:
    return MOSCOW.closes_at(date(day)) + LOOKS[look]


def test_a_corrected_candle_asks_for_its_day_and_the_later_ones_once(market: Market) -> None:
    market.hold_until("06-11")
    assert market.evening("06-11") == [[], [], [], []]
    market.publish("06-09", "BBB", close=1.75)
    assert market.evening("06-11") == [
        [("06-09", "06-11", "revised: BBB 2026-06-09")], [], [], [],
    ]  # fmt: skip
    found = market.lake.read("candles").filter(day=date("06-09"), ticker="BBB")
    assert found["close"].to_list() == [1.75]


def test_a_correction_comes_with_the_new_day_in_one_run(market: Market) -> None:
    market.hold_until("06-10")
    market.publish("06-11")
    market.publish("06-09", "AAA", close=1.25)
    market.publish("06-10", "CCC", close=1.25)
    assert market.evening("06-11") == [
        [("06-09", "06-11", "on time; revised: AAA 2026-06-09, CCC 2026-06-10")], [], [], [],
    ]  # fmt: skip


def test_older_corrections_are_for_people_and_the_setting_says_how_old(market: Market) -> None:
    market.hold_until("06-11")
    fifth, sixth = MOSCOW.back(date("06-11"), 4), MOSCOW.back(date("06-11"), 5)
    market.publish(sixth, "BBB", close=1.75)
    assert market.evening("06-11") == [[], [], [], []]
    market.publish(fifth, "BBB", close=1.75)
    with_setting(market, "revisions = 0")
    assert market.evening("06-11") == [[], [], [], []]
    with_setting(market, "revisions = 6")
    (asked,) = market.serve(market.look(at("06-11")))
    assert asked[0] == f"{sixth:%m-%d}"


def with_setting(market: Market, line: str) -> None:
    """The market goes on with another line in the section of its source."""
    file = market.folder.parent / "settings.toml"
    file.write_text(SETTINGS.rstrip() + f"\n{line}\n")
    market.settings = load_settings(file)


def test_a_row_that_becomes_bad_leaves_the_candles_and_comes_back_when_mended(
    market: Market,
) -> None:
    market.hold_until("06-11")
    market.publish("06-10", "BBB", close=9)  # above its high
    asked = market.evening("06-11")
    assert asked == [[("06-10", "06-11", "revised: BBB 2026-06-10")], [], [], []]
    assert market.lake.read("quarantine")["ticker"].to_list() == ["BBB"]
    assert market.lake.read("bars").filter(day=date("06-10"), ticker="BBB").is_empty()
    market.publish("06-10", "BBB", close=8)
    asked = market.evening("06-11")
    assert asked == [[("06-10", "06-11", "revised: BBB 2026-06-10")], [], [], []]
    market.publish("06-10", "BBB")
    asked = market.evening("06-11")
    assert asked == [[("06-10", "06-11", "completing: late candles of BBB")], [], [], []]


def test_rows_that_only_moved_within_their_file_are_no_revision(market: Market) -> None:
    market.hold_until("06-10")
    market.publish("06-11", "AAA", "CCC")
    market.publish("06-11", "BBB", close=9)
    assert len(market.evening("06-11")[0]) == 1
    market.publish("05-29", "BBB")  # before all others: what was row 9 is row 10 now
    assert market.evening("06-11") == [[], [], [], []]


def test_what_a_source_loses_stays_and_is_told(market: Market) -> None:
    market.hold_until("06-11")
    market.withdraw("06-10", "BBB")
    found = market.look(at("06-11"))
    assert isinstance(found, str), "nothing is run"
    assert "no longer have what the lake holds of BBB 2026-06-10: it stays until" in found


def test_a_source_that_cannot_decide_costs_one_run_a_look_and_no_more(market: Market) -> None:
    market.hold_until("06-10")
    market.publish("06-11")
    market.evening("06-11")
    for turn in range(8):
        market.publish("06-11", "AAA", close=1.5 + 0.25 * (turn % 2 == 0))
        asked = market.serve(market.look(at("06-11") + dt.timedelta(minutes=turn)))
        assert asked == [("06-11", "06-11", "revised: AAA 2026-06-11")]
    assert market.serve(market.look(at("06-11", 3))) == []


def test_a_revision_whose_run_is_in_progress_is_left_to_it(market: Market) -> None:
    market.hold_until("06-11")
    market.publish("06-09", "BBB", close=1.75)
    (request,) = market.look(at("06-11"))
    market.start(request, dg.DagsterRunStatus.STARTED)
    assert "being run already" in str(market.look(at("06-11", 1)))


def test_a_revision_whose_run_failed_is_asked_for_again(market: Market) -> None:
    market.hold_until("06-11")
    market.publish("06-09", "BBB", close=1.75)
    market.serve(market.look(at("06-11")), fails=True)
    assert market.serve(market.look(at("06-11", 1))) == [
        ("06-09", "06-11", "revised: BBB 2026-06-09; again: the run before failed")
    ]


def test_a_forming_candle_never_reaches_the_bars(market: Market) -> None:
    market.hold_until("06-10")
    close = MOSCOW.closes_at(date("06-11"))
    for minutes, price in ((240, 1.1), (60, 1.3), (1, 1.4)):
        market.publish("06-11", close=price)
        assert market.serve(market.look(close - dt.timedelta(minutes=minutes))) == []
        # Even where a person runs the day meanwhile.
        market.run(date("06-11"), date("06-11"))
        for name, held in tables(market.lake).items():
            assert held.filter(pl.col("day") >= date("06-11")).is_empty(), name
    market.publish("06-11", close=1.5)
    assert len(market.serve(market.look(close + LOOKS[0]))) == 1
    bars = market.lake.read("bars").filter(pl.col("day") == date("06-11"))
    assert bars["raw_close"].to_list() == [1.5] * 3
