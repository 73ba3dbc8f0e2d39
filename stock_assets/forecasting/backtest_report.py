"""The page of a backtest: verdict, tables and pictures in one HTML file that needs no network.

Draws what `protocol.py` found and `backtest.py` replayed; computes nothing that decides.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.forecasting import html_page as page
from stock_assets.forecasting.labels import target_days
from stock_assets.forecasting.protocol import TERCILES, Evaluation
from stock_assets.forecasting.scoring import INTERVALS

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_TICKERS = 4
SHOWN_SESSIONS = 120
ROLLING_DAYS = 125

_OTHERS = ("#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2", "#a16207", "#64748b", "#be185d")
_FANS = (("q05", "q95", 0.15), ("q10", "q90", 0.22), ("q25", "q75", 0.35))
_TOLERANCE = {"year": 0.04, "volatility": 0.03}
"""Coverage this far from what was promised is drawn as within the band."""


@dataclass(frozen=True)
class ReportInput:
    """What a page shows."""

    evaluation: Evaluation
    forecasts: pl.DataFrame
    """The subject's (see `protocol.FORECAST_COLUMNS`)."""
    bars: pl.DataFrame
    """Rows of `Bars` (day, ticker, exchange, close) of the days of the forecasts at least."""
    decisions: pl.DataFrame | None
    """Rows of `Models` where the product's own line is among the methods."""
    titles: Mapping[str, str]
    """One line for people about each method."""
    first: dt.date
    last: dt.date
    tickers: Sequence[str]


def write_report(content: ReportInput, file: Path) -> None:
    """Write the page to `file`, making its folder. Raises `OSError` when it cannot."""
    page.save(report_page(content), file)


def report_page(content: ReportInput) -> str:
    """The page. The same content gives the same text."""
    found = content.evaluation
    alarms = "".join(
        f'<p class="alarm">Alarm: {page.text(item)}.</p>' for item in found.verdict.alarms
    )
    plural = "" if len(content.tickers) == 1 else "s"
    about = (
        f"{content.first} to {content.last}, {len(content.tickers)} ticker{plural}, "
        f"{found.compared:,} forecasts that every method made compared, {found.left_out:,} left "
        f"out. {CANDLES_AS_THEY_ARE}"
    )
    sections = [
        ("Scores", _methods_table(found, content.titles), _METHODS_NOTE),
        (f"{found.subject} beside the others", _comparisons_table(found), _TEST_NOTE),
        ("Forecasts and what came", page.figure(_fans, content, (10.4, 6.2)), _FANS_NOTE),
        ("Coverage by year and by volatility", page.figure(_coverage, content, (10.4, 5.4)), ""),
        ("", _coverage_table(found), ""),
        ("Where outcomes fell (PIT)", page.figure(_pit, content, (10.4, 3.2)), _PIT_NOTE),
        ("QLIKE over time", page.figure(_over_time, content, (10.4, 3.6)), _TIME_NOTE),
        ("Skill by horizon and ticker", _skill_pictures(content), _SKILL_NOTE),
        ("Models", _decisions(content), ""),
    ]
    name, sentence = page.text(found.subject), page.text(found.verdict.sentence)
    body = (
        f'<h1>Backtest of {name}</h1><p class="about">{page.text(about)}</p>'
        f'<p class="verdict">{name}: {sentence}.</p>{alarms}'
    )
    title = f"Backtest {content.first} to {content.last}"
    return page.page(title, body + "".join(page.section(*item) for item in sections))


CANDLES_AS_THEY_ARE = "Candles are as the lake has them now, later corrections of sources included."
"""What a backtest does not replay; docs/adr/0017."""

_METHODS_NOTE = (
    "QLIKE of the variance of five sessions; pinball loss over seven quantiles and the Winkler "
    "score of the 90 % interval, both of log returns in 1/10,000; price errors over the last "
    "price. Losses are averaged over each day's tickers first, then over days. A dash: the median "
    "is the last price, so there is no direction to score."
)
_TEST_NOTE = (
    "Skill: by how much the loss is below the other's. t: Diebold and Mariano's, over days, with "
    "Newey-West errors; p: chance of a |t| as large between equals. Years: those in which the loss "
    "was below the other's."
)
_FANS_NOTE = (
    "Black: the close. Blue: the 50, 80 and 90 % intervals for that day, forecast five sessions "
    "(or the longest horizon asked) before it."
)
_PIT_NOTE = (
    "Outcomes between neighbouring quantiles, over what was promised: 1 everywhere is right, a U "
    "is too narrow, a hump too wide."
)
_TIME_NOTE = f"Mean of the last {ROLLING_DAYS} days; lower is better."
_SKILL_NOTE = "Filled: |t| of 2 or more. Right of zero the method named in the title is beaten."


