"""Replays see no future, refit on the cadence, and leave the user's registry alone."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import union_sessions
from stock_assets.forecasting import gate
from stock_assets.forecasting.backtest import (
    History,
    Replay,
    ReplayRegistry,
    replay_method,
    replay_product,
)
from stock_assets.forecasting.baseline import baseline_forecasts
from stock_assets.forecasting.protocol import FORECAST_COLUMNS
from stock_assets.forecasting.registry import Registry
from stock_assets.lake.schemas import Bars, Features, Models, Orders
from stock_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stock_assets.forecasting.forecaster import Known

EVERYONE = list("ABCDEF")


@pytest.fixture(autouse=True)
def _a_mean_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six tickers and a fifth of a year seldom prove a model; here a smaller mean loss does."""
    monkeypatch.setattr(gate, "LEVEL", 0.5)


@dataclass
class Watching:
    """The baseline as a method, that notes what it was shown."""

    name: str = "watching"
    title: str = "the baseline, noting what it is shown"
    fits: list[tuple[dt.date, dt.date, dt.date]] = field(default_factory=list)
    asked: list[tuple[dt.date, dt.date, dt.date]] = field(default_factory=list)

    def fit(self, known: Known, day: dt.date) -> Watching:
        self.fits.append((day, known.features["day"].max(), known.labelled["label_end"].max()))
        return self

    def forecast(self, cells: pl.DataFrame, known: Known, horizons: Sequence[int]) -> pl.DataFrame:
        last = cells["day"].max()
        self.asked.append((last, known.features["day"].max(), known.labelled["label_end"].max()))
        return baseline_forecasts(cells, known.features, known.labelled, horizons)


def quiet(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(EVERYONE)


def history_of(features: pl.DataFrame, bars: pl.DataFrame) -> History:
    return History(features, bars, {}, Models.create_empty())


def test_a_method_is_shown_nothing_later_than_its_day(
    bars: pl.DataFrame, features: pl.DataFrame, sessions: list[dt.date], settings: Settings
) -> None:
    method = Watching()
    first, last = sessions[330], sessions[400]
    made = replay_method(
        method, history_of(features, bars), settings, EVERYONE, first, last, say=quiet
    )
    cadence = settings.forecast.cadence
    assert [day for day, _, _ in method.fits] == sessions[330:401:cadence]
    assert all(seen <= day and ended <= day for day, seen, ended in method.fits + method.asked)
    assert made.columns == FORECAST_COLUMNS
    assert made.height == 71 * len(EVERYONE) * 5


def test_the_future_changes_no_replay(
    bars: pl.DataFrame,
    features: pl.DataFrame,
    sessions: list[dt.date],
    settings: Settings,
    tmp_path: Path,
) -> None:
    first, last = sessions[300], sessions[385]
    seen = pl.col("day") <= last

    def product(history: History) -> tuple[pl.DataFrame, pl.DataFrame]:
        registry = ReplayRegistry(Registry(tmp_path))
        found = replay_product(
            history, settings, EVERYONE, first, last, registry=registry, say=quiet
        )
        return found.forecasts, found.decisions

    whole = product(history_of(features, bars))
    cut = product(history_of(features.filter(seen), bars.filter(seen)))
    for one, other in zip(whole, cut, strict=True):
        assert one.height
        assert_frame_equal(one, other, check_exact=True)
    assert "trained" in whole[1]["decision"]
    assert not list(tmp_path.iterdir())


NEW_YORK, WEEKDAYS_TOO = ["NYA", "NYB", "NYC"], ["WDA", "WDB", "WDC"]
HOLIDAY = dt.date(2024, 5, 27)
"""Memorial Day: no session of New York, one of the calendar of weekdays."""


@pytest.fixture(scope="module")
def two_exchanges(
    make_bars: Callable[..., pl.DataFrame], features_of: Callable[[pl.DataFrame], pl.DataFrame]
) -> tuple[History, Settings]:
    markets = [
        make_bars(NEW_YORK, 380, exchange="XNYS", seed=3),
        make_bars(WEEKDAYS_TOO, 390, seed=4),
    ]
    bars = pl.concat(Bars.validate(market, cast=True) for market in markets)
    features = pl.concat(Features.validate(features_of(market), cast=True) for market in markets)
    asked = {"source": "none", "currency": "USD"}
    settings = Settings(
        partitions={"first_day": dt.date(2023, 1, 2)},
        universe=[
            {"tickers": NEW_YORK, "exchange": "XNYS", **asked},
            {"tickers": WEEKDAYS_TOO, **asked},
        ],
        sources={"none": {"kind": "simulated"}},
        forecast={"cadence": 40, "cooldown": 10, "min_training_rows": 500, "window": 250},
    )
    return history_of(features, bars), settings


def test_some_tickers_are_decided_and_forecast_as_among_all(
    two_exchanges: tuple[History, Settings], tmp_path: Path
) -> None:
    """The second training falls on a day without a session of the tickers asked for."""
    history, settings = two_exchanges
    first = union_sessions(settings.exchanges)[
        union_sessions(settings.exchanges).index(HOLIDAY) - settings.forecast.cadence
    ]
    last = HOLIDAY + dt.timedelta(7)

    def product(tickers: Sequence[str]) -> Replay:
        registry = ReplayRegistry(Registry(tmp_path))
        return replay_product(history, settings, tickers, first, last, registry=registry, say=quiet)

    whole, some = product(settings.tickers), product(["NYA", "NYC"])
    tried = whole.decisions.drop_nulls("challenger")["day"].unique().sort().to_list()
    assert tried == [first, HOLIDAY]
    of_them = pl.col("ticker").is_in(["NYA", "NYC"])
    assert_frame_equal(some.decisions, whole.decisions.filter(of_them), check_exact=True)
    assert_frame_equal(some.forecasts, whole.forecasts.filter(of_them), check_exact=True)
    assert some.forecasts["model"].n_unique() == 2


def test_a_replay_moves_no_alias(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="must not move"):
        ReplayRegistry(Registry(tmp_path)).set_alias("champion", "any")


def test_what_people_ordered_is_part_of_the_history(
    bars: pl.DataFrame,
    features: pl.DataFrame,
    sessions: list[dt.date],
    settings: Settings,
    tmp_path: Path,
) -> None:
    first, last = sessions[300], sessions[385]
    ordered = sessions[380]
    orders = pl.DataFrame(
        {
            "day": [ordered],
            "ordered_at": [dt.datetime(2024, 7, 1, tzinfo=dt.UTC)],
            "ordered_by": ["a person"],
            "why": ["a test"],
            "action": ["promote"],
            "model": ["baseline"],
            "trained_day": [None],
            "model_version": [None],
        },
        schema=Orders.create_empty().schema,
    )
    history = replace(history_of(features, bars), orders=orders)
    registry = ReplayRegistry(Registry(tmp_path))
    made = replay_product(history, settings, EVERYONE, first, last, registry=registry, say=quiet)
    assert set(made.decisions.filter(pl.col("day") == ordered)["decision"]) == {"ordered"}
    assert set(made.forecasts.filter(pl.col("day") >= ordered)["model"]) == {"baseline"}
    assert set(made.forecasts.filter(pl.col("day") < ordered)["model"]) != {"baseline"}
