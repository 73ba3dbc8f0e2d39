"""What MOEX ISS says of securities beside their candles: boards by day, splits, the calendar.

Each is asked for once a fetch, whichever threads want it. What the answers mean is in
`moex_boards.py`, `moex_splits.py` and `moex_calendar.py`; candles are `moex.py`'s.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections import defaultdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from stock_assets.errors import SourceError, UnknownSymbolError
from stock_assets.lake.splits import Split
from stock_assets.sources import moex_boards, moex_calendar, moex_splits
from stock_assets.sources.api import MOSCOW
from stock_assets.sources.iss import Table, day_of, number_of, refused, wants
from stock_assets.sources.moex_boards import Board, Span
from stock_assets.sources.rules import DAILY
from stock_assets.sources.windows import windows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stock_assets.settings import Instrument, MoexSettings
    from stock_assets.sources.http import Answer, Client
    from stock_assets.sources.moex_calendar import TradingDay
    from stock_assets.sources.windows import Window

T = TypeVar("T")

INTERVALS = {"1m": 1, "10m": 10, "1h": 60, DAILY: 24}
"""ISS's own numbers of our intervals."""

_SHARES = "/engines/stock/markets/shares/boards/TQBR/securities"

_BEFORE_SPLIT = dt.timedelta(days=130)
"""A page of the official history, 100 sessions, is longer; a halt before a split is shorter."""
_DAY = dt.timedelta(days=1)