# --- tables ---------------------------------------------------------------------------------


def _methods_table(found: Evaluation, titles: Mapping[str, str]) -> str:
    heads = ["method", "QLIKE", "pinball", "Winkler", *(f"in {level} %" for level in INTERVALS)]
    heads += ["MAE", "RMSE", "R2", "right", "always up", "rank IC", "t"]
    lines = []
    for row in found.methods.iter_rows(named=True):
        name = row["method"]
        cells = [
            f'<span title="{page.text(titles.get(name, ""))}">{page.text(name)}</span>',
            page.number(row["qlike"], 4),
            page.number(row["pinball"], 2, 1e4),
            page.number(row["interval"], 1, 1e4),
            *(page.share_text(row[f"in_{level}"]) for level in INTERVALS),
            page.share_text(row["mae"], 3),
            page.share_text(row["rmse"], 3),
            page.share_text(row["r2"], 2),
            page.share_text(row["right"]),
            page.share_text(row["always_up"]),
            page.number(row["rank_ic"], 3),
            page.number(row["rank_ic_t"], 1),
        ]
        lines.append((name == found.subject, cells))
    walk = found.methods.row(0, named=True)
    blank = [""] * (heads.index("MAE") - 1)
    cells = [
        "random walk",
        *blank,
        page.share_text(walk["walk_mae"], 3),
        page.share_text(walk["walk_rmse"], 3),
    ]
    lines.append((False, [*cells, *[""] * (len(heads) - len(cells))]))
    return page.table(heads, lines)


def _comparisons_table(found: Evaluation) -> str:
    heads = ["against", "loss", "skill", "t", "p", "days", "years better"]
    names = {"qlike": "QLIKE", "pinball": "pinball", "interval": "Winkler 90 %"}
    lines = [
        (
            False,
            [
                page.text(row["other"]),
                names[row["measure"]],
                f"{row['skill']:+.2f} %",
                page.number(row["t"], 1),
                page.chance(row["p"]),
                f"{row['days']:,}",
                f"{row['years_better']} of {row['years']}",
            ],
        )
        for row in found.comparisons.iter_rows(named=True)
        if row["days"]
    ]
    return page.table(heads, lines) if lines else ""


def _coverage_table(found: Evaluation) -> str:
    own = found.coverage.filter(method=found.subject)
    lines = [
        (
            by == "all",
            [
                page.text("all" if by == "all" else group),
                f"{cells:,}",
                *(page.share_text(share) for share in shares),
            ],
        )
        for part in ("all", "year", "volatility")
        for by, group, cells, *shares in _ordered(own.filter(by=part))
        .select("by", "group", "cells", *(f"in_{level}" for level in INTERVALS))
        .iter_rows()
    ]
    heads = [found.subject, "forecasts", *(f"in {level} %" for level in INTERVALS)]
    return page.table(heads, lines)


# --- pictures -------------------------------------------------------------------------------


def _colours(found: Evaluation) -> dict[str, str]:
    others = [name for name in found.methods["method"] if name != found.subject]
    return {
        found.subject: page.SUBJECT,
        **dict(zip(others, itertools.cycle(_OTHERS), strict=False)),
    }


def _ordered(groups: pl.DataFrame) -> pl.DataFrame:
    """Groups of coverage or skill as people read them: calm before storm, years in order."""
    place = pl.col("group").replace_strict(list(TERCILES), range(len(TERCILES)), default=0)
    return groups.sort(place, "group")


def _fans(figure: Figure, content: ReportInput) -> None:
    horizon = int(content.forecasts["horizon"].max())  # type: ignore[arg-type]  # an integer column
    own = content.forecasts.filter(pl.col("horizon") == horizon)
    present = set(own["ticker"])
    shown = [name for name in content.tickers if name in present]
    # Spread over the universe's order, so that not all are of one exchange.
    step = max(1, len(shown) // SHOWN_TICKERS)
    shown = shown[::step][:SHOWN_TICKERS]
    if not shown:
        return
    columns = 1 if len(shown) == 1 else 2
    grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False)
    for axes, ticker in itertools.zip_longest(grid.flat, shown):
        if ticker is None:
            axes.set_visible(False)
            continue
        bars = content.bars.filter(pl.col("ticker") == ticker).sort("day")
        targets = target_days(bars).select("day", pl.col(f"target{horizon}").alias("target"))
        rows = (
            own.filter(pl.col("ticker") == ticker)
            .join(bars.select("day", "close"), on="day")
            .join(targets, on="day")
            .sort("day")
            .tail(SHOWN_SESSIONS)
        )
        _fan(axes, ticker, rows, bars)


