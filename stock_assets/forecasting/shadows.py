"""Rows of `shadows`: what a model that is not in force would have scored, beside the live one.

Every training and every order leaves one model in force and another not. The other goes on in
shadow for some sessions: asked for the cells that the live model answered, scored by the same
function. What that makes of a training's worth is in `worth.py`; why so, in docs/adr/0026.

A row depends on the decisions up to its forecast day, on what was known then, and on the registry.
"""

from __future__ import annotations

import bisect
import datetime as dt
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.forecasting.baseline import BASELINE, lookback_start
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.in_force import models_in_force, ordered_states
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.scoring import pinball
from stock_assets.lake.schemas import Models, Shadows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stock_assets.forecasting.model import VolatilityModel

    ReadInputs = Callable[[dt.date, dt.date], tuple[pl.DataFrame, pl.DataFrame]]
    """(first day, last day) -> bars (`BAR_COLUMNS`) and features of all tickers."""
    LoadModel = Callable[[str], VolatilityModel | None]
    """The model of that name; None where it cannot serve, so that there is no shadow of it."""

BAR_COLUMNS = (
    *("day", "ticker", "exchange", "open", "high", "low", "close"),
    *("realised_variance", "suspected_split"),
)
"""The columns of bars that `read` gives: what `labels` needs."""

NO_MODEL, ORDER, OTHER = "no model", "order", "other"
CAUSES = (NO_MODEL, "cadence", "drift", "performance", "forced", ORDER, OTHER)
"""Why a training is tried, or a model put in force: the words of `shadows.cause`."""

# A reason in `models` begins with the trigger, after what may be said of a model that was lost.
_TRIGGER = rf"(?:^|; )({'|'.join(CAUSES[:5])})\b"

_TRIED = ("trained", "rejected", "demoted")


def window_start(sessions: Sequence[dt.date], first: dt.date, length: int) -> dt.date:
    """The first day whose attempt still has a shadow of `length` sessions on `first`."""
    return sessions[max(0, bisect.bisect_left(sessions, first) - length + 1)]


def attempts(models: pl.DataFrame, orders: pl.DataFrame | None = None) -> pl.DataFrame:
    """What each training and order left in force, and what not, of every ticker.

    `models` are rows of `Models`: each ticker's latest before the first attempt that is asked
    about, and those since; `orders` all rows of `Orders`. Gives ticker, attempt_day, decision,
    cause, model, shadow_model and `until`, the day of the next change (null: none yet). An attempt
    after which nothing else could be in force is left out.
    """
    ordered = ordered_states(orders)
    tickers = models.select(pl.col("ticker").unique().sort())
    own = models.filter(
        pl.col("decision").is_in(_TRIED) & ~pl.col("day").is_in(list(ordered))
    ).select(
        "ticker",
        "decision",
        "model",
        "challenger",
        attempt_day="day",
        cause=pl.col("reason").str.extract(_TRIGGER).fill_null(OTHER),
        judged_alone=pl.col("in_force_loss").is_null(),
    )
    given = pl.DataFrame(
        [(day, "ordered", state.model, ORDER) for day, state in ordered.items()],
        schema={name: Models.create_empty().schema["day" if name == "attempt_day" else "model"]
                for name in ("attempt_day", "decision", "model", "cause")},
        orient="row",
    )  # fmt: skip
    # An attempt counts for every ticker, as in `in_force.py`: those without a row of their own
    # that day share what the first of the others got.
    for_all = own.sort("attempt_day", "ticker").unique("attempt_day", keep="first").drop("ticker")
    others = tickers.join(for_all, how="cross").join(own, on=["attempt_day", "ticker"], how="anti")
    found = pl.concat(
        [own, others.select(own.columns), tickers.join(given, how="cross")], how="diagonal"
    )
    if found.is_empty():
        return _no_attempts()
    eves = found.select("ticker", day=pl.col("attempt_day") - pl.duration(days=1)).unique()
    before = models_in_force(eves, models, orders).select(
        "ticker", attempt_day=pl.col("day") + pl.duration(days=1), before="model"
    )
    shadow = (
        pl.when(pl.col("decision") == "rejected")
        .then("challenger")
        # Judged beside no model: there was none, or none that could serve.
        .when((pl.col("decision") == "trained") & pl.col("judged_alone"))
        .then(pl.lit(BASELINE))
        .otherwise("before")
    )
    changed = pl.when(pl.col("decision") != "rejected").then("attempt_day")
    return (
        found.join(before, on=["ticker", "attempt_day"], how="left")
        .with_columns(shadow.alias("shadow_model"))
        .filter(pl.col("shadow_model") != pl.col("model"))
        .sort("ticker", "attempt_day")
        .with_columns(changed.shift(-1).backward_fill().over("ticker").alias("until"))
        .select(_no_attempts().columns)
    )


