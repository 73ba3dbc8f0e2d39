"""What T-Invest's refusals mean: which pass by themselves, and what a user does about the others.

The catalogue of the codes is the API's own documentation; when an answer comes and how it is asked
for again is in `tinvest.py` and `http.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stock_assets.sources.http import Answer


class Meaning(Enum):
    """What a refusal says."""

    BAD_TOKEN = auto()
    NO_PRIVILEGES = auto()
    NO_INSTRUMENT = auto()
    NO_METHOD = auto()
    WINDOW_TOO_LONG = auto()
    TOO_MANY_REQUESTS = auto()
    PASSING = auto()
    FINAL = auto()
    """Something else that no other try mends."""
    UNCLEAR = auto()
    """Not the API's own words: its status has to do."""


_BY_CODE = {
    12001: Meaning.NO_METHOD,
    12002: Meaning.NO_METHOD,
    30014: Meaning.WINDOW_TOO_LONG,
    40002: Meaning.NO_PRIVILEGES,
    40003: Meaning.BAD_TOKEN,
    50002: Meaning.NO_INSTRUMENT,
}
_INTERNAL = range(70000, 80000)
_EXHAUSTED = range(80000, 90000)
_BY_GRPC = {
    4: Meaning.PASSING,  # deadline exceeded
    5: Meaning.NO_INSTRUMENT,
    7: Meaning.NO_PRIVILEGES,
    8: Meaning.TOO_MANY_REQUESTS,
    12: Meaning.NO_METHOD,
    13: Meaning.PASSING,  # internal
    14: Meaning.PASSING,  # unavailable
    16: Meaning.BAD_TOKEN,
}
"""What is left where T-Invest's own code is missing."""
_BY_STATUS = {
    401: Meaning.BAD_TOKEN,
    429: Meaning.TOO_MANY_REQUESTS,
}
_NOTHING_THERE, _SERVERS_FAULT = 404, 500


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error."""

    status: int
    code: int
    """T-Invest's own, such as 50002; 0 where it says none."""
    grpc: int
    """gRPC's, such as 5; 0 where it says none."""
    message: str

    @property
    def meaning(self) -> Meaning:
        """What it says: by T-Invest's code first, whatever the status that it came with."""
        if self.code in _INTERNAL:
            return Meaning.PASSING
        if self.code in _EXHAUSTED:
            return Meaning.TOO_MANY_REQUESTS
        by_grpc = _BY_GRPC.get(self.grpc) if not self.code else None
        known = _BY_CODE.get(self.code) or by_grpc or _BY_STATUS.get(self.status)
        if known is not None:
            return known
        if self.status == _NOTHING_THERE and not self.code:
            return Meaning.NO_METHOD
        own = (self.code or self.grpc) and self.status < _SERVERS_FAULT
        return Meaning.FINAL if own else Meaning.UNCLEAR


def read_refusal(answer: Answer) -> Refusal:
    """The refusal in an answer whose status is an error's, also where it is a page of HTML."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return Refusal(answer.status, 0, 0, answer.excerpt)
    code, grpc = _number(body.get("description")), _number(body.get("code"))
    return Refusal(answer.status, code, grpc, str(body.get("message") or answer.excerpt))


def _number(value: object) -> int:
    """A code, which the contract has as a number and the gateway sends as text; 0 for none."""
    if isinstance(value, int):
        return int(value)
    return int(value) if isinstance(value, str) and value.isdecimal() else 0


def explain(refusal: Refusal, *, url: str, token_variable: str, source: str) -> str:
    """Why it was refused and what to do about it, without the names of source and ticker."""
    said = f"{refusal.message}; code {refusal.code or '-'}, status {refusal.status}"
    advice = {
        Meaning.BAD_TOKEN: (
            f"the token in {token_variable} is wrong or has expired, as tokens do three months "
            "after they were last used; issue a new one at https://www.tbank.ru/invest/settings/ "
            f"and put it into the environment variable {token_variable}"
        ),
        Meaning.NO_PRIVILEGES: (
            f"the token in {token_variable} has no right to this; issue one for reading the "
            "market at https://www.tbank.ru/invest/settings/ (read-only is enough)"
        ),
        Meaning.NO_METHOD: (
            f"{url} is no method of this API; mend [sources.{source}] base_url, whose default is "
            "right for the real one"
        ),
        Meaning.WINDOW_TOO_LONG: (
            "the days asked for at once are more than it allows for the interval: a mistake of "
            "this program; report it, and set a longer interval until it is mended"
        ),
    }.get(refusal.meaning)
    return f"{advice} ({said})" if advice else f"the API refused the request ({said})"
