"""Residual pools against a slow reference, and what a pool must not depend on."""

import math
import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.forecasting.calibration import (
    MAX_RESIDUAL,
    _weighted_quantiles,
    distributions,
    residual_pools,
)
from stock_assets.forecasting.labels import HORIZONS, labels
from stock_assets.forecasting.quantiles import GAUSSIAN, MIN_RESIDUALS
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES


@pytest.fixture(scope="module")
def sigmas(bars: pl.DataFrame) -> pl.DataFrame:
    """A sigma of its own for every cell and horizon, some of them useless."""
    rng = np.random.default_rng(3)
    cells = bars.select("day", "ticker").join(
        pl.DataFrame({"horizon": HORIZONS}, schema={"horizon": pl.Int32}), how="cross"
    )
    values = np.exp(rng.normal(-4, 0.3, cells.height))
    values[::97], values[::89] = 0.0, math.nan
    return cells.with_columns(pl.Series("sigma", values))


@pytest.fixture(scope="module")
def cells(bars: pl.DataFrame, sessions) -> pl.DataFrame:
    return bars.filter(pl.col("day") >= sessions[60]).select("day", "ticker", "exchange")


def pool_of(labelled, sigmas, day, horizon, count):
    """The residuals of one pool and their ages, one by one."""
    calendar = get_calendar(WEEKDAYS)
    oldest = calendar.back(day, count)
    near = labelled.filter((pl.col("day") >= oldest) & (pl.col("label_end") <= day))
    known = near.join(sigmas.filter(pl.col("horizon") == horizon), on=["day", "ticker"])
    rows = [
        (row[f"y{horizon}"] / row["sigma"], calendar.index(day) - calendar.index(row["day"]))
        for row in known.iter_rows(named=True)
        if row[f"y{horizon}"] is not None and row["sigma"] > 0
    ]
    return np.array(rows).reshape(-1, 2).T


@pytest.mark.slow
@pytest.mark.parametrize("count", [200, 500])
def test_equal_weights_give_numpys_quantiles(cells, sigmas, labelled, count) -> None:
    found = residual_pools(cells, sigmas, labelled, [1, 5], sessions=count)
    assert found.height == 2 * cells["day"].n_unique()
    gaussian = 0
    for row in found.sample(120, seed=1).iter_rows(named=True):
        pool, _ = pool_of(labelled, sigmas, row["day"], row["horizon"], count)
        expected, factor = GAUSSIAN, 1.0
        if len(pool) >= MIN_RESIDUALS:
            expected = np.quantile(pool, QUANTILES) - np.median(pool)
            factor = float(np.mean(np.clip(pool, -MAX_RESIDUAL, MAX_RESIDUAL) ** 2))
        gaussian += len(pool) < MIN_RESIDUALS
        assert [row[name] for name in QUANTILE_NAMES] == pytest.approx(expected, abs=1e-12)
        assert row["variance_factor"] == pytest.approx(factor, rel=1e-12)
    assert 0 < gaussian < 60


def test_weights_halve_with_age(cells, sigmas, labelled) -> None:
    found = residual_pools(cells, sigmas, labelled, [3], sessions=400, half_life=90)
    for row in found.tail(200).sample(40, seed=2).iter_rows(named=True):
        pool, age = pool_of(labelled, sigmas, row["day"], 3, 400)
        weights = 2.0 ** (-age / 90)
        clipped = np.clip(pool, -MAX_RESIDUAL, MAX_RESIDUAL)
        factor = np.average(clipped**2, weights=weights)
        assert row["variance_factor"] == pytest.approx(factor, rel=1e-12)
        # So much of the weight lies below each quantile.
        median = np.quantile(pool, 0.5, weights=weights, method="inverted_cdf")
        for name, level in zip(QUANTILE_NAMES, QUANTILES, strict=True):
            below = weights[pool - median <= row[name]].sum() / weights.sum()
            assert below == pytest.approx(level, abs=0.004)
    assert not found.equals(residual_pools(cells, sigmas, labelled, [3], sessions=400))


