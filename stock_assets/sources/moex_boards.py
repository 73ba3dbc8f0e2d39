"""Which board of the Moscow Exchange a security was traded on, day by day.

Pure: a security's boards, as ISS lists them, and the days of which each has candles, become one
board for each day. Asking ISS for them is in `moex.py`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stock_assets.sources.iss import day_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stock_assets.sources.iss import Table

COLUMNS = (
    "boardid", "board_group_id", "market", "engine", "history_from", "history_till", "is_primary",
)  # fmt: skip
"""What of ISS's table `boards` is relied on."""

_MAIN = frozenset(
    {
        "TQBR", "TQTF", "EQBR", "EQTF",
        # By the level of listing, until 2014.
        "EQBS", "EQNL", "EQLV", "EQNE", "TQBS", "TQNL", "TQLV", "TQNE",
    }
)  # fmt: skip
"""Boards that are or once were the main one of shares or funds, whatever ISS calls primary now."""

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Board:
    """One board on which a security is or was traded."""

    name: str
    engine: str
    market: str
    first: dt.date | None
    """First day of its history; None where it has none."""
    last: dt.date | None


@dataclass(frozen=True)
class Span:
    """Days, both included, whose candles are of one board."""

    board: Board
    first: dt.date
    last: dt.date


def main_boards(table: Table) -> tuple[Board, ...]:
    """The security's main boards of all times: the one of today first, then the later first.

    Those are ISS's primary one and, of the same market, the boards of its group and the former
    main ones: no odd lots, no large blocks, no repo. Empty for a security without any.
    """
    rows = [row for row in table.records() if row["engine"] and row["market"]]
    primary = [row for row in rows if row["is_primary"] == 1]
    if not primary:
        # A security that is traded no more: its last main board stands in.
        former = [row for row in rows if row["boardid"] in _MAIN and row["history_till"]]
        primary = sorted(former, key=lambda row: (row["history_till"], row["boardid"]))[-1:]
    if not primary:
        return ()
    today = primary[0]
    others = [
        row
        for row in rows
        if row is not today
        and (row["engine"], row["market"]) == (today["engine"], today["market"])
        and row["history_from"]
        and (row["boardid"] in _MAIN or row["board_group_id"] == today["board_group_id"])
    ]
    others.sort(key=lambda row: (row["history_from"], row["boardid"]), reverse=True)
    return tuple(
        Board(
            row["boardid"],
            row["engine"],
            row["market"],
            day_of(row["history_from"]),
            day_of(row["history_till"]),
        )
        for row in (today, *others)
    )


def one_a_day(held: Iterable[Span]) -> list[Span]:
    """Every day of any of `held` once, with the first of them that has it; in order of days."""
    free = [(dt.date.min, dt.date.max)]
    taken: list[Span] = []
    for span in held:
        left: list[tuple[dt.date, dt.date]] = []
        for first, last in free:
            start, end = max(first, span.first), min(last, span.last)
            if start > end:
                left.append((first, last))
                continue
            taken.append(Span(span.board, start, end))
            if first < start:
                left.append((first, start - _DAY))
            if end < last:
                left.append((end + _DAY, last))
        free = left
    return sorted(taken, key=lambda span: span.first)


def within(spans: Sequence[Span], first: dt.date, last: dt.date) -> list[Span]:
    """The parts of `spans` that lie between two days, both included."""
    cut = [Span(span.board, max(span.first, first), min(span.last, last)) for span in spans]
    return [span for span in cut if span.first <= span.last]
