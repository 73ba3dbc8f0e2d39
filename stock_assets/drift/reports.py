"""The pages of a day: one of the universe, one of each ticker that has drifted.

A page has two parts. The header is ours: windows, sample sizes, verdicts and thresholds, as
`verdict.py` and the rows of `drift` have them. Below it Evidently draws the samples, feature by
feature. On a ticker's page its thresholds are ours, and so are its verdicts. On the universe's page
it compares all tickers pooled, which shows shapes; a feature's threshold there is the median of
those of its tickers.

How Evidently draws is in `evidently_page.py`, where pages are saved in `pages.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stock_assets.drift import markup
from stock_assets.drift.distances import windows
from stock_assets.drift.evidently_page import Drawing
from stock_assets.drift.pages import (
    index_file,
    link,
    page_file,
    remove_pages,
    save_whole,
)
from stock_assets.drift.scripts import with_shared_scripts
from stock_assets.drift.verdict import Market, Ticker, Verdict, verdicts, waiting_words
from stock_assets.drift.watched import (
    DATA,
    DRIFT_FEATURES,
    QUALITY,
    TARGET,
    TARGET_CURRENT,
    TARGET_REFERENCE,
)
from stock_assets.errors import StockAssetsError
from stock_assets.lake.views import rows

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import duckdb

    from stock_assets.settings import Settings

    Draw = Callable[[Drawing], str]

_SHOWN_TICKERS = 12


def features_shown(
    connection: duckdb.DuckDBPyConnection, settings: Settings, day: dt.date
) -> pl.DataFrame:
    """The features that the pages of `day` show, of all tickers: from the view of that name."""
    spans = [windows(day, name, settings.drift) for name in settings.exchanges]
    first = min([*(reference[0] for reference, _ in spans if reference), day])
    columns = ["day", "ticker", *DRIFT_FEATURES]
    return rows(connection, "features", first, day, columns=columns)


def write_pages(
    features: pl.DataFrame, drift: pl.DataFrame, settings: Settings, draw: Draw
) -> list[Path]:
    """Draw and save the pages of one day, the universe's first, in place of earlier ones.

    `features` are those of `features_shown`, `drift` all rows of
    `schemas.Drift` of the day, `draw` is a `Drawer`'s or `evidently_page.drawn`. Of the tickers
    that drifted, the `drift.ticker_pages` furthest above their alarms have a page. Nothing is drawn
    where nothing could be compared. Each file is there whole or not at all; raises `LakeError` when
    one cannot be written.
    """
    drift = _of_universe(drift, settings)
    verdict = _verdict(drift, settings)
    if verdict is None or not verdict.markets:
        return []
    drifted = [item.ticker for item in verdict.drifted_tickers][: settings.drift.ticker_pages]
    pages = [write_ticker_page(features, drift, settings, draw, ticker) for ticker in drifted]
    path = page_file(settings, verdict.day)
    measured = drift.filter((pl.col("kind") == DATA) & pl.col("distance").is_not_null())
    drawing = _drawing(features, measured, verdict.day, settings)
    _save(_universe_header(verdict, drawing, settings, drifted), drawing, draw, path, "Drift")
    pages.insert(0, path)
    remove_pages(settings, verdict.day, pages)
    return pages


def write_ticker_page(
    features: pl.DataFrame, drift: pl.DataFrame, settings: Settings, draw: Draw, ticker: str
) -> Path:
    """Draw and save the page of one ticker, whether it has drifted or not; as `write_pages`.

    Raises `StockAssetsError` when nothing of the ticker could be measured on that day.
    """
    drift = _of_universe(drift, settings)
    verdict = _verdict(drift, settings)
    found = [item for item in verdict.tickers if item.ticker == ticker] if verdict else []
    if verdict is None or not found:
        day = verdict.day if verdict else "that day"
        message = f"nothing of {ticker!r} was measured on {day}; see its rows in the table drift"
        raise StockAssetsError(message)
    own = drift.filter((pl.col("ticker") == ticker) & (pl.col("kind") != QUALITY))
    measured = own.filter((pl.col("kind") == DATA) & pl.col("distance").is_not_null())
    # The drifted ones say why; where only the target has moved, all of them.
    shown = measured.filter("drifted") if measured["drifted"].any() else measured
    drawing = _drawing(features, shown, verdict.day, settings)
    header = _ticker_header(verdict, found[0], own, settings)
    path = page_file(settings, verdict.day, ticker)
    _save(header, drawing, draw, path, f"Drift of {ticker}")
    return path


def _of_universe(drift: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Without tickers that have left the universe: their windows are not known any more."""
    return drift.filter(pl.col("ticker").is_in(settings.tickers))


def _verdict(drift: pl.DataFrame, settings: Settings) -> Verdict | None:
    found = verdicts(drift, settings)
    return found[-1] if found else None


