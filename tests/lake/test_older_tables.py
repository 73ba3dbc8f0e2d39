"""Tables written before their schema gained columns stay readable, and gain them when written."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from stock_assets.errors import LakeError
from stock_assets.lake.schemas import Bars, Orders
from stock_assets.lake.store import YEAR, Lake
from stock_assets.lake.views import connect, rows
from stock_assets.slices import Slice

AB = ("A", "B")
ADDED = "realised_variance"


def bars(days: list[dt.date], variance: float | None = None) -> pl.DataFrame:
    """One bar a day and ticker."""
    prices = dict.fromkeys(("open", "high", "low", "close"), 10.0)
    made = [
        {
            "day": day, "ticker": ticker, "exchange": "XMOS", "currency": "", "volume": 5.0,
            ADDED: variance, "raw_volume": 5.0, "split_factor": 1.0,
            "dividend_factor": None, "suspected_split": None, "interval": "5m",
            "candles": 12, **prices, **{f"raw_{name}": price for name, price in prices.items()},
        }
        for day in days
        for ticker in AB
    ]  # fmt: skip
    return pl.DataFrame(made, schema=Bars.create_empty().schema).sort("day", "ticker")


def write_without(lake: Lake, table: str, frame: pl.DataFrame, *columns: str) -> None:
    """The table as a version of this project wrote it that did not have the columns."""
    older = frame.drop(columns).with_columns(pl.col("day").dt.year().cast(pl.Int32).alias(YEAR))
    write_deltalake(lake.uri(table), older.to_arrow(), partition_by=[YEAR])


def by_sql(lake: Lake, query: str) -> pl.DataFrame:
    with connect(lake) as connection:
        found = pl.from_arrow(connection.sql(query).to_arrow_table())
    assert isinstance(found, pl.DataFrame)
    return found


@pytest.fixture
def days(day) -> list[dt.date]:
    """Twenty days over a new year."""
    return [day(number) for number in range(20)]


def test_a_missing_column_reads_as_nulls_everywhere(lake: Lake, days: list[dt.date]) -> None:
    stored = bars(days)
    write_without(lake, "bars", stored, ADDED)

    assert_frame_equal(lake.read("bars"), stored)
    last = Slice(days[-1], days[-1], ("B",))
    assert lake.read("bars", last, columns=["day", ADDED]).rows() == [(days[-1], None)]
    assert_frame_equal(by_sql(lake, "from bars order by day, ticker"), stored)
    assert by_sql(lake, f"from bars where {ADDED} > 0 or close < 1").is_empty()
    with connect(lake) as connection:
        assert_frame_equal(rows(connection, "bars", days[-1], days[-1]), stored.tail(2))


def test_one_commit_adds_the_column_and_leaves_the_other_rows(
    lake: Lake, days: list[dt.date]
) -> None:
    stored = bars(days)
    write_without(lake, "bars", stored, ADDED)
    area = Slice(days[-2], days[-1], AB)
    new = bars(days[-2:], 0.04)

    written = lake.write("bars", new, area)

    assert (written.version, lake.version("bars")) == (1, 1)
    expected = pl.concat([stored.filter(pl.col("day") < days[-2]), new])
    assert_frame_equal(lake.read("bars"), expected)
    assert_frame_equal(by_sql(lake, "from bars order by day, ticker"), expected)
    assert not lake.write("bars", new, area).changed
    assert DeltaTable(lake.uri("bars")).metadata().partition_columns == [YEAR]


def test_the_files_of_other_years_are_not_rewritten(lake: Lake, days: list[dt.date]) -> None:
    write_without(lake, "bars", bars(days), ADDED)
    before = {uri for uri in lake.open("bars").file_uris() if f"{YEAR}=2024" in uri}
    lake.write("bars", bars(days[-1:], 0.04), Slice(days[-1], days[-1], AB))
    assert before
    assert before <= set(lake.open("bars").file_uris())


def test_a_write_of_what_is_there_adds_the_column_once(lake: Lake, days: list[dt.date]) -> None:
    area = Slice(None, days[-1], AB)
    write_without(lake, "bars", bars(days), ADDED)
    assert [lake.write("bars", bars(days), area).changed for _ in range(2)] == [True, False]


def test_several_columns_in_whatever_order_they_are_added(lake: Lake, days: list[dt.date]) -> None:
    stored = bars(days).with_columns(volume=None, raw_volume=None).cast(bars(days).schema)
    write_without(lake, "bars", stored, "volume", ADDED, "raw_volume")
    lake.write("bars", bars(days[-1:], 0.04), Slice(days[-1], days[-1], AB))
    expected = pl.concat([stored.filter(pl.col("day") < days[-1]), bars(days[-1:], 0.04)])
    assert_frame_equal(lake.read("bars"), expected)


def test_a_ledger_gains_columns_too(lake: Lake, day) -> None:
    def order(number: int, version: int | None) -> pl.DataFrame:
        row = {
            "day": day(number), "ordered_at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
            "ordered_by": "ann", "why": "because", "action": "promote", "model": "m",
            "trained_day": None, "model_version": version,
        }  # fmt: skip
        return pl.DataFrame([row], schema=Orders.create_empty().schema)

    write_deltalake(lake.uri("orders"), order(0, None).drop("model_version").to_arrow())
    assert_frame_equal(lake.read("orders"), order(0, None))
    lake.append("orders", order(1, 3))
    assert_frame_equal(lake.read("orders"), pl.concat([order(0, None), order(1, 3)]))


def test_a_column_that_no_row_is_without_cannot_be_missing(lake: Lake, days: list[dt.date]) -> None:
    write_without(lake, "bars", bars(days), "candles", ADDED)
    with pytest.raises(LakeError, match=r"table bars: .* lacks the column\(s\) \['candles'\]"):
        lake.read("bars")
    with pytest.raises(LakeError, match="lacks the column"):
        connect(lake)