def test_recent_weight_counts_as_fewer_residuals(cells, sigmas, labelled) -> None:
    # Six tickers for about three sessions' worth of weight are no distribution.
    found = residual_pools(cells, sigmas, labelled, [1], sessions=400, half_life=2)
    assert found["variance_factor"].unique().to_list() == [1.0]
    assert found.select(QUANTILE_NAMES).unique().rows() == [GAUSSIAN]


@pytest.mark.parametrize(("half_life", "own"), [(45, True), (20, False)])
def test_quantiles_are_their_own_where_the_weights_are_worth_500_residuals(
    cells, sigmas, labelled, half_life, own
) -> None:
    """Worth is Kish's count: neither the sum of the weights nor the number of residuals."""
    last = cells.filter(pl.col("day") == cells["day"].max())
    options = {"sessions": 350, "half_life": half_life, "min_for_factor": 50}
    row = residual_pools(last, sigmas, labelled, [1], **options).row(0, named=True)
    residuals, age = pool_of(labelled, sigmas, last["day"][0], 1, 350)
    weights = 0.5 ** (age / half_life)
    worth = weights.sum() ** 2 / (weights**2).sum()
    assert weights.sum() < MIN_RESIDUALS < len(residuals)
    assert (worth >= MIN_RESIDUALS) == own
    normal = [math.sqrt(row["variance_factor"]) * quantile for quantile in GAUSSIAN]
    assert ([row[name] for name in QUANTILE_NAMES] == normal) == (not own)


@pytest.mark.slow
@pytest.mark.parametrize("half_life", [None, 75.0])
def test_a_day_alone_without_its_future_equals_the_range(
    cells, sigmas, labelled, bars, half_life
) -> None:
    options = {"sessions": 150, "half_life": half_life}
    together = residual_pools(cells, sigmas, labelled, HORIZONS, **options)
    single = []
    for day in cells["day"].unique().sort()[::7]:
        seen = pl.col("day").is_between(get_calendar(WEEKDAYS).back(day, 150), day)
        alone = residual_pools(
            cells.filter(pl.col("day") == day),
            sigmas.filter(seen),
            labels(bars.filter(seen)),
            HORIZONS,
            **options,
        )
        single.append(alone)
    asked = pl.concat(single)
    assert asked["variance_factor"].n_unique() > 100
    same = together.join(asked.select("day", "horizon"), on=["day", "horizon"])
    assert_frame_equal(same, asked, check_exact=True, check_row_order=False)


