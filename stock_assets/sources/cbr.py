"""The Bank of Russia: official prices of precious metals, and exchange rates, in roubles.

How its pages are asked is here, what their XML means is in `cbr_documents.py`. One price a day, in
force on the day that it is dated: open, high, low and close are that price, there is no volume.
docs/sources/cbr.md has the facts that this relies on, and the test of each.
"""

from __future__ import annotations

import datetime as dt
import threading
from typing import TYPE_CHECKING

from stock_assets.errors import SourceError, UnknownSymbolError
from stock_assets.settings import CbrSettings
from stock_assets.sources import cbr_documents as documents
from stock_assets.sources.api import MOSCOW, ApiSource, most_alike
from stock_assets.sources.http import Client, PassingTroubleError
from stock_assets.sources.windows import Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from xml.etree.ElementTree import Element

    import polars as pl

    from stock_assets.settings import Settings
    from stock_assets.sources.http import Answer

_METAL_CODES = {"XAU": "1", "XAG": "2", "XPT": "3", "XPD": "4"}
_METAL_WORDS = {"GOLD": "XAU", "SILVER": "XAG", "PLATINUM": "XPT", "PALLADIUM": "XPD"}

_FIRST = dt.date(1992, 7, 1)
"""The day of the first rate. Nothing is older; metals and most currencies begin later."""

_LONGEST_SILENCE = dt.timedelta(days=31)
"""Longer than any pause between two prices: the holidays of January take eleven days."""

_FORBIDDEN = 403


def metal_code(symbol: str) -> str | None:
    """The Bank's code of the metal that a symbol names; None when it names none."""
    name = symbol.upper()
    return _METAL_CODES.get(_METAL_WORDS.get(name, name))


