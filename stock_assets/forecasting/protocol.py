"""The protocol of FORECASTING: several methods' forecasts of the same cells, scored side by side.

Losses and tests of one forecast are in `scoring.py`, what may be said of them in `claims.py`; where
forecasts come from (`backtest.py`) and how tables are drawn is no affair of this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stock_assets.forecasting.claims import MedianSkill, Verdict, verdict
from stock_assets.forecasting.labels import returns_ahead
from stock_assets.forecasting.scoring import (
    INTERVALS,
    PROMISED,
    VARIANCE_HORIZON,
    Comparison,
    compare_daily,
    group_means,
    inside,
    interval_score,
    median_skill,
    pinball,
    qlike,
)
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEY = ["day", "ticker", "horizon"]
RETURNS = [f"return_{name}" for name in QUANTILE_NAMES]
FORECAST_COLUMNS = [*KEY, "sigma", *RETURNS]
"""What a method's forecasts have to say."""

TERCILES = ("calm", "usual", "storm")
"""Terciles of the volatility that was known on the forecast's day."""

USUAL_OPPONENTS = {"qlike": "garch", "pinball": "ewma"}
"""Whom the verdict compares with beside the best of the others: the field's own yardsticks."""

MEASURES = ("qlike", "pinball", "interval")
"""Losses to compare by: of the variance, of the distribution, of the 90 % interval."""

_MAYBE_UNKNOWN = (
    *("qlike", "price_t", "right", "always_up", "direction_t"),
    *("rank_ic", "rank_ic_t"),
)

GROUPS = ("all", "horizon", "year", "volatility", "ticker")
"""What results are told apart by."""


@dataclass(frozen=True)
class Evaluation:
    """All tables of the protocol. Losses are means over days of each day's mean over its cells."""

    subject: str
    """The method that all others are compared with."""
    compared: int
    """Cells (day, ticker, horizon) that every method answers and whose outcome is known."""
    left_out: int
    """Cells with an outcome that only some of the methods answer."""
    methods: pl.DataFrame
    """One row a method: losses, coverage, price errors and R2, direction, rank IC, the t's.

    That of the direction is against the fixed call that `compare_direction` takes.
    """
    comparisons: pl.DataFrame
    """The subject beside each other method by each measure: skill, t, p, years better."""
    coverage: pl.DataFrame
    """method, by (all, horizon, year, volatility, ticker), group, cells, in_50, in_80, in_90."""
    skill: pl.DataFrame
    """The subject beside each other by group: other, measure, by (horizon, year, volatility,
    ticker), group, loss, other_loss, skill, t, p."""
    pit: pl.DataFrame
    """method, low, high, share: shares of outcomes between neighbouring quantiles."""
    daily: pl.DataFrame
    """method, day, and the mean of each loss over that day's cells."""
    verdict: Verdict

    def comparison(self, other: str, measure: str) -> dict[str, Any]:
        """The row of `comparisons` of one other method and measure."""
        found = self.comparisons.filter(other=other, measure=measure)
        return found.row(0, named=True)

    def opponents(self, measure: str) -> Sequence[str]:
        """Whom the verdict compares the subject with: the field's yardstick, the best other."""
        return _opponents(
            dict(self.methods.select("method", measure).iter_rows()), self.subject, measure
        )

    def plain(self) -> dict[str, Any]:
        """JSON-ready: every table but the daily one as a list of rows."""
        tables = ("methods", "comparisons", "coverage", "skill", "pit")
        return {
            "subject": self.subject,
            "compared": self.compared,
            "left_out": self.left_out,
            "verdict": self.verdict.sentence,
            "proven": list(self.verdict.proven),
            "alarms": list(self.verdict.alarms),
            **{name: getattr(self, name).to_dicts() for name in tables},
        }


