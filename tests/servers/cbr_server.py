"""The Bank of Russia on loopback: its three pages, made of tables of prices.

Answers as docs/sources/cbr.md says: windows-1251, decimal commas, records of published days only, a
guard that turns away odd and hasty clients. Quirks are attributes, to be set by tests.
"""

from __future__ import annotations

import datetime as dt
import gzip
import threading
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from api_server import ApiServer
from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

CODES = {"XAU": "1", "XAG": "2", "XPT": "3", "XPD": "4"}
GUARD = "<!DOCTYPE html><html><head><title>DDOS-GUARD</title></head><body>Checking</body></html>"


@dataclass
class Currency:
    """One currency: roubles for one unit by day, and how the Bank writes it."""

    own: str
    """The Bank's identifier."""
    rates: dict[dt.date, float]
    nominal: int = 1
    until: dt.date | None = None
    """Last day on which it is in the day's list."""
    nominals: dict[dt.date, int] = field(default_factory=dict)
    """Days with another nominal."""

    def nominal_of(self, day: dt.date) -> int:
        return self.nominals.get(day, self.nominal)


class CbrServer(ApiServer):
    """Serves metals (`{"XAU": {day: price}}`) and currencies by ISO code."""

    def __init__(
        self,
        metals: Mapping[str, dict[dt.date, float]] | None = None,
        currencies: Mapping[str, Currency] | None = None,
    ) -> None:
        super().__init__(self._page)
        self.metals = dict(metals or {})
        self.currencies = dict(currencies or {})
        self.unit_rates = True
        """Whether records have VunitRate: since about 2023."""
        self.children_when_empty = False
        """Whether an empty document is written with an end tag."""
        self.spread = 0.0
        """What the buying price of metals is below the selling price."""
        self.guarded = True
        """Whether only browser-like clients are answered."""
        self.burst: int | None = None
        """Requests within a second from which on the guard says no."""
        self.packed = True
        """Whether answers are gzipped for those who take that."""
        self.pause = 0.0
        """Seconds that each answer takes."""
        self.most_at_once = 0
        """Most requests that were under way together."""
        self._under_way = 0
        self._counting = threading.Lock()

    def asked(self, page: str) -> list[dict[str, str]]:
        """The questions to a page, in order."""
        return [item.query for item in self.seen if item.path == f"/scripts/{page}.asp"]

    def _page(self, request: Request) -> Response:
        with self._counting:
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            time.sleep(self.pause)
            return self._answered(request)
        finally:
            with self._counting:
                self._under_way -= 1

    def _answered(self, request: Request) -> Response:
        if self.guarded and "Mozilla" not in request.headers.get("User-Agent", ""):
            return Response(GUARD, 403, mimetype="text/html")
        if self.burst is not None:
            since = self.clock() - 1.0
            if sum(item.moment > since for item in self.seen) > self.burst:
                return Response(GUARD, 403, mimetype="text/html")
        pages = {
            "/scripts/xml_metall.asp": self._metall,
            "/scripts/XML_dynamic.asp": self._dynamic,
            "/scripts/XML_daily.asp": self._daily,
        }
        page = pages.get(request.path)
        if page is None:
            return Response("<html><title>404</title></html>", 404, mimetype="text/html")
        body = f'<?xml version="1.0" encoding="windows-1251"?>\r\n{page(request)}'.encode("cp1251")
        headers = {"Content-Type": "application/xml; charset=windows-1251"}
        if self.packed and "gzip" in request.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers)

    def _metall(self, request: Request) -> str:
        first, last = asked_day(request, "date_req1"), asked_day(request, "date_req2")
        if first is None or last is None:
            return "<Metall>Error in parameters</Metall>"
        days = sorted({day for prices in self.metals.values() for day in prices})
        records = [
            f'<Record Date="{day:%d.%m.%Y}" Code="{code}">'
            f"<Buy>{plain(prices[day] - self.spread)}</Buy><Sell>{plain(prices[day])}</Sell>"
            "</Record>"
            for day in days
            if first <= day <= last
            for metal, code in CODES.items()
            if day in (prices := self.metals.get(metal, {}))
        ]
        return self._whole(
            f'Metall FromDate="{first:%Y%m%d}" ToDate="{last:%Y%m%d}" '
            'name="Precious metals quotations"',
            records,
        )

    def _dynamic(self, request: Request) -> str:
        first, last = asked_day(request, "date_req1"), asked_day(request, "date_req2")
        own = request.args.get("VAL_NM_RQ", "")
        if first is None or last is None or not own:
            return "<ValCurs>Error in parameters</ValCurs>"
        records = [
            f'<Record Date="{day:%d.%m.%Y}" Id="{own}">{self._amount(item, day)}</Record>'
            for item in self.currencies.values()
            if item.own == own
            for day in sorted(item.rates)
            if first <= day <= last
        ]
        return self._whole(
            f'ValCurs ID="{own}" DateRange1="{first:%d.%m.%Y}" DateRange2="{last:%d.%m.%Y}" '
            'name="Foreign Currency Market Dynamic"',
            records,
        )

    def _daily(self, request: Request) -> str:
        asked = asked_day(request, "date_req") or dt.date.max
        days = {day for item in self.currencies.values() for day in item.rates if day <= asked}
        day = max(days, default=dt.date(1992, 7, 1))
        items = []
        for code, item in self.currencies.items():
            before = [known for known in item.rates if known <= day]
            if before and day <= (item.until or dt.date.max):
                amount = self._amount(item, max(before), "<Name>Валюта</Name>")
                items.append(
                    f'<Valute ID="{item.own}"><NumCode>000</NumCode><CharCode>{code}</CharCode>'
                    f"{amount}</Valute>"
                )
        return self._whole(f'ValCurs Date="{day:%d.%m.%Y}" name="Foreign Currency Market"', items)

    def _amount(self, item: Currency, day: dt.date, name: str = "") -> str:
        nominal = item.nominal_of(day)
        value = Decimal(repr(item.rates[day])) * nominal
        unit = f"<VunitRate>{plain(item.rates[day])}</VunitRate>" if self.unit_rates else ""
        return f"<Nominal>{nominal}</Nominal>{name}<Value>{four(value)}</Value>{unit}"

    def _whole(self, root: str, parts: list[str]) -> str:
        if not parts and not self.children_when_empty:
            return f"<{root}/>"
        return f"<{root}>{''.join(parts)}</{root.split(maxsplit=1)[0]}>"


def asked_day(request: Request, name: str) -> dt.date | None:
    try:
        return dt.datetime.strptime(request.args.get(name, ""), "%d/%m/%Y").date()  # noqa: DTZ007
    except ValueError:
        return None


def plain(value: float) -> str:
    """As few decimals as the number has, at least one: 10457,9."""
    return repr(round(value, 10)).replace(".", ",")


def four(value: Decimal) -> str:
    """At least four decimals, as exchange rates have."""
    exponent = value.normalize().as_tuple().exponent
    places = max(4, -exponent if isinstance(exponent, int) else 4)
    return f"{value:.{places}f}".replace(".", ",")
