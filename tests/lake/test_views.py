"""The SQL views: what the lake holds, at one version, reading no more than was asked for."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stock_assets.lake.schemas import TABLES, Candles
from stock_assets.lake.views import connect, register_views, rows
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from stock_assets.lake.store import Lake

AB = ("A", "B")
WEIRD = "O'NEIL"


@pytest.fixture
def filled(lake, drift_rows, day):
    """Twenty days over a new year, three tickers."""
    names = ("A", "B", WEIRD)
    frame = rows_with_own_distances(drift_rows, [day(n) for n in range(20)], names)
    lake.write("drift", frame, Slice(None, day(19), names))
    return lake


def rows_with_own_distances(make, days, names) -> pl.DataFrame:
    frame = make(days, names)
    return frame.with_columns(distance=pl.int_range(pl.len()).cast(pl.Float64))


def files(lake: Lake, table: str) -> list[Path]:
    return [
        Path(unquote(urlparse(uri).path) if "://" in uri else uri)
        for uri in lake.open(table).file_uris()
    ]


def spoil(path: Path) -> None:
    path.write_bytes(b"not Parquet any more")


def test_a_view_is_what_the_lake_reads(filled):
    with connect(filled) as connection:
        found = pl.from_arrow(
            connection.sql("select * from drift order by day, ticker, feature").to_arrow_table()
        )

    expected = filled.read("drift")
    assert found.columns == expected.columns, "the physical year is hidden"
    assert_frame_equal(found.cast(expected.schema), expected)


@pytest.mark.slow
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    first=st.none() | st.integers(0, 19),
    length=st.integers(0, 10),
    names=st.sets(st.sampled_from(["A", "B", WEIRD, "X"]), min_size=1),
)
def test_rows_of_a_view_are_the_slice_of_the_lake(filled, day, first, length, names):
    last = day((first or 0) + length)
    begin = None if first is None else day(first)
    tickers = tuple(sorted(names))
    with connect(filled) as connection:
        found = rows(connection, "drift", begin, last, tickers=tickers)

    assert_frame_equal(found, filled.read("drift", Slice(begin, last, tickers)))


def test_chosen_columns_come_with_the_types_of_the_schema(filled, day):
    with connect(filled) as connection:
        found = rows(connection, "drift", day(3), day(4), columns=["ticker", "reference_rows"])

    assert found.schema == {"ticker": pl.String, "reference_rows": pl.Int32}
    assert found.height == 6


def test_every_table_is_there_even_when_nothing_was_written(lake):
    with connect(lake) as connection:
        for table, schema in TABLES.items():
            result = connection.sql(f"select * from {table}")
            assert result.columns == schema.column_names()
            assert result.fetchall() == []
        assert register_views(connection, lake) == {}


def test_the_versions_that_are_seen_are_told(filled, drift_rows, day):
    filled.write("drift", drift_rows([day(0)], ["A"], 9), Slice(day(0), day(0), ("A",)))

    with connect(filled) as connection:
        assert register_views(connection, filled) == {"drift": 1}


def test_a_view_stays_at_its_version_while_writes_go_on(filled, drift_rows, day):
    everything = Slice(None, day(19), ("A", "B", WEIRD))
    before = filled.read("drift")
    with connect(filled) as connection:
        for distance in (7, 8):
            filled.write("drift", drift_rows([day(0)], AB, distance), everything)
        seen = connection.sql("select count(*), sum(distance) from drift").fetchall()
        register_views(connection, filled)
        anew = connection.sql("select count(*), sum(distance) from drift").fetchall()

    assert seen == [(before.height, before["distance"].sum())]
    assert anew == [(2, 16.0)]


@pytest.mark.parametrize("form", ["where day >= date '2025-01-02'", "where day > '2025-01-01'"])
def test_a_filter_on_day_opens_only_the_files_of_those_days(filled, day, form):
    """Files that the filter cannot need are spoiled; the query does not notice."""
    old = [path for path in files(filled, "drift") if "2024" in str(path)]
    assert len(old) == 1
    spoil(old[0])

    with connect(filled) as connection:
        found = connection.sql(f"select count(*) from drift {form}").fetchall()
        assert found == [(3 * 7,)]
        assert rows(connection, "drift", day(14), day(15)).height == 6
        with pytest.raises((duckdb.Error, OSError)):
            connection.sql("select count(distance), sum(distance) from drift").fetchall()
    assert filled.read("drift", Slice(day(14), day(15), AB)).height == 4


def test_files_of_one_year_are_told_apart_by_their_days(lake, drift_rows, day):
    for number in (13, 14, 15):
        area = Slice(day(number), day(number), AB)
        lake.write("drift", drift_rows([day(number)], AB), area)
    assert len(files(lake, "drift")) == 3
    for path in files(lake, "drift"):
        if pl.read_parquet(path, hive_partitioning=False)["day"].to_list() != [day(14)] * 2:
            spoil(path)

    with connect(lake) as connection:
        assert rows(connection, "drift", day(14), day(14)).height == 2
    assert lake.read("drift", Slice(day(14), day(14), AB)).height == 2


def test_a_filter_on_ticker_opens_only_the_files_that_may_hold_it(lake, drift_rows, day):
    for ticker in ("A", "M", "Z"):
        lake.write("drift", drift_rows([day(0)], [ticker]), Slice(day(0), day(0), (ticker,)))
    for path in files(lake, "drift"):
        held = pl.read_parquet(path, hive_partitioning=False)["ticker"].to_list()
        if held != ["M"]:
            spoil(path)

    with connect(lake) as connection:
        assert connection.sql("select ticker from drift where ticker = 'M'").fetchall() == [("M",)]
    assert lake.read("drift", Slice(None, day(0), ("M",))).height == 1


def test_a_ticker_with_an_apostrophe_can_be_asked_for(filled, day):
    with connect(filled) as connection:
        asked = rows(connection, "drift", None, day(19), tickers=[WEIRD])
        quoted = connection.sql("select count(*) from drift where ticker = 'O''NEIL'").fetchall()

    assert asked["ticker"].unique().to_list() == [WEIRD]
    assert quoted == [(asked.height,)] == [(20,)]


def test_timestamps_are_utc_whatever_the_zone_of_the_machine(lake, day, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    start = dt.datetime(2024, 12, 20, 7, 0, tzinfo=dt.UTC)
    row = {"day": day(0), "ticker": "A", "interval": "1h", "start": start, "open": 1.0,
           "high": 2.0, "low": 1.0, "close": 2.0, "volume": None, "source": "s"}  # fmt: skip
    frame = Candles.validate(pl.DataFrame([row], schema=Candles.create_empty().schema))
    lake.write("candles", frame, Slice(None, day(0), ("A",)))

    with connect(lake) as connection:
        assert_frame_equal(rows(connection, "candles", None, day(0)), frame)
        text = connection.sql("select cast(start as varchar) from candles").fetchall()
        early = "select count(*) from candles where start < '2024-12-20 07:30:00+00'"
        assert connection.sql(early).fetchall() == [(1,)]

    assert text[0][0].startswith("2024-12-20 07:00:00")


def test_the_connection_downloads_no_extensions(lake):
    with connect(lake) as connection:
        found = connection.sql(
            "select current_setting('autoinstall_known_extensions'), "
            "current_setting('autoload_known_extensions')"
        ).fetchall()

    assert found == [(False, False)]