def shadow_scores(  # noqa: PLR0913
    scored: pl.DataFrame,
    tried: pl.DataFrame,
    read: ReadInputs,
    load: LoadModel,
    *,
    exchanges: Sequence[str],
    sessions: Sequence[dt.date],
    length: int,
) -> pl.DataFrame:
    """Rows of `Shadows` beside the rows of `Scores` in `scored`, sorted by key.

    `tried` is what `attempts` gives; a shadow runs for `length` of the `sessions` from its attempt
    on, or until the next change. Nothing is read, and no model loaded, unless a model has a shadow
    to cast: of the baseline all is in `scored`.
    """
    pairs = scored.join(
        _running(tried, sessions, length),
        left_on=["forecast_day", "ticker", "model"],
        right_on=["forecast_day", "ticker", "model"],
    )
    of_baseline = pairs.filter(pl.col("shadow_model") == BASELINE).with_columns(
        shadow_pinball="baseline_pinball"
    )
    parts = [of_baseline.select(Shadows.column_names())]
    of_models = pairs.filter(pl.col("shadow_model") != BASELINE)
    if of_models.height:
        first, last = of_models["forecast_day"].min(), of_models["forecast_day"].max()
        assert isinstance(first, dt.date)
        assert isinstance(last, dt.date)
        bars, features = read(lookback_start(exchanges, first), last)
        for (name,), cells in of_models.group_by("shadow_model", maintain_order=True):
            model = load(str(name))
            if model is not None:
                parts.append(_scored(cells, model, bars, features, exchanges))
    return pl.concat(parts).sort(Shadows.primary_key())


def _running(tried: pl.DataFrame, sessions: Sequence[dt.date], length: int) -> pl.DataFrame:
    """`tried`, one row a forecast day on which its shadow runs."""
    days = tried["attempt_day"].unique().sort()
    spans = pl.DataFrame(
        {
            "attempt_day": days,
            "forecast_day": [
                list(sessions[(start := bisect.bisect_left(sessions, day)) : start + length])
                for day in days
            ],
        },
        schema={"attempt_day": pl.Date, "forecast_day": pl.List(pl.Date)},
    ).explode("forecast_day")
    over = pl.col("until").is_null() | (pl.col("forecast_day") < pl.col("until"))
    return tried.join(spans, on="attempt_day").filter(over).drop("until")


def _scored(
    cells: pl.DataFrame,
    model: VolatilityModel,
    bars: pl.DataFrame,
    features: pl.DataFrame,
    exchanges: Sequence[str],
) -> pl.DataFrame:
    """Rows of `Shadows`: `cells` (of one shadow model) with what it would have scored."""
    first, last = cells["forecast_day"].min(), cells["forecast_day"].max()
    assert isinstance(first, dt.date)
    assert isinstance(last, dt.date)
    # Only what its own days need: a replay of years has dozens of shadows.
    near = pl.col("day").is_between(lookback_start(exchanges, first), last)
    known = bars.filter(near)
    asked = cells.select("ticker", day="forecast_day").unique()
    there = known.join(asked, on=["day", "ticker"], how="semi")
    horizons = cells["horizon"].unique().sort().to_list()
    made = model.forecast(there, Known(features.filter(near), labels(known)), horizons)
    return (
        cells.join(made.rename({"day": "forecast_day"}), on=["forecast_day", "ticker", "horizon"])
        .with_columns(pinball("actual_return").alias("shadow_pinball"))
        .select(Shadows.column_names())
    )


def _no_attempts() -> pl.DataFrame:
    day, text = pl.Date(), pl.String()
    return pl.DataFrame(
        schema={
            "ticker": text,
            "attempt_day": day,
            "decision": text,
            "cause": text,
            "model": text,
            "shadow_model": text,
            "until": day,
        }
    )