def _fan(axes: Axes, ticker: str, rows: pl.DataFrame, bars: pl.DataFrame) -> None:
    came = bars.filter(pl.col("day").is_between(rows["target"].min(), rows["target"].max()))
    days = rows["target"].to_list()
    for low, high, alpha in _FANS:
        lower, upper = (
            (rows["close"] * rows[f"return_{name}"].exp()).to_list() for name in (low, high)
        )
        axes.fill_between(days, lower, upper, color=page.SUBJECT, alpha=alpha, linewidth=0)
    axes.plot(came["day"].to_list(), came["close"].to_list(), color=page.INK, linewidth=1.1)
    axes.set_title(ticker)
    axes.margins(x=0.01)
    page.few_dates(axes)


def _coverage(figure: Figure, content: ReportInput) -> None:
    """Shares of outcomes inside the 80 and 90 % intervals, of every method."""
    found = content.evaluation
    colours = _colours(found)
    years = found.coverage.filter(by="year")["group"].n_unique()
    widths = [max(3, years), 3.2]
    grid = figure.subplots(2, 2, width_ratios=widths, sharey="row", squeeze=False)
    for row, level in zip(grid, (80, 90), strict=True):
        for axes, by in zip(row, ("year", "volatility"), strict=True):
            _covered(axes, found, by, level, colours)
        row[0].set_ylabel(f"in the {level} % interval, %")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside lower center", ncols=8)


def _covered(
    axes: Axes, found: Evaluation, by: str, level: int, colours: Mapping[str, str]
) -> None:
    band = 100 * _TOLERANCE[by]
    axes.axhspan(level - band, level + band, color="#f1f5f9", linewidth=0)
    axes.axhline(level, color=page.MUTED, linewidth=0.8)
    places: dict[str, int] = {}
    for name, colour in reversed(list(colours.items())):
        own = _ordered(found.coverage.filter(method=name, by=by))
        places = {group: place for place, group in enumerate(own["group"])}
        mine = name == found.subject
        axes.plot(
            range(own.height),
            (100 * own[f"in_{level}"]).to_list(),
            color=colour,
            marker="o",
            markersize=5 if mine else 3,
            linewidth=1.8 if mine else 0.9,
            alpha=1 if mine else 0.75,
            label=name,
        )
    axes.set_xticks(range(len(places)), list(places))
    axes.set_title("by year" if by == "year" else "by volatility known that day")
    axes.grid(visible=False, axis="x")


