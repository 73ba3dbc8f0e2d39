"""Replays see no future, refit on the cadence, and leave the user's registry alone."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.forecasting import gate
from stock_assets.forecasting.backtest import (
    History,
    ReplayRegistry,
    replay_method,
    replay_product,
)
from stock_assets.forecasting.baseline import baseline_forecasts
from stock_assets.forecasting.protocol import FORECAST_COLUMNS
from stock_assets.forecasting.registry import Registry
from stock_assets.lake.schemas import Models, Orders

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stock_assets.forecasting.forecaster import Known
    from stock_assets.settings import Settings

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


def test_some_tickers_are_forecast_as_among_all(
    bars: pl.DataFrame,
    features: pl.DataFrame,
    sessions: list[dt.date],
    settings: Settings,
    tmp_path: Path,
) -> None:
    first, last = sessions[300], sessions[385]

    def product(tickers: list[str]) -> pl.DataFrame:
        return replay_product(
            history_of(features, bars),
            settings,
            tickers,
            first,
            last,
            registry=ReplayRegistry(Registry(tmp_path)),
            say=quiet,
        ).forecasts

    assert_frame_equal(
        product(["B", "E"]),
        product(EVERYONE).filter(pl.col("ticker").is_in(["B", "E"])),
        check_exact=True,
    )


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