@pytest.mark.parametrize("half_life", [None, 75.0])
def test_the_order_of_rows_does_not_matter(cells, sigmas, labelled, half_life) -> None:
    # Rounded, so that equal residuals of unequal weight are common.
    tied = labelled.with_columns(pl.col(f"y{h}").round(2) for h in HORIZONS)
    flat = sigmas.with_columns(pl.lit(0.02).alias("sigma"))
    options = {"sessions": 300, "half_life": half_life}

    def mixed(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.sample(fraction=1, shuffle=True, seed=4)

    assert_frame_equal(
        residual_pools(cells, flat, tied, HORIZONS, **options),
        residual_pools(mixed(cells), mixed(flat), mixed(tied), HORIZONS, **options),
        check_exact=True,
    )


def test_a_share_of_the_median_may_be_kept(cells, sigmas, labelled) -> None:
    day = cells["day"].max()
    pool, _ = pool_of(labelled, sigmas, day, 5, 300)
    last = cells.filter(pl.col("day") == day)
    kept, plain = (
        residual_pools(last, sigmas, labelled, [5], sessions=300, median_kept=share)
        for share in (0.5, 0.0)
    )
    shift = [kept[name].item() - plain[name].item() for name in QUANTILE_NAMES]
    assert shift == pytest.approx([np.median(pool) / 2] * 7, abs=1e-12)


def test_exchanges_do_not_mix(cells, sigmas, labelled) -> None:
    move = pl.when(pl.col("ticker") < "C").then(pl.lit("CBR")).otherwise(pl.col("exchange"))
    apart = residual_pools(
        cells.with_columns(move.alias("exchange")),
        sigmas,
        labelled.with_columns(move.alias("exchange")),
        [1],
        sessions=300,
    )
    few = pl.col("ticker") >= "C"
    own = residual_pools(cells.filter(few), sigmas, labelled.filter(few), [1], sessions=300)
    assert_frame_equal(apart.filter(pl.col("exchange") == WEEKDAYS), own, check_exact=True)


def test_prices_that_never_move_say_nothing_of_scale(cells, sigmas, labelled) -> None:
    stuck = labelled.with_columns(pl.lit(0.0).alias(f"y{h}") for h in HORIZONS)
    found = residual_pools(cells, sigmas, stuck, HORIZONS, sessions=300)
    assert found["variance_factor"].unique().to_list() == [1.0]


def test_nothing_known_means_a_normal_distribution(cells, sigmas, labelled) -> None:
    found = residual_pools(cells.head(1), sigmas.clear(), labelled.clear(), [2], sessions=300)
    assert found.row(0)[3:] == (1.0, *GAUSSIAN)


def test_distributions_are_sigma_times_the_days_quantiles(cells, sigmas, labelled) -> None:
    good = sigmas.filter(pl.col("sigma") > 0)
    pools = residual_pools(cells, good, labelled, [2, 4], sessions=300)
    made = distributions(cells, good, pools)
    assert set(made["horizon"].unique()) == {2, 4}
    row = made.row(-1, named=True)
    pool = pools.row(
        by_predicate=(pl.col("day") == row["day"]) & (pl.col("horizon") == row["horizon"]),
        named=True,
    )
    assert row["return_q90"] == row["sigma"] * pool["q90"]
    assert made.equals(made.sort("day", "ticker", "horizon"))


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=60),
    st.lists(st.floats(1e-3, 1.0), min_size=60, max_size=60),
)
def test_weighted_quantiles_rise_and_stay_inside(values, weights) -> None:
    values, levels = np.sort(values), np.array(QUANTILES)
    found = _weighted_quantiles(values, np.array(weights[: len(values)]), levels)
    slack = 1e-9 * max(1.0, np.abs(values).max())
    assert (np.diff(found) >= -slack).all()
    assert values[0] - slack <= found[0] <= found[-1] <= values[-1] + slack
    # Upside down, everything is the other way round.
    mirrored = _weighted_quantiles(-values[::-1], np.array(weights[: len(values)])[::-1], levels)
    assert -mirrored[::-1] == pytest.approx(found, abs=1e3 * slack)
    equal = _weighted_quantiles(values, np.full(len(values), 0.3), levels)
    assert equal == pytest.approx(np.quantile(values, levels), abs=slack)


def test_a_year_of_fifty_tickers_costs_well_under_a_second() -> None:
    rng = np.random.default_rng(0)
    days = get_calendar(WEEKDAYS).between(*(get_calendar(WEEKDAYS).sessions[i] for i in (0, 754)))
    frame = pl.DataFrame({"day": days}, schema={"day": pl.Date}).join(
        pl.DataFrame({"ticker": [f"T{n}" for n in range(50)]}), how="cross"
    )
    returns = {f"y{h}": rng.standard_t(4, frame.height) for h in HORIZONS}
    labelled = frame.with_columns(
        pl.lit(WEEKDAYS).alias("exchange"),
        (pl.col("day") + pl.duration(days=7)).alias("label_end"),
        *(pl.Series(name, values) for name, values in returns.items()),
    )
    sigmas = frame.join(
        pl.DataFrame({"horizon": HORIZONS}, schema={"horizon": pl.Int32}), how="cross"
    ).with_columns(pl.lit(1.0).alias("sigma"))
    year = labelled.filter(pl.col("day") > days[504])
    costs = []
    for _ in range(3):
        start = time.process_time()
        residual_pools(year, sigmas, labelled, HORIZONS, sessions=500, half_life=60)
        costs.append(time.process_time() - start)
    assert min(costs) < 1.0
