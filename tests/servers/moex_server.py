"""MOEX ISS on loopback: what the recordings and the documentation say, made of a table of candles.

Quirks that ISS has or may have are switches of `Iss`; the network's trouble is `ApiServer`'s.
"""

from __future__ import annotations

import datetime as dt
import json
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from api_server import ApiServer
from werkzeug.wrappers import Request, Response

from stock_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

CANDLE_COLUMNS = ("open", "close", "high", "low", "value", "volume", "begin", "end")
PAGE = 500
HISTORY_PAGE = 100

Row = list[Any]

_DURATIONS = {1: 60, 10: 600, 60: 3600, 24: 86400, 7: 604800, 31: 2678400, 4: 8035200}
_BOARD_COLUMNS = (
    "secid", "boardid", "title", "board_group_id", "market_id", "market", "engine_id", "engine",
    "is_traded", "decimals", "history_from", "history_till", "listed_from", "listed_till",
    "is_primary", "currencyid",
)  # fmt: skip
_CAME = dt.timedelta(seconds=1)


@dataclass
class Listing:
    """A security on one board: its candles by ISS's interval, in order of `begin`."""

    board: str
    candles: dict[int, list[Row]] = field(default_factory=dict)
    group: int = 57
    engine: str = "stock"
    market: str = "shares"
    is_primary: int = 0
    history_from: str | None = None
    history_till: str | None = None
    history: list[Row] = field(default_factory=list)
    """Official daily bars: TRADEDATE, CLOSE."""

    def listed(self, secid: str) -> Row:
        """Its row of the table `boards`."""
        return [
            secid, self.board, self.board, self.group, 1, self.market, 1, self.engine,
            int(bool(self.is_primary)), 2, self.history_from, self.history_till,
            self.history_from, self.history_till, self.is_primary, "RUB",
        ]  # fmt: skip


def moex_settings(
    lake: Path,
    url: str,
    universe: list[dict[str, Any]],
    *,
    first_day: dt.date = dt.date(2018, 1, 3),
    **own: Any,
) -> Settings:
    """Settings of a lake whose source moex is a server of this kind, with little patience."""
    quick = {"requests_per_second": 50, "first_wait": 0.01, **own}
    return Settings(
        lake={"path": lake},
        partitions={"first_day": first_day},
        universe=universe,
        sources={"moex": {"kind": "moex", "base_url": f"{url}/iss", **quick}},
    )


def candle(begin: str, close: float, *, volume: float | None = 100, minutes: int = 1440) -> Row:
    """A candle that opens at `close` - 1 and goes one further on either side."""
    start = dt.datetime.fromisoformat(begin)
    end = start + dt.timedelta(minutes=minutes) - _CAME
    value = None if volume is None else volume * close
    return [close - 1, close, close + 1, close - 2, value, volume, str(start), str(end)]


def daily(days: Iterable[dt.date], first_close: float = 100.0) -> list[Row]:
    """A candle a day, each closing one higher than the one before."""
    return [
        candle(f"{day} 00:00:00", first_close + place) for place, day in enumerate(sorted(days))
    ]


def _bordered(rows: list[Row]) -> list[Row]:
    """`rows` with the last one of each full page doubled."""
    doubled: list[Row] = []
    for row in rows:
        doubled.append(row)
        if len(doubled) % PAGE == 0:
            doubled.append(row)
    return doubled