class CbrSource(ApiSource[CbrSettings]):
    """Daily prices of the Bank of Russia."""

    # Four years of four metals are half a megabyte. Few requests: its guard dislikes many.
    window_days = {"1d": 1461}  # noqa: RUF012 - a ClassVar in the parent

    def __init__(
        self, name: str, own: CbrSettings, settings: Settings, *, resume: bool = True
    ) -> None:
        super().__init__(name, own, settings, resume=resume)
        # One answer holds all metals: tickers of the same days share it.
        self._metals_lock = threading.Lock()
        self._metals: dict[tuple[dt.date | None, dt.date], bytes] = {}
        self._lists_lock = threading.Lock()
        self._lists: dict[dt.date | None, dict[str, str]] = {}

    def connect(self) -> Client:
        """Connections to the Bank; there is nothing that could be missing."""
        return Client(self.name, self.own, self.own.base_url, self.limits_dir)

    def beginning(self, client: Client, window: Window) -> dt.date | None:
        """The first day of all rates: before a symbol's own, answers are empty and cheap."""
        if metal_code(window.symbol) is None:
            self._currency_id(client, window)
        return _FIRST

    def ask(self, client: Client, window: Window) -> list[bytes]:
        """The one answer that holds the window, however long."""
        if metal_code(window.symbol) is None:
            own = self._currency_id(client, window)
            params = {**_between(window), "VAL_NM_RQ": own}
            return [self._records(client, "XML_dynamic", "ValCurs", params, window, own)]
        with self._metals_lock:
            days = (window.first, window.last)
            if days not in self._metals:
                self._metals[days] = self._metal_records(client, window)
            return [self._metals[days]]

    def rows(self, window: Window, bodies: Sequence[bytes]) -> pl.DataFrame:
        """One row a published day."""
        code = metal_code(window.symbol)
        if code is None:
            published = [
                item
                for body in bodies
                for item in documents.currency_rates(documents.document(body, "ValCurs"))
            ]
        else:
            published = [
                item
                for body in bodies
                for item in documents.metal_prices(documents.document(body, "Metall"), code)
            ]
        return documents.table(published, window.first or _FIRST, window.last)

    def file(self, window: Window) -> str:
        """The page; the same for all metals, whose answers are the same."""
        if metal_code(window.symbol) is not None:
            return "xml_metall"
        return f"XML_dynamic {window.symbol.upper()}"

    def probe(self, client: Client) -> str:
        """Today's price of gold, or the latest."""
        today = dt.datetime.now(tz=MOSCOW).date()
        window = Window("XAU", "XAU", today - _LONGEST_SILENCE, today)
        body = self._metal_records(client, window)
        rows = self.rows(window, [body]).drop_nulls("close").sort("day")
        if rows.is_empty():
            return f"it answers, but has published no price of gold since {window.first}"
        day, price = rows.select("day", "close").row(-1)
        if day == today:
            return f"gold is {price:.2f} RUB a gram today, {day}"
        return f"gold was {price:.2f} RUB a gram on {day}, the latest price"

    def look_up(self, client: Client, window: Window) -> None:
        """Look a currency up in the day's list; the metals are known."""
        if metal_code(window.symbol) is None:
            self._currency_id(client, window)

    def nearest(self, client: Client, window: Window) -> list[str]:
        """Among the metals, by code and by word, and the currencies of today."""
        known = [*_METAL_CODES, *_METAL_WORDS, *self._list(client, None)]
        return most_alike(window.symbol, known)

    def _currency_id(self, client: Client, window: Window) -> str:
        """What the Bank calls the currency.

        Looked up in the latest list, then in that of the window's last day, which still has a
        currency that is no longer quoted today.
        """
        code = window.symbol.upper()
        for day in (None, window.last):
            found = self._list(client, day).get(code)
            if found is not None:
                return found
        message = (
            f"source {self.name}: the Bank of Russia lists no {window.symbol!r} (ticker "
            f"{window.ticker}), neither today nor on {window.last}. Its symbols are XAU, XAG, XPT, "
            "XPD (or gold, silver, platinum, palladium) and ISO codes such as USD; say symbol = "
            '"USD" in the universe. A currency that it quotes no more needs delisted = its last day'
        )
        raise UnknownSymbolError(message)

    def _list(self, client: Client, day: dt.date | None) -> dict[str, str]:
        """Identifiers by code, of the list in force on `day`; the latest without one."""
        with self._lists_lock:
            if day not in self._lists:
                params = {} if day is None else {"date_req": f"{day:%d/%m/%Y}"}
                self._lists[day] = client.send(
                    "GET",
                    "/scripts/XML_daily.asp",
                    self._ids,
                    params=params,
                    refuse=self._refuse,
                )
            return self._lists[day]

    def _ids(self, answer: Answer) -> dict[str, str]:
        found = documents.currency_ids(self._document(answer, "ValCurs"))
        if not found:
            raise PassingTroubleError("its list of currencies was empty")
        return found

    def _metal_records(self, client: Client, window: Window) -> bytes:
        return self._records(client, "xml_metall", "Metall", _between(window), window)

    def _records(  # noqa: PLR0913, PLR0917
        self,
        client: Client,
        page: str,
        root: str,
        params: Mapping[str, str],
        window: Window,
        own: str = "",
    ) -> bytes:
        """The body of a page with records of the window's days; none at all is an answer too."""

        def read(answer: Answer) -> bytes:
            found = self._document(answer, root)
            if own and found.get("ID", own).strip() != own:
                words = f"it answered for the currency {found.get('ID')} instead of {own}"
                raise PassingTroubleError(words)
            days = documents.record_days(found)
            first = window.first or _FIRST
            if days and not any(first <= day <= window.last for day in days):
                words = f"it answered for {min(days)} to {max(days)}, which was not asked for"
                raise PassingTroubleError(words)
            return answer.body

        return client.send("GET", f"/scripts/{page}.asp", read, params=params, refuse=self._refuse)

    def _document(self, answer: Answer, root: str) -> Element:
        """The document of an answer. What may be right the next time is passing trouble.

        A whole document with the right root is taken whatever its content type says.
        """
        try:
            return documents.document(answer.body, root)
        except documents.NotTheDocumentError as error:
            if "html" in answer.content_type or b"<html" in answer.body[:1000].lower():
                raise PassingTroubleError(self._turned_away(answer)) from error
            words = f"it answered with {error} ({answer.excerpt})"
            raise PassingTroubleError(words) from error
        except documents.RefusedDocumentError as error:
            message = (
                f"source {self.name}: the answer of {answer.url} is refused: {error}. Check "
                f"[sources.{self.name}] base_url and the days that were asked for"
            )
            raise SourceError(message) from error

    def _refuse(self, answer: Answer) -> None:
        """The guard in front of the Bank says 403 to whom it dislikes for the moment."""
        if answer.status == _FORBIDDEN:
            raise PassingTroubleError(self._turned_away(answer))

    def _turned_away(self, answer: Answer) -> str:
        return (
            f"it answered {answer.status} with a page for people instead of XML "
            f"({answer.excerpt}): the guard of the Bank's site turns away who asks too often or "
            f"without a usual User-Agent. Lower [sources.{self.name}] requests_per_second or "
            "change its user_agent"
        )


def _between(window: Window) -> dict[str, str]:
    """Both ends are included."""
    first = window.first or _FIRST
    return {"date_req1": f"{first:%d/%m/%Y}", "date_req2": f"{window.last:%d/%m/%Y}"}