class Reference:
    """What ISS says of securities, for one fetch. Threads share it."""

    def __init__(self, source: str, own: MoexSettings) -> None:
        self._source = source
        self._own = own
        self._once = _Once()

    def get(
        self,
        client: Client,
        path: str,
        read: Callable[[Answer], T],
        asked: dict[str, str],
    ) -> T:
        """What `read` makes of the answer of one address."""
        return client.send(
            "GET", path, read, params={"iss.meta": "off", **asked}, refuse=refused(self._source)
        )

    def trading_days(self, client: Client, first: dt.date, last: dt.date) -> list[TradingDay]:
        """ISS's own calendar of the stock market, between two days, both included."""
        found: dict[dt.date, TradingDay] = {}
        reader = wants(
            "off_days",
            *moex_calendar.COLUMNS,
            make=lambda table: (len(table.rows), moex_calendar.trading_days(table)),
        )
        for year in range(first.year, last.year + 1):  # a request may not span two
            start = max(first, dt.date(year, 1, 1))
            end = min(last, dt.date(year, 12, 31))
            asked = {"from": str(start), "till": str(end), "show_all_days": "1"}
            read = 0
            while True:
                at = {**asked, "start": str(read)}
                count, days = self.get(client, "/calendars/stock.json", reader, at)
                new = {item.day: item for item in days if item.day not in found}
                found |= new
                read += count
                if not new:
                    break  # an empty page, or one again: `start` means nothing here
        return list(found.values())

    def splits(self, client: Client, instruments: Sequence[Instrument]) -> tuple[Split, ...]:
        """Splits of `instruments` that ISS declares, by their tickers, in order."""
        every = self._declared(client)
        found = [
            Split(item.ticker, split.day, split.before, split.after)
            for item in instruments
            for window in windows_of(item, None, dt.date.max)
            for split in every.get(window.symbol, ())
            if (window.first is None or window.first <= split.day) and split.day <= window.last
        ]
        return tuple(sorted(found))

    def _declared(self, client: Client) -> dict[str, list[Split]]:
        """Every split that ISS knows, by its own names."""

        def ask() -> dict[str, list[Split]]:
            path = "/statistics/engines/stock/splits.json"
            reader = wants("splits", *moex_splits.COLUMNS, make=moex_splits.declared)
            found: dict[str, list[Split]] = defaultdict(list)
            try:
                declared = self.get(client, path, reader, {})
            except SourceError as error:
                message = (
                    f"{error}; without ISS's splits its candles cannot be brought back to what was "
                    f"traded: to take them as they are, set [sources.{self._source}] as_traded = "
                    "false"
                )
                raise SourceError(message) from error
            for split in declared:
                found[split.ticker].append(split)
            return found

        return self._once.get("splits", ask)

    def rewritten(self, client: Client, window: Window) -> tuple[Split, ...]:
        """The splits after the window's first day for which ISS rewrote its candles."""
        assert window.first is not None
        today = dt.datetime.now(tz=MOSCOW).date()
        if window.first >= today:
            return ()
        later = Fraction(1)
        found = []
        for split in reversed(self._declared(client).get(window.symbol, [])):
            if not window.first < split.day <= today:
                continue
            if self._is_rewritten(client, window, split, later):
                later *= split.before / split.after
                found.append(split)
        return tuple(found)

    def _is_rewritten(self, client: Client, window: Window, split: Split, later: Fraction) -> bool:
        def ask() -> bool:
            candles, history = self._closes_before(client, window, split.day)
            both = candles.keys() & history.keys()
            if not both:
                return False  # no candle before it that could have been rewritten
            day = max(both)
            told = moex_splits.is_rewritten(
                split, candle=candles[day], traded=history[day], later=later
            )
            if told is None:
                message = (
                    f"source {self._source}: ticker {window.ticker}: on {day}, before its split "
                    f"{split.before}:{split.after} of {split.day}, ISS has the close "
                    f"{candles[day]:g} as a candle and {history[day]:g} in its history, so that "
                    "it cannot be told whether candles are as traded; to take them as they are, "
                    f"set [sources.{self._source}] as_traded = false"
                )
                raise SourceError(message)
            return told

        return self._once.get(("rewritten", window.symbol, split.day), ask)

    def _closes_before(
        self, client: Client, window: Window, day: dt.date
    ) -> tuple[dict[dt.date, float], dict[dt.date, float]]:
        """The last closes before `day`, by the daily candles and by the official history."""
        first, last = day - _BEFORE_SPLIT, day - _DAY
        spans = self.spans(client, window, first, last)
        if not spans:
            return {}, {}
        span = spans[-1]
        asked = {"from": str(span.first), "till": str(span.last)}
        candles = self.get(
            client,
            path_of(span.board, window.symbol, "candles"),
            wants("candles", "begin", "close", make=lambda table: _closes(table, "begin", "close")),
            {**asked, "interval": "24"},
        )
        history = self.get(
            client,
            "/history" + path_of(span.board, window.symbol),
            wants(
                "history",
                "TRADEDATE",
                "CLOSE",
                make=lambda table: _closes(table, "TRADEDATE", "CLOSE"),
            ),
            asked,
        )
        return candles, history

    def look_up(self, client: Client, window: Window) -> None:
        """Whether ISS knows the symbol, on a main board; `UnknownSymbolError` where not."""
        if window.symbol not in self.shares(client):  # one answer for most of a universe
            self._boards(client, window)

    def shares(self, client: Client) -> frozenset[str]:
        """The codes of all shares on the main board of today."""

        def ask() -> frozenset[str]:
            reader = wants(
                "securities", "SECID", make=lambda table: frozenset(map(str, table.column("SECID")))
            )
            return self.get(client, f"{_SHARES}.json", reader, {})

        return self._once.get("shares", ask)

    def spans(self, client: Client, window: Window, first: dt.date, last: dt.date) -> list[Span]:
        """Which board to ask for which of these days."""
        today = self._boards(client, window)[0]
        if today.first is not None and today.first <= first:
            # Its own days, without asking what else there was: every live run.
            return [Span(today, first, last)]
        return moex_boards.within(self.boards_by_day(client, window), first, last)

    def boards_by_day(self, client: Client, window: Window) -> list[Span]:
        """Every day of which ISS has candles of the symbol, and the board to ask for it."""

        def ask() -> list[Span]:
            held = []
            for place, board in enumerate(self._boards(client, window)):
                borders = self._borders(client, window, board)
                if place == 0:
                    # Today's board is going on, and its listing may know it before its candles.
                    known = [day for day in (board.first, borders and borders[0]) if day]
                    if known:
                        held.append(Span(board, min(known), dt.date.max))
                elif borders:
                    held.append(Span(board, *borders))
            return moex_boards.one_a_day(held)

        return self._once.get(("days", window.symbol), ask)

    def _boards(self, client: Client, window: Window) -> tuple[Board, ...]:
        """The symbol's main boards, today's first; `UnknownSymbolError` for an unknown symbol."""

        def ask() -> tuple[Board, ...]:
            reader = wants(
                "boards",
                *moex_boards.COLUMNS,
                make=lambda table: (len(table.rows), moex_boards.main_boards(table)),
            )
            listed, boards = self.get(
                client, f"/securities/{quote(window.symbol, safe='')}.json", reader, {}
            )
            if boards:
                return boards
            what = (
                f"lists {window.symbol} on no main board"
                if listed
                else f"knows no security {window.symbol!r}"
            )
            message = (
                f"source {self._source}: ticker {window.ticker}: MOEX ISS {what}; give the code "
                'that the exchange itself uses as symbol = "..." of the ticker in the universe '
                f"(look it up at {self._own.base_url}/securities.html?q={quote(window.ticker)})"
            )
            raise UnknownSymbolError(message)

        return self._once.get(("boards", window.symbol), ask)

    def _borders(
        self, client: Client, window: Window, board: Board
    ) -> tuple[dt.date, dt.date] | None:
        """First and last day of the board's candles; None when it has none of this interval."""
        interval = INTERVALS[self._own.interval]

        def make(table: Table) -> tuple[dt.date, dt.date] | None:
            for row in table.records():
                first, last = day_of(row["begin"]), day_of(row["end"])
                if row["interval"] == interval and first and last:
                    return first, last
            return None

        reader = wants("borders", "begin", "end", "interval", make=make)
        return self.get(client, path_of(board, window.symbol, "candleborders"), reader, {})


class _Once:
    """What is asked for once, whichever threads want it; a failure is asked for again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[object, threading.Lock] = {}
        self._found: dict[object, Any] = {}

    def get(self, key: object, ask: Callable[[], T]) -> T:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._found:
                self._found[key] = ask()
            found: T = self._found[key]
        return found


def path_of(board: Board, symbol: str, what: str = "") -> str:
    """Address of a security on a board, or of something that it has."""
    security = f"{quote(symbol, safe='')}{'/' + what if what else ''}.json"
    return (
        f"/engines/{board.engine}/markets/{board.market}/boards/{board.name}/securities/{security}"
    )


def _closes(table: Table, day: str, close: str) -> dict[dt.date, float]:
    """Close by day, without the days that have none."""
    rows = [(day_of(row[day]), number_of(row[close])) for row in table.records()]
    return {day: close for day, close in rows if day is not None and close}
