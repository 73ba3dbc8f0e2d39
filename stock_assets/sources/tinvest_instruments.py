"""Which instrument of T-Invest a symbol means, and what the API says of it.

A symbol is TICKER (on the board of the settings), TICKER_CLASS, a FIGI or a uid. Asking for it is
in `tinvest.py`.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# Only the beginnings that T-Invest gives: tickers of bonds too are 12 letters and digits.
_FIGI = re.compile(r"(BBG|TCS|FUT)[0-9A-Z]{9}")
# At least four: GLDRUB_TOM is a ticker.
_TICKER_AND_CLASS = re.compile(r"(.+)_([A-Z0-9]{4,})")


@dataclass(frozen=True)
class Name:
    """How an instrument is asked for."""

    kind: str
    """TICKER, FIGI or UID."""
    text: str
    class_code: str = ""
    """The board, of a ticker alone."""

    def __str__(self) -> str:
        """As the API writes it in one word: SBER_TQBR."""
        return f"{self.text}_{self.class_code}" if self.class_code else self.text

    def as_request(self) -> dict[str, str]:
        """The body of ShareBy."""
        body = {"idType": f"INSTRUMENT_ID_TYPE_{self.kind}", "id": self.text}
        return {**body, "classCode": self.class_code} if self.class_code else body

    def is_of(self, item: Mapping[str, Any]) -> bool:
        """Whether `item` of the API's is what is meant."""
        if self.kind == "TICKER":
            return (item.get("ticker"), item.get("classCode")) == (self.text, self.class_code)
        given = str(item.get(self.kind.lower(), ""))
        return given.lower() == self.text.lower()


def read_symbol(symbol: str, class_code: str) -> Name:
    """What `symbol` names; a ticker that says no board is on `class_code`."""
    if _UID.fullmatch(symbol):
        return Name("UID", symbol)
    if _FIGI.fullmatch(symbol):
        return Name("FIGI", symbol)
    if said := _TICKER_AND_CLASS.fullmatch(symbol):
        return Name("TICKER", said[1], said[2])
    return Name("TICKER", symbol, class_code)


@dataclass(frozen=True)
class Listed:
    """What the API says of an instrument."""

    uid: str
    name: str
    lot: int | None
    """Shares in a lot; None where it does not say."""
    first_day: dt.datetime | None
    """When daily candles begin (UTC); None where it does not say."""
    first_minute: dt.datetime | None


def offered(body: bytes) -> list[dict[str, Any]]:
    """The instruments of an answer of ShareBy (one) or FindInstrument (several).

    Raises `ValueError` for what is no such answer.
    """
    answer = json.loads(body)
    if isinstance(answer, dict):
        items = answer.get("instruments", [answer.get("instrument")])
        if isinstance(items, list) and all(isinstance(item, dict) for item in items):
            return items
    raise ValueError("its answer holds no instrument")


def chosen(body: bytes, name: Name) -> Listed | None:
    """What is meant by `name` among the instruments of an answer; None when none is."""
    for item in offered(body):
        if name.is_of(item) and (uid := item.get("uid") or item.get("figi")):
            lot = item.get("lot")
            return Listed(
                str(uid),
                str(item.get("name") or name),
                lot if isinstance(lot, int) and lot > 0 else None,
                _moment(item.get("first1dayCandleDate")),
                _moment(item.get("first1minCandleDate")),
            )
    return None


def _moment(text: object) -> dt.datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    # 1970 is how an empty timestamp is written.
    is_set = moment.tzinfo is not None and moment.timestamp() > 0
    return moment.astimezone(dt.UTC) if is_set else None
