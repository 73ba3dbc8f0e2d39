"""Reading prices and volumes that a file carries as text: decimal comma or point, grouped digits.

How a file writes its numbers is decided from its first rows, once for the file, so that every slice
reads the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

_MISSING = ("", "null", "none", "n/a", "#n/a", "na", "-")


@dataclass(frozen=True)
class Numerals:
    """How a file writes numbers."""

    decimal: str = "."
    grouped: bool = False
    """Whether digits are grouped by threes with the other mark: 1,234.5 or 1.234,5."""


def numerals_of(sample: pl.DataFrame, price: str) -> Numerals:
    """The numerals of a file from its first rows (text); `price` is a column that has decimals."""
    prices = sample[price].drop_nulls()
    last_comma = prices.str.contains(r",[^.,]*$").sum()
    last_point = prices.str.contains(r"\.[^.,]*$").sum()
    decimal, other = (",", ".") if last_comma > last_point else (".", ",")
    mark, point = f"[{other}]", f"[{decimal}]"
    # Thrice three digits, or both marks in one number: only then are digits really grouped.
    sure = rf"^-?\d{{1,3}}(?:{mark}\d{{3}}){{2,}}$|^-?\d{{1,3}}(?:{mark}\d{{3}})+{point}\d*$"
    if decimal == "." and last_point:
        sure += rf"|^-?\d{{1,3}}(?:{mark}\d{{3}})+$"
    grouped = any(sample[name].str.contains(sure).any() for name in sample.columns)
    return Numerals(decimal, grouped)


def read_number(name: str, dtype: pl.DataType, numerals: Numerals) -> pl.Expr:
    """Column `name` as a float, null where it is missing or no number."""
    if dtype != pl.String:
        return pl.col(name).cast(pl.Float64, strict=False)
    text = pl.col(name).str.strip_chars()
    if numerals.grouped:
        other = "," if numerals.decimal == "." else "."
        mark, point = f"[{other}]", f"[{numerals.decimal}]"
        whole = text.str.contains(rf"^-?\d{{1,3}}(?:{mark}\d{{3}})+(?:{point}\d*)?$")
        text = pl.when(whole).then(text.str.replace_all(other, "", literal=True)).otherwise(text)
    if numerals.decimal == ",":
        text = text.str.replace(",", ".", literal=True)
    return text.cast(pl.Float64, strict=False)


def is_missing(name: str, dtype: pl.DataType) -> pl.Expr:
    """Whether column `name` says that there is no number."""
    if dtype != pl.String:
        return pl.col(name).is_null()
    text = pl.col(name).str.strip_chars().str.to_lowercase()
    return pl.col(name).is_null() | text.is_in(list(_MISSING))