def evaluate(
    forecasts: Mapping[str, pl.DataFrame],
    labelled: pl.DataFrame,
    volatility: pl.DataFrame,
    *,
    subject: str | None = None,
) -> Evaluation:
    """Score the forecasts of several methods (name -> `FORECAST_COLUMNS`) under one protocol.

    `labelled` are rows of `labels`; `volatility` (day, ticker, volatility) is what was known of
    each ticker's on the forecast's day, and divides cells into terciles. `subject` (the first
    method without one) is compared with all others. Only cells that all methods answer, with finite
    numbers, are compared. Raises `ValueError` when there are none, or a method answers one twice.
    """
    names = list(forecasts)
    chosen = subject or names[0]
    outcomes = _outcomes(labelled)
    answered = {name: _answered(name, frame, outcomes) for name, frame in forecasts.items()}
    answers = np.zeros(outcomes.height, dtype=np.int64)
    for frame in answered.values():
        answers[frame["cell"].to_numpy()] += 1
    cells = outcomes.filter(pl.Series(answers == len(names)))
    if cells.is_empty():
        message = f"no cell has an outcome and an answer of each of {', '.join(names)}"
        raise ValueError(message)
    cells = _grouped(cells, volatility)
    scored = {name: _scored(cells, frame) for name, frame in answered.items()}
    medians = {name: median_skill(rows) for name, rows in scored.items()}
    days = {by: _days(scored, by) for by in GROUPS}
    coverage = _coverage(scored)
    whole = coverage.filter(method=chosen, by="all").row(0, named=True)
    methods = pl.DataFrame(
        [_of_method(name, scored[name], days["all"], medians[name]) for name in names],
        schema_overrides=dict.fromkeys(_MAYBE_UNKNOWN, pl.Float64),
        infer_schema_length=None,
    )
    return Evaluation(
        subject=chosen,
        compared=cells.height,
        left_out=int((answers > 0).sum()) - cells.height,
        methods=methods,
        comparisons=_comparisons(days, chosen, names),
        coverage=coverage,
        skill=_skill(days, chosen, names),
        pit=_pit(scored),
        daily=_long(days["all"], names),
        verdict=_verdict(days["all"], methods, chosen, medians[chosen], whole),
    )


def _outcomes(labelled: pl.DataFrame) -> pl.DataFrame:
    """Number `cell`, KEY, actual_return; realised_variance where the horizon is its five."""
    variance = labelled.select(
        "day",
        "ticker",
        pl.lit(VARIANCE_HORIZON, pl.Int32).alias("horizon"),
        "realised_variance",
    )
    joined = returns_ahead(labelled).join(variance, on=KEY, how="left")
    return joined.sort(KEY).with_row_index("cell")


