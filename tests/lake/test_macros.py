"""The macros on `forecasts` say what the distributions in Python say, in any DuckDB."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.forecasting.distribution import PriceDistributions
from stock_assets.lake.schemas import QUANTILE_NAMES, Forecasts
from stock_assets.lake.views import connect, macros, register_views
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = dt.date(2026, 6, 30)


def rows_of(last: list[float], sigma: list[float], returns: np.ndarray) -> pl.DataFrame:
    """The columns of `forecasts` that the macros need; `returns` is (n, 7), rising."""
    quantiles = {f"return_{name}": returns[:, n] for n, name in enumerate(QUANTILE_NAMES)}
    return pl.DataFrame({"last_price": last, "sigma": sigma} | quantiles)


@pytest.fixture(scope="module")
def own_duckdb() -> Iterator[duckdb.DuckDBPyConnection]:
    """A user's own DuckDB, which has nothing of ours but the macros' text."""
    with duckdb.connect() as connection:
        connection.execute(macros())
        yield connection


def ask(connection: duckdb.DuckDBPyConnection, rows: pl.DataFrame, question: str) -> np.ndarray:
    connection.register("given", rows.with_row_index("number").to_arrow())
    found = connection.sql(f"select {question} as answer from given f order by number").fetchall()
    return np.array([answer for (answer,) in found], dtype=float)


@st.composite
def forecasts(draw: st.DrawFn) -> pl.DataFrame:
    count = draw(st.integers(1, 5))
    # Thousandths, so that quantiles coincide now and then, in the tails too.
    returns = [
        sorted(draw(st.lists(st.integers(-60, 60), min_size=7, max_size=7))) for _ in range(count)
    ]
    last = draw(st.lists(st.floats(0.01, 1e5), min_size=count, max_size=count))
    sigma = draw(st.lists(st.floats(0, 0.2), min_size=count, max_size=count))
    return rows_of(last, sigma, np.array(returns) / 1000)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(forecasts(), st.floats(-0.15, 0.15), st.floats(1e-4, 1 - 1e-4))
def test_sql_and_python_agree(
    own_duckdb: duckdb.DuckDBPyConnection, rows: pl.DataFrame, ahead: float, probability: float
) -> None:
    price = float(rows["last_price"][0] * np.exp(ahead))
    python = PriceDistributions.of(rows)
    low, high = python.interval(probability)
    for question, expected in (
        (f"probability_above(f, {price!r})", python.probability_above(price)),
        (f"probability_below(f, {price!r})", python.probability_below(price)),
        (f"probability_touch(f, {price!r})", python.probability_touch(price)),
        ("probability_above(f, f.last_price)", python.probability_above(python.last_price)),
        ("probability_below(f, f.last_price)", python.probability_below(python.last_price)),
        (f"forecast_quantile(f, {probability!r})", python.quantile(probability)),
        (f"expected_range(f, {probability!r}).low", low),
        (f"expected_range(f, {probability!r}).high", high),
    ):
        found = ask(own_duckdb, rows, question)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg=question)


def test_tails_whose_quantiles_coincide_agree_too(own_duckdb: duckdb.DuckDBPyConnection) -> None:
    returns = np.array([[-0.02, -0.02, -0.01, 0.0, 0.01, 0.02, 0.02], [0.0] * 7])
    rows = rows_of([100.0, 100.0], [0.02, 0.0], returns)
    python = PriceDistributions.of(rows)
    for price in (90.0, 97.0, 100.0, 103.0, 110.0):
        found = ask(own_duckdb, rows, f"probability_above(f, {price})")
        np.testing.assert_allclose(found, python.probability_above(price), atol=1e-12)
    for probability in (0.01, 0.05, 0.5, 0.95, 0.99):
        found = ask(own_duckdb, rows, f"forecast_quantile(f, {probability})")
        np.testing.assert_allclose(found, python.quantile(probability), rtol=1e-12)


def test_the_forecasts_own_quantiles_come_back(
    own_duckdb: duckdb.DuckDBPyConnection,
) -> None:
    returns = np.array([[-0.031, -0.02, -0.01, 0.0, 0.011, 0.02, 0.033]])
    rows = rows_of([271.3], [0.02], returns)
    for name, value in zip(QUANTILE_NAMES, returns[0], strict=True):
        question = f"forecast_quantile(f, 0.{name[1:]})"
        expected = pytest.approx([271.3 * np.exp(value)], rel=1e-15)
        assert ask(own_duckdb, rows, question) == expected
    low = ask(own_duckdb, rows, "expected_range(f, 0.9).low")
    assert low == pytest.approx([271.3 * np.exp(-0.031)], rel=1e-15)


def test_whole_numbers_nulls_and_impossible_prices(own_duckdb: duckdb.DuckDBPyConnection) -> None:
    rows = rows_of([100.0], [0.02], np.array([[-0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03]]))
    whole = ask(own_duckdb, rows, "probability_above(f, 101)")
    assert whole == ask(own_duckdb, rows, "probability_above(f, 101.0)")
    assert ask(own_duckdb, rows, "probability_above(f, 0)") == [1.0]
    assert ask(own_duckdb, rows, "probability_below(f, -3)") == [0.0]
    for macro in ("probability_above", "probability_below", "probability_touch"):
        assert np.isnan(ask(own_duckdb, rows, f"{macro}(f, null)")).all()
    assert np.isnan(ask(own_duckdb, rows, "forecast_quantile(f, null)")).all()


@pytest.mark.parametrize("probability", ["0", "1", "80", "-0.1"])
def test_what_is_no_probability_is_an_error_that_says_so(
    own_duckdb: duckdb.DuckDBPyConnection, probability: str
) -> None:
    rows = rows_of([100.0], [0.02], np.zeros((1, 7)))
    with pytest.raises(duckdb.Error, match="above 0 and below 1"):
        ask(own_duckdb, rows, f"forecast_quantile(f, {probability})")


def stored_forecasts() -> pl.DataFrame:
    """A row of the table with all its columns, whichever they are."""
    returns = dict(zip(QUANTILE_NAMES, (-0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03), strict=True))
    values: dict[str, object] = {
        "day": DAY, "ticker": "A", "horizon": 1, "target_day": DAY + dt.timedelta(1),
        "last_price": 100.0, "currency": "RUB", "model": "m", "sigma": 0.015,
        "baseline_sigma": 0.02, "bars_version": 1, "features_version": 1,
    }  # fmt: skip
    for name, value in returns.items():
        values |= {f"return_{name}": value, f"baseline_return_{name}": 1.5 * value}
        values[f"price_{name}"] = 100 * float(np.exp(value))
    schema = Forecasts.create_empty().schema
    return pl.DataFrame({name: [values.get(name)] for name in schema}, schema=schema)


def test_the_lakes_connections_have_the_macros(lake) -> None:
    lake.write("forecasts", stored_forecasts(), Slice(DAY, DAY, ("A",)))
    question = "select ticker, horizon, probability_above(f, 100) from forecasts f"
    with connect(lake) as connection:
        assert connection.sql(question).fetchall() == [("A", 1, 0.5)]
        where = "select ticker from forecasts f where probability_below(f, 98) > 0.05"
        assert connection.sql(where).fetchall() == [("A",)]
    with duckdb.connect() as connection:
        register_views(connection, lake, ["forecasts"])
        assert connection.sql(question).fetchall() == [("A", 1, 0.5)]


def test_a_connection_that_sees_no_forecasts_does_not_pay_for_the_macros(lake) -> None:
    with duckdb.connect() as connection:
        register_views(connection, lake, ["bars"])
        made = connection.sql("select function_name from duckdb_functions() where not internal")
        assert made.fetchall() == []
