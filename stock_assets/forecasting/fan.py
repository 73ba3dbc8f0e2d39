"""The picture of a forecast: the last prices and the fan of where they may go."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TICKERS = 4
SHOWN_BARS = 60

_FANS = (("q05", "q95", 0.18, "90 %"), ("q10", "q90", 0.28, "80 %"), ("q25", "q75", 0.45, "50 %"))
_COLOURS = 64
_LEGEND_WIDTH = 5.2
"""Inches that the legend's one line needs; a narrower figure cuts it off at both ends."""
_INK, _FAN, _GRID = "#1f2937", "#2563eb", "#e5e7eb"


def fan_picture(bars: pl.DataFrame, forecasts: pl.DataFrame, tickers: Sequence[str]) -> bytes:
    """A small PNG: the last 60 closes of up to four tickers, with 50, 80 and 90 % intervals.

    `bars` are rows of `Bars` up to the forecast's day, `forecasts` rows of `Forecasts` of one day a
    ticker. Prices are in the shares of the forecast's day. Tickers without a forecast are left
    out; `ValueError` when none is left.
    """
    from matplotlib.figure import Figure

    shown = [name for name in tickers if name in set(forecasts["ticker"])][:MAX_TICKERS]
    if not shown:
        raise ValueError(f"there is no forecast of {', '.join(tickers)} to draw")
    columns = 1 if len(shown) == 1 else 2
    rows = -(-len(shown) // columns)
    width = max(3.9 * columns, _LEGEND_WIDTH)
    figure = Figure(figsize=(width, 0.35 + 2.2 * rows), dpi=90, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(shown):
            axes.set_visible(False)
            continue
        ticker = shown[place]
        _draw(
            axes,
            bars.filter(pl.col("ticker") == ticker).sort("day").tail(SHOWN_BARS),
            forecasts.filter(pl.col("ticker") == ticker).sort("horizon"),
        )
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=7.5
    )
    return _small_png(figure)


def _small_png(figure: Any) -> bytes:
    """The figure in 64 colours: a third of the bytes, and nothing to see of it."""
    from PIL import Image  # noqa: PLC0415

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(_COLOURS).save(small, format="png", optimize=True)
    return small.getvalue()


def _draw(axes: Any, bars: pl.DataFrame, forecasts: pl.DataFrame) -> None:
    """One ticker, against sessions rather than dates: weekends take no room."""
    last = forecasts.row(0, named=True)
    # A split within the window must not look like a crash: past closes in today's shares.
    prices = (bars["close"] * (bars["raw_close"][-1] / bars["close"][-1])).to_list()
    axes.plot(range(1 - len(prices), 1), prices, color=_INK, linewidth=1.1, label="close")
    ahead = [0, *forecasts["horizon"].to_list()]
    for low, high, alpha, name in _FANS:
        axes.fill_between(
            ahead,
            [last["last_price"], *forecasts[f"price_{low}"].to_list()],
            [last["last_price"], *forecasts[f"price_{high}"].to_list()],
            color=_FAN,
            alpha=alpha,
            linewidth=0,
            label=f"next {ahead[-1]} sessions: {name}" if low == _FANS[0][0] else name,
        )
    median = [last["last_price"], *forecasts["price_q50"].to_list()]
    axes.plot(ahead, median, color=_INK, linewidth=1.0, linestyle=":", label="median")
    axes.set_title(
        f"{last['ticker']}  {last['last_price']:,.6g} {last['currency']}".rstrip(),
        loc="left",
        fontsize=9,
        fontweight="bold",
        color=_INK,
    )
    axes.set_title(str(last["model"]), loc="right", fontsize=6.5, color="#6b7280")
    days = bars["day"].to_list()
    marks = [offset for offset in (-40, -20, 0) if -offset < len(days)]
    axes.set_xticks(marks, [f"{days[offset - 1]:%d %b}" for offset in marks])
    axes.tick_params(labelsize=7, colors=_INK, length=0)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
