"""The model is reproducible to the last bit, answers row by row, and its intervals hold."""

import datetime as dt
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.forecasting import model as model_module
from stock_assets.forecasting.calibration import MAX_RESIDUAL
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.labels import labels, returns_ahead
from stock_assets.forecasting.model import (
    CALIBRATION_HALF_LIFE,
    CALIBRATION_SESSIONS,
    ONE_SESSION_WEIGHTS,
    TARGETS,
    VolatilityModel,
    fit,
    importance,
    linear_inputs,
    model_inputs,
    trainable,
)
from stock_assets.forecasting.quantiles import GAUSSIAN
from stock_assets.forecasting.splitting import split
from stock_assets.lake.schemas import QUANTILE_NAMES, Features

RETURNS = [f"return_{name}" for name in QUANTILE_NAMES]


@pytest.fixture(scope="module")
def rows(features: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    return trainable(features, labelled)


@pytest.fixture(scope="module")
def known(features: pl.DataFrame, labelled: pl.DataFrame) -> Known:
    return Known(features, labelled)


@pytest.fixture(scope="module")
def first(sessions: list[dt.date]) -> dt.date:
    """The day from which residuals may calibrate."""
    return sessions[240]


@pytest.fixture(scope="module")
def model(rows: pl.DataFrame, first: dt.date) -> VolatilityModel:
    return fit(rows.filter(pl.col("label_end") <= first), first)


def test_the_same_rows_give_the_same_model_to_the_last_bit(
    rows: pl.DataFrame, known: Known, first: dt.date
) -> None:
    models = [fit(rows.filter(pl.col("label_end") <= first), first) for _ in range(2)]
    assert models[0].to_json() == models[1].to_json()
    one, other = (item.forecast(known.features.tail(300), known) for item in models)
    assert one.height == 300 * 5
    assert_frame_equal(one, other, check_exact=True)


@pytest.mark.slow
def test_a_row_is_answered_the_same_whatever_is_asked_beside_it(
    model: VolatilityModel, known: Known
) -> None:
    cells = known.features.tail(101)
    together = model.forecast(cells, known)
    for chunk in (1, 7, 64):
        parts = [model.forecast(part, known) for part in cells.iter_slices(chunk)]
        alone = pl.concat(parts).sort("day", "ticker", "horizon")
        assert_frame_equal(together, alone, check_exact=True)


def test_the_order_of_what_is_known_does_not_matter(model: VolatilityModel, known: Known) -> None:
    cells = known.features.tail(60)
    mixed = [
        frame.sample(fraction=1, shuffle=True, seed=2)
        for frame in (cells, known.features, known.labelled)
    ]
    assert_frame_equal(
        model.forecast(mixed[0], Known(*mixed[1:])), model.forecast(cells, known), check_exact=True
    )


def test_a_day_alone_without_its_future_equals_the_range(
    model: VolatilityModel, known: Known, bars: pl.DataFrame, first: dt.date
) -> None:
    cells = known.features.filter(pl.col("day") >= first)
    together = model.forecast(cells, known)
    for day in cells["day"].unique().sort()[::17]:
        seen = pl.col("day") <= day
        alone = model.forecast(
            cells.filter(pl.col("day") == day),
            Known(known.features.filter(seen), labels(bars.filter(seen))),
        )
        assert_frame_equal(together.filter(pl.col("day") == day), alone, check_exact=True)


def test_fewer_horizons_are_part_of_more(model: VolatilityModel, known: Known) -> None:
    cells = known.features.tail(12)
    few = model.forecast(cells, known, [2, 5])
    many = model.forecast(cells, known).filter(pl.col("horizon").is_in([2, 5]))
    assert_frame_equal(few, many, check_exact=True)


def test_quantiles_rise(model: VolatilityModel, known: Known) -> None:
    made = model.forecast(known.features.tail(900), known)
    assert (np.diff(made.select(RETURNS).to_numpy(), axis=1) >= 0).all()
    assert (made["sigma"] > 0).all()


def pool(
    model: VolatilityModel, known: Known, day: dt.date, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """The residuals that calibrate `day`, in the model's own sigmas, and their weights."""
    sigmas = {
        (row["day"], row["ticker"]): row["sigma"]
        for row in model.sigmas(known.features, [horizon]).iter_rows(named=True)
    }
    calendar = get_calendar(WEEKDAYS)
    found = []
    for row in known.labelled.iter_rows(named=True):
        key, came = (row["day"], row["ticker"]), row[f"y{horizon}"]
        age = calendar.index(day) - calendar.index(row["day"])
        late = row["day"] >= model.calibration_first and row["label_end"] <= day
        if late and age <= CALIBRATION_SESSIONS and came is not None and key in sigmas:
            found.append((came / sigmas[key], 0.5 ** (age / CALIBRATION_HALF_LIFE)))
    residuals, weights = np.array(found).T
    return residuals, weights


@pytest.mark.parametrize("horizon", [1, 3, 5])
def test_only_residuals_later_than_training_calibrate(
    model: VolatilityModel, known: Known, sessions: list[dt.date], horizon: int
) -> None:
    day = sessions[-1]
    cells = known.features.filter(pl.col("day") == day)
    made = model.forecast(cells, known, [horizon])
    own = model.sigmas(cells, [horizon])
    residuals, weights = pool(model, known, day, horizon)
    assert len(residuals) > 900
    factor = np.average(np.clip(residuals, -MAX_RESIDUAL, MAX_RESIDUAL) ** 2, weights=weights)
    assert (made["sigma"] / own["sigma"]).to_list() == pytest.approx([math.sqrt(factor)] * 6)
    # A share of the pool's own median is kept, and all else stands around that.
    dropped = 1 - model_module.MEDIAN_KEPT
    levels = {
        name: np.quantile(residuals, level, weights=weights, method="inverted_cdf")
        for name, level in (("q05", 0.05), ("q50", 0.5), ("q95", 0.95))
    }
    for name, value in levels.items():
        found = (made[f"return_{name}"] / own["sigma"]).to_list()
        assert found == pytest.approx([value - dropped * levels["q50"]] * 6, abs=0.03)


def test_residuals_of_500_sessions_calibrate_and_no_older_ones(
    model: VolatilityModel,
    make_bars: Callable[..., pl.DataFrame],
    features_of: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    bars = make_bars(["A", "B", "C"], 560, seed=8)
    known = Known(features_of(bars), labels(bars))
    early = VolatilityModel(model.booster, model.linear, dt.date(2000, 1, 1))
    day = bars["day"].max()
    cells = known.features.filter(pl.col("day") == day)
    residuals, weights = pool(early, known, day, 1)
    # All but the last five, of three tickers; pool() leaves out what is older than 500 sessions.
    assert len(residuals) == 3 * (500 + 1 - 5)
    factor = np.average(np.minimum(residuals**2, MAX_RESIDUAL**2), weights=weights)
    ratio = early.forecast(cells, known, [1])["sigma"] / early.sigmas(cells, [1])["sigma"]
    assert ratio.to_list() == pytest.approx([math.sqrt(factor)] * 3, rel=1e-12)


def test_a_share_of_the_recent_median_is_kept(
    model: VolatilityModel, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = known.features.tail(6)
    made = {}
    usual = model_module.MEDIAN_KEPT
    for kept in (0.0, usual, 1.0):
        monkeypatch.setattr(model_module, "MEDIAN_KEPT", kept)
        made[kept] = model.forecast(cells, known)
    assert (made[0.0]["return_q50"] == 0).all()
    assert made[usual]["return_q50"].abs().min() > 0
    for name in RETURNS:
        part, whole = (made[kept][name] - made[0.0][name] for kept in (usual, 1.0))
        assert part.to_numpy() == pytest.approx(usual * whole.to_numpy(), abs=1e-12)


def test_without_residuals_later_than_training_it_is_a_normal(
    model: VolatilityModel, known: Known, sessions: list[dt.date]
) -> None:
    late = VolatilityModel(model.booster, model.linear, sessions[-1])
    cells = known.features.tail(6)
    made = late.forecast(cells, known)
    own = model.sigmas(cells).sort("day", "ticker", "horizon")
    assert made["sigma"].equals(own["sigma"])
    for name, quantile in zip(RETURNS, GAUSSIAN, strict=True):
        assert made[name].to_numpy() == pytest.approx((own["sigma"] * quantile).to_numpy())


def test_few_residuals_correct_the_variance_but_give_no_shape(
    model: VolatilityModel, known: Known, sessions: list[dt.date]
) -> None:
    """Thirty days of six tickers: enough for a mean, not for quantiles."""
    short = VolatilityModel(model.booster, model.linear, sessions[-36])
    cells = known.features.tail(6)
    made, own = short.forecast(cells, known, [1]), model.sigmas(cells, [1])
    residuals, weights = pool(short, known, sessions[-1], 1)
    assert 100 < len(residuals) < 200
    factor = np.average(residuals**2, weights=weights)
    assert (made["sigma"] / own["sigma"]).to_list() == pytest.approx([math.sqrt(factor)] * 6)
    for name, quantile in zip(RETURNS, GAUSSIAN, strict=True):
        assert made[name].to_numpy() == pytest.approx((made["sigma"] * quantile).to_numpy())


def test_the_model_survives_json_to_the_last_bit(model: VolatilityModel, known: Known) -> None:
    back = VolatilityModel.from_json(model.booster, model.to_json())
    assert back.linear == model.linear
    assert back.calibration_first == model.calibration_first
    cells = known.features.tail(60)
    assert_frame_equal(model.forecast(cells, known), back.forecast(cells, known), check_exact=True)


@pytest.fixture(scope="module")
def later_days(
    make_bars: Callable[..., pl.DataFrame], features_of: Callable[[pl.DataFrame], pl.DataFrame]
) -> pl.DataFrame:
    """Forecasts of a known market, later than training and half of calibration; what came."""
    bars = make_bars(list("ABCDEFGHIJ"), 900, seed=3)
    features, labelled = features_of(bars), labels(bars)
    rows = trainable(features, labelled)
    sets = split(rows, rows["label_end"].max())
    model = fit(rows.filter(sets.training()), sets.calibration_first)
    later = rows.filter(sets.validation())
    made = model.forecast(later, Known(features, labelled))
    return (
        made.join(returns_ahead(later), on=["day", "ticker", "horizon"])
        .join(later.select("day", "ticker", "vol_ewma"), on=["day", "ticker"])
        .join(bars.select("day", "ticker", "true_sigma"), on=["day", "ticker"])
    )


def test_the_variance_is_right_on_average_on_later_days(later_days: pl.DataFrame) -> None:
    square = (pl.col("actual_return") / pl.col("sigma")) ** 2
    ratio = later_days.group_by("horizon").agg(square.mean().alias("ratio")).sort("horizon")
    # Ten tickers that share storms: 170 days are worth some hundred independent ones.
    assert ratio["ratio"].to_list() == pytest.approx([1.0] * 5, abs=0.2)


@pytest.mark.parametrize(("low", "high", "share"), [("05", "95", 0.9), ("10", "90", 0.8)])
def test_intervals_hold_on_later_days_of_a_known_market(
    later_days: pl.DataFrame, low: str, high: str, share: float
) -> None:
    came = later_days["actual_return"]
    held = came.is_between(later_days[f"return_q{low}"], later_days[f"return_q{high}"]).mean()
    assert held == pytest.approx(share, abs=0.04)


def test_sigma_is_nearer_to_the_known_one_than_the_ewma(later_days: pl.DataFrame) -> None:
    close = later_days.filter(pl.col("horizon") == 1)
    truth = close["true_sigma"].log()
    error, naive = close["sigma"].log() - truth, close["vol_ewma"].log() - truth
    assert error.std() < 0.9 * naive.std()
    assert abs(error.mean()) < 0.15


def test_a_series_without_a_range_or_volume_has_unknown_inputs_not_infinite_ones(
    make_bars: Callable[..., pl.DataFrame], features_of: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    whole = make_bars(["GOLD"], 120)
    single = whole.with_columns(
        *(pl.col("close").alias(name) for name in ("open", "high", "low")),
        pl.lit(None, pl.Float64).alias("volume"),
    )
    features = Features.validate(features_of(single), cast=True)
    for inputs in (model_inputs(features), linear_inputs(features)):
        assert inputs.row(-1, named=True)["volume_z_63"] is None
        # A price without a range has its return's square.
        assert inputs.row(-1, named=True)["log_variance_5"] is not None
        finite = inputs.select(pl.all().is_finite().fill_null(value=True).all())
        assert all(finite.row(0))
    last = model_inputs(features).row(-1, named=True)
    assert last["vol_parkinson_21"] is None
    assert last["vol_close_5"] is not None
    # And a model of nothing else answers.
    rows = trainable(features, labels(single))
    made = fit(rows, dt.date(2030, 1, 1)).sigmas(features.tail(3))
    assert (made["sigma"].is_finite() & (made["sigma"] > 0)).all()


def test_stuck_prices_neither_break_fitting_nor_calibration(
    rows: pl.DataFrame, known: Known, first: dt.date
) -> None:
    def stuck(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.lit(0.0).alias(f"y{h}") for h in range(1, 6)).with_columns(
            pl.when(pl.col("ticker") == "A").then(0.0).otherwise(name).alias(name)
            for name in TARGETS
        )

    model = fit(stuck(rows).filter(pl.col("label_end") <= first), first)
    cells = known.features.tail(6)
    made = model.forecast(cells, Known(known.features, stuck(known.labelled)))
    own = model.sigmas(cells).sort("day", "ticker", "horizon")
    # Prices that never moved say nothing of scale, and that they stay where they are.
    assert made["sigma"].to_numpy() == pytest.approx(own["sigma"].to_numpy())
    assert made["sigma"].is_finite().all()
    assert (made.select(RETURNS).to_numpy() == 0).all()


def test_a_market_whose_weeks_are_all_alike_can_be_fitted(
    rows: pl.DataFrame, first: dt.date
) -> None:
    alike = rows.with_columns(pl.lit(0.0).alias(name) for name in TARGETS)
    made = fit(alike, first).sigmas(alike.tail(6), [1])
    level = alike["vol_ewma"].tail(6)
    least = math.exp(-model_module.MAX_LOG_RATIO / 2)
    assert (made["sigma"] / level).to_list() == pytest.approx([least] * 6, rel=1e-6)


def test_rows_with_an_unmeasured_volatility_are_neither_trained_on_nor_answered(
    model: VolatilityModel, features: pl.DataFrame, labelled: pl.DataFrame
) -> None:
    broken = features.with_columns(
        pl.when(pl.col("ticker") == "A")
        .then(None)
        .when(pl.col("ticker") == "B")
        .then(0.0)
        .otherwise("vol_ewma")
        .alias("vol_ewma")
    )
    assert trainable(broken, labelled)["ticker"].unique().sort().to_list() == list("CDEF")
    made = model.forecast(broken.tail(6), Known(broken, labelled))
    assert made["ticker"].unique().sort().to_list() == list("CDEF")
    assert model.forecast(broken.filter(ticker="A"), Known(broken, labelled)).is_empty()
    assert model.forecast(broken.clear(), Known(broken, labelled)).is_empty()


def test_only_rows_whose_five_sessions_came_are_trained_on(
    rows: pl.DataFrame, sessions: list[dt.date]
) -> None:
    assert rows["day"].max() == sessions[-6]
    assert rows.select(pl.col(TARGETS).null_count().sum()).row(0) == (0, 0, 0)


def test_catboost_writes_no_files(
    rows: pl.DataFrame, first: dt.date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(rows.head(600), first)
    assert list(tmp_path.iterdir()) == []


def test_sigma_is_the_level_times_what_the_members_say_on_average(
    model: VolatilityModel, features: pl.DataFrame
) -> None:
    row = features.tail(1)
    trees = model.booster.predict(model_inputs(row).to_numpy())[0]
    lines = [learner.predict(linear_inputs(row))[0] for learner in model.linear]
    one = np.mean([trees[0], lines[0], trees[2]])
    week = np.mean([trees[1], lines[1], trees[2], lines[2]])
    for horizon, weight in ONE_SESSION_WEIGHTS.items():
        ratio = weight * one + (1 - weight) * week
        expected = math.sqrt(horizon) * row["vol_ewma"].item() * math.exp(ratio / 2)
        found = model.sigmas(row, [horizon])["sigma"].item()
        assert found == pytest.approx(expected, rel=1e-12)


def test_the_targets_are_the_variances_a_session_over_the_ewmas(
    rows: pl.DataFrame, first: dt.date
) -> None:
    """Where every variance is one and a half of the EWMA's, so is the forecast."""
    trained = rows.filter(pl.col("label_end") <= first)
    quiet = trained.with_columns(
        (pl.col("vol_ewma") ** 2 * sessions * 1.5).alias(name)
        for name, sessions in zip(TARGETS, (1, 1, 5), strict=True)
    )
    made = fit(quiet, first).sigmas(trained.tail(6))
    level = made.join(trained.select("day", "ticker", "vol_ewma"), on=["day", "ticker"])
    ratio = level["sigma"] / (level["vol_ewma"] * level["horizon"].sqrt())
    assert ratio.to_list() == pytest.approx([math.sqrt(1.5)] * 30, rel=1e-6)


TO_OWN_LEVEL = (
    *("vol_close_5", "vol_close_21", "vol_close_63", "vol_close_252"),
    *("vol_parkinson_5", "vol_parkinson_21", "vol_parkinson_63"),
    *("vol_garman_klass_21", "vol_rogers_satchell_21", "vol_gap_21", "range_std_21", "range_1d"),
    *("market_vol_ewma", "market_range_21", "market_dispersion"),
)
LOG_VARIANCES_TO_OWN_LEVEL = (
    *("log_variance_1d", "log_variance_5", "log_variance_21", "log_variance_63"),
    *("log_variance_252", "market_log_variance_1d", "market_log_variance_5"),
    *("market_log_variance_21", "market_log_variance_63"),
)
SESSIONS_OF_A_RETURN = {
    "ret_1d": 1,
    "ret_5d": 5,
    "ret_21d": 21,
    "ret_63d": 63,
    "relative_ret_5d": 5,
    "gap_1d": 1,
    "intraday_1d": 1,
    "worst_21": 1,
    "best_21": 1,
    "high_dist_63": 63,
    "high_dist_252": 252,
    "low_dist_252": 252,
    "market_ret_1d": 1,
    "market_ret_5d": 5,
}


def test_the_inputs_are_what_their_formulas_say(features: pl.DataFrame) -> None:
    """Against numpy, column by column: relative to which level, over how many sessions."""
    rows = features.filter(pl.col("day") >= features["day"].unique().sort()[260])
    rows = rows.drop_nulls(["vol_ewma", "market_vol_ewma"])
    # A market's level that is no ticker's own, and numbers beyond every limit.
    rows = rows.with_columns(
        pl.col("market_vol_ewma") * 1.7,
        pl.when(pl.int_range(pl.len()) % 50 == 0).then(9.0).otherwise("ret_5d").alias("ret_5d"),
        pl.when(pl.int_range(pl.len()) % 50 == 0).then(9.0).otherwise("range_1d").alias("range_1d"),
    )
    of = {name: rows[name].cast(pl.Float64).to_numpy() for name in rows.columns[3:]}
    own, market = of["vol_ewma"], of["market_vol_ewma"]
    log = np.vectorize(lambda ratio: math.log(ratio) if ratio > 0 else math.nan)
    expected = {name: np.clip(log(of[name] / own), -3, 3) for name in TO_OWN_LEVEL}
    for name in LOG_VARIANCES_TO_OWN_LEVEL:
        expected[name] = np.clip(of[name] - log(own**2), -6, 6)
    expected["market_range_to_close"] = np.clip(log(of["market_range_21"] / market), -3, 3)
    for name, sessions in SESSIONS_OF_A_RETURN.items():
        level = market if name.startswith("market_") else own
        expected[name] = np.clip(of[name] / (level * sessions**0.5), -10, 10)
    made = model_inputs(rows)
    for name in made.columns:
        found = made[name].to_numpy()
        np.testing.assert_allclose(found, expected.get(name, of.get(name)), 1e-12, err_msg=name)
    assert set(expected) < set(made.columns)
    assert made["ret_5d"].max() == 10
    assert made["range_1d"].max() == 3


def test_importance_names_every_input(model: VolatilityModel, features: pl.DataFrame) -> None:
    shares = importance(model)
    assert list(shares) == model_inputs(features.head(1)).columns
    assert sum(shares.values()) == pytest.approx(100)
