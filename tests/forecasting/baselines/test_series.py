"""Series methods: where their origins are, and what they say without their library."""

from __future__ import annotations

import importlib.util
import logging

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.errors import ModelError
from stock_assets.forecasting.baseline import baseline_forecasts
from stock_assets.forecasting.baselines import METHODS, OPTIONAL
from stock_assets.forecasting.baselines.series import (
    MIN_BARS,
    Ahead,
    AutoEtsMethod,
    ProphetMethod,
    SeriesMethod,
)


class Recorder(SeriesMethod):
    """Says how long the series was that it saw, and remembers what it was asked."""

    name, title, package = "recorder", "for tests", "numpy"

    def __init__(self, every: int) -> None:
        super().__init__(every)
        self.asked: list = []

    def ahead(self, log_prices, days, targets) -> Ahead:
        self.asked.append((log_prices, days, targets))
        sigma = np.full(5, 0.01 * len(self.asked))
        return Ahead(sigma, sigma[:, None] * np.linspace(-2, 2, 7))


def test_an_origin_every_n_sessions_sees_what_was_known_then(known, bars, sessions) -> None:
    method = Recorder(every=10)
    cells = known.features.filter(pl.col("ticker").is_in(["A"]), pl.col("day") > sessions[380])
    made = method.forecast(cells, known, [1, 5])
    calendar = get_calendar(WEEKDAYS)
    number = dict(zip(calendar.sessions, range(len(calendar.sessions)), strict=True))
    origins = [days[-1] for _, days, _ in method.asked]
    assert origins == sorted({d for d in sessions[371:] if number[d] % 10 == 0})
    for log_prices, days, targets in method.asked:
        own = bars.filter(pl.col("ticker") == "A", pl.col("day") <= days[-1]).sort("day")
        expected = (own["close"] / own["close"][-1]).log().to_numpy()
        assert log_prices == pytest.approx(expected[-len(log_prices) :], abs=1e-9)
        assert len(log_prices) == min(own.height, 451)
        assert targets == calendar.after(days[-1], 5)
    # Each day is served by the latest origin that is not after it.
    served = {day: sum(origin <= day for origin in origins) for day in sessions[381:]}
    for row in made.iter_rows(named=True):
        assert row["sigma"] == pytest.approx(0.01 * served[row["day"]])


def test_short_and_stuck_series_get_the_baseline(known, sessions) -> None:
    class Still(Recorder):
        def ahead(self, log_prices, days, targets) -> Ahead:  # noqa: ARG002
            return Ahead(np.zeros(5), np.zeros((5, 7)))

    late = known.features.filter(pl.col("day") == sessions[400])
    early = known.features.filter(pl.col("day") == sessions[MIN_BARS - 5])
    short = Recorder(every=1)
    for method, cells in ((Still(every=1), late), (short, early)):
        made = method.forecast(cells, known, [2])
        expected = baseline_forecasts(cells, known.features, known.labelled, [2])
        assert_frame_equal(made, expected, check_exact=True)
    assert short.asked == []


@pytest.mark.parametrize("name", OPTIONAL)
def test_without_the_extra_the_error_names_the_fix(name, known, sessions, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=f"{name}.*make compare"):
        METHODS[name].fit(known, sessions[100])


def random_walk(count: int = 300) -> np.ndarray:
    path = np.cumsum(np.random.default_rng(3).normal(0, 0.02, count))
    return path - path[-1]


@pytest.mark.slow
@pytest.mark.parametrize("method", [AutoEtsMethod(), ProphetMethod()], ids=lambda m: m.name)
def test_a_random_walk_is_forecast_in_its_own_size(method, caplog) -> None:
    pytest.importorskip(method.package, reason="of the optional extra: make compare")
    days = get_calendar(WEEKDAYS).sessions[3000:3305]
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    with caplog.at_level(logging.DEBUG, logger="cmdstanpy"):
        made = method.ahead(random_walk(), days[:300], days[300:])
    assert caplog.records == []
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert made.quantiles.shape == (5, 7)
    assert (np.diff(made.quantiles, axis=1) > 0).all()
    assert 0.01 < made.sigma[0] < 0.08
    if method.name == "autoets":
        # Simple smoothing of a random walk: its last value, and errors that add up.
        assert np.abs(made.quantiles[:, 3]).max() < 0.01
        growth = made.sigma[4] / made.sigma[0]
        assert growth == pytest.approx(5**0.5, rel=0.15)
