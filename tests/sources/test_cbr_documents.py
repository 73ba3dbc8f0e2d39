"""The Bank of Russia's XML: what is read of it, and what is not taken for an answer."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_assets.sources.cbr_documents import (
    NotTheDocumentError,
    RefusedDocumentError,
    currency_ids,
    currency_rates,
    day_of,
    document,
    metal_prices,
    number,
    table,
)

if TYPE_CHECKING:
    from pathlib import Path

    from stock_assets.sources.cbr_documents import Published

DECLARATION = '<?xml version="1.0" encoding="windows-1251"?>'


@pytest.fixture(scope="session")
def recorded(shared_data: Path) -> Path:
    """Folder of recorded bodies of the Bank."""
    return shared_data.parent / "apis" / "cbr"


def metals(*records: str) -> bytes:
    return f"{DECLARATION}<Metall>{''.join(records)}</Metall>".encode("cp1251")


def rates(*records: str) -> bytes:
    return f"{DECLARATION}<ValCurs>{''.join(records)}</ValCurs>".encode("cp1251")


def read_metals(body: bytes, code: str = "1") -> list[Published]:
    return list(metal_prices(document(body, "Metall"), code))


def read_rates(body: bytes) -> list[Published]:
    return list(currency_rates(document(body, "ValCurs")))


def rate(nominal: str, value: str, more: str = "") -> str:
    return (
        f'<Record Date="01.03.2022" Id="R01235"><Nominal>{nominal}</Nominal>'
        f"<Value>{value}</Value>{more}</Record>"
    )


# Recorded bodies.


@pytest.mark.parametrize(
    ("file", "day", "prices"),
    [
        ("xml_metall_2020-12-12.xml", dt.date(2020, 12, 12), [4310.63, 56.15, 2402.56, 5470.42]),
        ("xml_metall_2026-04-24.xml", dt.date(2026, 4, 24), [11409.47, 187.82, 5009.28, 3750.95]),
    ],
)
def test_codes_1_to_4_are_gold_silver_platinum_and_palladium(
    recorded: Path, file: str, day: dt.date, prices: list[float]
) -> None:
    body = (recorded / file).read_bytes()

    for code, price in zip("1234", prices, strict=True):
        (found,) = read_metals(body, code)
        assert (found.day, found.price, found.fault) == (day, price, None)


def test_recorded_gold_is_that_of_the_real_series(recorded: Path, shared_data: Path) -> None:
    (found,) = read_metals((recorded / "xml_metall_2020-12-12.xml").read_bytes())
    series = pl.read_parquet(shared_data / "gold_cbr_daily.parquet")

    of_day = series.filter(pl.col("timestamp").dt.date() == dt.date(2020, 12, 12))
    assert of_day["close"].to_list() == [found.price]


def test_recorded_rates_are_those_of_the_real_series_and_holidays_have_none(
    recorded: Path, shared_data: Path
) -> None:
    found = read_rates((recorded / "XML_dynamic_R01235_2022-03.xml").read_bytes())
    assert [(item.day, item.price) for item in found] == [
        (dt.date(2022, 3, 1), 93.5589),
        (dt.date(2022, 3, 2), 91.7457),
        (dt.date(2022, 3, 10), 116.0847),
    ]
    days = [item.day for item in found]
    series = pl.read_parquet(shared_data / "fx_cbr_usdrub_daily.parquet")
    same = series.filter(pl.col("timestamp").dt.date().is_in(days))
    assert same["close"].to_list() == [item.price for item in found]


def test_the_recorded_list_names_each_currency_by_its_code(recorded: Path) -> None:
    found = currency_ids(document((recorded / "XML_daily_2023-09-27.xml").read_bytes(), "ValCurs"))
    assert len(found) == 43
    known = {"USD": "R01235", "EUR": "R01239", "CNY": "R01375", "GBP": "R01035"}
    assert known.items() <= found.items()
    assert found["BYN"] == "R01090B"  # letters belong to it


# Encoding and numbers.


def test_the_encoding_is_that_of_the_document_itself() -> None:
    body = f'{DECLARATION}<ValCurs name="Рынок"/>'.encode("cp1251")
    assert document(body, "ValCurs").get("name") == "Рынок"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10457,9", "10457.9"),
        ("10457,90", "10457.90"),
        ("11831,31", "11831.31"),
        (" 78,3987 ", "78.3987"),
        ("-0,5", "-0.5"),
        ("5960", "5960"),
    ],
)
def test_the_decimal_mark_is_a_comma(text: str, value: str) -> None:
    assert number(text) == Decimal(value)


@pytest.mark.parametrize(
    "text", [None, "", "-", "abc", "1.5", "10.457,9", "1,2,3", "1 234,5", "\u0661"]
)
def test_what_is_no_number_is_not_guessed(text: str | None) -> None:
    assert number(text) is None


@given(st.integers(-(10**12), 10**12), st.integers(1, 6))
def test_any_number_with_a_comma_is_read_exactly(digits: int, places: int) -> None:
    value = Decimal(digits).scaleb(-places)
    assert number(f"{value:f}".replace(".", ",")) == value


@given(st.dates(dt.date(1992, 7, 1), dt.date(2100, 1, 1)))
def test_any_day_is_read(day: dt.date) -> None:
    assert day_of(f"{day:%d.%m.%Y}") == day


@pytest.mark.parametrize("text", [None, "", "2022-03-01", "31.02.2022", "1.3.2022", "01.03.22"])
def test_what_is_no_day_is_not_guessed(text: str | None) -> None:
    assert day_of(text) is None


# Prices and rates.


def test_where_prices_differ_the_selling_price_counts() -> None:
    body = metals('<Record Date="12.01.2004" Code="1"><Buy>398,1</Buy><Sell>400,2</Sell></Record>')
    (found,) = read_metals(body)
    assert found.price == 400.2
    assert json.loads(found.raw) == {
        "Date": "12.01.2004", "Code": "1", "Buy": "398,1", "Sell": "400,2",
    }  # fmt: skip


def test_a_rate_is_for_one_unit_whatever_the_nominal() -> None:
    body = rates(rate("100", "24,8221"), rate("1000", "12,5"), rate("1", "93,5589"))
    assert [item.price for item in read_rates(body)] == [0.248221, 0.0125, 93.5589]


def test_the_rate_of_a_unit_may_be_there_or_not() -> None:
    body = rates(rate("100", "24,8221", "<VunitRate>0,248221</VunitRate>"), rate("100", "24,8221"))
    with_it, without = read_rates(body)
    assert with_it.price == without.price == 0.248221


@given(st.integers(1, 10**10), st.sampled_from([1, 10, 100, 1000, 10_000, 1_000_000]))
def test_dividing_by_any_nominal_is_exact(digits: int, nominal: int) -> None:
    value = Decimal(digits).scaleb(-4)
    (found,) = read_rates(rates(rate(str(nominal), f"{value:f}".replace(".", ","))))
    assert found.price == float(value / nominal)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (rate("1", "abc"), "Value 'abc' is not a number with a decimal comma"),
        (rate("1", "93.5589"), "Value '93.5589' is not a number with a decimal comma"),
        (rate("1", ""), "Value is missing"),
        (rate("0", "93,5589"), "Nominal '0' is not a number of units"),
        (rate("", "93,5589"), "Nominal '' is not a number of units"),
        (rate("1", "1,0").replace("01.03.2022", "1.3"), "Date '1.3' is not a day as DD.MM.YYYY"),
    ],
)
def test_a_record_that_cannot_be_read_says_why(record: str, fault: str) -> None:
    (found,) = read_rates(rates(record))
    assert found.fault == fault


def test_a_record_without_a_day_is_filed_with_the_one_before() -> None:
    records = ['<Record Date="12.12.2020" Code="1"><Sell>1,0</Sell></Record>'] * 2
    records[1] = records[1].replace("12.12.2020", "?")
    first, last = dt.date(2020, 12, 1), dt.date(2020, 12, 31)

    rows = table(read_metals(metals(*records)), first, last)

    assert rows["day"].to_list() == [dt.date(2020, 12, 12)] * 2
    assert rows["start"].null_count() == 1
    assert rows["fault"].to_list() == [None, "Date '?' is not a day as DD.MM.YYYY"]


def test_days_outside_the_window_are_left_out() -> None:
    records = [
        f'<Record Date="{day:02}.12.2020" Code="1"><Sell>{day},0</Sell></Record>'
        for day in range(10, 15)
    ]
    rows = table(read_metals(metals(*records)), dt.date(2020, 12, 11), dt.date(2020, 12, 13))
    assert rows["close"].to_list() == [11.0, 12.0, 13.0]


# What is no answer.


@pytest.mark.parametrize(
    "body",
    [
        b'<Metall FromDate="20260718" ToDate="20260719" name="Precious metals quotations"/>',
        b'<Metall FromDate="20260718" ToDate="20260719" name="Precious metals">\r\n</Metall>',
    ],
)
def test_a_range_without_prices_is_an_answer_of_none(body: bytes) -> None:
    assert read_metals(DECLARATION.encode() + body) == []


@given(st.integers(0))
def test_an_answer_cut_off_anywhere_is_none(place: int) -> None:
    whole = metals(
        '<Record Date="12.12.2020" Code="1"><Buy>4310,63</Buy><Sell>4310,63</Sell></Record>',
        '<Record Date="15.12.2020" Code="1"><Buy>4311,63</Buy><Sell>4311,63</Sell></Record>',
    )
    with pytest.raises(NotTheDocumentError):
        document(whole[: place % len(whole)], "Metall")


@pytest.mark.parametrize(
    "body",
    [
        b"<html><title>DDOS-GUARD</title></html>",
        b"<!DOCTYPE html><html><title>DDOS-GUARD</title><br></html>",
        b"not XML at all",
        b"",
        b'<?xml version="1.0" encoding="no-such-code"?><Metall/>',
        rates(),
    ],
)
def test_another_document_is_no_answer(body: bytes) -> None:
    with pytest.raises(NotTheDocumentError):
        document(body, "Metall")


def test_a_bomb_of_entities_is_refused_before_it_is_read() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = (
        f'<?xml version="1.0"?><!DOCTYPE Metall [<!ENTITY e0 "boom">{entities}]>'
        "<Metall><Record>&e9;</Record></Metall>"
    )
    with pytest.raises(RefusedDocumentError, match="DTD"):
        document(bomb.encode(), "Metall")


def test_an_entity_that_reads_a_file_is_refused() -> None:
    body = '<!DOCTYPE Metall [<!ENTITY x SYSTEM "file:///etc/passwd">]><Metall>&x;</Metall>'
    with pytest.raises(RefusedDocumentError):
        document(body.encode(), "Metall")


def test_words_instead_of_records_are_not_an_empty_range() -> None:
    with pytest.raises(RefusedDocumentError, match="Error in parameters"):
        document(b"<ValCurs>Error in parameters</ValCurs>", "ValCurs")
