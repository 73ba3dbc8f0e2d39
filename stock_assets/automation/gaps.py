"""What the last sessions of an exchange still lack, and the slices that would mend it.

Decided from three things: what the lake holds, which candles the sources have by now that it has
not, or has otherwise (`news.py`), and how the runs that were asked for before have ended. A candle
that no source has is asked for by nobody: a halted ticker or a market that stays shut costs a look,
not a run (docs/adr/0009). When it is looked, and the runs that come of it, are in `schedules.py`.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from stock_assets.automation.downstream import Cell, days_from
from stock_assets.calendars import Calendar
from stock_assets.forecasting.labels import LABEL_SESSIONS
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect, rows
from stock_assets.settings import Instrument

LOOK_BACK = 20
"""Sessions over which candles that did not come are looked for again."""

_SILENCE = dt.timedelta(days=60)
"""A ticker without a candle for this long before the sessions looked at counts as a new one."""

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Held:
    """What the lake holds of the last sessions of an exchange."""

    sessions: tuple[dt.date, ...]
    """Sessions looked at, the last of them the last closed one."""
    newest_forecast: dt.date | None
    """Of any session, also before those looked at; None when the lake holds no forecast."""
    candles: frozenset[Cell]
    set_aside: frozenset[Cell]
    """Cells with rows in quarantine."""
    missing: frozenset[Cell]
    """Cells without a candle, from each ticker's first candle on, while it is listed."""
    without_bars: frozenset[dt.date]
    """Days with candles that never became bars."""
    without_forecasts: frozenset[dt.date]
    """Days with bars that were not forecast."""
    without_scores: frozenset[dt.date]
    """Days with bars whose forecasts were not scored."""


@dataclass(frozen=True)
class Ask:
    """Days to run for all tickers of the exchange, both included, and why."""

    first: dt.date
    last: dt.date
    why: str


def read_held(
    lake: Lake,
    calendar: Calendar,
    instruments: Sequence[Instrument],
    first_day: dt.date,
    day: dt.date,
) -> Held:
    """What the lake holds of the last `LOOK_BACK` sessions up to `day`, none before `first_day`.

    Reads the days it speaks of and `_SILENCE` before them: it costs the same after any history.
    """
    sessions = calendar.between(max(calendar.back(day, LOOK_BACK - 1), first_day), day)
    first = sessions[0]
    tickers = [item.ticker for item in instruments]
    with connect(lake) as connection:

        def cells(table: str, since: dt.date) -> frozenset[Cell]:
            found = rows(
                connection, table, since, day, tickers=tickers, columns=["day", "ticker"]
            ).unique()
            return frozenset(found.iter_rows())

        spoken = cells("candles", first - _SILENCE)
        bars, forecasts = cells("bars", first), cells("forecasts", first)
        scored = cells("scores", first)
        set_aside = cells("quarantine", first)
        marks = ", ".join("?" * len(tickers))
        due = connection.execute(
            f"select distinct target_day, ticker from forecasts where ticker in ({marks})"  # noqa: S608
            " and day >= ? and target_day between ? and ? and held_from is null",
            # Forecasts reach a week ahead at most.
            [*tickers, calendar.back(first, LOOK_BACK), first, day],
        ).fetchall()
        newest = max((found for found, _ in forecasts), default=None)
        if newest is None:
            ((newest,),) = connection.execute(
                f"select max(day) from forecasts where ticker in ({marks})",  # noqa: S608
                tickers,
            ).fetchall()
    open_days = set(sessions)
    candles = frozenset(cell for cell in spoken if cell[0] in open_days)
    # A ticker that the lake does not know is taken up from its next candle on: its history is for
    # a person to ask for.
    begins = dict.fromkeys(tickers, day)
    for found, ticker in spoken:
        begins[ticker] = min(begins[ticker], found)
    missing = {
        (session, item.ticker)
        for item in instruments
        for session in sessions
        if session >= begins[item.ticker] and item.is_listed(session)
    }
    return Held(
        sessions,
        newest,
        candles,
        set_aside,
        frozenset(missing - candles),
        frozenset(session for session, _ in candles - bars),
        frozenset(session for session, _ in bars - forecasts if session in open_days),
        frozenset(session for session, _ in (frozenset(due) & bars) - scored),
    )


