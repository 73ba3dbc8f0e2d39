"""What the sources have by now that the lake has not: candles that came, and candles that changed.

A look asks for the cells without a candle, and reads the last few sessions again (`revisions` of a
source). It must end within a schedule's tick, so that an API is asked for as many tickers as its
limit allows in that time; the others have their turn at later looks, and are told of. What is made
of it is in `gaps.py`.
"""

import datetime as dt
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from stock_assets.automation.downstream import Cell
from stock_assets.automation.gaps import Held
from stock_assets.lake.splits import Split, unheard
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from stock_assets.source_settings import ApiSection
from stock_assets.sources.fetching import fetch_slice
from stock_assets.sources.rules import Judged

ASKING = dt.timedelta(seconds=25)
"""For so long a look may send requests to APIs, at the pace that their limits allow."""

FINISHED = dt.timedelta(seconds=45)
"""After so long no answer is waited for. Dagster gives a tick a minute."""

_ROWS_AN_ANSWER = 500
"""Candles in one answer: the least of the APIs' pages."""

_DAY = dt.timedelta(days=1)
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60}

_SAID = ("day", "ticker", "source", "raw")
"""What a row in quarantine says: its place in a file moves when rows are put before it."""


@dataclass(frozen=True)
class News:
    """What a look has found. No cell is in two of them."""

    arrived: frozenset[Cell]
    """Missing cells of which the sources have rows by now; rows that would be set aside count."""
    revised: frozenset[Cell]
    """Cells whose rows differ from the lake's."""
    withdrawn: frozenset[Cell]
    """Cells with candles in the lake of which the sources have nothing any more."""
    unasked: frozenset[str]
    """Tickers that this look had no time for."""
    splits: Mapping[str, Sequence[Split]] = field(default_factory=dict)
    """What the sources say of splits and the lake has not heard (`lake.splits.unheard`)."""


def look_for_news(settings: Settings, lake: Lake, held: Held, now: dt.datetime, turn: int) -> News:
    """What is new at `now` (UTC); `turn` counts the looks, and decides whom there is time for.

    Rows are read and judged as a run would do it, so that a run that is asked for does find them.
    Raises `SourceError` when a source cannot be read.
    """
    finish_by = time.monotonic() + FINISHED.total_seconds()
    again = _read_again(settings, held)
    wanted: dict[str, dt.date] = {}
    for session, ticker in held.missing | again:
        wanted[ticker] = min(session, wanted.get(ticker, session))
    chosen = _affordable(settings, held, wanted, turn)
    arrived: set[Cell] = set()
    revised: set[Cell] = set()
    withdrawn: set[Cell] = set()
    declared: dict[str, list[Split]] = {}
    for first, tickers in _questions(settings, {name: wanted[name] for name in chosen}).items():
        area = Slice(first, held.sessions[-1], tickers)
        found = fetch_slice(settings, area, now=now, finish_by=finish_by)
        candles, refused = _cells(found.candles), _cells(found.quarantine)
        own = {cell for cell in again if cell[1] in tickers and area.contains(cell[0])}
        arrived |= held.missing & (candles | (refused - held.set_aside))
        withdrawn |= (own & held.candles) - candles - refused
        revised |= own & _differing(lake, area, found) & (candles | refused)
        for source, splits in unheard(lake, found.splits, tickers).items():
            declared.setdefault(source, []).extend(splits)
    return News(
        frozenset(arrived),
        frozenset(revised - arrived),
        frozenset(withdrawn),
        frozenset(wanted.keys() - chosen),
        declared,
    )


def turn_of(opened: dt.datetime, now: dt.datetime, looks: Sequence[dt.timedelta]) -> int:
    """The number of the look at `now`, one more than that of the look before it.

    `opened` is when the looks of some session began; they go on every day, sessions or not.
    """
    days, since = divmod(now - opened, _DAY)
    return days * len(looks) + sum(look <= since for look in looks)


def _read_again(settings: Settings, held: Held) -> frozenset[Cell]:
    """Cells of the lake that are compared with their source."""
    sessions = {
        item.ticker: held.sessions[-own.revisions :] if own.revisions else ()
        for item in settings.universe
        for own in (settings.sources[item.source],)
    }
    return frozenset(
        (day, ticker)
        for day, ticker in held.candles | held.set_aside
        if day in sessions.get(ticker, ())
    )


