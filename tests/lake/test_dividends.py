"""Declared dividends: what is read, what is refused, and the factor that reinvests them."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.errors import SourceError
from stock_assets.lake.dividends import Dividend, dividend_factors, read_dividends

if TYPE_CHECKING:
    from pathlib import Path

DAY = dt.date(2024, 4, 8)
LONG_AGO = dt.date(2000, 1, 1)
Paid = tuple[str, int, float]
"""Ticker, days after DAY, amount."""


def day(number: int) -> dt.date:
    return DAY + dt.timedelta(number)


def factors(
    dividends: list[Paid],
    closes: dict[str, list[float]],
    splits: list[tuple[str, int, float]] | None = None,
    since: dt.date = LONG_AGO,
) -> dict[tuple[str, int], float]:
    """Factors by ticker and day's number, of closes on consecutive days from DAY on."""
    key = {"ticker": pl.String, "day": pl.Date}
    found = dividend_factors(
        pl.DataFrame(
            [(name, day(number), amount, since) for name, number, amount in dividends],
            schema={**key, "amount": pl.Float64, "since": pl.Date},
            orient="row",
        ),
        pl.DataFrame(
            [(name, day(n), close) for name, of in closes.items() for n, close in enumerate(of)],
            schema={**key, "close": pl.Float64},
            orient="row",
        ),
        pl.DataFrame(
            [(name, day(number), factor) for name, number, factor in splits or []],
            schema={**key, "factor": pl.Float64},
            orient="row",
        ),
    )
    return {(name, (when - DAY).days): factor for name, when, factor in found.iter_rows()}


def test_a_file_of_all_and_a_folder_by_ticker(tmp_path: Path) -> None:
    assert read_dividends(None) == ()
    (tmp_path / "all.csv").write_text(
        "ticker,date,amount,note\nB,2024-04-08,0.5,x\nA, 2020-01-02 ,3\n"
    )
    expected = (Dividend("A", dt.date(2020, 1, 2), 3.0), Dividend("B", DAY, 0.5))
    assert read_dividends(tmp_path / "all.csv") == expected
    folder = tmp_path / "each"
    folder.mkdir()
    (folder / "A.csv").write_text("date,amount\n2020-01-02,3\n")
    (folder / "B.csv").write_text("date,amount\n2024-04-08,.5\n")
    assert read_dividends(folder) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ticker,date\nA,2024-04-08\n", "column.*amount missing.*header must name"),
        ("ticker,date,amount\nA,2024-04-08,1\nA,8.4.2024,1\n", "row 2: date '8.4.2024'"),
        ("ticker,date,amount\nA,2024-04-08,0\n", "row 1: amount '0'.*positive"),
        ("ticker,date,amount\nA,2024-04-08,-1\n", "row 1: amount '-1'"),
        ("ticker,date,amount\nA,2024-04-08,nan\n", "row 1: amount 'nan'"),
        ("ticker,date,amount\nA,2024-04-08,\n", "row 1: amount ''"),
        ("ticker,date,amount\nA,2024-04-08,1\nA,2024-04-08,2\n", "A has two dividends on"),
    ],
)
def test_a_malformed_file_is_refused_by_name_and_row(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "dividends.csv"
    file.write_text(text)
    with pytest.raises(SourceError, match=complaint) as refusal:
        read_dividends(file)
    assert str(file) in str(refusal.value)


def test_a_missing_file_names_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no such file or folder.*lake\.dividends"):
        read_dividends(tmp_path / "none.csv")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(1.0, 1e4), min_size=2, max_size=30),
    st.dictionaries(st.integers(1, 29), st.floats(0.001, 0.9), max_size=8),
)
def test_adjusted_returns_are_those_of_who_reinvests(
    closes: list[float], shares_paid: dict[int, float]
) -> None:
    """Who holds one share, and buys more for each dividend at the price it leaves behind."""
    paid = {n: share * closes[n - 1] for n, share in shares_paid.items() if n < len(closes)}
    found = factors([("A", n, amount) for n, amount in paid.items()], {"A": closes})
    shares = 1.0
    for number, close in enumerate(closes):
        if number in paid:
            shares += shares * paid[number] / (closes[number - 1] - paid[number])
        latest = max((n for _, n in found if n <= number), default=None)
        factor = 1.0 if latest is None else found["A", latest]
        assert close * factor == pytest.approx(close * shares, rel=1e-9)


def test_a_price_that_falls_by_its_dividend_has_no_return() -> None:
    found = factors([("A", 1, 20.0)], {"A": [100.0, 80.0]})
    assert 80.0 * found["A", 1] == 100.0


def test_a_later_dividend_changes_no_earlier_factor() -> None:
    closes = {"A": [100.0, 90.0, 80.0, 85.0]}
    first = [("A", 1, 10.0)]
    assert factors([*first, ("A", 3, 40.0)], closes)["A", 1] == factors(first, closes)["A", 1]


def test_paid_per_share_of_the_ex_date_after_a_split() -> None:
    """100 before; each share became ten, of which each paid 1 of the 10 it was worth."""
    for split_day in (1, 2):
        found = factors([("A", 2, 1.0)], {"A": [100.0]}, [("A", split_day, 10.0)])
        assert found == {("A", 2): pytest.approx(10 / 9)}
    # A split of the last day traded, or one after the dividend, changes nothing of it.
    assert factors([("A", 2, 1.0)], {"A": [100.0]}, [("A", 0, 10.0), ("A", 3, 20.0)]) == {
        ("A", 2): pytest.approx(100 / 99)
    }


def test_a_dividend_without_a_close_shortly_before_it_counts_for_nothing() -> None:
    assert factors([("A", 0, 1.0), ("B", 2, 1.0)], {"A": [10.0]}) == {}
    assert factors([("A", 9, 1.0)], {"A": [10.0]}, since=day(1)) == {}
    assert factors([("A", 9, 1.0)], {"A": [10.0]}, since=day(0)) != {}


def test_more_than_the_share_was_worth_is_refused_by_name() -> None:
    assert math.isfinite(factors([("A", 1, 99.9)], {"A": [100.0]})["A", 1])
    with pytest.raises(SourceError, match=r"A is said to have paid 100 a share on 2024-04-09.*100"):
        factors([("A", 1, 100.0)], {"A": [100.0]})
