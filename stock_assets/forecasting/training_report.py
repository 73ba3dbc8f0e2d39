"""What is shown of a training beside its verdict: measures, pictures and the weight of inputs.

All of it is about the days on which the gate judged. Where it is kept is in `registry.py`.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from stock_assets.forecasting.labels import returns_ahead
from stock_assets.forecasting.scoring import INTERVALS, inside
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES

if TYPE_CHECKING:
    from stock_assets.forecasting.gate import Verdict
    from stock_assets.forecasting.leak_alarm import Soundings

_INK, _MARK, _GRID = "#1f2937", "#2563eb", "#9ca3af"
_SHOWN_INPUTS = 15


@dataclass(frozen=True)
class TrainingReport:
    """What a person looks at to understand a training."""

    importance: pl.DataFrame
    """Columns input, importance (% of all), the weightiest first."""
    pictures: dict[str, bytes]
    """PNG by file name."""
    example: pl.DataFrame
    """A few rows of what the model sees: Float64, one column an input."""


def measures(
    verdict: Verdict, soundings: Soundings, forecasts: pl.DataFrame, rows: pl.DataFrame
) -> dict[str, float]:
    """The numbers of a training by name: losses, skills, t and coverage on the days judged.

    `forecasts` are the challenger's of `rows` (of `labels`). Skills are in % of the other's loss,
    coverage in % of outcomes. What does not exist is left out.
    """
    found: dict[str, Any] = {
        "challenger_loss": verdict.challenger_loss,
        "in_force_loss": verdict.in_force_loss,
        "baseline_loss": verdict.baseline_loss,
        "skill": 100 * (1 - verdict.challenger_loss / verdict.baseline_loss)
        if verdict.baseline_loss
        else None,
        "baseline_t": verdict.baseline_t,
        "in_force_t": verdict.in_force_t,
        "in_force_baseline_t": verdict.in_force_baseline_t,
        "validation_days": verdict.validation_days,
    }
    words = {"leak_alarm", "beyond_by_luck"}
    found |= {name: value for name, value in asdict(soundings).items() if name not in words}
    met = forecasts.join(returns_ahead(rows), on=["day", "ticker", "horizon"])
    for level in INTERVALS:
        held = met.select(inside(level).mean()).item()
        found[f"coverage_{level}"] = 100 * held if met.height else None
    return {name: float(value) for name, value in found.items() if value is not None}


def report(
    importance: dict[str, float], example: pl.DataFrame, forecasts: pl.DataFrame, rows: pl.DataFrame
) -> TrainingReport:
    """Pictures and tables of a training; `forecasts` are the challenger's of `rows`.

    `importance` is each input's share of all that the inputs change in the prediction.
    """
    weights = pl.DataFrame(
        {"input": list(importance), "importance": list(importance.values())},
        schema={"input": pl.String, "importance": pl.Float64},
    ).sort("importance", "input", descending=[True, False])
    below = shares_below(forecasts, rows)
    pictures = {
        "importance.png": _importance_picture(weights.head(_SHOWN_INPUTS)),
        "calibration.png": _calibration_picture(below),
        "pit.png": _pit_picture(below),
    }
    return TrainingReport(weights, pictures, example)


def shares_below(forecasts: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Share of outcomes at or below each quantile: horizon and q05 ... q95, each 0 to 1."""
    met = forecasts.join(returns_ahead(rows), on=["day", "ticker", "horizon"])
    return (
        met.group_by("horizon")
        .agg(
            (pl.col("actual_return") <= pl.col(f"return_{name}")).mean().alias(name)
            for name in QUANTILE_NAMES
        )
        .sort("horizon")
    )


def _importance_picture(weights: pl.DataFrame) -> bytes:
    figure, axes = _figure(5.2, 1.0 + 0.2 * weights.height, left=0.36)
    shown = weights.reverse()
    axes.barh(shown["input"].to_list(), shown["importance"].to_list(), color=_MARK)
    axes.set_xlabel("share of the prediction's changes, %")
    axes.set_title("What the model looks at")
    return _png(figure)


def _calibration_picture(below: pl.DataFrame) -> bytes:
    """Quantile level against the share of outcomes below it: on the diagonal, if it is right."""
    figure, axes = _figure(4.2, 4.2)
    axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1)
    for row in below.iter_rows(named=True):
        shares = [row[name] for name in QUANTILE_NAMES]
        axes.plot(QUANTILES, shares, marker="o", markersize=3, label=f"{row['horizon']} ahead")
    axes.set_xlabel("quantile level")
    axes.set_ylabel("share of outcomes below")
    axes.set_title("Calibration on the validation days")
    axes.legend(frameon=False, title="sessions")
    return _png(figure)


def _pit_picture(below: pl.DataFrame) -> bytes:
    """Density of outcomes between neighbouring quantiles, all horizons: flat, if it is right."""
    figure, axes = _figure(4.8, 3.0)
    edges = [0.0, *QUANTILES, 1.0]
    shares = [0.0, *(float(below[name].mean() or 0) for name in QUANTILE_NAMES), 1.0]  # type: ignore[arg-type]
    widths = [high - low for low, high in itertools.pairwise(edges)]
    density = [
        (high - low) / width
        for (low, high), width in zip(itertools.pairwise(shares), widths, strict=True)
    ]
    axes.bar(edges[:-1], density, width=widths, align="edge", color=_MARK, edgecolor="white")
    axes.axhline(1, color=_INK, linewidth=1)
    axes.set_xlabel("probability integral transform")
    axes.set_ylabel("density of outcomes")
    axes.set_title("PIT on the validation days")
    return _png(figure)


def _figure(width: float, height: float, left: float = 0.14) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    # Margins said, not found out: that would draw everything twice.
    figure = Figure(figsize=(width, height), dpi=90)
    axes = figure.subplots()
    figure.subplots_adjust(left=left, right=0.97, bottom=0.5 / height, top=1 - 0.35 / height)
    axes.tick_params(labelsize=7.5)
    return figure, axes


def _png(figure: Any) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()