def due(  # noqa: PLR0913
    held: Held,
    arrived: Collection[Cell],
    revised: Collection[Cell],
    succeeded: Mapping[dt.date, bool],
    calendar: Calendar,
    *,
    on_time: bool,
) -> list[Ask]:
    """What to ask for: each stretch of consecutive sessions that lack something, once.

    Of `arrived` cells the sources have rows that the lake has not, of `revised` ones other rows.
    `succeeded` says how the latest run over a day ended; days that are left open are not in it.
    `on_time` tells whether the last session is looked at for the first time.

    New or other candles of a day change the windowed features of the days after it, of all tickers
    of the exchange: they ask for that day and all later ones, and for none before it. A day that
    only failed is asked for with the sessions on which its forecasts are scored. A day that a
    successful run has left without something would be left so by the next one too.
    """
    failed = {day for day, success in succeeded.items() if not success}
    settled = {day for day, success in succeeded.items() if success}
    touched = {day for day, _ in arrived} | (held.without_bars - settled)
    # A catch-up in several runs may have failed beyond what is looked back on. Whether the candles
    # of such a day came is not known, so the days after it count as built without them.
    touched |= {day for day in failed if day < held.sessions[0]}
    sessions = held.sessions
    changed = {day for day, _ in revised}
    fresh: set[dt.date] = set()
    new: set[dt.date] = set()
    if touched | changed:
        earliest, last = days_from(touched | changed, {day for day, _ in held.candles})
        first = min(touched, default=last)
        if held.newest_forecast is not None and held.newest_forecast < sessions[0]:
            # Off for longer than is looked back: all since then is missing.
            first = min(first, *calendar.after(held.newest_forecast, 1))
        sessions = calendar.between(min(first, earliest, sessions[0]), sessions[-1])
        new = set(calendar.between(first, last)) if touched else new
        fresh = set(calendar.between(min(first, earliest), last))
    again = (held.without_scores - settled).union(
        *(
            {day, *calendar.after(day, LABEL_SESSIONS)}
            for day in (held.without_forecasts - settled) | failed
        )
    )
    asks = []
    for stretch in _stretches(sessions, fresh | again):
        reasons = []
        if arrived and new.intersection(stretch):
            reasons.append(_why(held, arrived, min(new), max(new), on_time=on_time))
        if changed.intersection(stretch):
            names = [f"{ticker} {day}" for day, ticker in sorted(revised)]
            reasons.append(f"revised: {first_of(names)}")
        if failed.intersection(stretch):
            reasons.append("again: the run before failed")
        asks.append(Ask(stretch[0], stretch[-1], "; ".join(reasons) or "again: never finished"))
    return asks


def first_of(names: Sequence[str]) -> str:
    """The first few names, for a line that a person reads."""
    return ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")


def _why(
    held: Held, arrived: Collection[Cell], first: dt.date, last: dt.date, *, on_time: bool
) -> str:
    """On time, late, completing a day that was run without some tickers, or catching up."""
    names = sorted({ticker for _, ticker in arrived})
    begun = {session for session, _ in held.candles}
    if first in begun:
        return f"completing: late candles of {first_of(names)}"
    if any(first < session for session in begun):
        return f"late: {first} came after later sessions"
    if first < last:
        return f"catching up: sessions missed since {first}"
    without = sum(session == last for session, _ in held.missing) - len(names)
    part = f", {without} of the tickers without a candle yet" if without else ""
    return ("on time" if on_time and last == held.sessions[-1] else "late") + part


def _stretches(
    sessions: Sequence[dt.date], chosen: Collection[dt.date]
) -> list[tuple[dt.date, ...]]:
    """`chosen` as stretches of consecutive `sessions`."""
    found: list[tuple[dt.date, ...]] = []
    for before, session in zip((None, *sessions), sessions, strict=False):
        if session not in chosen:
            continue
        if before in chosen:
            found[-1] += (session,)
        else:
            found.append((session,))
    return found
