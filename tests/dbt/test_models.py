"""What bars and features promise, held against a second computation and against each other."""

from __future__ import annotations

import datetime as dt
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from deltalake import write_deltalake

from stock_assets.calendars import union_sessions
from stock_assets.lake.daily import CANDLE_COLUMNS, daily
from stock_assets.lake.dbt_project import DBT_PROJECT_DIR
from stock_assets.lake.schemas import Bars, Features

from .conftest import DIVIDENDS, SPLITS

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.slow

LAST = dt.date(2025, 1, 31)
CELLS_FROM = dt.date(2025, 1, 22)
CUT = dt.date(2025, 1, 24)
KEY = ["day", "ticker"]


def assert_same_bits(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """Equal rows, floats to the last bit."""
    assert left.schema == right.schema
    assert left.select(KEY).equals(right.select(KEY)), "the rows differ"
    for name in left.columns:
        one, other = left[name], right[name]
        if one.dtype == pl.Float64:
            one, other = (series.reinterpret(signed=True) for series in (one, other))
        where = left.filter(one.ne_missing(other)).select(KEY)
        assert where.height == 0, f"{name} differs in {where.height} rows, first {where.row(0)}"


@pytest.fixture(scope="session")
def expected_bars(oracle: ModuleType, whole, market: pl.DataFrame) -> pl.DataFrame:
    # JUMP's splits are declared nowhere.
    suspected = {("JUMP", dt.date(2024, 6, 10)): 4.0, ("JUMP", dt.date(2025, 1, 24)): 0.1}
    return oracle.bars(market, whole.settings.universe, SPLITS, DIVIDENDS, suspected)


@pytest.fixture(scope="session")
def expected_features(oracle: ModuleType, expected_bars: pl.DataFrame) -> pl.DataFrame:
    return oracle.features(expected_bars)


def assert_agrees(found: pl.DataFrame, expected: pl.DataFrame, column: str) -> None:
    assert found.select(KEY).equals(expected.select(KEY))
    own, other = found[column], expected[column].cast(found[column].dtype)
    assert own.is_null().equals(other.is_null()), "nulls differ"
    if own.dtype == pl.Float64:
        off = (own - other).abs() / other.abs().clip(lower_bound=1.0)
        assert off.max() < 1e-9
    else:
        assert own.equals(other, null_equal=True)


@pytest.mark.parametrize("column", Bars.column_names())
def test_bars_agree_with_polars(whole, expected_bars: pl.DataFrame, column: str) -> None:
    assert_agrees(whole.table("bars"), expected_bars, column)


@pytest.mark.parametrize("column", Features.column_names())
def test_features_agree_with_polars(whole, expected_features: pl.DataFrame, column: str) -> None:
    found = whole.table("features")
    assert_agrees(found, expected_features, column)
    assert found[column].null_count() < found.height, "nothing was compared"


def test_daily_prices_from_candles_are_those_of_the_bars(whole, market: pl.DataFrame) -> None:
    """Splits are looked for, and dividends paid out of, the prices that bars are made from."""
    names = ("open", "high", "low", "close", "volume")
    found = daily(market.select(CANDLE_COLUMNS)).sort(KEY)
    bars = whole.table("bars").select(*KEY, *(pl.col(f"raw_{name}").alias(name) for name in names))
    assert found.height > 3_000
    for name in names:
        assert_agrees(found, bars, name)


def test_market_has_what_the_models_must_stand(whole) -> None:
    """Else the comparisons above would prove less than they seem to."""
    features, bars = whole.table("features"), whole.table("bars")
    stuck = features.filter(pl.col("ticker") == "STUK", pl.col("day") == LAST)
    assert stuck.select("vol_close_21", "vol_ewma").row(0) == (0.0, 0.0)
    assert stuck.select("downside_share_21", "volume_z_63", "beta_63").row(0) == (None, None, 0.0)
    gold = features.filter(pl.col("ticker") == "GOLD", pl.col("day") == LAST)
    assert gold.select("volume_z_63", "rank_ret_21d", "market_dispersion").row(0) == (None,) * 3
    assert gold.select("market_tickers", "beta_63", "range_1d").row(0) == (1, 1.0, 0.0)
    off_calendar = ~pl.col("day").is_in(union_sessions(("XMOS", "XNYS", "weekdays")))
    assert bars.filter(off_calendar).height == 1
    assert features.filter(off_calendar).height == 0
    realised = bars.filter(pl.col("realised_variance").is_not_null())
    assert set(realised["interval"]) == {"1d", "1h"}
    assert set(realised["ticker"]) == {"INTR"}
    late = features.filter(pl.col("ticker") == "LATE")
    assert late["high_dist_252"].null_count() == late.height
    assert set(bars["interval"].unique()) == {"1d", "1h"}
    assert bars["suspected_split"].drop_nulls().to_list() == [4.0, 0.1]
    assert bars.filter(pl.col("dividend_factor") > 1)["ticker"].n_unique() == 3
    jump = features.filter(pl.col("ticker") == "JUMP", pl.col("day") == dt.date(2025, 1, 24))
    unknown = ("ret_1d", "gap_1d", "log_variance_1d", "high_dist_63", "volume_z_63")
    assert jump.select(unknown).row(0) == (None,) * 5
    assert jump.select("ret_5d", "vol_close_21", "vol_ewma").row(0) != (None,) * 3
    assert features.filter(pl.col("ticker") == "JUMP")["ret_1d"].abs().max() < 0.3


def test_split_leaves_no_jump_and_changes_no_earlier_row(new_warehouse, market, tmp_path) -> None:
    before = tmp_path / "splits.csv"
    before.write_text("ticker,date,before,after\nSPLT,2024-03-05,5,1\n")
    undeclared, declared = new_warehouse(splits=before), new_warehouse()
    candles = market.filter(pl.col("ticker") == "SPLT")
    for warehouse in (undeclared, declared):
        warehouse.put(candles)
        warehouse.build(None, LAST, ["SPLT"], "--select", "bars features")
    day = dt.date(2025, 1, 27)
    for table in ("bars", "features"):
        assert_same_bits(undeclared.table(table, None, day), declared.table(table, None, day))
    jump = pl.col("day") == dt.date(2025, 1, 28)
    assert undeclared.table("features").filter(jump)["ret_1d"].item() is None
    assert declared.table("features").filter(jump)["ret_1d"].abs().item() < 0.2


def test_day_by_day_equals_one_range_bit_for_bit(new_warehouse, whole, market) -> None:
    warehouse = new_warehouse()
    warehouse.put(market)
    days = [day for day in union_sessions(("XMOS", "XNYS", "weekdays")) if day <= LAST]
    days = days[days.index(CELLS_FROM) :]
    warehouse.build(None, days[0])
    for day in days[1:]:
        warehouse.build(day, day)
    for table in ("bars", "features"):
        assert_same_bits(warehouse.table(table), whole.table(table))


@pytest.mark.parametrize("first", [None, dt.date(2023, 9, 4), dt.date(2024, 12, 30), LAST])
def test_reruns_from_any_start_commit_nothing(whole, first: dt.date | None) -> None:
    before = {table: whole.lake.version(table) for table in ("bars", "features")}
    whole.build(first, LAST)
    assert {table: whole.lake.version(table) for table in before} == before


def cut_and_compare(whole_project, market: pl.DataFrame, cut_project) -> None:
    """The proof of no look-ahead: without what came after CUT, everything up to CUT is the same."""
    for warehouse, candles in (
        (whole_project, market),
        (cut_project, market.filter(pl.col("day") <= CUT)),
    ):
        warehouse.put(candles)
        warehouse.build(None, LAST, None, "--select", "bars features")
    for table in ("bars", "features"):
        assert_same_bits(cut_project.table(table), whole_project.table(table, None, CUT))


def test_cutting_the_future_off_changes_no_past_value(new_warehouse, market) -> None:
    cut_and_compare(new_warehouse(), market, new_warehouse())


def test_planted_leak_is_caught_by_the_same_comparison(
    new_warehouse, market, tmp_path: Path
) -> None:
    project = tmp_path / "dbt"
    shutil.copytree(DBT_PROJECT_DIR, project, ignore=shutil.ignore_patterns("target", "logs"))
    model = project / "models" / "features" / "int_windows.sql"
    honest = "range between 20 preceding and current row"
    assert model.read_text().count(honest) == 1
    model.write_text(
        model.read_text().replace(honest, "range between 20 preceding and 1 following")
    )
    with pytest.raises(AssertionError, match="differs in"):
        cut_and_compare(new_warehouse(project=project), market, new_warehouse(project=project))


def test_some_tickers_complete_to_the_whole(new_warehouse, whole, market) -> None:
    warehouse = new_warehouse()
    warehouse.put(market)
    warehouse.build(None, dt.date(2025, 1, 30))
    some = ["CALM", "INTR", "USAA"]
    rest = [ticker for ticker in warehouse.tickers if ticker not in some]

    warehouse.build(LAST, LAST, some)
    alone = warehouse.table("features", LAST)
    assert set(alone["ticker"]) == set(some)
    assert alone.filter(pl.col("ticker") == "CALM")["market_tickers"].item() == 2

    warehouse.build(LAST, LAST, rest)
    complete = pl.col("ticker").is_in(rest)
    assert_same_bits(
        warehouse.table("features").filter(complete), whole.table("features").filter(complete)
    )
    warehouse.build(LAST, LAST, some)
    assert_same_bits(warehouse.table("features"), whole.table("features"))


def test_features_alone_are_made_from_the_bars_in_the_lake(new_warehouse, whole, market) -> None:
    warehouse = new_warehouse()
    warehouse.put(market)
    warehouse.build(None, LAST, None, "--select", "bars")
    assert warehouse.lake.version("features") is None
    warehouse.build(None, LAST, None, "--select", "features")
    assert_same_bits(warehouse.table("features"), whole.table("features"))


def test_revised_candle_reaches_bars_and_features_of_one_run(new_warehouse, market) -> None:
    warehouse = new_warehouse()
    history = market.filter(pl.col("ticker") == "CALM")
    warehouse.put(history)
    warehouse.build(None, LAST, ["CALM"])
    revised = pl.when(pl.col("day") == LAST)
    warehouse.put(
        history.with_columns(
            revised.then(pl.col(name) * 1.25).otherwise(pl.col(name)).alias(name)
            for name in ("open", "high", "low", "close")
        )
    )
    before = warehouse.table("features", LAST)["ret_1d"].item()
    warehouse.build(LAST, LAST, ["CALM"])
    assert warehouse.table("features", LAST)["ret_1d"].item() == pytest.approx(
        before + math.log(1.25)
    )


def test_slice_without_candles_makes_empty_tables_and_no_row_of_nulls(new_warehouse) -> None:
    warehouse = new_warehouse()
    warehouse.build(None, LAST)
    assert warehouse.table("bars").height == 0
    assert warehouse.table("features").height == 0


def test_day_that_lost_its_candles_loses_bars_and_features(new_warehouse, market) -> None:
    warehouse = new_warehouse()
    history = market.filter(pl.col("ticker") == "CALM")
    warehouse.put(history)
    warehouse.build(None, LAST, ["CALM"])
    warehouse.put(history.filter(pl.col("day") < LAST))
    warehouse.build(LAST, LAST, ["CALM"])
    for table in ("bars", "features"):
        assert warehouse.table(table)["day"].max() == dt.date(2025, 1, 30)


def test_commits_name_the_run_and_the_version_read(whole) -> None:
    (bars,), (features,) = (whole.lake.open(table).history(1) for table in ("bars", "features"))
    assert (bars["run_id"], bars["candles_version"]) == ("a-run", "0")
    assert (features["run_id"], features["bars_version"]) == ("a-run", "0")


def test_failed_run_leaves_the_tables_as_they_were(new_warehouse, market) -> None:
    """Volumes beyond all sense do not fit the integers that sums run over."""
    warehouse = new_warehouse()
    candles = market.filter(pl.col("ticker") == "CALM")
    warehouse.put(candles)
    warehouse.build(None, LAST, ["CALM"])
    before = {table: warehouse.lake.version(table) for table in ("bars", "features")}
    warehouse.put(candles.with_columns(volume=pl.lit(1e300)))
    with pytest.raises(AssertionError, match="out of range"):
        warehouse.build(None, LAST, ["CALM"])
    assert {table: warehouse.lake.version(table) for table in before} == before


def test_a_lake_older_than_some_columns_goes_on(new_warehouse, market) -> None:
    """Bars and features as the version before wrote them, then a day's run, then all of them."""
    warehouse, ever_new = new_warehouse(), new_warehouse()
    candles = market.filter(pl.col("ticker") == "CALM")
    yesterday = dt.date(2025, 1, 30)
    for each in (warehouse, ever_new):
        each.put(candles)
        each.build(None, yesterday, ["CALM"])
    added = {"bars": "^realised_variance$|^dividend_factor$|^suspected_split$", "features": "^.*log_variance.*$|^days_ahead.*$"}
    for table, columns in added.items():
        uri, stored = Path(warehouse.lake.uri(table)), warehouse.table(table)
        shutil.rmtree(uri)
        older = stored.select(pl.exclude(columns), pl.col("day").dt.year().alias("year"))
        assert set(stored.columns) > set(older.columns) - {"year"}
        write_deltalake(uri, older.to_arrow(), partition_by=["year"])

    for each in (warehouse, ever_new):
        each.build(LAST, LAST, ["CALM"])
    for table in added:
        assert_same_bits(warehouse.table(table, LAST), ever_new.table(table, LAST))
    assert warehouse.table("features", None, yesterday)["log_variance_1d"].null_count() > 300
    warehouse.build(None, LAST, ["CALM"])
    for table in added:
        assert_same_bits(warehouse.table(table), ever_new.table(table))
