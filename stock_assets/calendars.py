"""Trading calendars: which days are sessions of an exchange, and why a day is not one.

Sessions come from the `exchange_calendars` package, corrected here where the market's own record
shows it wrong. Everything that asks "is this a session", "which session comes next" or "is this
session over" asks here. Nothing here knows tickers, partitions or Dagster.
"""

from __future__ import annotations

import bisect
import datetime as dt
import functools
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from stock_assets.calendar_files import KnownSessions, remembered
from stock_assets.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEEKDAYS = "weekdays"
"""The calendar of a ticker without an exchange: Monday to Friday, closing at midnight UTC."""

CBR = "CBR"
"""Official rates of the Bank of Russia: effective the day after each Russian working day."""

EPOCH = dt.date(1990, 1, 1)

COMPUTATION = 1
"""Number of the way `_computed` gets sessions from the package: raise it with every change there
that can change them, or those cached by the older way stay in use."""

_FAR_YEARS = 2
_SHOWN_EXCHANGES = 12


@dataclass(frozen=True)
class _Correction:
    """Days on which the packaged calendar and the exchange's record, or its plan, differ."""

    closed: frozenset[dt.date] = frozenset()
    extra: frozenset[dt.date] = frozenset()
    unforeseen: frozenset[dt.date] = frozenset()
    """Days closed at less than a week's notice: until then they were planned as sessions."""


def _days(first: str, last: str) -> frozenset[dt.date]:
    start, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    every = (start + dt.timedelta(n) for n in range((end - start).days + 1))
    return frozenset(day for day in every if day.isoweekday() <= 5)  # noqa: PLR2004


def _each(*days: str) -> frozenset[dt.date]:
    return frozenset(map(dt.date.fromisoformat, days))


_SUSPENDED = _days("2022-02-28", "2022-03-23") - _each("2022-03-07", "2022-03-08")
"""The Moscow Exchange's closure for shares, without two holidays within it."""

_US_UNFORESEEN = _days("2001-09-11", "2001-09-14") | _each(
    "2004-06-11", "2007-01-02", "2012-10-29", "2012-10-30", "2018-12-05", "2025-01-09"
)
"""The attacks of 2001, a hurricane, and days of mourning for presidents."""


