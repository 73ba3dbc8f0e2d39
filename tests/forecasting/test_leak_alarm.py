"""What is too good is a leak until shown otherwise; what is luck, or honest, is not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from stock_assets.forecasting.claims import LEVEL
from stock_assets.forecasting.labels import HORIZONS, labels, returns_ahead
from stock_assets.forecasting.leak_alarm import sound
from stock_assets.forecasting.quantiles import GAUSSIAN
from stock_assets.forecasting.scoring import compare_direction
from stock_assets.lake.schemas import QUANTILE_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable


def forecasts(
    rows: pl.DataFrame, sigma: str = "sigma1", median: dict[int, str] | None = None
) -> pl.DataFrame:
    """A Gaussian forecast of each row: `sigma` is of one session, `median` a column a horizon."""
    return pl.concat(
        rows.select(
            "day",
            "ticker",
            pl.lit(horizon, pl.Int32).alias("horizon"),
            (pl.col(sigma) * math.sqrt(horizon)).alias("sigma"),
            *(
                (
                    (pl.col(median[horizon]) if median else 0.0)
                    + pl.col(sigma) * math.sqrt(horizon) * quantile
                ).alias(f"return_{name}")
                for name, quantile in zip(QUANTILE_NAMES, GAUSSIAN, strict=True)
            ),
        )
        for horizon in HORIZONS
    )


@pytest.fixture(scope="module")
def market(make_bars: Callable[..., pl.DataFrame]) -> Callable[..., pl.DataFrame]:
    """Labelled rows of a market with the constant volatility sigma1 and the true one."""

    def made(tickers: int, sessions: int, seed: int) -> pl.DataFrame:
        bars = make_bars([f"T{n}" for n in range(tickers)], sessions, seed=seed)
        truth = bars.select(
            "day", "ticker", pl.col("true_sigma").shift(-1).over("ticker").alias("truth")
        )
        return (
            labels(bars)
            .join(truth, on=["day", "ticker"])
            .drop_nulls()
            .with_columns(pl.col("truth").pow(2).mean().sqrt().over("ticker").alias("sigma1"))
        )

    return made


def alarm(rows: pl.DataFrame, own: pl.DataFrame) -> str | None:
    return sound(own, forecasts(rows), rows).leak_alarm


def test_a_median_at_the_last_price_says_nothing_about_direction(market) -> None:
    rows = market(6, 300, 1)
    found = sound(forecasts(rows), forecasts(rows), rows)
    assert (found.r2, found.direction, found.rank_ic, found.leak_alarm) == (None, None, None, None)
    assert found.pinball_skill == found.qlike_skill == 0


@pytest.mark.parametrize(
    ("share", "told"), [(0.3, ["R2 ", "direction right", "rank IC"]), (1.0, ["R2 "])]
)
def test_a_median_that_knows_the_future_is_caught(market, share: float, told: list[str]) -> None:
    rows = market(6, 300, 1).with_columns(
        (share * pl.col(f"y{horizon}")).alias(f"m{horizon}") for horizon in HORIZONS
    )
    found = alarm(rows, forecasts(rows, median={h: f"m{h}" for h in HORIZONS}))
    assert found is not None
    assert found.startswith("too good, a leak until shown otherwise: ")
    assert all(words in found for words in told)


@pytest.mark.parametrize(
    ("right", "told"), [(0.53, []), (0.57, ["direction right in 57.0 %", "rank IC 0.1"])]
)
def test_calls_beyond_luck_are_an_alarm_from_the_limits_on(
    market, right: float, told: list[str]
) -> None:
    """So many calls of tomorrow's direction are right, on days enough to leave no doubt of it."""
    rows = market(20, 600, 6)
    hit = np.random.default_rng(1).permutation(rows.height) < right * rows.height
    called = rows["y1"].sign() * pl.Series(np.where(hit, 1e-6, -1e-6))
    rows = rows.with_columns(called.alias("m1"))
    own, baseline = (
        forecasts(rows, median=median).filter(horizon=1)
        for median in (dict.fromkeys(HORIZONS, "m1"), None)
    )
    found = sound(own, baseline, rows)
    assert found.direction == pytest.approx(100 * right, abs=0.1)
    assert (found.leak_alarm is None) == (not told)
    assert all(words in (found.leak_alarm or "") for words in told)
    met = own.join(returns_ahead(rows), on=["day", "ticker", "horizon"])
    moved = {"return_q50": "median_move", "actual_return": "actual_move"}
    assert compare_direction(met.rename(moved)).chance < LEVEL


