"""When the candles of a session are final: when it is over, or later where a source is later.

Moscow's daily candle goes on until its evening session ends, five hours after the calendar's close.
What is not final is held back (`rules.py`); when to look for what is, is the schedules' affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_assets.calendars import get_calendar
from stock_assets.sources.making import make_source

if TYPE_CHECKING:
    import datetime as dt

    from stock_assets.settings import Settings


def instants(settings: Settings, exchange: str, day: dt.date) -> tuple[dt.datetime, ...]:
    """When (UTC) the sources of the exchange's tickers have a session's final candles, in order."""
    names = {item.source for item in settings.universe if item.exchange == exchange}
    found = {make_source(name, settings).settles_at(exchange, day) for name in names}
    return tuple(sorted(found))


def latest_settled(
    settings: Settings, exchange: str, now: dt.datetime, *, source: str | None = None
) -> dt.date:
    """The last session of the exchange whose candles are final at `now` (UTC).

    Those of `source`; without it, of any source of the exchange's tickers.
    """
    calendar = get_calendar(exchange)
    place = calendar.index(calendar.latest_closed(now))

    def settled(session: dt.date) -> bool:
        if source is None:
            return instants(settings, exchange, session)[0] <= now
        return make_source(source, settings).settles_at(exchange, session) <= now

    while place > 0 and not settled(calendar.sessions[place]):
        place -= 1
    return calendar.sessions[place]
