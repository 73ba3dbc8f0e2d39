"""The trading calendar as MOEX ISS publishes it, held against ours.

Nothing here changes what a session is: `calendars.py` decides that, and people correct it there
when a difference shown here turns out to be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stock_assets.sources.iss import day_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from stock_assets.calendars import Calendar
    from stock_assets.sources.iss import Table

COLUMNS = ("tradedate", "is_traded", "reason")
WEEKEND = "W"
"""The reason of an additional weekend session, which belongs to the next trading day."""

_REASONS = {
    "H": "a holiday",
    WEEKEND: "an additional weekend session",
    "N": "a usual day",
    "T": "a transferred trading day",
}


@dataclass(frozen=True)
class TradingDay:
    """What ISS says of one day."""

    day: dt.date
    is_traded: bool
    reason: str


@dataclass(frozen=True)
class Difference:
    """A day on which ISS and our calendar disagree."""

    day: dt.date
    is_traded: bool
    """By ISS."""
    reason: str

    @property
    def is_weekend_session(self) -> bool:
        """Whether it is one of the weekend sessions that our calendar leaves out on purpose."""
        return self.is_traded and self.reason == WEEKEND

    def __str__(self) -> str:
        ours = "closed" if self.is_traded else "open"
        why = _REASONS.get(self.reason, self.reason or "no reason given")
        return f"{self.day} {'open' if self.is_traded else 'closed'} ({why}), ours says {ours}"


def trading_days(table: Table) -> list[TradingDay]:
    """The days of ISS's table `off_days`, without those of which it knows nothing yet."""
    found = []
    for row in table.records():
        day = day_of(row["tradedate"])
        if day is not None and row["is_traded"] is not None:
            found.append(TradingDay(day, row["is_traded"] == 1, row["reason"] or ""))
    return found


def calendar_differences(days: Sequence[TradingDay], calendar: Calendar) -> list[Difference]:
    """The days on which ISS and `calendar` disagree, in order."""
    return [
        Difference(item.day, item.is_traded, item.reason)
        for item in sorted(days, key=lambda item: item.day)
        if item.is_traded != calendar.is_session(item.day)
    ]


def in_words(differences: Sequence[Difference], calendar: Calendar) -> str:
    """One sentence for a check: the weekend sessions are counted, the others named."""
    weekends = sum(item.is_weekend_session for item in differences)
    others = [str(item) for item in differences if not item.is_weekend_session]
    said = []
    if others:
        said.append(f"the calendar {calendar.name} disagrees on {'; '.join(others)}")
    else:
        said.append(f"the calendar {calendar.name} agrees")
    if weekends:
        said.append(f"{weekends} additional weekend session(s) are left out of it")
    return ", ".join(said)
