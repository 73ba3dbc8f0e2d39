"""What the Bank of Russia's XML means: which document it is, its records, its numbers.

Bytes in, values out: asking for documents, and what to do about bad ones, is `cbr.py`'s. Documents
say their encoding themselves (windows-1251), so they are parsed from bytes; numbers have a decimal
comma. Nothing of the Bank's has a DTD: a document that brings one is refused before it is read.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

import polars as pl
from defusedxml import DefusedXmlException, DTDForbidden
from defusedxml.ElementTree import fromstring

from stock_assets.sources.api import PARSED_SCHEMA
from stock_assets.sources.base import PRICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from xml.etree.ElementTree import Element

_NUMBER = re.compile(r"-?[0-9]+(?:,[0-9]+)?")
_COUNT = re.compile(r"[0-9]*[1-9][0-9]*")
_DATE = re.compile(r"([0-9]{2})\.([0-9]{2})\.([0-9]{4})")


class NotTheDocumentError(ValueError):
    """Cut off, a page of HTML, the answer to another question: the next one may be right."""


class RefusedDocumentError(ValueError):
    """The Bank says no, or the document is not safe to read: the next one would be the same."""


@dataclass(frozen=True)
class Published:
    """One record: the price of a day, or why there is none."""

    day: dt.date | None
    """The day on which it is in force; None where not readable."""
    price: float | None
    """Roubles for one unit; None where not readable."""
    fault: str | None
    raw: str
    """The record as it came, as JSON."""


def document(body: bytes, root: str) -> Element:
    """The root, called `root`, of a whole document.

    Raises `NotTheDocumentError` and `RefusedDocumentError`.
    """
    try:
        found: Element = fromstring(body, forbid_dtd=True)
    except DTDForbidden as error:
        if error.name.lower() == "html":
            raise NotTheDocumentError("a page of HTML") from None
        raise RefusedDocumentError("it has a DTD, which is not read: it could be a bomb") from error
    except DefusedXmlException as error:
        raise RefusedDocumentError(f"it is not safe to read ({error})") from error
    except (ParseError, LookupError, ValueError) as error:
        # The latter two are of an encoding that nobody knows, or that no parser takes.
        raise NotTheDocumentError(f"no whole XML ({error})") from error
    if found.tag != root:
        raise NotTheDocumentError(f"a document <{found.tag}> instead of <{root}>")
    said = (found.text or "").strip()
    if said:
        raise RefusedDocumentError(f"it says {said[:200]!r}")
    return found


def number(text: str | None) -> Decimal | None:
    """A number with a decimal comma; None where it is none.

    A point is no decimal mark of the Bank's: reading it as one could be a thousandfold error.
    """
    stripped = (text or "").strip()
    if not _NUMBER.fullmatch(stripped):
        return None
    return Decimal(stripped.replace(",", "."))


def day_of(text: str | None) -> dt.date | None:
    """A date as DD.MM.YYYY; None where it is none."""
    found = _DATE.fullmatch((text or "").strip())
    if found is None:
        return None
    day, month, year = map(int, found.groups())
    try:
        return dt.date(year, month, day)
    except ValueError:
        return None


def metal_prices(root: Element, code: str) -> Iterator[Published]:
    """The selling prices of the metal with that code, of a document that has those of all.

    Buying and selling prices are one number since 2008. Where they differ the selling price counts:
    what a buyer would pay, and a price that the Bank really quoted, which a mean is not.
    """
    for record in root.iterfind("Record"):
        if (record.get("Code") or "").strip() == code:
            text = record.findtext("Sell")
            price = number(text)
            fault = None if price is not None else _no_number("Sell", text)
            yield _published(record, price, fault)


def currency_rates(root: Element) -> Iterator[Published]:
    """The rates of a document with one currency, each for one unit of it.

    `VunitRate` says the same, but older documents lack it: the value over its own nominal, which
    changes from time to time, holds for all of them.
    """
    for record in root.iterfind("Record"):
        text, units = record.findtext("Value"), record.findtext("Nominal")
        value, nominal = number(text), (units or "").strip()
        if value is None:
            yield _published(record, None, _no_number("Value", text))
        elif not _COUNT.fullmatch(nominal):
            yield _published(record, None, f"Nominal {units!r} is not a number of units")
        else:
            yield _published(record, value / int(nominal), None)


def currency_ids(root: Element) -> dict[str, str]:
    """The Bank's own identifier of each currency, by its ISO code, of a day's list."""
    found = {}
    for item in root.iterfind("Valute"):
        code, own = (item.findtext("CharCode") or "").strip(), (item.get("ID") or "").strip()
        if code and own:
            found[code.upper()] = own
    return found


def record_days(root: Element) -> list[dt.date]:
    """The days of all records, whatever they are of."""
    days = (day_of(record.get("Date")) for record in root.iterfind("Record"))
    return [day for day in days if day is not None]


def table(published: Iterable[Published], first: dt.date, last: dt.date) -> pl.DataFrame:
    """Rows (`api.PARSED_SCHEMA`) of what was published for the days `first` to `last`.

    A record without a readable day is filed with the one before it.
    """
    rows = []
    before = first
    for item in published:
        before = day = item.day or before
        if first <= day <= last:
            midnight = dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC)
            start = None if item.day is None else midnight
            prices = [item.price] * len(PRICES)
            rows.append((day, start, *prices, None, item.fault, item.raw))
    return pl.DataFrame(rows, PARSED_SCHEMA, orient="row")


def _published(record: Element, price: Decimal | None, fault: str | None) -> Published:
    raw = {**record.attrib, **{child.tag: child.text for child in record}}
    date = record.get("Date")
    day = day_of(date)
    faults = [] if day else [f"Date {date!r} is not a day as DD.MM.YYYY"]
    faults += [fault] if fault else []
    return Published(
        day,
        None if price is None else float(price),
        "; ".join(faults) or None,
        json.dumps(raw, ensure_ascii=False),
    )


def _no_number(name: str, text: str | None) -> str:
    if not (text or "").strip():
        return f"{name} is missing"
    return f"{name} {text!r} is not a number with a decimal comma"
