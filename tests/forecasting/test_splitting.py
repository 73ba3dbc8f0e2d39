"""Sets are divided in time, purged, and a division by rows would be noticed."""

import datetime as dt
import itertools

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.forecasting.splitting import MIN_DAYS, split


def overlaps(sets: list[pl.DataFrame]) -> int:
    """Pairs of neighbouring sets of which the earlier has a label window reaching the later."""
    found = 0
    for earlier, later in itertools.pairwise(sets):
        # The windows of `later` begin after the close of its first day.
        found += int(earlier["label_end"].max() > later["day"].min())
    return found


@settings(deadline=None)
@given(st.integers(MIN_DAYS + 5, 400), st.integers(0, 30))
def test_label_windows_never_reach_into_the_next_set(
    labelled: pl.DataFrame, days: int, back: int
) -> None:
    known = labelled.filter(pl.col("day").is_in(labelled["day"].unique().sort()[:days].to_list()))
    end = known["day"].max() - dt.timedelta(back)
    sets = split(known, end)
    if sets is None:
        assert known.filter(pl.col("label_end") <= end)["day"].n_unique() < MIN_DAYS
        return
    parts = [known.filter(part) for part in sets.parts()]
    assert all(part.height for part in parts)
    assert overlaps(parts) == 0
    assert parts[-1]["label_end"].max() <= end


def test_a_division_by_rows_is_caught(labelled: pl.DataFrame) -> None:
    shuffled = labelled.sample(fraction=1, shuffle=True, seed=1)
    third = shuffled.height // 3
    assert overlaps([shuffled[:third], shuffled[third : 2 * third], shuffled[2 * third :]]) == 2


def test_an_unpurged_division_is_caught(labelled: pl.DataFrame) -> None:
    middle = labelled["day"].unique().sort()[200]
    before, after = pl.col("day") < middle, pl.col("day") >= middle
    assert overlaps([labelled.filter(before), labelled.filter(after)]) == 1


@pytest.mark.parametrize(("days", "later"), [(80, 16), (1000, 200), (3000, 250)])
def test_the_later_sets_shrink_with_a_short_history(days: int, later: int) -> None:
    first = dt.date(2010, 1, 1)
    rows = pl.DataFrame({"day": [first + dt.timedelta(n) for n in range(days)]}).with_columns(
        (pl.col("day") + dt.timedelta(5)).alias("label_end")
    )
    sets = split(rows, dt.date(2030, 1, 1))
    assert sets is not None
    assert rows.filter(sets.validation()).height == later
    assert rows.filter(sets.training()).height == days - 2 * later - 4
