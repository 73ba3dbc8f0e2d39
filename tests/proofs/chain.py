"""From bars to scores by the product's own functions: what the proofs look at, and how.

The only module of the proofs that knows the signatures of the product. What a proof replaces to
plant a leak is a link of `Links`, or a place of `INSIDE`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import polars as pl

from stock_assets.forecasting import decision, forecasts
from stock_assets.forecasting.decision import decide
from stock_assets.forecasting.forecasts import LakeVersions, make_forecasts
from stock_assets.forecasting.labels import HORIZONS, labels
from stock_assets.forecasting.scoring import score
from stock_assets.lake.schemas import Bars, Features, Forecasts, Models
from tests.forecasting.conftest import MemoryRegistry, make_features, settings_for

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    import pytest

    from stock_assets.settings import Settings

Frames = tuple[pl.DataFrame, pl.DataFrame]
"""Features and bars."""

KNOWN_ON = {
    "features": "day",
    "labels": "label_end",
    "models": "day",
    "forecasts": "day",
    "scores": "day",
}
"""Each table of a `Story`, with the column that says from which day's close on its rows stand."""

Story = dict[str, pl.DataFrame]
"""Everything that was said of some bars: the tables of `KNOWN_ON`."""


def in_force(
    cells: pl.DataFrame,
    features: pl.DataFrame,
    bars: pl.DataFrame,
    registry: MemoryRegistry,
    settings: Settings,
) -> pl.DataFrame:
    """Rows of `models`: what is decided of each cell, from nothing on.

    All of `features` and `bars` is offered, later days too: not looking is the product's part.
    Every challenger is put in force, for a proof needs models that serve; what the gate thought of
    it is in the row, and compared with it.
    """

    def everything(first: dt.date, _: dt.date) -> Frames:
        return features.filter(pl.col("day") >= first), bars.filter(pl.col("day") >= first)

    judge = decision.judge

    def lenient(*arguments: Any, **named: Any) -> Any:
        return replace(judge(*arguments, **named), accepted=True)

    with mock.patch.object(decision, "judge", lenient):
        return decide(cells, Models.create_empty(), {}, everything, registry, settings).rows


def forecast(
    cells: pl.DataFrame,
    features: pl.DataFrame,
    bars: pl.DataFrame,
    models: pl.DataFrame,
    registry: MemoryRegistry,
) -> pl.DataFrame:
    """Rows of `forecasts`; all of `features` and `bars` is offered here too."""
    return make_forecasts(
        cells, bars, features, models, registry.load, HORIZONS, LakeVersions(1, 2, 3)
    )


@dataclass(frozen=True)
class Links:
    """The functions of the chain, each of which a proof may replace by a leaky one."""

    features: Callable[[pl.DataFrame], pl.DataFrame] = make_features
    labels: Callable[[pl.DataFrame], pl.DataFrame] = labels
    models: Callable[..., pl.DataFrame] = in_force
    forecasts: Callable[..., pl.DataFrame] = forecast
    scores: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame] = score


HONEST = Links()


def cells_of(bars: pl.DataFrame, days: Sequence[dt.date]) -> pl.DataFrame:
    """day, ticker of each ticker of `bars` on each of the days."""
    tickers = bars.select("ticker").unique().sort("ticker")
    return pl.DataFrame({"day": days}).join(tickers, how="cross")


def tell(
    bars: pl.DataFrame,
    days: Sequence[dt.date],
    *,
    links: Links = HONEST,
    settings: Settings | None = None,
    registry: MemoryRegistry | None = None,
) -> Story:
    """All that is said of `days`, from nothing on, with `bars` in the lake."""
    bars = Bars.validate(bars, cast=True)
    registry = registry or MemoryRegistry()
    cells = cells_of(bars, days)
    features = Features.validate(links.features(bars), cast=True)
    models = links.models(
        cells, features, bars, registry, settings or settings_for(bars["ticker"].unique().sort())
    )
    forecasts = links.forecasts(cells, features, bars, models, registry)
    return {
        "features": features,
        "labels": links.labels(bars),
        "models": Models.validate(models),
        "forecasts": Forecasts.validate(forecasts),
        "scores": links.scores(forecasts, bars),
    }


def until(story: Story, day: dt.date) -> Story:
    """The part of a story that stood at the close of `day`."""
    return {name: rows.filter(pl.col(KNOWN_ON[name]) <= day) for name, rows in story.items()}


