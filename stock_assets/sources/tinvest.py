"""T-Invest (T-Bank): candles of Moscow's exchange and others, with a user's token.

Here is how the API is asked: with whose token, trusting whom, how often, and how an instrument is
found. What candles, instruments, numbers and refusals mean is in `tinvest_candles.py`,
`tinvest_instruments.py`, `quotation.py` and `tinvest_errors.py`.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from stock_assets.errors import SourceError, UnknownSymbolError
from stock_assets.settings import TInvestSettings
from stock_assets.sources.api import MOSCOW, ApiSource, evening_of_moscow, most_alike
from stock_assets.sources.http import Answer, Client, PassingTroubleError
from stock_assets.sources.tinvest_candles import (
    DAILY,
    INTERVALS,
    WINDOW_DAYS,
    as_text,
    candles_of,
    read_candles,
    spans,
)
from stock_assets.sources.tinvest_errors import Meaning, explain, read_refusal
from stock_assets.sources.tinvest_instruments import (
    Listed,
    Name,
    chosen,
    offered,
    read_symbol,
)
from stock_assets.sources.windows import Window

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    import polars as pl

    from stock_assets.settings import Settings

_CONTRACT = "/tinkoff.public.invest.api.contract.v1"
_CANDLES, _INSTRUMENTS = "market data", "instruments"
_A_MINUTE = {_CANDLES: 600, _INSTRUMENTS: 200}
"""Requests of each kind that a user has a minute, whatever their tokens and programs."""

_TOKEN = re.compile(r"[\x21-\x7e]{8,}")
_HERE = {"127.0.0.1", "::1", "localhost"}
_SAMPLE = "SBER"
_RECENT = dt.timedelta(days=14)


class _UnknownInstrumentError(Exception):
    """The API says that there is none."""


@dataclass(frozen=True)
class _Found:
    """An instrument, and the answer that it was read from."""

    listed: Listed
    body: bytes


class TInvestSource(ApiSource[TInvestSettings]):
    """Candles of T-Invest. A piece is the instrument's answer, then those with its candles."""

    window_days: ClassVar[dict[str, int]] = WINDOW_DAYS

    def __init__(
        self, name: str, own: TInvestSettings, settings: Settings, *, resume: bool = True
    ) -> None:
        super().__init__(name, own, settings, resume=resume)
        self._instruments = {item.ticker: item for item in settings.universe}
        self._sample = next(
            (item.ticker for item in settings.universe if item.source == name), None
        )
        self._lock = threading.Lock()
        self._found: dict[Name, Future[_Found]] = {}
        self._left: dict[str, tuple[int, int]] = {}

    def connect(self) -> Client:
        """Connections with the user's token. Raises `SourceError` where it is missing."""
        token = self._token()
        self._refuse_open_road()
        return Client(
            self.name,
            self.own,
            self.own.base_url,
            self.limits_dir,
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            secrets=[token],
            verify=self._trusted(),
            rates={kind: count / 60 for kind, count in _A_MINUTE.items()},
        )

    def settles_at(self, exchange: str, day: dt.date) -> dt.datetime:
        """When the evening session is over as well: daily candles hold it."""
        return evening_of_moscow(exchange, day)

    def beginning(self, client: Client, window: Window) -> dt.date | None:
        """The first day of the interval's candles, as the instrument's card says."""
        listed = self._look_up(client, window).listed
        first = listed.first_day if self.own.interval == DAILY else listed.first_minute
        if first is None:
            message = (
                f"source {self.name}: {window.ticker}: the API does not say when candles of "
                f"{self._named_by(window)} begin; give [sources.{self.name}] begin, or the "
                "ticker's first day as listed"
            )
            raise SourceError(message)
        return first.astimezone(MOSCOW).date()

    def ask(self, client: Client, window: Window) -> list[bytes]:
        """The instrument's answer, then one for each span of the window."""
        found = self._look_up(client, window)
        bodies = [found.body]
        for start, end in spans(window, self.own.interval, dt.datetime.now(tz=dt.UTC)):
            request = {
                "instrumentId": found.listed.uid,
                "from": as_text(start),
                "to": as_text(end),
                "interval": INTERVALS[self.own.interval],
                # Not what T-Bank itself trades with its clients on weekends.
                "candleSourceType": "CANDLE_SOURCE_EXCHANGE",
            }
            service = "MarketDataService/GetCandles"
            try:
                body = self._send(client, window, _CANDLES, service, request, candles_of)
            except _UnknownInstrumentError as error:
                raise UnknownSymbolError(self._stranger(window, error, [])) from error
            bodies.append(body)
        return bodies

    def rows(self, window: Window, bodies: Sequence[bytes]) -> pl.DataFrame:
        """Rows of the answers that `ask` gives."""
        listed = chosen(bodies[0], self._named_by(window))
        lot = listed.lot if listed is not None else None
        lot = lot or self._instruments[window.ticker].lot
        if lot is None:
            message = (
                f"source {self.name}: {window.ticker}: the API counts volume in lots and does not "
                "say how many shares a lot has; give the ticker's lot in the settings"
            )
            raise SourceError(message)
        return read_candles(bodies[1:], window, daily=self.own.interval == DAILY, lot=lot)

    def file(self, window: Window) -> str:
        """The method and the instrument."""
        return f"GetCandles {self._named_by(window)}"

    def probe(self, client: Client) -> str:
        """Look a ticker of the universe up, and its latest daily candles."""
        today = dt.datetime.now(tz=MOSCOW).date()
        instrument = self._instruments.get(self._sample or "")
        ticker, symbol = (
            (instrument.ticker, instrument.source_symbol) if instrument else (_SAMPLE, _SAMPLE)
        )
        window = Window(ticker, symbol, today - _RECENT, today)
        found = self._look_up(client, window)
        now = dt.datetime.now(tz=dt.UTC)
        request = {
            "instrumentId": found.listed.uid,
            "from": as_text(now - _RECENT),
            "to": as_text(now),
            "interval": INTERVALS[DAILY],
        }
        service = "MarketDataService/GetCandles"
        self._send(client, window, _CANDLES, service, request, candles_of)
        with self._lock:
            left = [
                f"{count} of {limit} {kind} requests left this minute"
                for kind, (count, limit) in sorted(self._left.items(), reverse=True)
            ]
        name = f"{self._named_by(window)} is {found.listed.name}"
        return "; ".join(["the token is accepted", name, *left])

    def look_up(self, client: Client, window: Window) -> None:
        """Ask for the instrument."""
        self._look_up(client, window)

    def nearest(self, client: Client, window: Window) -> list[str]:
        """Among the instruments whose tickers have the first letters of the symbol's in them.

        As TICKER_CLASS, or as the ticker alone where it is on the board of the settings.
        """
        name = self._named_by(window)
        service = "InstrumentsService/FindInstrument"
        for letters in dict.fromkeys((name.text[:3], name.text[:2])):
            request = {"query": letters}
            try:
                body = self._send(client, window, _INSTRUMENTS, service, request, offered)
            except _UnknownInstrumentError:
                continue
            boards: dict[str, list[str]] = {}
            for item in offered(body):
                boards.setdefault(str(item.get("ticker")), []).append(str(item.get("classCode")))
            found = [
                ticker if board == self.own.class_code else f"{ticker}_{board}"
                for ticker in most_alike(name.text, boards)
                for board in sorted(boards[ticker])
            ]
            if found:
                return found
        return []

    def _token(self) -> str:
        variable = self.own.token_variable
        token = os.environ.get(variable, "").strip()
        # Checked here: a library that refuses the header would quote it.
        if not _TOKEN.fullmatch(token):
            state = "does not hold a token" if token else "is not set"
            message = (
                f"source {self.name}: the environment variable {variable} {state}; issue a token "
                "(read-only is enough) at https://www.tbank.ru/invest/settings/ and set it: "
                f"export {variable}=t.…"
            )
            raise SourceError(message)
        return token

    def _refuse_open_road(self) -> None:
        address = urlsplit(self.own.base_url)
        if address.scheme != "https" and address.hostname not in _HERE:
            message = (
                f"source {self.name}: [sources.{self.name}] base_url is not https: "
                f"{self.own.base_url} would carry the token for everyone to read; use https"
            )
            raise SourceError(message)

    def _trusted(self) -> ssl.SSLContext | bool:
        """The usual authorities and those of `ca_bundle`."""
        bundle = self.own.ca_bundle
        if bundle is None:
            return True
        import httpx  # noqa: PLC0415 - only runs that ask an API need it

        context = httpx.create_ssl_context()
        try:
            context.load_verify_locations(cafile=bundle)
        except OSError as error:  # ssl.SSLError, for a file that is no PEM, is one
            message = (
                f"source {self.name}: [sources.{self.name}] ca_bundle: {bundle} cannot be read as "
                f"certificates in PEM form ({error}); give such a file"
            )
            raise SourceError(message) from error
        return context

    def _named_by(self, window: Window) -> Name:
        return read_symbol(window.symbol, self.own.class_code)

    def _look_up(self, client: Client, window: Window) -> _Found:
        """The window's instrument, asked for once however many threads want it."""
        name = self._named_by(window)
        with self._lock:
            found = self._found.get(name)
            mine = found is None
            if found is None:
                found = self._found[name] = Future()
        if mine:
            try:
                found.set_result(self._asked(client, window, name))
            except BaseException as error:
                found.set_exception(error)
                raise
        return found.result()

    def _asked(self, client: Client, window: Window, name: Name) -> _Found:
        others: list[dict[str, Any]] = []
        for method, request in (
            ("ShareBy", name.as_request()),
            # Funds, bonds, currencies and futures; it answers with all boards of a ticker.
            ("FindInstrument", {"query": name.text}),
        ):
            service = f"InstrumentsService/{method}"
            try:
                body = self._send(client, window, _INSTRUMENTS, service, request, offered)
            except _UnknownInstrumentError:
                continue
            if (listed := chosen(body, name)) is not None:
                return _Found(listed, body)
            others += offered(body)
        raise UnknownSymbolError(self._stranger(window, None, others))

    def _stranger(
        self, window: Window, error: Exception | None, others: Sequence[Mapping[str, Any]]
    ) -> str:
        name = self._named_by(window)
        alike = sorted(
            {
                f"{item.get('ticker')}_{item.get('classCode')}"
                for item in others
                if name.text in (item.get("ticker"), item.get("isin"))
            }
        )
        advice = (
            f"it knows {', '.join(alike)}: give one of them as the ticker's symbol"
            if alike
            else "give its symbol as TICKER_CLASS (such as SBER_TQBR), FIGI or uid"
        )
        instrument = self._instruments.get(window.ticker)
        former = instrument is not None and window.symbol != instrument.source_symbol
        note = (
            f"; {window.symbol} is a former symbol: where the API keeps its history under today's, "
            "leave formerly out"
            if former
            else ""
        )
        said = f" ({error})" if error else ""
        return (
            f"source {self.name}: {window.ticker}: the API knows no instrument {name}{said}; "
            f"{advice}{note}"
        )

    def _send(  # noqa: PLR0913, PLR0917
        self,
        client: Client,
        window: Window,
        limit: str,
        service: str,
        request: Mapping[str, str],
        check: Callable[[bytes], object],
    ) -> bytes:
        """The body of the answer, once `check` can read it.

        Raises `_UnknownInstrumentError` for an instrument that the API does not know.
        """

        def read(answer: Answer) -> bytes:
            if answer.content_type != "application/json":
                what = f"it answered {answer.content_type or 'something'}, not JSON"
                raise PassingTroubleError(f"{what} ({answer.excerpt})")
            try:
                check(answer.body)
            except ValueError as error:
                what = f"its answer was not whole, or no answer to this ({error})"
                raise PassingTroubleError(what) from error
            return answer.body

        def refuse(answer: Answer) -> None:
            self._judge(client, window, limit, answer)

        def heed(headers: Mapping[str, str]) -> None:
            self._heed(client, limit, headers)

        path = f"{_CONTRACT}.{service}"
        return client.send("POST", path, read, json=request, limit=limit, refuse=refuse, heed=heed)

    def _judge(self, client: Client, window: Window, limit: str, answer: Answer) -> None:
        """Raise what a refusal means; let one by whose status has to do."""
        refusal = read_refusal(answer)
        meaning = refusal.meaning
        if meaning is Meaning.UNCLEAR:
            return
        if meaning is Meaning.NO_INSTRUMENT:
            raise _UnknownInstrumentError(refusal.message)
        what = f"it answered {answer.status} ({refusal.message}; code {refusal.code or '-'})"
        if meaning is Meaning.TOO_MANY_REQUESTS:
            pause = _until_reset(answer.headers)
            if pause is not None:
                client.hold(pause, limit)
            elif "retry-after" in answer.headers:
                return
            raise PassingTroubleError(what, pause)
        if meaning is Meaning.PASSING:
            raise PassingTroubleError(what)
        words = explain(
            refusal,
            url=answer.url,
            token_variable=self.own.token_variable,
            source=self.name,
        )
        raise SourceError(f"source {self.name}: {window.ticker}: {words}")

    def _heed(self, client: Client, limit: str, headers: Mapping[str, str]) -> None:
        """Stop everyone before the last requests of the minute are gone.

        As many as there are connections may be under way, and are not counted in `answer` yet.
        """
        left = _number(headers.get("x-ratelimit-remaining"))
        if left is None:
            return
        total = _number(headers.get("x-ratelimit-limit"))
        with self._lock:
            self._left[limit] = (left, _A_MINUTE[limit] if total is None else total)
        pause = _until_reset(headers)
        if left <= self.own.connections and pause is not None:
            client.hold(pause, limit)


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until requests are counted anew: one more than is said, which is rounded."""
    said = _number(headers.get("x-ratelimit-reset"))
    return None if said is None else said + 1.0


def _number(text: str | None) -> int | None:
    """The number that a header begins with: a limit may come as "600, 600;w=60"."""
    found = re.match(r"\s*(\d{1,9})(?!\d)", text or "")
    return int(found[1]) if found else None
