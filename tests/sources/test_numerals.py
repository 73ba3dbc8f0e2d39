from __future__ import annotations

import polars as pl
import pytest

from stock_assets.sources.numerals import Numerals, is_missing, numerals_of, read_number


def read(texts: list[str | None], numerals: Numerals) -> list[float | None]:
    frame = pl.DataFrame({"x": texts}, schema={"x": pl.String})
    return frame.select(read_number("x", pl.String(), numerals)).to_series().to_list()


@pytest.mark.parametrize(
    ("price", "volume", "numerals"),
    [
        ("1234.5", "1000", Numerals()),
        ("1234,5", "1000", Numerals(",")),
        ("1,234.5", "1000", Numerals(".", grouped=True)),
        ("1.234,5", "1000", Numerals(",", grouped=True)),
        ("234.5", "1,000", Numerals(".", grouped=True)),
        ("1234", "1000", Numerals()),
        ("1,234", "1000", Numerals(",")),
    ],
)
def test_the_decimal_mark_is_told_from_the_first_rows(
    price: str, volume: str, numerals: Numerals
) -> None:
    assert numerals_of(pl.DataFrame({"p": [price], "v": [volume]}), "p") == numerals


def test_numbers_of_each_kind_are_read() -> None:
    assert read(["1234.5", " 7 ", "1e3", "x", None], Numerals()) == [1234.5, 7, 1000, None, None]
    assert read(["1234,5", "7"], Numerals(",")) == [1234.5, 7]
    assert read(["1,234,567.5", "7.5"], Numerals(".", grouped=True)) == [1234567.5, 7.5]
    assert read(["1.234,5", "7,5"], Numerals(",", grouped=True)) == [1234.5, 7.5]


def test_a_comma_in_the_wrong_place_is_never_guessed_away() -> None:
    assert read(["1,5", "12,34.5"], Numerals(".", grouped=True)) == [None, None]
    assert read(["1,5"], Numerals()) == [None]


def test_what_stands_for_no_number_is_missing_not_unreadable() -> None:
    frame = pl.DataFrame({"x": ["", "null", "N/A", "-", None, "abc", "1"]})
    missing = frame.select(is_missing("x", pl.String())).to_series().to_list()
    assert missing == [True] * 5 + [False] * 2
