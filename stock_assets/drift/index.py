"""The index of drift: which days were evaluated, what they said, what they caused, their pages.

Made anew from the lake's tables each time, of the days for which pages are kept; older pages that
are still there are listed by their names. Runs that end together may all write it: they take turns,
so that the last one has seen what all of them wrote.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import duckdb
from filelock import FileLock

from stock_assets.drift import markup
from stock_assets.drift.pages import Page, index_file, link, save_whole, saved_pages
from stock_assets.drift.verdict import MarketOutline, Outline, outlines, waiting_words
from stock_assets.errors import LakeError
from stock_assets.lake.views import prepare, register_views, rows
from stock_assets.notices.wording import places_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from stock_assets.lake.store import Lake
    from stock_assets.settings import Settings

_LISTED = 90
"""Days with a line where pages are kept for ever."""

_CAUSED = """
    select day, decision, challenger, reason, list(distinct ticker) from models
    where day between ? and ? and regexp_matches(reason, '(^|; )(drift, |performance \\()')
    group by day, decision, challenger, reason order by day, decision, challenger, reason
"""
"""What a drifted market, or forecasts that left their band, made of the model.

Reasons are worded in forecasting/decision.py.
"""


def write_index(lake: Lake, settings: Settings, day: dt.date) -> Path:
    """Write the index after something of `day` was evaluated or decided; where it is.

    There whole or not at all. Raises `LakeError` when it cannot be written, or its rows not read.
    """
    path = index_file(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(".index.lock")):
            save_whole(index_page(lake, settings, day), path)
    except OSError as error:
        message = (
            f"{path} cannot be written ({error.strerror}); make the folder writable, free space, "
            "or change lake.path"
        )
        raise LakeError(message) from error
    return path


def index_page(lake: Lake, settings: Settings, day: dt.date) -> str:
    """The page as the lake and the folder are now; `day` is the newest known without a page."""
    pages = saved_pages(settings)
    last = max([day, *(page.day for page in pages)])
    keep = settings.drift.keep_pages
    first = last - dt.timedelta(keep if isinstance(keep, int) else _LISTED)
    with duckdb.connect(":memory:") as connection:
        prepare(connection)
        register_views(connection, lake, ("drift", "models"))
        found = outlines(rows(connection, "drift", first, last), settings)
        caused: dict[dt.date, list[markup.Markup]] = {}
        for decided, *decision, tickers in connection.execute(_CAUSED, [first, last]).fetchall():
            made = _materialization(settings, decided, tickers)
            caused.setdefault(decided, []).append(_decision(made, *decision))
    lines = [_line(outline, caused.get(outline.day, ()), pages) for outline in reversed(found)]
    heads = ("day", "markets", "tickers that drifted", "faults of prices", "model that followed")
    listed = {outline.day for outline in found}
    older = [
        (markup.a(link(page.path), f"{page.day} {page.ticker}".strip()),)
        for page in reversed(pages)
        if page.day not in listed
    ]
    about = (
        f"Days evaluated from {first} to {last}, the newest first. A day is a link where its page "
        "was drawn: runs of several days draw the last one's. "
        "The command stock-assets drift DAY draws any other. A model is a link to its decision in "
        "Dagster."
    )
    return markup.page(
        "Drift",
        markup.Markup(
            f"<main><h1>Drift</h1>{markup.paragraph(about, 'note')}"
            + (markup.table(heads, lines) or markup.paragraph("No day has been evaluated yet."))
            + markup.section("Older pages", markup.table(("page",), older))
            + "</main>"
        ),
    )


def _line(
    outline: Outline, caused: Sequence[markup.Markup], pages: Sequence[Page]
) -> tuple[object, ...]:
    own = {page.ticker: link(page.path) for page in pages if page.day == outline.day}
    tickers = [
        markup.a(own[name], name) if name in own else name for name in outline.drifted_tickers
    ]
    # Drawn because somebody asked.
    tickers += [
        markup.joined([markup.a(own[name], name), " (has not drifted)"], "")
        for name in sorted(set(own) - {""} - set(outline.drifted_tickers))
    ]
    moved = any(market.causes for market in outline.markets)
    return (
        markup.a(own[""], str(outline.day)) if "" in own else outline.day,
        markup.cell(
            markup.joined(map(_market, outline.markets), "<br>") or "nothing to compare",
            "moved" * moved,
        ),
        markup.joined(tickers),
        markup.joined(
            (
                f"{ticker}: {fault}{' (blocks its forecast)' * blocks}"
                for ticker, fault, blocks in outline.faults
            )
        ),
        markup.joined(caused, "<br>"),
    )


def _market(market: MarketOutline) -> str:
    if market.causes:
        return f"{market.exchange} has moved: {'; '.join(market.causes)}"
    if not market.judged:
        return f"{market.exchange}: {waiting_words(market.come, market.usual)}"
    alarm = "not known yet" if market.alarm is None else f"above {market.alarm:.0%}"
    return f"{market.exchange}: {market.share:.0%} of pairs (alarm {alarm})"


def _materialization(settings: Settings, day: dt.date, tickers: Collection[str]) -> str:
    """The page in Dagster's UI of the decision on `day` over `tickers`.

    Of their last cell, which carries what describes the whole run (see assets/common.py).
    """
    own = [name for name in settings.tickers if name in tickers] or sorted(tickers)
    return places_of(settings, None).cell("model", day, own[-1])


def _decision(made: str, decision: str, challenger: str | None, reason: str) -> markup.Markup:
    words = f"{decision} {challenger}" if challenger else decision
    return markup.joined([markup.a(made, words), f": {reason}"], "")
