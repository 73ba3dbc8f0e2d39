"""The tables over many methods agree with counting one by one, on the cells that all answer."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.forecasting.baseline import baseline_forecasts
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.protocol import KEY, RETURNS, Evaluation, evaluate
from stock_assets.forecasting.scoring import diebold_mariano
from stock_assets.lake.schemas import QUANTILES

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

GAUSSIAN = tuple(NormalDist().inv_cdf(level) for level in QUANTILES)


@pytest.fixture(scope="module")
def labelled(bars: pl.DataFrame) -> pl.DataFrame:
    return labels(bars)


@pytest.fixture(scope="module")
def volatility(features: pl.DataFrame) -> pl.DataFrame:
    return features.select("day", "ticker", volatility="vol_ewma")


@pytest.fixture(scope="module")
def methods(
    bars: pl.DataFrame, features: pl.DataFrame, labelled: pl.DataFrame, sessions: list[dt.date]
) -> dict[str, pl.DataFrame]:
    """The baseline, a wider one, and one that leans with the last week's return."""
    cells = bars.filter(pl.col("day") >= sessions[360]).select("day", "ticker", "exchange")
    base = baseline_forecasts(cells, features, labelled)
    wide = base.with_columns(pl.col("sigma", *RETURNS) * 1.2)
    lean = base.join(features.select("day", "ticker", "ret_5d"), on=["day", "ticker"]).select(
        *KEY, "sigma", *(pl.col(name) + 0.05 * pl.col("ret_5d") for name in RETURNS)
    )
    return {"lean": lean, "ewma": base, "wide": wide}


@pytest.fixture(scope="module")
def found(
    methods: dict[str, pl.DataFrame], labelled: pl.DataFrame, volatility: pl.DataFrame
) -> Evaluation:
    return evaluate(methods, labelled, volatility)


def one_by_one(frame: pl.DataFrame, labelled: pl.DataFrame) -> Iterator[dict[str, float]]:
    """The losses of each cell, from their definitions."""
    by_cell = {(row["day"], row["ticker"]): row for row in labelled.iter_rows(named=True)}
    for row in frame.iter_rows(named=True):
        label = by_cell[row["day"], row["ticker"]]
        actual = label[f"y{row['horizon']}"]
        if actual is None:
            continue
        quantiles = [row[name] for name in RETURNS]
        low, high = quantiles[0], quantiles[-1]
        variance = label["realised_variance"] if row["horizon"] == 5 else None
        ratio = variance / row["sigma"] ** 2 if variance else None
        yield {
            "day": row["day"],
            "year": str(row["day"].year),
            "ticker": row["ticker"],
            "pinball": sum(
                max(level * (actual - q), (level - 1) * (actual - q))
                for level, q in zip(QUANTILES, quantiles, strict=True)
            )
            / 7,
            "interval": high - low + 20 * max(low - actual, actual - high, 0),
            "qlike": None if ratio is None else ratio - math.log(ratio) - 1,
            "in_80": quantiles[1] <= actual <= quantiles[5],
            "square": (math.exp(quantiles[3]) - math.exp(actual)) ** 2,
            "walk": (1 - math.exp(actual)) ** 2,
        }  # type: ignore[misc]


def daily(cells: list[dict[str, float]], name: str) -> list[float]:
    """The mean of each day, in the order of the days."""
    days = sorted({cell["day"] for cell in cells})
    by_day = [[c[name] for c in cells if c["day"] == day and c[name] is not None] for day in days]
    return [float(np.mean(values)) for values in by_day if values]


def test_every_number_agrees_with_counting_one_by_one(
    found: Evaluation, methods: dict[str, pl.DataFrame], labelled: pl.DataFrame
) -> None:
    cells = {name: list(one_by_one(frame, labelled)) for name, frame in methods.items()}
    assert found.compared == len(cells["lean"])
    for row in found.methods.iter_rows(named=True):
        own = cells[row["method"]]
        for measure in ("pinball", "interval", "qlike"):
            assert row[measure] == pytest.approx(np.mean(daily(own, measure)))
        assert row["in_80"] == pytest.approx(np.mean([cell["in_80"] for cell in own]))
        walk, square = np.mean(daily(own, "walk")), np.mean(daily(own, "square"))
        assert row["rmse"] == pytest.approx(math.sqrt(square))
        assert row["r2"] == pytest.approx(1 - square / walk)
    for row in found.comparisons.iter_rows(named=True):
        mine, theirs = (
            np.array(daily(cells[name], row["measure"])) for name in ("lean", row["other"])
        )
        assert row["skill"] == pytest.approx(100 * (1 - mine.mean() / theirs.mean()))
        assert row["t"] == pytest.approx(diebold_mariano(theirs - mine))
    year = found.coverage.filter(method="wide", by="year")
    for group, share in year.select("group", "in_80").iter_rows():
        own = [cell["in_80"] for cell in cells["wide"] if cell["year"] == group]
        assert share == pytest.approx(np.mean(own))
    one = found.skill.filter(other="wide", measure="pinball", by="ticker", group="C")
    mine, theirs = (
        np.mean(daily([cell for cell in cells[name] if cell["ticker"] == "C"], "pinball"))
        for name in ("lean", "wide")
    )
    assert one["skill"].item() == pytest.approx(100 * (1 - mine / theirs))


