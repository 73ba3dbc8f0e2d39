"""Which instrument a source's name means on which day, as the universe declares it.

A name is one instrument's on a day: two that say otherwise are refused here, and an instrument that
goes by another's former name begins when that one has left it. What files and APIs make of names is
in `sources/names.py` and `sources/windows.py`.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stock_assets.source_settings import Instrument

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Claim:
    """Days, both included, on which an instrument says that it went by a name."""

    name: str
    ticker: str
    first: dt.date
    """`date.min` where the settings do not say."""
    last: dt.date
    is_former: bool

    def meets(self, other: Claim) -> bool:
        """Whether both have the name on some day."""
        return self.first <= other.last and other.first <= self.last

    def __str__(self) -> str:
        """'X5 until 2018-01-05'."""
        since = "" if self.first == dt.date.min else f" from {self.first}"
        until = "" if self.last == dt.date.max else f" until {self.last}"
        return f"{self.ticker}{since}{until}" if since or until else f"{self.ticker} on all days"


def claims_of(item: Instrument) -> list[Claim]:
    """The names of an instrument in the order of their days, today's last."""
    first, end = item.listed or dt.date.min, item.delisted or dt.date.max
    found = []
    for former in item.formerly:
        found.append(Claim(former.symbol, item.ticker, first, former.until, is_former=True))
        first = max(first, former.until + _DAY)
    return [*found, Claim(item.source_symbol, item.ticker, first, end, is_former=False)]


def without_strangers(instruments: Sequence[Instrument]) -> list[Instrument]:
    """`instruments` of one source; who goes by another's former name is `listed` only after it.

    Raises `ValueError`, naming both, where two had one name on the same days. Tickers that share a
    name today are no such case: one metal of the Bank may be two tickers.
    """
    every = [claim for item in instruments for claim in claims_of(item)]
    former = [claim for claim in every if claim.is_former]
    for one, other in itertools.combinations(former, 2):
        if one.ticker != other.ticker and one.name == other.name and one.meets(other):
            raise ValueError(_both(one, other))
    return [_after_others(item, former) for item in instruments]


def _after_others(item: Instrument, former: Iterable[Claim]) -> Instrument:
    today = claims_of(item)[-1]
    taken = [
        claim
        for claim in former
        if claim.ticker != item.ticker and claim.name == today.name and claim.meets(today)
    ]
    if not taken:
        return item
    latest = max(taken, key=lambda claim: claim.last)
    # Who says since when has said it of days that another says too.
    if today.first > dt.date.min or today.last <= latest.last:
        raise ValueError(_both(latest, today))
    return item.model_copy(update={"listed": latest.last + _DAY})


def _both(one: Claim, other: Claim) -> str:
    return (
        f"universe: {one.ticker} and {other.ticker} both claim the name {one.name!r} on the same "
        f"days ({one}; {other}); a name is one instrument's on a day: mend the days of formerly, "
        "or say the first and last day of each as listed and delisted"
    )
