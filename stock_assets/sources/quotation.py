"""T-Invest's numbers: a whole part and billionths, each with the sign, and exact until the end."""

from __future__ import annotations

import re
from decimal import Decimal

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_BILLION = 10**9
_LARGEST = 2**63


def quotation(units: str | int, nano: str | int) -> Decimal:
    """`units` + `nano` billionths. Raises `ValueError` for what is no quotation.

    Both carry the sign, so that of a number nearer to zero than 1 is in `nano` alone: -0.01 is
    "-0" and -10000000.
    """
    whole, part = _integer("units", units), _integer("nano", nano)
    if abs(part) >= _BILLION:
        raise ValueError(f"nano {nano!r} is a whole unit or more")
    if whole * part < 0:
        raise ValueError(f"units {units!r} and nano {nano!r} differ in sign")
    return Decimal(whole * _BILLION + part).scaleb(-9)


def read_quotation(value: object) -> Decimal:
    """The number of a JSON object with `units` and `nano`; a missing part is zero.

    Raises `ValueError` for what is no quotation.
    """
    if value is None:
        raise ValueError("is missing")
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no quotation")  # noqa: TRY004 - it is data
    return quotation(value.get("units", 0), value.get("nano", 0))


def read_integer(value: object) -> int:
    """A whole number, given as one or, as 64-bit ones are, as text. Raises `ValueError`."""
    if value is None:
        raise ValueError("is missing")
    return _integer("number", value)


def _integer(name: str, value: object) -> int:
    text = value if isinstance(value, str) else repr(value)
    if isinstance(value, str | int) and _INTEGER.fullmatch(text):
        number = int(text)
        if -_LARGEST <= number < _LARGEST:
            return number
    raise ValueError(f"{name} {value!r} is no whole number of 64 bits")