def _pit(figure: Figure, content: ReportInput) -> None:
    found = content.evaluation
    axes = figure.subplots()
    for name, colour in _colours(found).items():
        own = found.pit.filter(method=name)
        edges = [*own["low"].to_list(), 1.0]
        height = (own["share"] / (own["high"] - own["low"])).to_list()
        if name == found.subject:
            axes.stairs(height, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(
            height,
            edges,
            color=colour,
            linewidth=1.8 if name == found.subject else 0.9,
            label=name,
            baseline=None,
        )
    axes.axhline(1, color=page.MUTED, linewidth=0.8)
    axes.set_xticks(edges, [f"{edge:.2f}".rstrip("0").rstrip(".") for edge in edges])
    axes.set_xlim(0, 1)
    tallest = float((found.pit["share"] / (found.pit["high"] - found.pit["low"])).max())  # type: ignore[arg-type]
    axes.set_ylim(0, max(1.3, 1.1 * tallest))
    axes.set_xlabel("forecast probability")
    axes.set_ylabel("outcomes over promised")
    axes.legend(loc="lower center", ncols=8)


def _over_time(figure: Figure, content: ReportInput) -> None:
    found = content.evaluation
    daily = found.daily.drop_nulls("qlike")
    if daily.is_empty():
        return
    axes = figure.subplots()
    for name, colour in reversed(list(_colours(found).items())):
        own = daily.filter(method=name).sort("day")
        window = min(ROLLING_DAYS, max(1, own.height // 3))
        axes.plot(
            own["day"].to_list(),
            own["qlike"].rolling_mean(window).to_list(),
            color=colour,
            linewidth=1.8 if name == found.subject else 0.9,
            label=name,
        )
    axes.set_ylabel("QLIKE")
    axes.margins(x=0.01)
    page.few_dates(axes)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], ncols=4)


def _skill_pictures(content: ReportInput) -> str:
    """Skill by horizon and by ticker against the verdict's opponents."""
    tallest = max(1, content.evaluation.skill.filter(by="ticker")["group"].n_unique())
    height = 1.2 + 1.6 + min(16.0, 0.17 * tallest)
    return page.figure(_skill, content, (10.4, height))


def _skill(figure: Figure, content: ReportInput) -> None:
    found = content.evaluation
    panels = [
        (measure, other, title)
        for measure, title in (("pinball", "pinball loss"), ("qlike", "QLIKE"))
        for other in found.opponents(measure)[:1]
    ]
    panels = [panel for panel in panels if found.skill.filter(measure=panel[0]).height]
    if not panels:
        return
    tickers = found.skill.filter(by="ticker")["group"].n_unique()
    ratios = [1.0, max(1.0, min(16.0, 0.17 * tickers))]
    grid = figure.subplots(2, len(panels), height_ratios=ratios, squeeze=False)
    for column, (measure, other, title) in enumerate(panels):
        own = found.skill.filter(measure=measure, other=other)
        for row, by in enumerate(("horizon", "ticker")):
            part = own.filter(by=by)
            part = part.sort("skill") if by == "ticker" else part.sort("group", descending=True)
            axes = grid[row][column]
            _dots(axes, part)
            named = f"{by}s ahead" if by == "horizon" else by
            axes.set_title(
                f"{title} below that of {other}, %, by {named.replace('horizons', 'sessions')}"
            )


def _dots(axes: Axes, part: pl.DataFrame) -> None:
    sure = [t is not None and abs(t) >= 2 for t in part["t"]]  # noqa: PLR2004 - as the note says
    colours = [page.SUBJECT if value > 0 else "#dc2626" for value in part["skill"]]
    axes.axvline(0, color=page.MUTED, linewidth=0.8)
    axes.hlines(range(part.height), 0, part["skill"].to_list(), color=page.GRID, linewidth=1.2)
    axes.scatter(
        part["skill"].to_list(),
        range(part.height),
        s=22,
        facecolors=[c if filled else "white" for c, filled in zip(colours, sure, strict=True)],
        edgecolors=colours,
        zorder=3,
    )
    axes.set_yticks(range(part.height), part["group"].to_list(), fontsize=7.5)
    axes.set_ylim(-0.7, part.height - 0.3)
    axes.grid(visible=False, axis="y")


def _decisions(content: ReportInput) -> str:
    """When the product trained, what came of it, and how far the universe had moved."""
    if content.decisions is None or content.decisions.is_empty():
        return ""
    tried = content.decisions.filter(pl.col("challenger").is_not_null()).unique(
        ["day", "challenger"], keep="first", maintain_order=True
    )
    lines = [
        (
            False,
            [
                str(row["day"]),
                page.text(row["decision"]),
                page.text(row["challenger"]),
                f'<span style="white-space:normal">{page.text(row["reason"])}</span>',
            ],
        )
        for row in tried.sort("day").iter_rows(named=True)
    ]
    table = page.table(["day", "decision", "challenger", "reason"], lines)
    drawn = page.figure(_timeline, content, (10.4, 2.4))
    return f"{drawn}<details><summary>{len(lines)} trainings</summary>{table}</details>"


def _timeline(figure: Figure, content: ReportInput) -> None:
    assert content.decisions is not None
    days = content.decisions.group_by("day").agg(pl.col("drift_share").first()).sort("day")
    tried = content.decisions.filter(pl.col("challenger").is_not_null()).unique(
        ["day", "challenger"], keep="first", maintain_order=True
    )
    axes = figure.subplots()
    shares = [None if share is None else 100 * share for share in days["drift_share"]]
    drawn = [share if share is not None else float("nan") for share in shares]
    axes.fill_between(days["day"].to_list(), 0, drawn, color=page.MUTED, alpha=0.25, linewidth=0)
    for kept, label, face in ((True, "put in force", page.SUBJECT), (False, "not kept", "white")):
        part = tried.filter((pl.col("decision") == "trained") == kept)
        axes.scatter(
            part["day"].to_list(),
            [-8] * part.height,
            s=34,
            facecolors=face,
            edgecolors=page.SUBJECT,
            label=f"trained, {label}",
            zorder=3,
            clip_on=False,
        )
    axes.set_ylim(-16, max([30.0, *(share for share in drawn if share == share)]) * 1.1)  # noqa: PLR0124 - not NaN
    axes.set_ylabel("drifted pairs, %")
    axes.margins(x=0.01)
    page.few_dates(axes)
    figure.legend(loc="outside lower center", ncols=2)
