"""docs/forecasting.md: the bars, and what was measured beside them. Nothing is measured here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from tables import markdown_table, section

from stock_assets.forecasting.claims import percent
from stock_assets.forecasting.protocol import TERCILES, Evaluation
from stock_assets.forecasting.scoring import INTERVALS

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping, Sequence

PASS, AIM, MISSED = "pass", "aim", "**missed**"


@dataclass(frozen=True)
class Measured:
    """One market: what it is, and what the protocol found on it."""

    title: str
    source: str
    first: dt.date
    last: dt.date
    tickers: int
    candles: int
    evaluation: Evaluation
    titles: Mapping[str, str]
    """One line for people about each method."""
    costs: Mapping[str, Mapping[str, float]]
    """Seconds of wall and CPU that each replay took."""


@dataclass(frozen=True)
class Bar:
    """One line of the bars table on one market."""

    what: str
    measured: str
    met: str


def bars_page(
    markets: Sequence[Measured], training: Mapping[str, Any], command: str, day: dt.date
) -> str:
    """The page as Markdown."""
    found = {market.title: list(bars(market)) for market in markets}
    first = next(iter(found.values()))
    rows = [
        [
            bar.what,
            *(f"{lines[place].measured} ({lines[place].met})" for lines in found.values()),
        ]
        for place, bar in enumerate(first)
    ]
    met = _level(passed=training["wall"] <= 15, aimed=training["wall"] <= 5)  # noqa: PLR2004
    about = (
        f"one training and its forecasts, {markets[0].title}, {training['sessions']:,} sessions: "
        f"15 s, aim 5 s"
    )
    seconds = f"{training['wall']:.1f} s wall, {training['cpu']:.1f} s CPU ({met})"
    rows.append([about, seconds, *[""] * (len(markets) - 1)])
    head = f"""# What the forecasts are worth

Measured on {day} by `{command}`, which replays each market day by day as live operation would have
gone (trained, carried, drift, gate) beside every other method, refitted on the same cadence, and
scores all of them under one protocol (`stock_assets/forecasting/protocol.py`). The same for your
own lake: `stock-assets backtest --from 2020-01-01`.