def _answered(name: str, frame: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """The whole forecasts of cells of `outcomes`, by the cell's number, in its order."""
    whole = pl.all_horizontal(pl.col("sigma", *RETURNS).is_finite().fill_null(value=False))
    found = (
        frame.select(FORECAST_COLUMNS)
        .filter(whole & (pl.col("sigma") > 0))
        .join(outcomes.select(*KEY, "cell"), on=KEY)
        .sort("cell")
    )
    twice = found.filter(pl.col("cell") == pl.col("cell").shift(1))
    if twice.height:
        raise ValueError(f"{name} answers a cell twice: {twice.select(KEY).row(0)}")
    return found.drop(KEY)


def _grouped(cells: pl.DataFrame, volatility: pl.DataFrame) -> pl.DataFrame:
    """The cells with the groups they are told apart by: year and tercile of volatility."""
    known = cells.select("day", "ticker").unique().join(volatility, on=["day", "ticker"])
    values = known["volatility"].drop_nulls().drop_nans()
    low, high = (float(values.quantile(q) or 0.0) for q in (1 / 3, 2 / 3))
    calm, usual, storm = TERCILES
    tercile = (
        pl.when(pl.col("volatility").is_null())
        .then(None)
        .when(pl.col("volatility") <= low)
        .then(pl.lit(calm))
        .when(pl.col("volatility") <= high)
        .then(pl.lit(usual))
        .otherwise(pl.lit(storm))
    )
    return (
        cells.join(volatility, on=["day", "ticker"], how="left")
        .with_columns(pl.col("day").dt.year().alias("year"), tercile.alias("volatility"))
        .sort("cell")
    )


def _scored(cells: pl.DataFrame, answered: pl.DataFrame) -> pl.DataFrame:
    """One row a cell with all losses of one method; the same rows in the same order for all."""
    own = answered.join(cells.select("cell"), on="cell", how="semi", maintain_order="left")
    rows = pl.concat([cells, own.drop("cell")], how="horizontal")
    forecast, actual = pl.col("return_q50").exp() - 1, pl.col("actual_return").exp() - 1
    return rows.select(
        *KEY,
        "year",
        "volatility",
        pinball("actual_return").alias("pinball"),
        interval_score("actual_return").alias("interval"),
        qlike("sigma").alias("qlike"),
        *(inside(level).alias(f"in_{level}") for level in INTERVALS),
        forecast.alias("median_move"),
        actual.alias("actual_move"),
        ((forecast - actual) ** 2).alias("square"),
        (actual**2).alias("walk_square"),
        (forecast - actual).abs().alias("absolute"),
        actual.abs().alias("walk_absolute"),
        pl.sum_horizontal(
            (pl.col("actual_return") > pl.col(name)).cast(pl.Int8) for name in RETURNS
        ).alias("bin"),
    )


def _days(scored: Mapping[str, pl.DataFrame], by: str) -> pl.DataFrame:
    """group, day, and for each method its mean of each measure over that day's cells.

    Columns are named `<measure> <method>`. A measure is null on the same days for all methods:
    whether there is a variance to score does not depend on who forecast it.
    """
    first = next(iter(scored.values()))
    group = pl.lit("all") if by == "all" else pl.col(by)
    wide = first.select(group.alias("group"), "day").with_columns(
        rows[measure].alias(f"{measure} {name}")
        for name, rows in scored.items()
        for measure in MEASURES
    )
    measures = [name for name in wide.columns if name not in {"group", "day"}]
    means = group_means(wide.drop_nulls("group"), ["group", "day"], measures)
    return means.with_columns(pl.col("group").cast(pl.String))


def _compared(days: pl.DataFrame, subject: str, other: str, measure: str) -> Comparison:
    both = days.select(f"{measure} {subject}", f"{measure} {other}").drop_nulls()
    return compare_daily(both.to_series(0).to_numpy(), both.to_series(1).to_numpy())


def _long(days: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """method, day and the measures, from the wide frame of all cells."""
    return pl.concat(
        [
            days.select(
                pl.lit(name).alias("method"),
                "day",
                *(pl.col(f"{measure} {name}").alias(measure) for measure in MEASURES),
            )
            for name in names
        ]
    )


def _of_method(
    name: str, rows: pl.DataFrame, days: pl.DataFrame, median: MedianSkill
) -> dict[str, Any]:
    errors = ["square", "absolute", "walk_square", "walk_absolute"]
    means = group_means(rows, ["day"], errors).mean().row(0, named=True)
    direction, ranks, price = median.direction, median.ranks, median.price
    return {
        "method": name,
        **{measure: days[f"{measure} {name}"].mean() for measure in MEASURES},
        **{f"in_{level}": rows[f"in_{level}"].mean() for level in INTERVALS},
        "mae": means["absolute"],
        "walk_mae": means["walk_absolute"],
        "rmse": means["square"] ** 0.5,
        "walk_rmse": means["walk_square"] ** 0.5,
        "r2": 0.0 if price is None else price.skill / 100,
        "price_t": None if price is None else price.t,
        "right": None if direction is None else 1 - direction.loss,
        "always_up": None if direction is None else direction.always_up,
        "direction_t": None if direction is None else direction.t,
        "rank_ic": None if ranks is None else ranks.mean,
        "rank_ic_t": None if ranks is None else ranks.t,
    }


_NUMBERS = {
    "loss": pl.Float64,
    "other_loss": pl.Float64,
    "skill": pl.Float64,
    "t": pl.Float64,
    "p": pl.Float64,
    "days": pl.Int64,
}


def _numbers(found: Comparison) -> dict[str, Any]:
    return {
        "loss": found.loss,
        "other_loss": found.other,
        "skill": found.skill,
        "t": found.t,
        "p": found.p,
        "days": found.days,
    }


def _comparisons(
    days: Mapping[str, pl.DataFrame], subject: str, names: Sequence[str]
) -> pl.DataFrame:
    rows = []
    for other in (name for name in names if name != subject):
        for measure in MEASURES:
            found = _compared(days["all"], subject, other, measure)
            mine, theirs = f"{measure} {subject}", f"{measure} {other}"
            years = group_means(days["year"], ["group"], [mine, theirs]).drop_nulls()
            better = years.filter(pl.col(mine) < pl.col(theirs)).height
            counts = {"years": years.height, "years_better": better}
            rows.append({"other": other, "measure": measure, **_numbers(found), **counts})
    text = {"other": pl.String, "measure": pl.String}
    counted = {"years": pl.Int64, "years_better": pl.Int64}
    return pl.DataFrame(rows, schema={**text, **_NUMBERS, **counted})


def _skill(days: Mapping[str, pl.DataFrame], subject: str, names: Sequence[str]) -> pl.DataFrame:
    rows = [
        {
            "other": other,
            "measure": measure,
            "by": by,
            "group": part["group"][0],
            **_numbers(_compared(part, subject, other, measure)),
        }
        for by in GROUPS[1:]
        for part in days[by].partition_by("group", maintain_order=True)
        for other in names
        if other != subject
        for measure in MEASURES
    ]
    text = dict.fromkeys(("other", "measure", "by", "group"), pl.String)
    # Groups without a variance to score (the short horizons) have no QLIKE to compare.
    return pl.DataFrame(rows, schema={**text, **_NUMBERS}).filter(pl.col("days") > 0)


def _coverage(scored: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    parts = []
    held = [f"in_{level}" for level in INTERVALS]
    for name, rows in scored.items():
        for by in GROUPS:
            group = pl.lit("all") if by == "all" else pl.col(by)
            parts.append(
                rows.group_by(group.alias("group"))
                .agg(pl.len().cast(pl.Int64).alias("cells"), pl.col(held).mean())
                .drop_nulls("group")
                .sort("group")
                .with_columns(pl.col("group").cast(pl.String))
                .select(pl.lit(name).alias("method"), pl.lit(by).alias("by"), pl.all())
            )
    return pl.concat(parts)


def _pit(scored: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    edges = [0.0, *QUANTILES, 1.0]
    parts = []
    for name, rows in scored.items():
        counts = np.bincount(rows["bin"].to_numpy(), minlength=len(edges) - 1)
        parts.append(
            pl.DataFrame(
                {"low": edges[:-1], "high": edges[1:], "share": counts / counts.sum()}
            ).select(pl.lit(name).alias("method"), pl.all())
        )
    return pl.concat(parts)


def _verdict(
    days: pl.DataFrame,
    methods: pl.DataFrame,
    subject: str,
    median: MedianSkill,
    coverage: Mapping[str, Any],
) -> Verdict:
    against = {
        measure: {
            other: _compared(days, subject, other, measure)
            for other in _opponents(
                dict(methods.select("method", measure).iter_rows()), subject, measure
            )
        }
        for measure in USUAL_OPPONENTS
    }
    known = {name: found for name, found in against["qlike"].items() if found.days}
    held = {level: coverage[f"in_{level}"] for level in PROMISED}
    return verdict(median, known, against["pinball"], held)


def _opponents(losses: Mapping[str, float | None], subject: str, measure: str) -> Sequence[str]:
    """The field's own yardstick, and the best of the others where that is another."""
    others = [name for name in losses if name != subject]
    ranked = sorted(others, key=lambda name: (losses[name] is None, losses[name] or 0.0, name))
    usual = USUAL_OPPONENTS[measure]
    return list(dict.fromkeys([usual, *ranked[:1]] if usual in others else ranked[:1]))
