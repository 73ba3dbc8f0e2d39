"""What every method must hold: no look-ahead, the same numbers again, and always a forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import WEEKDAYS
from stock_assets.forecasting.backtest import History, replay_method
from stock_assets.forecasting.baseline import baseline_forecasts, lookback_start
from stock_assets.forecasting.baselines import METHODS, OPTIONAL
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.labels import HORIZONS, labels
from stock_assets.forecasting.scoring import qlike
from stock_assets.lake.schemas import QUANTILE_NAMES, Models

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from stock_assets.forecasting.forecaster import Method
    from stock_assets.settings import Settings

RETURNS = [f"return_{name}" for name in QUANTILE_NAMES]


def cells_of(features: pl.DataFrame, days: Sequence[dt.date]) -> pl.DataFrame:
    return features.filter(pl.col("day").is_in(list(days))).select("day", "ticker", "exchange")


def assert_sensible(made: pl.DataFrame, cells: pl.DataFrame, horizons=HORIZONS) -> None:
    assert made.columns == ["day", "ticker", "horizon", "sigma", *RETURNS]
    keys = ["day", "ticker", "horizon"]
    asked = cells.select("day", "ticker").join(
        pl.DataFrame({"horizon": horizons}, schema={"horizon": pl.Int32}), how="cross"
    )
    assert_frame_equal(made.select(keys), asked.sort(keys))
    numbers = made.select("sigma", *RETURNS).to_numpy()
    assert np.isfinite(numbers).all()
    assert (made["sigma"] > 0).all()
    assert made["sigma"].max() < 1
    assert (np.diff(numbers[:, 1:], axis=1) >= 0).all()
    assert (made["return_q05"] < made["return_q95"]).all()


def test_names_are_those_of_the_registry(method: Method) -> None:
    assert METHODS[method.name] is method
    assert method.title


@pytest.mark.slow
def test_the_future_changes_nothing(method: Method, known: Known, bars, sessions) -> None:
    fitted_on, days = sessions[330], [sessions[330], sessions[371], sessions[400]]
    together = method.fit(known, fitted_on).forecast(cells_of(known.features, days), known, [1, 5])
    for day in days:
        # Cut for the fit as for the forecast, each at its own day.
        at_fit, now = (
            Known(
                known.features.filter(pl.col("day") <= cut),
                labels(bars.filter(pl.col("day") <= cut)),
            )
            for cut in (fitted_on, day)
        )
        alone = method.fit(at_fit, fitted_on).forecast(cells_of(now.features, [day]), now, [1, 5])
        assert_frame_equal(together.filter(pl.col("day") == day), alone, check_exact=True)


def assert_a_replay_knows_no_later_day(
    method: Method, bars: pl.DataFrame, features: pl.DataFrame, settings: Settings
) -> None:
    """Cut off after a day between two fits, a replay says the same up to that day."""
    days = features["day"].unique().sort()
    first, cut, last = days[330], days[330 + settings.forecast.cadence + 9], days[400]

    def replayed(seen: pl.Expr) -> pl.DataFrame:
        history = History(features.filter(seen), bars.filter(seen), {}, Models.create_empty())
        tickers = settings.tickers
        made = replay_method(method, history, settings, tickers, first, last, say=lambda _: None)
        return made.filter(pl.col("day") <= cut)

    whole = replayed(pl.lit(value=True))
    assert whole["day"].max() == cut
    assert_frame_equal(replayed(pl.col("day") <= cut), whole, check_exact=True)


@pytest.mark.slow
def test_a_replay_cut_off_after_any_day_says_the_same_of_it(
    method: Method, bars, features, make_settings
) -> None:
    settings = make_settings(bars["ticker"].unique().sort())
    assert_a_replay_knows_no_later_day(method, bars, features, settings)


class Peeking:
    """A method that takes the size of the next return, where it was handed one, for its sigma."""

    name, title = "peeking", "a method with a leak"

    def fit(self, _: Known, __: dt.date) -> Peeking:
        return self

    def forecast(self, cells: pl.DataFrame, known: Known, horizons: Sequence[int]) -> pl.DataFrame:
        seen = pl.col("ret_1d").abs().shift(-1).over("ticker", order_by="day")
        leaking = known.features.with_columns(pl.coalesce(seen, "vol_ewma").alias("vol_ewma"))
        return baseline_forecasts(cells, leaking, known.labelled, horizons)


def test_a_method_that_peeks_between_two_fits_is_caught(bars, features, make_settings) -> None:
    settings = make_settings(bars["ticker"].unique().sort())
    with pytest.raises(AssertionError, match="value mismatch for column"):
        assert_a_replay_knows_no_later_day(Peeking(), bars, features, settings)


def test_the_fit_sees_nothing_later(method: Method, known: Known, sessions) -> None:
    day = sessions[330]
    later = pl.col("day") > day
    other = Known(
        known.features.with_columns(
            pl.when(later).then(3 * pl.col(name)).otherwise(pl.col(name)).alias(name)
            for name in ("ret_1d", "vol_ewma", "range_1d", "vol_close_5", "vol_parkinson_5")
        ),
        known.labelled.with_columns(
            pl.when(pl.col("label_end") > day)
            .then(9 * pl.col("realised_variance"))
            .otherwise("realised_variance")
            .alias("realised_variance")
        ),
    )
    cells = cells_of(known.features, [sessions[400]])
    assert_frame_equal(
        method.fit(known, day).forecast(cells, known, [1]),
        method.fit(other, day).forecast(cells, known, [1]),
        check_exact=True,
    )


def test_the_same_inputs_in_any_order_give_the_same_bits(
    method: Method, known: Known, sessions
) -> None:
    def mixed(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.sample(fraction=1, shuffle=True, seed=5)

    shuffled = Known(mixed(known.features), mixed(known.labelled))
    cells = cells_of(known.features, [sessions[350], sessions[390]])
    made = method.fit(known, sessions[330]).forecast(cells, known, [2, 5])
    again = method.fit(shuffled, sessions[330]).forecast(mixed(cells), shuffled, [2, 5])
    assert_frame_equal(made, again, check_exact=True)


def test_a_cell_does_not_depend_on_what_else_is_asked(
    method: Method, known: Known, sessions
) -> None:
    forecaster = method.fit(known, sessions[330])
    cells = cells_of(known.features, sessions[340:400:20])
    together = forecaster.forecast(cells, known, HORIZONS)
    few = (pl.col("day") == sessions[380]) & pl.col("ticker").is_in(["B", "E"])
    alone = forecaster.forecast(cells.filter(few), known, [3])
    assert_frame_equal(together.filter(few & (pl.col("horizon") == 3)), alone, check_exact=True)


def test_no_cells_give_no_forecasts(method: Method, known: Known, sessions) -> None:
    forecaster = method.fit(known, sessions[330])
    cells = cells_of(known.features, [sessions[340]])
    assert_frame_equal(
        forecaster.forecast(cells.clear(), known, HORIZONS),
        forecaster.forecast(cells.head(1), known, HORIZONS).clear(),
    )


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OPTIONAL])
def test_the_baselines_lookback_is_enough(name, make_bars, features_of) -> None:
    bars = make_bars(["A", "B"], 800, seed=2)
    features, labelled = features_of(bars), labels(bars)
    known = Known(features, labelled)
    day = features["day"].max()
    recent = pl.col("day") >= lookback_start([WEEKDAYS], day)
    assert features.filter(recent).height < features.height
    forecaster = METHODS[name].fit(known, day)
    cells = cells_of(features, [day])
    assert_frame_equal(
        forecaster.forecast(cells, known, HORIZONS),
        forecaster.forecast(
            cells, Known(features.filter(recent), labelled.filter(recent)), HORIZONS
        ),
        check_exact=True,
    )


@pytest.fixture(scope="module")
def odd_market(bars, features_of, sessions) -> Known:
    """A usual; B a single price a day; C new; D halted for 40 sessions; E stuck; F a short past."""
    day, ticker = pl.col("day"), pl.col("ticker")
    kept = bars.filter(
        ~((ticker == "C") & (day < sessions[390])),
        ~((ticker == "D") & day.is_between(sessions[345], sessions[385])),
        ~((ticker == "F") & (day < sessions[300])),
    )
    close = pl.when(ticker == "E").then(50.0).otherwise("close")
    flat = ticker.is_in(["B", "E"])
    odd = kept.with_columns(close.alias("close")).with_columns(
        pl.when(flat).then("close").otherwise(name).alias(name) for name in ("open", "high", "low")
    )
    return Known(features_of(odd), labels(odd))


@pytest.mark.parametrize("fitted_on", [5, 60, 330, 395])
def test_odd_tickers_get_a_sensible_forecast(
    method: Method, odd_market: Known, sessions, fitted_on
) -> None:
    forecaster = method.fit(odd_market, sessions[fitted_on])
    days = [sessions[i] for i in (5, 360, 386, 391, 410)]
    unknown = pl.DataFrame(
        {"day": [sessions[360], sessions[410]], "ticker": ["D", "NEW"], "exchange": WEEKDAYS}
    )
    known_cells = cells_of(odd_market.features, days)
    cells = pl.concat([known_cells, unknown.join(known_cells, on=["day", "ticker"], how="anti")])
    made = forecaster.forecast(cells, odd_market, HORIZONS)
    assert_sensible(made, cells)
    # The stuck price gets the smallest sigma, the single-price series one of its own size.
    late = made.filter((pl.col("day") == sessions[410]) & (pl.col("horizon") == 1))
    by_ticker = dict(late.select("ticker", "sigma").iter_rows())
    assert by_ticker["E"] == min(by_ticker.values())
    assert 0.002 < by_ticker["B"] < 0.2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [name for name in METHODS if name not in OPTIONAL])
def test_holes_anywhere_leave_a_sensible_forecast(name, known: Known, sessions, seed) -> None:
    rng = np.random.default_rng(seed)

    def torn(frame: pl.DataFrame, whole: Sequence[str]) -> pl.DataFrame:
        """A tenth of the rows gone, and a tenth to all of a column's values."""
        kept = frame.filter(pl.Series(rng.random(frame.height) > 0.1))
        return kept.with_columns(
            pl.when(pl.Series(rng.random(kept.height) > rng.choice([0.1, 0.5, 1.0])))
            .then(pl.col(name))
            .alias(name)
            for name in kept.columns
            if name not in whole
        )

    keys = ["day", "ticker", "exchange"]
    holes = Known(torn(known.features, keys), torn(known.labelled, [*keys, "label_end"]))
    cells = cells_of(known.features, sessions[331:420:11])
    made = METHODS[name].fit(holes, sessions[330]).forecast(cells, holes, HORIZONS)
    assert_sensible(made, cells)


@pytest.mark.parametrize("name", ["garch", "har", "linear", "forest"])
def test_too_little_to_fit_on_gives_the_baseline(name, known: Known, sessions) -> None:
    forecaster = METHODS[name].fit(known, sessions[35])
    cells = cells_of(known.features, [sessions[60]])
    expected = baseline_forecasts(cells, known.features, known.labelled)
    assert_frame_equal(forecaster.forecast(cells, known, HORIZONS), expected, check_exact=True)


@pytest.mark.parametrize("name", ["har", "linear", "forest"])
def test_what_is_learned_beats_the_ewma_where_ranges_tell(name, make_bars, features_of) -> None:
    bars = make_bars(list("ABCDEFGH"), 700, seed=9)
    known = Known(features_of(bars), labels(bars))
    days = known.features["day"].unique().sort()
    cells = cells_of(known.features, days[520:].to_list())

    def loss(method: str) -> float:
        made = METHODS[method].fit(known, days[500]).forecast(cells, known, [5])
        joined = made.join(known.labelled, on=["day", "ticker"])
        return joined.select(qlike("sigma").mean()).item()

    assert loss(name) < 0.95 * loss("ewma")