def test_a_leak_at_one_horizon_alone_is_caught(market) -> None:
    rows = market(6, 300, 1).with_columns(
        (0.3 * pl.col("y1")).alias("m1"), pl.lit(0.0).alias("none")
    )
    median = {h: "m1" if h == 1 else "none" for h in HORIZONS}
    assert "R2 " in (alarm(rows, forecasts(rows, median=median)) or "")


@pytest.mark.parametrize(
    "leak",
    [pl.col("realised_variance").sqrt() / math.sqrt(5), pl.col("variance_ahead_1").sqrt()],
    ids=["of five sessions", "of the next session"],
)
def test_a_variance_that_knows_the_future_is_caught(market, leak: pl.Expr) -> None:
    rows = market(6, 120, 2).with_columns(leak.clip(lower_bound=1e-4).alias("leaked"))
    found = alarm(rows, forecasts(rows, "leaked"))
    assert found is not None
    assert "QLIKE" in found


def test_the_size_of_the_coming_return_is_caught_by_the_quantiles(market) -> None:
    rows = market(6, 120, 2).with_columns(
        (pl.col("y5").abs() / math.sqrt(5)).clip(lower_bound=1e-3).alias("leaked")
    )
    assert "pinball" in (alarm(rows, forecasts(rows, "leaked")) or "")


@pytest.mark.parametrize(("tickers", "sessions"), [(3, 60), (10, 200)])
def test_the_true_volatility_is_no_leak_beside_an_ewma(
    market, features_of, make_bars, tickers: int, sessions: int
) -> None:
    bars = make_bars([f"T{n}" for n in range(tickers)], sessions + 60, seed=5)
    ewma = features_of(bars).select("day", "ticker", pl.col("vol_ewma").alias("ewma"))
    rows = market(tickers, sessions + 60, 5).join(ewma, on=["day", "ticker"]).drop_nulls()
    own, baseline = forecasts(rows, "truth"), forecasts(rows, "ewma")
    found = sound(own, baseline, rows)
    assert found.pinball_skill > 1
    assert found.qlike_skill > 10
    assert found.leak_alarm is None


@pytest.mark.slow
def test_luck_on_a_small_market_seldom_trips_it(market) -> None:
    """Medians made of nothing, on 3 and 6 tickers and 25 to 60 days."""
    told = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        rows = market(3 if seed % 2 else 6, 31 + seed % 36, seed)
        random = pl.Series("random", 0.003 * rng.standard_normal(rows.height))
        rows = rows.with_columns(random)
        found = sound(
            forecasts(rows, median=dict.fromkeys(HORIZONS, "random")), forecasts(rows), rows
        )
        above = found.direction > 54 or (found.rank_ic or 0) > 0.10 or found.r2 > 1
        told.append((found.leak_alarm, above))
        words = f"{found.leak_alarm} {found.beyond_by_luck}"
        assert ("direction right" in words) == (found.direction > 54)
        assert ("rank IC" in words) == ((found.rank_ic or 0) > 0.10)
    assert sum(above for _, above in told) > 10  # many are above a limit, by luck
    assert sum(alarmed is not None for alarmed, _ in told) <= 6


@pytest.mark.parametrize(("rise", "median"), [(0.01, 1e-6), (0.002, 0.001)])
def test_a_market_that_rises_is_no_leak(market, rise: float, median: float) -> None:
    """Always up is mostly right in a bull market, and its drift explains some: that is no skill."""
    rows = market(6, 200, 4).with_columns(
        *((pl.col(f"y{h}") + rise * h).alias(f"y{h}") for h in HORIZONS),
        *(pl.lit(median * h).alias(f"m{h}") for h in HORIZONS),
    )
    own = forecasts(rows, median={h: f"m{h}" for h in HORIZONS})
    found = sound(own, forecasts(rows), rows)
    assert found.direction > 54
    assert (found.r2 > 1) == (median > 1e-6)
    assert found.leak_alarm is None
    assert "direction right in " in found.beyond_by_luck
    assert ("R2 " in found.beyond_by_luck) == (median > 1e-6)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_skill_at_one_horizon_alone_is_caught(market, horizon: int) -> None:
    """Quantiles that know a part of the size of one return: no limit of a single one is passed."""
    rows = market(10, 250, 3)
    size = (pl.col(f"y{horizon}").abs() / math.sqrt(horizon)).log() + 0.635  # E log|z| of a normal
    knowing = rows.with_columns(
        (pl.col("sigma1") * (0.12 * (size - pl.col("sigma1").log())).exp()).alias("knowing")
    )
    own = pl.concat(
        [
            forecasts(knowing, "knowing").filter(horizon=horizon),
            forecasts(rows).filter(pl.col("horizon") != horizon),
        ]
    )
    found = alarm(rows, own)
    assert found is not None
    assert f"points apart between horizons {horizon} and" in found
    assert "pinball loss" not in found