def assert_same(one: Story, other: Story) -> None:
    """Every table, every row, every column to the last bit; else names the first table that is off.

    Tables stand in the order of the chain, so that the name is that of the link that leaks.
    """
    for name, rows in one.items():
        found = other[name]
        assert rows.height == found.height, f"{name} has {found.height} rows for {rows.height}"
        off = [column for column in rows.columns if not _same(rows[column], found[column])]
        assert not off, f"{name} differs in {off}"


def _same(one: pl.Series, other: pl.Series) -> bool:
    if one.dtype == pl.Float64:
        one, other = (series.reinterpret(signed=True) for series in (one, other))
    return one.equals(other, null_equal=True)


def cut_after(bars: pl.DataFrame, day: dt.date) -> pl.DataFrame:
    """The bars without their future."""
    return bars.filter(pl.col("day") <= day)


def garbage_after(
    bars: pl.DataFrame, day: dt.date, *, size: float = 1.0, seed: int = 5
) -> pl.DataFrame:
    """The same rows, but after `day` prices and volumes are off by noise of `size` in their log."""
    rng = np.random.default_rng(seed)
    later = pl.col("day") > day
    wild = pl.Series("wild", np.exp(size * rng.standard_normal(bars.height)))
    wider = pl.Series("wider", np.exp(size * np.abs(rng.standard_normal(bars.height))))
    ends = ("open", "close", "raw_open", "raw_close", "volume", "raw_volume")
    factors = {
        **{name: pl.col("wild") for name in ends},
        **{name: pl.col("wild") * pl.col("wider") for name in ("high", "raw_high")},
        **{name: pl.col("wild") / pl.col("wider") for name in ("low", "raw_low")},
    }
    return (
        bars.with_columns(wild, wider)
        .with_columns(
            pl.when(later).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
            for name, factor in factors.items()
        )
        .drop("wild", "wider")
    )


INSIDE = {
    "labels of a training": (decision, "labels"),
    "rows of a training": (decision, "trainable"),
    "split": (decision, "split"),
    "labels of a forecast": (forecasts, "labels"),
    "fit": (decision, "fit"),
    "judge": (decision, "pinball_losses"),
}
"""Where inside the product a proof looks, or plants a leak that no link of `Links` can show."""


def honest(what: str) -> Callable[..., Any]:
    """The product's own function for `what` of `INSIDE`."""
    return getattr(*INSIDE[what])


def plant(monkeypatch: pytest.MonkeyPatch, what: str, leaky: Callable[..., Any]) -> None:
    """Replace the product's function for `what` of `INSIDE`."""
    monkeypatch.setattr(*INSIDE[what], leaky)


@dataclass
class Trained:
    """What one training looked at, and what its judge was shown."""

    fitted: pl.DataFrame
    """day, ticker, label_end of the rows the trees were fitted on."""
    calibration_first: dt.date
    """First day whose residuals may calibrate it."""
    judged: dict[str, pl.DataFrame]
    """Forecasts of the validation days by who made them: challenger, baseline, in_force."""
    validation: pl.DataFrame
    """day, ticker, label_end of the rows they were judged on."""
    rows: pl.DataFrame
    """The rows of `models` of that day."""


def train(
    bars: pl.DataFrame,
    features: pl.DataFrame,
    day: dt.date,
    *,
    settings: Settings | None = None,
) -> Trained:
    """The training of `day`, when nothing is in force, watched from within."""
    seen: dict[str, Any] = {}

    def watch(name: str, function: Callable[..., Any], argument: int) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            frame = arguments[argument].select("day", "ticker", "label_end")
            seen.setdefault(name, (arguments[1 - argument], frame))
            return function(*arguments)

        return watched

    # The position of the frame whose rows are looked at.
    arguments = {"fit": 0, "judge": 1}
    with contextlib.ExitStack() as stack:
        for name, number in arguments.items():
            watched = watch(name, honest(name), number)
            stack.enter_context(mock.patch.object(*INSIDE[name], watched))
        rows = in_force(
            cells_of(bars, [day]),
            features,
            bars,
            MemoryRegistry(),
            settings or settings_for(bars["ticker"].unique().sort()),
        )
    (calibration_first, fitted), (judged, validation) = seen["fit"], seen["judge"]
    return Trained(fitted, calibration_first, judged, validation, rows)