def _drawing(
    features: pl.DataFrame, measured: pl.DataFrame, day: dt.date, settings: Settings
) -> Drawing:
    """The samples behind the rows of `drift` that are measured, each ticker's windows pooled."""
    with_threshold = measured.filter(pl.col("threshold").is_not_null())
    medians = dict(with_threshold.group_by("feature").agg(pl.col("threshold").median()).iter_rows())
    tickers = measured["ticker"].unique().to_list()
    reference, current = pooled_windows(features, tickers, day, settings)
    thresholds = {
        name: medians[name]
        for name in DRIFT_FEATURES
        if name in medians and reference[name].count() and current[name].count()
    }
    return Drawing(reference, current, thresholds)


def pooled_windows(
    features: pl.DataFrame, tickers: Sequence[str], day: dt.date, settings: Settings
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of `tickers` in the reference and in the current sessions of `day`.

    Each ticker's windows are those of its own exchange. Columns: day, ticker, DRIFT_FEATURES.
    """
    by_exchange: dict[str, list[str]] = {}
    for ticker in tickers:
        by_exchange.setdefault(settings.instrument(ticker).exchange, []).append(ticker)
    chosen = features.select("day", "ticker", *DRIFT_FEATURES)
    parts: tuple[list[pl.DataFrame], list[pl.DataFrame]] = ([chosen.clear()], [chosen.clear()])
    for exchange, own in by_exchange.items():
        rows = chosen.filter(pl.col("ticker").is_in(own))
        for part, sessions in zip(parts, windows(day, exchange, settings.drift), strict=True):
            part.append(rows.filter(pl.col("day").is_in(list(sessions))))
    return pl.concat(parts[0]), pl.concat(parts[1])


def _save(header: markup.Markup, drawing: Drawing, draw: Draw, path: Path, title: str) -> None:
    title = f"{title} {path.name[:10]}"
    if drawing.thresholds:
        whole = markup.above(draw(drawing), title, header)
        whole = with_shared_scripts(whole, path.parent)
    else:
        whole = markup.page(title, header)
    save_whole(whole, path)


# --- headers --------------------------------------------------------------------------------


def _universe_header(
    verdict: Verdict, drawing: Drawing, settings: Settings, drawn: Sequence[str]
) -> markup.Markup:
    names = [item.ticker for item in verdict.tickers]
    more = len(names) - _SHOWN_TICKERS
    tickers = f"Tickers ({len(names)}): {', '.join(names[:_SHOWN_TICKERS])}"
    missing = [name for name in DRIFT_FEATURES if name not in drawing.thresholds]
    below = (
        "Below, Evidently compares all tickers pooled, feature by feature "
        f"({drawing.current.height:,} current and {drawing.reference.height:,} reference rows). "
        "Pooling evens out what single tickers do: it shows where to look. Its thresholds are the "
        "medians of the tickers' own. What the check and the model go by is the verdict above, "
        "which judges each ticker by itself. Not below, because it is no method of Evidently's: "
        f"log_variance_1d, {_TARGET_WORDS}."
    )
    return markup.Markup(
        f"<header><h1>Drift of the universe on {verdict.day}</h1>"
        + markup.paragraph(verdict.sentence, "moved" if verdict.moved else "calm")
        + markup.paragraph(markup.a(link(index_file(settings)), "All days"))
        + markup.paragraph(tickers + (f" and {more} more" if more > 0 else ""))
        + _windows_table(verdict, drawing, settings)
        + markup.section("Markets", _markets_table(verdict.markets))
        + markup.section("Tickers that drifted", _tickers_table(verdict, settings, drawn))
        + markup.section("Faults of prices", _faults_table(verdict))
        + markup.section("Features", markup.paragraph(below, "note"))
        + (
            markup.paragraph(f"Left out, without values: {', '.join(missing)}", "note")
            if missing
            else ""
        )
        + "</header>"
    )


def _ticker_header(
    verdict: Verdict, ticker: Ticker, rows: pl.DataFrame, settings: Settings
) -> markup.Markup:
    exchange = settings.instrument(ticker.ticker).exchange
    day = verdict.day
    market = [item.sentence for item in verdict.markets if item.exchange == exchange]
    faults = Verdict(
        day, (), (), tuple(item for item in verdict.faults if item.ticker == ticker.ticker)
    )
    below = (
        "Below, Evidently draws the features that drifted (all of them where none did), with the "
        "thresholds of the table: its verdict on each is ours. Not below, because it is no method "
        f"of Evidently's: log_variance_1d, {_TARGET_WORDS}."
    )
    links = [markup.a(link(index_file(settings)), "All days")]
    links.append(markup.a(link(page_file(settings, day)), f"The universe on {day}"))
    reference, current = windows(day, exchange, settings.drift)
    spans = f"Current: {_span(current)}. Reference: {_span(reference)}. Sessions of {exchange}."
    return markup.Markup(
        f"<header><h1>Drift of {markup.text(ticker.ticker)} on {day}</h1>"
        + markup.paragraph(
            f"{ticker.ticker} has {'' if ticker.moved else 'not '}moved. {ticker.sentence}",
            "moved" if ticker.moved else "calm",
        )
        + markup.paragraph(markup.joined(links))
        + markup.paragraph(
            f"Features drifted: {_of_alarm(ticker.share, ticker.alarm, '{:.0%}')}. "
            f"Volatility rose by {_of_alarm(ticker.rise, ticker.rise_alarm, '{:.2f}')} in log "
            "variance."
        )
        + markup.paragraph("Its market: " + "; ".join(market))
        + markup.paragraph(spans)
        + markup.section("Faults of prices", _faults_table(faults))
        + markup.section("Features", _features_table(rows))
        + markup.paragraph(below, "note")
        + "</header>"
    )


_TARGET_WORDS = (
    f"the rise of the mean log variance, {TARGET_CURRENT} sessions against the {TARGET_REFERENCE} "
    "before"
)


def _windows_table(verdict: Verdict, drawing: Drawing, settings: Settings) -> markup.Markup:
    lines = []
    for market in verdict.markets:
        reference, current = windows(verdict.day, market.exchange, settings.drift)
        rows = [
            part.filter(pl.col("ticker").is_in(list(market.tickers))).height
            for part in (drawing.current, drawing.reference)
        ]
        lines.append(
            (
                market.exchange,
                len(market.tickers),
                f"{_span(current)}, {rows[0]:,} rows",
                f"{_span(reference)}, {rows[1]:,} rows",
            )
        )
    return markup.table(("market", "tickers", "current", "reference"), lines)


def _span(sessions: Sequence[dt.date]) -> str:
    if not sessions:
        return "no session"
    return f"{sessions[0]} to {sessions[-1]}, {len(sessions)} sessions"


def _markets_table(markets: Sequence[Market]) -> markup.Markup:
    heads = ("market", "verdict", "drifted pairs", "volatility rise", "furthest sector", "why")
    return markup.table(
        heads,
        [
            (
                item.exchange,
                markup.cell(_state(item), "moved" * item.moved),
                _of_alarm(item.share, item.alarm, "{:.1%}"),
                _of_alarm(item.rise, item.rise_alarm, "{:.2f}"),
                item.sector
                and f"{item.sector}: {_of_alarm(item.sector_share, item.sector_alarm, '{:.1%}')}",
                "; ".join(item.causes) or "; ".join(map(str, item.reasons[:3])),
            )
            for item in markets
        ],
    )


def _state(market: Market) -> str:
    if not market.judged:
        return waiting_words(market.come, market.usual)
    return "has moved" if market.moved else "has not"


def _tickers_table(verdict: Verdict, settings: Settings, drawn: Sequence[str]) -> markup.Markup:
    lines = []
    for item in verdict.drifted_tickers:
        page = f"no page: more than {settings.drift.ticker_pages}"
        lines.append(
            (
                markup.a(link(page_file(settings, verdict.day, item.ticker)), item.ticker)
                if item.ticker in drawn
                else f"{item.ticker} ({page})",
                _of_alarm(item.share, item.alarm, "{:.0%}"),
                _of_alarm(item.rise, item.rise_alarm, "{:.2f}"),
                ", ".join(
                    f"{name} {distance:.2f} (usual up to {threshold:.2f})"
                    for name, distance, threshold in item.features[:3]
                ),
            )
        )
    heads = ("ticker", "drifted features", "volatility rise", "furthest above their thresholds")
    return markup.table(heads, lines)


def _faults_table(verdict: Verdict) -> markup.Markup:
    return markup.table(
        ("fault", "what follows"),
        [
            (item.sentence, "nothing is forecast from it" if item.blocks else "a warning")
            for item in verdict.faults
        ],
    )


def _features_table(rows: pl.DataFrame) -> markup.Markup:
    kinds = {DATA: "distance of the samples", TARGET: "rise of the mean"}
    ordered = rows.sort(
        pl.col("drifted"),
        pl.col("distance") / pl.col("threshold"),
        "feature",
        descending=[True, True, False],
        nulls_last=True,
    )
    lines = [
        (
            row["feature"],
            markup.cell("drifted" if row["drifted"] else "", "moved" * row["drifted"]),
            kinds[row["kind"]],
            _number(row["distance"]),
            _number(row["threshold"]),
            f"{row['current_rows']:,}",
            f"{row['reference_rows']:,}",
        )
        for row in ordered.iter_rows(named=True)
    ]
    heads = ("feature", "", "statistic", "value", "threshold", "current rows", "reference rows")
    return markup.table(heads, lines)


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _of_alarm(value: float | None, alarm: float | None, form: str) -> str:
    """A number and the level above which it is an alarm."""
    if value is None:
        return "not known"
    return f"{form.format(value)} (alarm " + (
        "not known yet)" if alarm is None else f"above {form.format(alarm)})"
    )