@dataclass
class Iss:
    """What the exchange has, and how it misbehaves."""

    securities: dict[str, list[Listing]] = field(default_factory=dict)
    splits: list[Row] = field(default_factory=list)
    """Rows of tradedate, secid, before, after."""
    off_days: list[Row] = field(default_factory=list)
    """Rows of tradedate, is_traded, trade_session_date, reason, updatetime."""
    cursor: bool = False
    """Whether pages come with a table `candles.cursor`."""
    repeats_border: bool = False
    """Whether the last row of each full page is there again as the next page's first."""
    ignores_start: bool = False
    page_sent: Callable[[int], None] | None = None
    """Called with the `start` of each page of candles once it is made."""
    marker: str = "denied"

    def serve(self) -> ApiServer:
        """A server of it, to be used with `with`."""
        return ApiServer(self.answer)

    def answer(self, request: Request) -> Response:
        """As ISS would."""
        parts = request.path.removeprefix("/iss").strip("/").removesuffix(".json").split("/")
        found = Response("<html><title>404</title></html>", 404, mimetype="text/html")
        match parts:
            case ["securities", secid]:
                about = {"description": self._described(secid), "boards": self._boards(secid)}
                found = self._tables(request, about)
            case ["calendars", "stock"]:
                found = self._calendar(request)
            case ["statistics", "engines", "stock", "splits"]:
                columns = ("tradedate", "secid", "before", "after")
                found = self._tables(request, {"splits": (columns, self.splits)})
            case ["history", "engines", _, "markets", market, "boards", board, "securities", secid]:
                found = self._history(request, self._listings(secid, market, board))
            case ["engines", _, "markets", market, "boards", board, "securities", secid, what]:
                found = self._candles(request, self._listings(secid, market, board), what)
            case ["engines", _, "markets", market, "boards", board, "securities"]:
                codes = [
                    [secid, board]
                    for secid, of in self.securities.items()
                    if any((item.market, item.board) == (market, board) for item in of)
                ]
                tables = {
                    "securities": (("SECID", "BOARDID"), codes),
                    "marketdata": (("SECID", "BOARDID"), codes),
                }
                found = self._tables(request, tables)
            case ["engines", _, "markets", market, "securities", secid, what]:
                main = [item for item in self._listings(secid, market) if item.is_primary]
                found = self._candles(request, main, what)
        return found

    def _listings(self, secid: str, market: str, board: str | None = None) -> list[Listing]:
        return [
            item
            for item in self.securities.get(secid, [])
            if item.market == market and board in {None, item.board}
        ]

    def _described(self, secid: str) -> tuple[tuple[str, ...], list[Row]]:
        rows = [["SECID", "Код", secid]] if secid in self.securities else []
        return ("name", "title", "value"), rows

    def _boards(self, secid: str) -> tuple[tuple[str, ...], list[Row]]:
        return _BOARD_COLUMNS, [item.listed(secid) for item in self.securities.get(secid, [])]

    def _calendar(self, request: Request) -> Response:
        first, last = request.args.get("from", ""), request.args.get("till", "9")
        start = int(request.args.get("start", 0))
        rows = [row for row in self.off_days if first <= row[0] <= last]
        if request.args.get("show_all_days") != "1":
            rows = [row for row in rows if row[3] != "N"]
        columns = ("tradedate", "is_traded", "trade_session_date", "reason", "updatetime")
        return self._tables(request, {"off_days": (columns, rows[start : start + HISTORY_PAGE])})

    def _history(self, request: Request, listings: list[Listing]) -> Response:
        first, last = request.args.get("from", ""), request.args.get("till", "9")
        start = int(request.args.get("start", 0))
        rows = [
            [item.board, row[0], row[1]]
            for item in listings
            for row in item.history
            if first <= row[0] <= last
        ]
        cursor = (("INDEX", "TOTAL", "PAGESIZE"), [[start, len(rows), HISTORY_PAGE]])
        page = rows[start : start + HISTORY_PAGE]
        tables = {"history": (("BOARDID", "TRADEDATE", "CLOSE"), page), "history.cursor": cursor}
        return self._tables(request, tables)

    def _candles(self, request: Request, listings: list[Listing], what: str) -> Response:
        if what == "candleborders":
            rows = [
                [of[0][6], of[-1][7], interval]
                for item in listings
                for interval, of in item.candles.items()
                if of
            ]
            return self._tables(
                request,
                {
                    "borders": (("begin", "end", "interval"), rows),
                    "durations": (("interval", "duration"), [*map(list, _DURATIONS.items())]),
                },
            )
        interval, start = int(request.args["interval"]), int(request.args.get("start", 0))
        rows = [row for item in listings for row in item.candles.get(interval, [])]
        first, last = request.args.get("from", ""), request.args.get("till", "9999")
        # A day as the upper bound takes the whole day with it.
        last = f"{last} 23:59:59" if len(last) == 10 else last
        begins = [row[6] or "" for row in rows]
        rows = rows[bisect_left(begins, first) : bisect_right(begins, last)]
        if request.args.get("iss.reverse") == "true":
            rows = rows[::-1]
        if self.repeats_border:
            rows = _bordered(rows)
        skipped = 0 if self.ignores_start else start
        page = rows[skipped : skipped + PAGE]
        tables: dict[str, tuple[tuple[str, ...], list[Row]]] = {"candles": (CANDLE_COLUMNS, page)}
        if self.cursor:
            tables["candles.cursor"] = (("INDEX", "TOTAL", "PAGESIZE"), [[start, len(rows), PAGE]])
        made = self._tables(request, tables)
        if self.page_sent is not None:
            self.page_sent(start)
        return made

    def _tables(
        self, request: Request, tables: dict[str, tuple[tuple[str, ...], list[Row]]]
    ) -> Response:
        if only := request.args.get("iss.only"):
            tables = {name: of for name, of in tables.items() if name in only.split(",")}
        made: dict[str, Any] = {}
        for name, (columns, rows) in tables.items():
            chosen = request.args.get(f"{name}.columns", ",".join(columns)).split(",")
            places = [columns.index(column) for column in chosen]
            data = [[row[place] for place in places] for row in rows]
            made[name] = {"columns": chosen, "data": data}
            if request.args.get("iss.meta") != "off":
                made[name]["metadata"] = {column: {"type": "string"} for column in chosen}
        document: Any = made
        if request.args.get("iss.json") == "extended":
            document = [
                {"charsetinfo": {"name": "utf-8"}},
                {
                    name: [dict(zip(of["columns"], row, strict=True)) for row in of["data"]]
                    for name, of in made.items()
                },
            ]
        return Response(
            json.dumps(document, ensure_ascii=False),
            headers={"X-MicexPassport-Marker": self.marker},
            content_type="application/json; charset=utf-8",
        )
