from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinvest_server import quoted

from stock_assets.sources.quotation import quotation, read_integer, read_quotation

NANO = st.integers(-(10**9) + 1, 10**9 - 1)
UNITS = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("units", "nano", "value"),
    [
        ("271", 750000000, "271.75"),
        ("-200", -200000000, "-200.2"),
        ("-0", -10000000, "-0.01"),
        (0, -10000000, "-0.01"),
        ("0", 1, "0.000000001"),
        ("9223372036854775807", 999999999, "9223372036854775807.999999999"),
        ("-9223372036854775808", -999999999, "-9223372036854775808.999999999"),
    ],
)
def test_the_sign_may_be_in_nano_alone(units: str | int, nano: int, value: str) -> None:
    assert quotation(units, nano) == Decimal(value)


@given(units=UNITS, nano=NANO)
def test_a_quotation_is_exact_or_refused(units: int, nano: int) -> None:
    if units * nano < 0:
        with pytest.raises(ValueError, match="differ in sign"):
            quotation(units, nano)
    else:
        found = quotation(str(units), nano)
        assert found == quotation(units, str(nano))
        assert int(found * 10**9 if abs(units) < 10**9 else found) == (
            units * 10**9 + nano if abs(units) < 10**9 else units
        )
        assert quotation(-units, -nano) == -found if units > -(2**63) else True


@given(st.decimals(-(10**12), 10**12, places=9))
def test_what_is_quoted_reads_back_as_it_was(value: Decimal) -> None:
    assert read_quotation(quoted(value)) == value
    assert float(read_quotation(quoted(value))) == float(str(value))


@given(one=st.tuples(UNITS, NANO), other=st.tuples(UNITS, NANO))
def test_quotations_are_ordered_as_their_parts(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    if all(units * nano >= 0 for units, nano in (one, other)):
        assert (quotation(*one) < quotation(*other)) == (
            one[0] * 10**9 + one[1] < other[0] * 10**9 + other[1]
        )


@pytest.mark.parametrize("value", [None, 5, "5", [1], {"units": "1.5"}, {"units": 1.5}])
def test_what_is_no_quotation_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        read_quotation(value)


@pytest.mark.parametrize(
    ("units", "nano"), [("1", 10**9), ("x", 0), (True, 0), ("٣", 0), ("9" * 19, 0), ("", 0)]
)
def test_parts_that_are_out_of_range_are_refused(units: str | int, nano: int) -> None:
    with pytest.raises(ValueError):
        quotation(units, nano)


def test_a_part_that_is_left_out_is_zero() -> None:
    assert read_quotation({"units": "271"}) == 271
    assert read_quotation({"nano": -5}) == Decimal("-0.000000005")


def test_64_bit_numbers_come_as_text() -> None:
    assert read_integer("171876") == read_integer(171876) == 171876
    for value in (None, 1.5, "1.5", "", True, str(2**63)):
        with pytest.raises(ValueError):
            read_integer(value)