_CORRECTIONS = {
    # Trading in shares was suspended from 2022-02-28 to 2022-03-23; five later days that the
    # package holds for holidays were traded (transferred days off, one weekend session).
    "XMOS": _Correction(
        closed=_SUSPENDED,
        extra=_each("2025-02-24", "2025-03-10", "2025-11-01", "2026-03-09", "2026-05-11"),
        # Trading stopped in the crisis of 2008 too; two holidays of 2020 were declared late.
        unforeseen=_SUSPENDED
        | _each("2008-09-18", "2008-10-10", "2008-10-27", "2020-06-24", "2020-07-01"),
    ),
    "XNYS": _Correction(unforeseen=_US_UNFORESEEN),
    "XNAS": _Correction(unforeseen=_US_UNFORESEEN),
    "XLON": _Correction(unforeseen=_each("2022-09-19")),
    # Days for which a rate was set on a day when the exchange was closed.
    CBR: _Correction(
        extra=_each(
            "1993-02-24", "1995-02-24", "1996-11-11", "1996-12-15", "1996-12-16",
            "1997-01-01", "1997-01-06", "1997-02-25", "1998-01-01", "1998-02-24",
            "1999-01-01", "1999-02-24", "2000-01-01", "2000-02-24", "2001-02-24",
            "2002-01-01", "2003-01-01", "2004-01-01", "2005-01-01", "2007-12-30",
            "2008-09-19", "2008-10-11", "2008-10-28", "2009-01-12", "2011-01-01",
            "2012-12-30", "2014-01-01", "2015-01-01", "2016-01-01", "2020-01-01",
            "2020-06-25", "2020-07-02", "2021-01-01", "2022-03-06",
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Calendar:
    """The sessions of one exchange, as sorted days, with the clock time at which each ends.

    `sessions` runs from `EPOCH` (or the package's first day) to about two years from today;
    `close` is local to `timezone`. `planned` are those and the `unforeseen` closures: what could be
    known ahead.
    """

    name: str
    timezone: str
    close: dt.time
    sessions: tuple[dt.date, ...]
    unforeseen: frozenset[dt.date] = frozenset()
    planned: tuple[dt.date, ...] = field(default=(), repr=False, compare=False)
    _set: frozenset[dt.date] = field(default=frozenset(), repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_set", frozenset(self.sessions))
        planned = tuple(sorted(self._set | self.unforeseen)) if self.unforeseen else self.sessions
        object.__setattr__(self, "planned", planned)

    @functools.cached_property
    def session_days(self) -> NDArray[np.datetime64]:
        """`sessions` as days of numpy, which takes milliseconds to make. Not to be written to."""
        import numpy as np  # noqa: PLC0415  # who asks for it has loaded it

        days = np.array(self.sessions, "datetime64[D]")
        days.flags.writeable = False
        return days

    def is_session(self, day: dt.date) -> bool:
        """Whether the exchange trades on `day`."""
        return day in self._set

    def index(self, day: dt.date) -> int:
        """Number of sessions before `day`: its own number when it is a session itself."""
        return bisect.bisect_left(self.sessions, day)

    def between(self, first: dt.date, last: dt.date) -> tuple[dt.date, ...]:
        """Sessions from `first` to `last`, both included."""
        return self.sessions[self.index(first) : bisect.bisect_right(self.sessions, last)]

    def after(self, day: dt.date, count: int) -> tuple[dt.date, ...]:
        """The next `count` sessions strictly after `day`."""
        start = bisect.bisect_right(self.sessions, day)
        return self.sessions[start : start + count]

    def days_ahead(self, day: dt.date, count: int) -> int:
        """Calendar days from `day` to the `count`-th session after it, as planned on `day`."""
        place = bisect.bisect_right(self.planned, day) + count - 1
        return (self.planned[place] - day).days

    def back(self, day: dt.date, count: int) -> dt.date:
        """The session `count` sessions before `day` (the first one when there are fewer)."""
        return self.sessions[max(0, self.index(day) - count)]

    def closes_at(self, day: dt.date) -> dt.datetime:
        """The instant (UTC) when the session of `day` is over."""
        midnight = self.close == dt.time(0)
        label = day + dt.timedelta(1) if midnight else day
        local = dt.datetime.combine(label, self.close, tzinfo=ZoneInfo(self.timezone))
        return local.astimezone(dt.UTC)

    def latest_closed(self, now: dt.datetime) -> dt.date:
        """The last session that is over at `now` (UTC)."""
        position = bisect.bisect_right(self.sessions, now.date() + dt.timedelta(1))
        while position > 1 and self.closes_at(self.sessions[position - 1]) > now:
            position -= 1
        return self.sessions[position - 1]

    def why_closed(self, day: dt.date) -> str | None:
        """Why `day` is not a session, in words; None when it is one."""
        if self.is_session(day):
            return None
        if self.sessions and day < self.sessions[0]:
            return f"before the first session that the calendar {self.name} knows"
        return f"{day:%A} {day} is not a session of {self.name}"


@functools.cache
def _packaged(name: str) -> KnownSessions:
    """What the package knows of `name`, computed once for each release, year and `COMPUTATION`."""
    end = dt.date(dt.datetime.now(tz=dt.UTC).year + _FAR_YEARS, 12, 31)
    # What the sessions depend on. Corrections are applied to what is read, and so need no number.
    releases = [version(package) for package in ("exchange_calendars", "pandas")]
    depends_on = [str(COMPUTATION), name, str(EPOCH), str(end), *releases]
    return remembered(depends_on, lambda: _computed(name, end))


def _computed(name: str, end: dt.date) -> KnownSessions:
    # Imported here: it costs pandas, which the command line's light commands do not need.
    import exchange_calendars as xc

    try:
        canonical = xc.resolve_alias(name)
        cls = xc.calendar_utils._default_calendar_factories[canonical]  # noqa: SLF001
    except (xc.errors.InvalidCalendarName, KeyError):
        known = ", ".join(sorted(xc.get_calendar_names(include_aliases=False))[:_SHOWN_EXCHANGES])
        message = (
            f"unknown exchange {name!r}. Use {WEEKDAYS!r}, {CBR!r} or a calendar of "
            f"exchange_calendars, such as {known}, ..."
        )
        raise SettingsError(message) from None
    start = max(dt.date(EPOCH.year, 1, 2), bound.date()) if (bound := cls.bound_min()) else EPOCH
    if (last := cls.bound_max()) is not None:
        end = min(end, last.date())
    calendar = xc.get_calendar(canonical, start=start.isoformat(), end=end.isoformat())
    close: dt.time = calendar.close_times[-1][1]
    days = tuple(stamp.date() for stamp in calendar.sessions)
    return KnownSessions(str(calendar.tz), close, days)


@functools.cache
def get_calendar(name: str) -> Calendar:
    """The calendar called `name`: `weekdays`, `CBR` or any of exchange_calendars (XMOS, XNYS).

    Raises `SettingsError` for a name that nobody knows.
    """
    if name == WEEKDAYS:
        end = dt.date(dt.datetime.now(tz=dt.UTC).year + _FAR_YEARS, 12, 31)
        count = (end - EPOCH).days + 1
        every = (EPOCH + dt.timedelta(n) for n in range(count))
        weekdays = tuple(day for day in every if day.isoweekday() <= 5)  # noqa: PLR2004
        return Calendar(WEEKDAYS, "UTC", dt.time(0), weekdays)
    base = "XMOS" if name == CBR else name
    known = _packaged(base)
    close, days = known.close, known.days
    if name == CBR:
        # The exchange's uncorrected days are the working days: rates were set all through 2022.
        days = tuple(day + dt.timedelta(1) for day in days)
        close = dt.time(0)
    fix = _CORRECTIONS.get(name, _Correction())
    days = tuple(sorted((set(days) - fix.closed) | fix.extra))
    return Calendar(name, known.timezone, close, days, fix.unforeseen)


@functools.cache
def union_sessions(names: tuple[str, ...]) -> tuple[dt.date, ...]:
    """Days that are a session of at least one of the calendars, sorted."""
    return tuple(sorted(set().union(*(get_calendar(name).sessions for name in names))))
