"""Which exchanges and tickers are without candles that should have come, and since when.

A session's candles are late when the schedule has looked for the last time after its close
(`schedules.LOOKS`) and some are still missing, as `gaps.py` counts them. What that is called in a
message is in `notices/wording.py`; that it is told once is the cursor's affair (`notices.py`).
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus
from pydantic import BaseModel

from stock_assets.automation.gaps import Held, read_held
from stock_assets.automation.schedules import last_look, schedule_name
from stock_assets.calendars import get_calendar
from stock_assets.lake.store import Lake
from stock_assets.notices import wording
from stock_assets.notices.notice import Notice
from stock_assets.notices.wording import Places
from stock_assets.partitions import Grid
from stock_assets.settings import Instrument, Settings
from stock_assets.sources.settling import latest_settled

GRACE = dt.timedelta(minutes=30)
"""Candles must be late for so long before anybody is told: a machine that was off catches up."""


class Known(BaseModel):
    """What is known of an exchange from tick to tick."""

    looked: str = ""
    """The day that was looked at, and the version of `candles` then."""
    late_since: dt.datetime | None = None
    """When candles were first found to be late that have not been told yet."""
    day: dt.date | None = None
    """The day that was last told to be stale; None while nothing is."""
    tickers: frozenset[str] = frozenset()
    """Those that were told and have had no candle since."""


@dataclass(frozen=True)
class Watch:
    """What is watched, and how it is spoken of."""

    settings: Settings
    grid: Grid
    places: Places
    clock: str
    """`partitions.day_clock`: milliseconds each time it is asked."""


@dataclass(frozen=True)
class _Late:
    """Who is late on a day."""

    silent: Mapping[str, int]
    """Sessions without a candle, by ticker."""
    sources: tuple[str, ...]
    """Sources of which no ticker of the exchange has a candle of the day."""


def look_at(
    exchange: str, known: Known, watch: Watch, instance: dg.DagsterInstance, now: dt.datetime
) -> tuple[Known, list[Notice]]:
    """What there is to tell of an exchange at `now` (UTC), and what is known then.

    Reads the lake only when a session has become late or the candles have changed.
    """
    settings, grid = watch.settings, watch.grid
    day = _last_late_day(exchange, watch, now)
    lake = Lake(settings.lake_dir)
    looked = f"{day} {lake.version('candles')}"
    waits = known.late_since is None or now - known.late_since < GRACE
    if day is None or (looked == known.looked and waits):
        return known, []
    calendar = get_calendar(exchange)
    instruments = [item for item in settings.universe if item.exchange == exchange]
    first = next(item for item in grid.sessions if calendar.is_session(item))
    held = read_held(lake, calendar, instruments, first, day)
    if held.newest_forecast is None:
        # Nobody has begun with this exchange.
        return Known(looked=looked), []
    late = _late(held, instruments, settings.notices.stale_sessions)
    left = _still_silent(known, held, instruments)
    # A ticker is told once; a source that gives nothing, session for session.
    if late.silent.keys() - left or (late.sources and day != known.day):
        since = known.late_since or now
        if now - since < GRACE:
            news = {"looked": looked, "late_since": since, "tickers": left}
            return known.model_copy(update=news), []
        schedule = schedule_name(exchange)
        told = wording.stale(
            watch.places, exchange, day, dict(late.silent), late.sources,
            when=now, error=_last_error(instance, schedule), schedule=schedule,
        )  # fmt: skip
        return Known(looked=looked, day=day, tickers=left | late.silent.keys()), [told]
    if known.day is not None and not left:
        whole = wording.whole_again(watch.places, exchange, known.day, now)
        return Known(looked=looked), [whole]
    return Known(looked=looked, day=known.day, tickers=left), []


def _last_late_day(exchange: str, watch: Watch, now: dt.datetime) -> dt.date | None:
    """The last session whose candles should all be there; None before the partitions' first."""
    calendar = get_calendar(exchange)
    day = latest_settled(watch.settings, exchange, now)
    while last_look(watch.settings, exchange, day, watch.clock) > now:
        day = calendar.back(day, 1)
    return day if day >= watch.grid.sessions[0] else None


def _late(held: Held, instruments: list[Instrument], sessions: int) -> _Late:
    day = held.sessions[-1]
    silent: dict[str, int] = {}
    for item in instruments:
        for session in reversed(held.sessions):
            if (session, item.ticker) not in held.missing:
                break
            silent[item.ticker] = silent.get(item.ticker, 0) + 1
    by_source: dict[str, set[str]] = {}
    for item in instruments:
        if item.is_listed(day):
            by_source.setdefault(item.source, set()).add(item.ticker)
    # A source with one ticker among others may have a halted one.
    dumb = {
        name: own
        for name, own in by_source.items()
        if own <= silent.keys() and (len(own) > 1 or len(by_source) == 1)
    }
    told = set().union(*dumb.values()) | {name for name, long in silent.items() if long >= sessions}
    return _Late({name: silent[name] for name in sorted(told)}, tuple(sorted(dumb)))


def _still_silent(known: Known, held: Held, instruments: list[Instrument]) -> frozenset[str]:
    """Of the tickers that were told, those of which candles are still expected and not there."""
    if known.day is None:
        return frozenset()
    back = {ticker for session, ticker in held.candles if session >= known.day}
    listed = {item.ticker for item in instruments if item.is_listed(held.sessions[-1])}
    return known.tickers & listed - back


def _last_error(instance: dg.DagsterInstance, schedule: str) -> str:
    """Why the last tick of a schedule failed; nothing when it did not."""
    for state in instance.all_instigator_state():
        if state.name != schedule:
            continue
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        for tick in ticks:
            if tick.status == TickStatus.FAILURE and tick.error is not None:
                error = tick.error
                while error.cause is not None:
                    error = error.cause
                return str(error.message).strip()
    return ""