def _affordable(
    settings: Settings, held: Held, wanted: dict[str, dt.date], turn: int
) -> frozenset[str]:
    """The tickers that there is time for: all but those beyond what an API's limit allows.

    First those without a candle of the last session, then those without one of an earlier one,
    then the others; among equals a look begins where the look before it stopped.
    """
    day = held.sessions[-1]
    urgent = {ticker for session, ticker in held.missing if session == day}
    lacking = {ticker for _, ticker in held.missing} - urgent
    chosen: set[str] = set()
    instruments = settings.instruments
    by_source: dict[str, list[str]] = {}
    for ticker in sorted(wanted):
        by_source.setdefault(instruments[ticker].source, []).append(ticker)
    apis = [name for name in by_source if isinstance(settings.sources[name], ApiSection)]
    for name, tickers in by_source.items():
        own = settings.sources[name]
        if not isinstance(own, ApiSection):
            chosen.update(tickers)
            continue
        asked: set[str] = set()
        requests = own.requests_per_second * ASKING.total_seconds() / len(apis)
        for group in (urgent, lacking, wanted.keys() - urgent - lacking):
            waiting = [ticker for ticker in tickers if ticker in group]
            costs = {ticker: _requests(own, held, wanted[ticker]) for ticker in waiting}
            # Of equals as many as there is time for, each look's after those of the look before.
            turns = max(1, int(requests / max(costs.values(), default=1)))
            start = turn * turns % len(waiting) if waiting else 0
            for ticker in waiting[start:] + waiting[:start]:
                # The first of all is asked whatever it costs: else nobody ever would be.
                if requests < costs[ticker] and asked:
                    break
                requests -= costs[ticker]
                asked.add(ticker)
        chosen |= asked
    return frozenset(chosen)


def _requests(own: ApiSection, held: Held, first: dt.date) -> int:
    """Requests that a ticker's candles since `first` cost at most, and one to find the ticker."""
    sessions = sum(session >= first for session in held.sessions)
    minutes = int(own.interval[:-1]) * _MINUTES[own.interval[-1]]
    return 1 + math.ceil(sessions * (_MINUTES["d"] / minutes) / _ROWS_AN_ANSWER)


def _questions(settings: Settings, wanted: dict[str, dt.date]) -> dict[dt.date, tuple[str, ...]]:
    """The tickers by the first session that is asked of them.

    An API is asked for no more than is wanted; files are read once, for the earliest of theirs.
    """
    instruments = settings.instruments
    read = {
        ticker
        for ticker in wanted
        if not isinstance(settings.sources[instruments[ticker].source], ApiSection)
    }
    earliest = min((wanted[ticker] for ticker in read), default=None)
    grouped: dict[dt.date, list[str]] = {}
    for ticker, first in sorted(wanted.items()):
        begin = earliest if earliest is not None and ticker in read else first
        grouped.setdefault(begin, []).append(ticker)
    return {first: tuple(tickers) for first, tickers in grouped.items()}


def _cells(rows: pl.DataFrame) -> set[Cell]:
    return set(rows.select("day", "ticker").unique().iter_rows())


def _differing(lake: Lake, area: Slice, found: Judged) -> set[Cell]:
    """Cells of which the lake and the sources say different things, or only one says anything."""
    differing: set[Cell] = set()
    for table, now, columns in (
        ("candles", found.candles, found.candles.columns),
        ("quarantine", found.quarantine, list(_SAID)),
    ):
        then = lake.read(table, area, columns=columns)
        differing |= _unlike(then.select(columns), now.select(columns))
    return differing


def _unlike(one: pl.DataFrame, other: pl.DataFrame) -> set[Cell]:
    """Cells whose rows are not the same ones equally often."""
    counted = [rows.group_by(pl.all()).len() for rows in (one, other)]
    odd = [
        mine.join(theirs, on=mine.columns, how="anti", nulls_equal=True)
        for mine, theirs in (counted, counted[::-1])
    ]
    return _cells(pl.concat(odd))