Losses are averaged over each day's tickers, then over days. Skill is by how much a loss is below
the other's; t is Diebold and Mariano's statistic over days with Newey-West errors. A bar is one
comparison's; a verdict holds several at once and calls a difference proven by a stricter test
(Holm), so that a bar may be met by what the verdict says may be luck.
"""
    table = markdown_table(["bar (pass; aim)", *found], rows)
    return "\n".join(
        [head, section("The bars", table), *(_of_market(market) for market in markets)]
    )


def bars(market: Measured) -> Iterator[Bar]:
    """Each bar on one market: what was measured, and whether it passes or reaches the aim."""
    found = market.evaluation
    others = set(found.methods["method"])
    for other, title in (("ewma-gaussian", "RiskMetrics"), ("garch", "GARCH(1,1)")):
        what = f"QLIKE against {title}: 8 %, t > 2; 12 %, t > 3, every year"
        if other not in others:
            yield Bar(what, "not measured", MISSED)
            continue
        row = found.comparison(other, "qlike")
        t = row["t"] or 0.0
        every = row["years_better"] == row["years"]
        met = _level(
            passed=row["skill"] >= 8 and t > 2,  # noqa: PLR2004
            aimed=row["skill"] >= 12 and t > 3 and every,  # noqa: PLR2004
        )
        yield Bar(what, _beside(row), met)
    what = "pinball against the EWMA band: +1.5 %, 9 years of 10; +2.5 %, every year"
    if "ewma" in others:
        row = found.comparison("ewma", "pinball")
        met = _level(
            passed=row["skill"] >= 1.5 and row["years_better"] >= 0.9 * row["years"],  # noqa: PLR2004
            aimed=row["skill"] >= 2.5 and row["years_better"] == row["years"],  # noqa: PLR2004
        )
        yield Bar(what, _beside(row), met)
    else:
        yield Bar(what, "not measured", MISSED)
    for level in (80, 90):
        yield _coverage(found, level)
    own = found.methods.filter(method=found.subject).row(0, named=True)
    t = own["price_t"]
    told = "the random walk's own" if t is None else f"t {t:.1f}, R2 {percent(own['r2'], 2)}"
    met = _level(passed=t is None or t > -1.65, aimed=own["r2"] > 0)  # noqa: PLR2004
    yield Bar("median price against the random walk: t > -1.65; R2 above 0", told, met)


def _coverage(found: Evaluation, level: int) -> Bar:
    own = found.coverage.filter(method=found.subject)
    off = own.with_columns((100 * pl.col(f"in_{level}") - level).alias("off"))

    def farthest(by: str) -> float:
        rows = off.filter(by=by).sort(pl.col("off").abs())
        return float(rows["off"][-1])

    whole, year, storm = (farthest(by) for by in ("all", "year", "volatility"))
    met = _level(
        passed=abs(whole) <= 1.5 and abs(year) <= 4,  # noqa: PLR2004
        aimed=abs(whole) <= 1 and max(abs(year), abs(storm)) <= 3,  # noqa: PLR2004
    )
    return Bar(
        f"{level} % coverage: within 1.5 points, 4 in any year; 1, and 3 in any year and tercile",
        f"{whole:+.1f}, farthest year {year:+.1f}, tercile {storm:+.1f}",
        met,
    )


def _level(*, passed: bool, aimed: bool) -> str:
    if not passed:
        return MISSED
    return AIM if aimed else PASS


def _beside(row: Mapping[str, Any]) -> str:
    t = "-" if row["t"] is None else f"{row['t']:.1f}"
    return f"{row['skill']:+.2f} %, t {t}, {row['years_better']} of {row['years']} years"


def _of_market(market: Measured) -> str:
    found = market.evaluation
    about = (
        f"`{market.source}`: {market.tickers} tickers, {market.candles:,} candles; replayed from "
        f"{market.first} to {market.last}; {found.compared:,} forecasts that every method made "
        f"compared, {found.left_out:,} left out."
    )
    alarms = "".join(f"\n\nAlarm: {alarm}." for alarm in found.verdict.alarms)
    return section(
        market.title,
        about,
        f"Verdict: {found.subject}: {found.verdict.sentence}.{alarms}",
        _methods(market),
        "Pinball loss and Winkler score in 1/10,000 of log return; MAE, RMSE of price in % of the "
        "last price. A dash: the median is the last price.",
        f"{found.subject} beside the others, loss below theirs:",
        _comparisons(found),
        f"Coverage of {found.subject}, and skill by year and tercile of the volatility known on "
        "the day:",
        _groups(found),
        "Horizons and what the replays cost:",
        _horizons(found),
        _costs(market),
    )


def _methods(market: Measured) -> str:
    heads = ["method", "QLIKE", "pinball", "Winkler", *(f"in {level} %" for level in INTERVALS)]
    heads += ["MAE", "RMSE", "R2", "right", "always up", "rank IC (t)"]
    rows = [
        [
            _named(row["method"], market.titles),
            _number(row["qlike"], 4),
            _number(row["pinball"], 2, 1e4),
            _number(row["interval"], 1, 1e4),
            *(_number(row[f"in_{level}"], 1, 100) for level in INTERVALS),
            _number(row["mae"], 3, 100),
            _number(row["rmse"], 3, 100),
            _number(row["r2"], 2, 100),
            _number(row["right"], 1, 100),
            _number(row["always_up"], 1, 100),
            f"{_number(row['rank_ic'], 3)} ({_number(row['rank_ic_t'], 1)})"
            if row["rank_ic"] is not None
            else "-",
        ]
        for row in market.evaluation.methods.iter_rows(named=True)
    ]
    walk = market.evaluation.methods.row(0, named=True)
    blank = [""] * (heads.index("MAE") - 1)
    walked = [_number(walk["walk_mae"], 3, 100), _number(walk["walk_rmse"], 3, 100)]
    rows.append(["random walk", *blank, *walked, *[""] * 4])
    return markdown_table(heads, rows)


def _comparisons(found: Evaluation) -> str:
    rows = [
        [
            str(other),
            *(
                _beside(found.comparison(str(other), measure))
                for measure in ("qlike", "pinball", "interval")
            ),
        ]
        for other in found.comparisons["other"].unique(maintain_order=True)
    ]
    return markdown_table(["against", "QLIKE", "pinball", "Winkler 90 %"], rows)


def _groups(found: Evaluation) -> str:
    own = found.coverage.filter(method=found.subject)
    panels = [
        (measure, other) for measure in ("qlike", "pinball") for other in found.opponents(measure)
    ]
    rows = []
    for by in ("all", "year", "volatility"):
        part = own.filter(by=by)
        names = (
            [name for name in TERCILES if name in part["group"]]
            if by == "volatility"
            else (part["group"].sort().to_list())
        )
        for name in names:
            line = part.filter(group=name).row(0, named=True)
            rows.append(
                [
                    name,
                    f"{line['cells']:,}",
                    *(_number(line[f"in_{level}"], 1, 100) for level in INTERVALS),
                    *(_skill(found, by, name, measure, other) for measure, other in panels),
                ]
            )
    heads = ["", "forecasts", *(f"in {level} %" for level in INTERVALS)]
    heads += [f"{'QLIKE' if m == 'qlike' else m} against {other}" for m, other in panels]
    return markdown_table(heads, rows)


def _horizons(found: Evaluation) -> str:
    own = found.coverage.filter(method=found.subject, by="horizon")
    rows = [
        [
            line["group"],
            *(_number(line[f"in_{level}"], 1, 100) for level in INTERVALS),
            *(
                _skill(found, "horizon", line["group"], "pinball", other)
                for other in found.opponents("pinball")
            ),
        ]
        for line in own.iter_rows(named=True)
    ]
    heads = ["sessions ahead", *(f"in {level} %" for level in INTERVALS)]
    return markdown_table(
        [*heads, *(f"pinball against {other}" for other in found.opponents("pinball"))], rows
    )


def _skill(found: Evaluation, by: str, group: str, measure: str, other: str) -> str:
    if by == "all":
        row = found.comparison(other, measure)
        return f"{row['skill']:+.2f} %"
    row = found.skill.filter(by=by, group=group, measure=measure, other=other)
    return f"{row['skill'][0]:+.2f} %" if row.height else "-"


def _costs(market: Measured) -> str:
    rows = [
        [name, f"{cost['wall']:.0f}", f"{cost['cpu']:.0f}"] for name, cost in market.costs.items()
    ]
    return markdown_table(["replay, two at a time", "wall, s", "CPU, s"], rows)


def _named(name: str, titles: Mapping[str, str]) -> str:
    return f"{name}: {titles[name]}" if name in titles else name


def _number(value: float | None, decimals: int, factor: float = 1) -> str:
    return "-" if value is None else f"{value * factor:.{decimals}f}"