def test_only_cells_that_all_answer_are_compared(
    methods: dict[str, pl.DataFrame], labelled: pl.DataFrame, volatility: pl.DataFrame
) -> None:
    days = methods["ewma"]["day"].unique().sort()
    gone = (pl.col("day") == days[3]) & (pl.col("ticker") == "B")
    broken = (pl.col("day") == days[7]) & (pl.col("ticker") == "C")
    nan = pl.when(broken).then(math.nan).otherwise(pl.col("sigma")).alias("sigma")
    partial = {**methods, "wide": methods["wide"].filter(~gone).with_columns(nan)}
    whole, part = (evaluate(made, labelled, volatility) for made in (methods, partial))
    assert part.left_out == 10
    assert part.compared == whole.compared - 10
    rest = {name: frame.filter(~gone & ~broken) for name, frame in methods.items()}
    assert_frame_equal(evaluate(rest, labelled, volatility).methods, part.methods)


def test_terciles_are_of_what_was_known_that_day(
    methods: dict[str, pl.DataFrame], labelled: pl.DataFrame, volatility: pl.DataFrame
) -> None:
    found = evaluate(methods, labelled, volatility)
    terciles = found.coverage.filter(method="ewma", by="volatility")
    assert set(terciles["group"]) == {"calm", "usual", "storm"}
    assert terciles["cells"].sum() == found.compared
    assert (terciles["cells"] / found.compared - 1 / 3).abs().max() < 0.02
    # What came afterwards moves no cell to another tercile.
    bold = labelled.with_columns(pl.col("y1", "y2", "y3", "y4", "y5") * 3)
    again = evaluate(methods, bold, volatility).coverage.filter(method="ewma", by="volatility")
    assert again["cells"].equals(terciles["cells"])


def test_pit_shares_of_a_right_forecast_are_those_promised(
    labelled: pl.DataFrame, methods: dict[str, pl.DataFrame], volatility: pl.DataFrame
) -> None:
    rng = np.random.default_rng(5)
    frame = methods["ewma"].filter(pl.col("sigma") > 0)
    drawn = frame.select(*KEY, "sigma").with_columns(
        actual=pl.col("sigma") * pl.Series(rng.standard_normal(frame.height))
    )
    wide = drawn.pivot("horizon", index=["day", "ticker"], values="actual")
    outcome = labelled.drop("y1", "y2", "y3", "y4", "y5").join(
        wide.rename({str(h): f"y{h}" for h in range(1, 6)}), on=["day", "ticker"]
    )
    right = frame.with_columns(
        (pl.col("sigma") * q).alias(name) for name, q in zip(RETURNS, GAUSSIAN, strict=True)
    )
    pit = evaluate({"right": right}, outcome, volatility).pit
    assert (pit["share"] - (pit["high"] - pit["low"])).abs().max() < 0.03


def test_a_cell_answered_twice_and_no_cell_at_all_are_refused(
    methods: dict[str, pl.DataFrame], labelled: pl.DataFrame, volatility: pl.DataFrame
) -> None:
    twice = pl.concat([methods["ewma"], methods["ewma"].head(1)])
    with pytest.raises(ValueError, match="ewma answers a cell twice"):
        evaluate({"ewma": twice}, labelled, volatility)
    with pytest.raises(ValueError, match="no cell has an outcome"):
        evaluate({"a": methods["ewma"], "b": methods["wide"].clear()}, labelled, volatility)


def test_the_order_of_rows_changes_nothing_to_the_last_bit(
    methods: dict[str, pl.DataFrame], labelled: pl.DataFrame, volatility: pl.DataFrame
) -> None:
    shuffled = {
        name: frame.sample(fraction=1, shuffle=True, seed=1) for name, frame in methods.items()
    }
    once = evaluate(methods, labelled, volatility).plain()
    for _ in range(5):
        assert evaluate(shuffled, labelled, volatility).plain() == once
