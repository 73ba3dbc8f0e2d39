"""A candle in the wrong unit: its ticker's forecast is held, no other, and a right one heals."""

from __future__ import annotations

import datetime as dt
import os
from unittest import mock

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.assets.drifting import QUALITY_CHECK
from stock_assets.launch import open_instance, prepare_home
from stock_assets.replay import replay

from .conftest import FIRST, LAST, Market, assert_same, make_market

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("graph"), pytest.mark.timeout(900)]

BEFORE, WRONG, AFTER = dt.date(2025, 6, 4), dt.date(2025, 6, 5), dt.date(2025, 6, 6)
TICKER = "CCC"
LABELS = ["day", "horizon", "held_from", "note"]


@pytest.fixture(scope="module")
def faulty_rows(market_rows: pl.DataFrame) -> pl.DataFrame:
    here = (pl.col("ticker") == TICKER) & (pl.col("timestamp").dt.date() == WRONG)
    return market_rows.with_columns(
        pl.when(here).then(pl.col(name) * 100).otherwise(pl.col(name)).alias(name)
        for name in ("open", "high", "low", "close")
    )


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, faulty_rows: pl.DataFrame) -> Market:
    market = make_market(tmp_path_factory.mktemp("faulty"), faulty_rows)
    market.run(FIRST, LAST)
    return market


def latest_check(market: Market, asset: str, name: str) -> dg.AssetCheckEvaluation:
    with mock.patch.dict(os.environ):
        prepare_home(market.settings, market.settings_file)
        with open_instance() as instance:
            key = dg.AssetCheckKey(dg.AssetKey(asset), name)
            found = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
            assert found.event is not None
            return found.event.dagster_event.asset_check_evaluation_data


def held(market: Market) -> pl.DataFrame:
    return market.lake.read("forecasts").filter(pl.col("held_from").is_not_null())


def test_the_check_is_an_error_that_names_the_candle(faulty: Market) -> None:
    result = latest_check(faulty, "drift", QUALITY_CHECK)
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.ERROR
    assert f"{WRONG} {TICKER}: a price 92.6 times that of the bars" in (result.description or "")
    assert result.metadata["blocked cells"].value == 1


def test_its_forecast_is_the_last_good_one_and_says_why(faulty: Market) -> None:
    rows = held(faulty)
    assert rows.select("day", "ticker", "held_from").unique().rows() == [(WRONG, TICKER, BEFORE)]
    assert rows["horizon"].to_list() == [1, 2, 3, 4]
    assert rows["note"][0].startswith("a price 92.6 times that of the bars before")
    assert rows["note"][0].endswith(f"the forecast of {BEFORE} stands")
    stands = faulty.lake.read("forecasts").filter(
        (pl.col("day") == BEFORE) & (pl.col("ticker") == TICKER) & (pl.col("horizon") > 1)
    )
    assert_frame_equal(rows.drop(LABELS), stands.drop(LABELS), check_exact=True)


def test_other_tickers_and_days_are_forecast_as_ever(faulty: Market, one_range: Market) -> None:
    mine, theirs = faulty.tables()["forecasts"], one_range.tables()["forecasts"]
    cell = (pl.col("day") == WRONG) & (pl.col("ticker") == TICKER)
    assert mine.filter(~cell).height == theirs.filter(~cell).height
    assert mine.filter(~cell)["held_from"].is_null().all()
    # To the last bit before the candle, and on its day on the other exchange.
    untouched = (pl.col("day") < WRONG) | (
        (pl.col("day") == WRONG) & pl.col("ticker").is_in(["AAA", "BBB"])
    )
    assert_frame_equal(mine.filter(untouched), theirs.filter(untouched), check_exact=True)
    after = mine.filter((pl.col("day") == AFTER) & (pl.col("ticker") == TICKER))
    assert after["horizon"].to_list() == [1, 2, 3, 4, 5]


def test_neither_the_held_forecast_nor_the_wrong_outcome_is_scored(faulty: Market) -> None:
    scores = faulty.lake.read("scores").filter(ticker=TICKER)
    assert scores.filter(pl.col("day") == WRONG).is_empty()
    assert scores.filter(pl.col("forecast_day") == WRONG).is_empty()
    assert latest_check(faulty, "scores", "complete").passed
    assert latest_check(faulty, "forecasts", "complete").passed


def test_a_held_forecast_is_made_again_to_the_last_bit(faulty: Market) -> None:
    stored = held(faulty)
    assert replay(faulty.lake, faulty.settings, stored).differences == ()


def test_a_day_by_itself_holds_the_same(faulty: Market) -> None:
    tables, versions = faulty.tables(), faulty.versions()
    faulty.run(WRONG, WRONG, "drift", "forecasts", "scores")
    assert_same(tables, faulty.tables())
    assert versions == faulty.versions()


def test_once_corrected_all_is_as_if_it_had_never_been(
    faulty: Market, market_rows: pl.DataFrame, one_range: Market
) -> None:
    """As the evening's look asks for it: the corrected day and those after it, of all tickers.

    The last test of the lake: it is another one afterwards.
    """
    make_market(faulty.folder, market_rows)
    faulty.run(WRONG, LAST)
    assert held(faulty).is_empty()
    assert_same(one_range.tables(), faulty.tables())
