"""Declared splits: what is read, what is refused, and the factor they make."""

from __future__ import annotations

import datetime as dt
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_assets.errors import SourceError
from stock_assets.lake.splits import Split, SplitFactor, read_splits, split_factors

if TYPE_CHECKING:
    from pathlib import Path

DAY = dt.date(2024, 4, 8)


def test_no_path_declares_no_splits() -> None:
    assert read_splits(None) == ()


def test_one_file_with_a_ticker_column(tmp_path: Path) -> None:
    file = tmp_path / "splits.csv"
    file.write_text("ticker,date,before,after,note\nB,2024-04-08,1,100,x\nA, 2020-01-02 ,3,2,\n")
    assert read_splits(file) == (
        Split("A", dt.date(2020, 1, 2), Fraction(3), Fraction(2)),
        Split("B", DAY, Fraction(1), Fraction(100)),
    )


def test_folder_of_files_named_by_ticker(tmp_path: Path) -> None:
    (tmp_path / "B.csv").write_text("date,before,after\n2024-04-08,1,100\n")
    (tmp_path / "A.csv").write_text("date,before,after\n2024-04-08,1,0.5\n2023-04-08,2,1\n")
    (tmp_path / "README.md").write_text("not splits")
    assert [(split.ticker, split.day.year) for split in read_splits(tmp_path)] == [
        ("A", 2023),
        ("A", 2024),
        ("B", 2024),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ticker,date,before\nA,2024-04-08,1\n", "column.*after missing.*header must name"),
        ("ticker,date,before,after\nA,08.04.2024,1,2\n", "row 1: date '08.04.2024'.*YYYY-MM-DD"),
        ("ticker,date,before,after\nA,2024-04-08,1,2\nA,,1,2\n", "row 2: date ''"),
        ("ticker,date,before,after\nA,2024-04-08,0,2\n", "row 1: before '0'.*positive"),
        ("ticker,date,before,after\nA,2024-04-08,1,-2\n", "row 1: after '-2'.*positive"),
        ("ticker,date,before,after\nA,2024-04-08,1,many\n", "row 1: after 'many'"),
        ("ticker,date,before,after\nA,2024-04-08,1,1/0\n", "row 1: after '1/0'"),
        ("ticker,date,before,after\n,2024-04-08,1,2\n", "row 1: ticker is empty"),
        ("ticker,date,before,after\nA,2024-04-08,1,2\nA,2024-04-08,1,2\n", "A has two splits on"),
        ("", "not a readable CSV"),
    ],
)
def test_malformed_file_is_refused_by_name_and_row(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "splits.csv"
    file.write_text(text)
    with pytest.raises(SourceError, match=complaint) as refusal:
        read_splits(file)
    assert str(file) in str(refusal.value)


def test_missing_file_and_binary_rubbish_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no such file or folder.*lake\.splits"):
        read_splits(tmp_path / "none.csv")
    rubbish = tmp_path / "rubbish.csv"
    rubbish.write_bytes(bytes(range(256)) * 9)
    with pytest.raises(SourceError, match=r"rubbish\.csv"):
        read_splits(rubbish)


def test_factors_accumulate_and_a_later_split_leaves_earlier_ones() -> None:
    first, second = (
        Split("A", dt.date(2020, 1, 2), Fraction(2), Fraction(1)),
        Split("A", DAY, Fraction(1), Fraction(100)),
    )
    other = Split("B", DAY, Fraction(1), Fraction(3))
    assert split_factors((first,)) == (SplitFactor("A", first.day, 0.5),)
    assert split_factors((other, second, first)) == (
        SplitFactor("A", first.day, 0.5),
        SplitFactor("A", DAY, 50.0),
        SplitFactor("B", DAY, 3.0),
    )


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=20))
def test_splits_undone_give_exactly_one(ratios: list[int]) -> None:
    """However many: the factor is exact, not a product of rounded ratios."""
    there = [(Fraction(1), Fraction(ratio)) for ratio in ratios]
    back = [(after, before) for before, after in there]
    splits = tuple(
        Split("A", DAY + dt.timedelta(number), before, after)
        for number, (before, after) in enumerate(there + back)
    )
    assert split_factors(splits)[-1].factor == 1.0
