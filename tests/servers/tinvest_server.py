"""T-Invest on loopback: answers as its contract and the recordings say, from a table of candles.

What it serves and counts is here; its troubles are `api_server.py`'s, and `quirks`.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import threading
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from api_server import ApiServer
from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TOKEN = "t.not-a-real_Token-0123456789abcdef"
CONTRACT = "/tinkoff.public.invest.api.contract.v1."
MOSCOW = ZoneInfo("Europe/Moscow")

# Longest period of a request and most candles of an answer, as documented.
PERIODS = {
    "1_MIN": (dt.timedelta(days=1), 2400),
    "2_MIN": (dt.timedelta(days=1), 1200),
    "5_MIN": (dt.timedelta(days=7), 2400),
    "10_MIN": (dt.timedelta(days=7), 1200),
    "15_MIN": (dt.timedelta(days=21), 2400),
    "30_MIN": (dt.timedelta(days=21), 1200),
    "HOUR": (dt.timedelta(days=89), 2400),
    "4_HOUR": (dt.timedelta(days=89), 700),
    "DAY": (dt.timedelta(days=2191), 2400),
}
SERVICES = {"MarketDataService": 600, "InstrumentsService": 200}
_HTTP = {3: 400, 5: 404, 7: 403, 8: 429, 13: 500, 14: 503, 16: 401}


@dataclass(frozen=True)
class Candle:
    """One candle as the market made it."""

    time: dt.datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    lots: int
    is_complete: bool = True


@dataclass(frozen=True)
class Listing:
    """An instrument on a board, with its candles by interval (the API's name without prefix)."""

    ticker: str
    uid: str
    figi: str = ""
    class_code: str = "TQBR"
    lot: int | None = 10
    kind: str = "share"
    first_day: str | None = "2000-01-04T07:00:00Z"
    first_minute: str | None = "2018-03-07T18:33:00Z"
    candles: dict[str, list[Candle]] = field(default_factory=dict)

    def card(self) -> dict[str, Any]:
        card = {
            "figi": self.figi, "ticker": self.ticker, "classCode": self.class_code,
            "isin": f"RU{self.ticker}", "lot": self.lot, "currency": "rub",
            "name": f"{self.ticker} Inc.", "uid": self.uid, "exchange": "MOEX",
            "instrumentType": self.kind, "apiTradeAvailableFlag": True,
            "first1minCandleDate": self.first_minute, "first1dayCandleDate": self.first_day,
            "minPriceIncrement": {"units": "0", "nano": 10000000},
        }  # fmt: skip
        return {key: value for key, value in card.items() if value is not None}


def quoted(value: Decimal) -> dict[str, Any]:
    """A price as the API writes it: the sign in both parts, "-0" for a whole part of none."""
    sign = "-" if value < 0 else ""
    whole, rest = divmod(abs(value), 1)
    nano = int(rest * 10**9)
    return {"units": f"{sign}{int(whole)}", "nano": -nano if value < 0 else nano}


def made(listing: Listing, interval: str, times: Sequence[dt.datetime]) -> list[Candle]:
    """Candles at `times`: not random, and different for each ticker and time."""
    found = []
    for moment in times:
        number = (int(moment.timestamp()) // 60 * 7919 + sum(listing.ticker.encode())) % 9973
        low = Decimal(100) + Decimal(number) / 100
        found.append(Candle(moment, low + 1, low + 3, low, low + Decimal("2.05"), lots=number + 1))
    listing.candles[interval] = found
    return found


class TInvestServer(ApiServer):
    """Use it with `with`; `rest` is the base URL of the settings.

    Quirks, all of which were seen or are documented (or cannot be ruled out):

    - `code_as_number`: `description` of errors is a number, as the contract says; else text.
    - `token_status`: status of a refused token.
    - `border`: intraday answers hold the candle at `to` too.
    - `echo`: errors repeat the request's Authorization, in the body and in a header.
    - `spoken_limit`: "600, 600;w=60" instead of "600".
    - `refuse`: (code, gRPC code, message) that every GetCandles gets.
    - `minute`: seconds after which requests are counted anew.
    """

    def __init__(
        self, listings: Iterable[Listing], *, minute: float = 60.0, ssl_context: object = None
    ) -> None:
        super().__init__(self._respond, ssl_context)
        self.rest = f"{self.url}/rest"
        self.listings = list(listings)
        self.minute = minute
        self.limits = dict(SERVICES)
        self.code_as_number = False
        self.token_status = 401
        self.border = False
        self.echo = False
        self.spoken_limit = False
        self.says_limits = True
        self.refuse: tuple[int, int, str] | None = None
        self.refused_for_rate = 0
        self.least_left = math.inf
        """Fewest requests that were left before they were counted anew; below none: too many."""
        self._counting = threading.Lock()
        self._counts: dict[tuple[str, int], int] = {}

    def asked(self, method: str) -> list[dict[str, Any]]:
        """Bodies of the requests to a method, in the order in which they came."""
        with self._lock:
            return [json.loads(item.body) for item in self.seen if item.path.endswith(method)]

    def _respond(self, request: Request) -> Response:
        base, _, method = request.path.partition(CONTRACT)
        service = method.partition("/")[0]
        if (request.method, base) != ("POST", "/rest") or service not in SERVICES:
            return self._error(request, 404, 12, 12001, "Method is unimplemented")
        headers, over = self._count(service)
        response = self._answer_to(request, method, over=over)
        response.headers.extend(headers)
        return response

    def _count(self, service: str) -> tuple[dict[str, str], bool]:
        now = self.clock()
        window = int(now // self.minute)
        with self._counting:
            count = self._counts[service, window] = self._counts.get((service, window), 0) + 1
            self.least_left = min(self.least_left, self.limits[service] - count)
        limit = self.limits[service]
        said = {
            "x-ratelimit-limit": f"{limit}, {limit};w=60" if self.spoken_limit else str(limit),
            "x-ratelimit-remaining": str(max(0, limit - count)),
            "x-ratelimit-reset": str(int((window + 1) * self.minute - now)),
            "x-tracking-id": "8a6f5cb0-0000-4000-8000-000000000000",
        }
        return said if self.says_limits else {}, count > limit

    def _answer_to(self, request: Request, method: str, *, over: bool) -> Response:  # noqa: PLR0911
        if request.headers.get("Content-Type") != "application/json":
            return Response("", 415)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            said = "authentication token is missing or invalid"
            return self._error(request, self.token_status, 16, 40003, said)
        if over:
            self.refused_for_rate += 1
            return self._error(request, 429, 8, 80002, "Request limit exceeded")
        body = request.get_json()
        if method == "InstrumentsService/ShareBy":
            return self._share_by(request, body)
        if method == "InstrumentsService/FindInstrument":
            return self._find(request, body)
        if method == "MarketDataService/GetCandles":
            return self._get_candles(request, body)
        return self._error(request, 404, 12, 12001, "Method is unimplemented")

    def _error(self, request: Request, status: int, grpc: int, code: int, said: str) -> Response:
        if self.echo:
            said += f" ({request.headers.get('Authorization')})"
        body = {
            "code": grpc, "message": said,
            "description": code if self.code_as_number else str(code),
        }  # fmt: skip
        return _json(body, status, {"message": said})

    def _share_by(self, request: Request, body: dict[str, Any]) -> Response:
        kind, text = body["idType"].removeprefix("INSTRUMENT_ID_TYPE_"), body["id"]
        if kind == "TICKER" and not body.get("classCode"):
            return self._error(request, 400, 3, 30013, "`class_code` require")
        for item in self.listings:
            named = {
                "TICKER": (item.ticker, item.class_code) == (text, body.get("classCode")),
                "FIGI": item.figi == text,
                "UID": item.uid == text,
            }
            if item.kind == "share" and named[kind]:
                return _json({"instrument": item.card()})
        return self._error(request, 404, 5, 50002, "Instrument not found")

    def _find(self, request: Request, body: dict[str, Any]) -> Response:
        query = body.get("query")
        if not query:
            return self._error(request, 400, 3, 30087, "Missing parameter: `query`")
        found = [
            item.card()
            for item in self.listings
            if query in (item.ticker, item.figi, item.uid) or query in item.ticker
        ]
        return _json({"instruments": found})

    def _get_candles(self, request: Request, body: dict[str, Any]) -> Response:  # noqa: PLR0911
        if self.refuse is not None:
            code, grpc, said = self.refuse
            return self._error(request, _HTTP.get(grpc, 400), grpc, code, said)
        for name, code in (("from", 30001), ("to", 30004)):
            if name not in body:
                return self._error(request, 400, 3, code, f"Missing parameter: `{name}`")
        interval = body.get("interval", "").removeprefix("CANDLE_INTERVAL_")
        if interval not in PERIODS:
            return self._error(request, 400, 3, 30011, "`interval` is invalid")
        start, end = (dt.datetime.fromisoformat(body[name]) for name in ("from", "to"))
        if start > dt.datetime.now(tz=dt.UTC):
            return self._error(request, 400, 3, 30070, "`from` can't be more than the current date")
        if end < start:
            return self._error(request, 400, 3, 30012, "`to` can't be less than `from`")
        longest, most = PERIODS[interval]
        if end - start > longest:
            said = "The maximum request period for the given candle interval has been exceeded"
            return self._error(request, 400, 3, 30014, said)
        names = {body.get("instrumentId"), body.get("figi")} - {None}
        listing = next(
            (
                item for item in self.listings
                if names & {item.uid, item.figi, f"{item.ticker}_{item.class_code}"}
            ),
            None,
        )  # fmt: skip
        if not names:
            return self._error(request, 400, 3, 30093, "Missing parameter: `instrument_id`")
        if listing is None:
            return self._error(request, 404, 5, 50002, "Instrument not found")
        candles = [
            item
            for item in listing.candles.get(interval, [])
            if self._within(item.time, start, end, daily=interval == "DAY")
        ]
        return _json({"candles": [_written(item) for item in candles[:most]]})

    def _within(
        self, moment: dt.datetime, start: dt.datetime, end: dt.datetime, *, daily: bool
    ) -> bool:
        if daily:
            return start.date() <= moment.date() <= end.date()
        return start <= moment < end or (self.border and moment == end)


def _written(candle: Candle) -> dict[str, Any]:
    return {
        **{name: quoted(getattr(candle, name)) for name in ("open", "high", "low", "close")},
        "volume": str(candle.lots),
        "time": candle.time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "isComplete": candle.is_complete,
        "candleSource": "CANDLE_SOURCE_EXCHANGE",
        "volumeBuy": "0",
        "volumeSell": "0",
    }


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")
