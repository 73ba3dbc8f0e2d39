"""A rectangle is one run; any selection is covered exactly."""

import dagster as dg
import pytest
from dagster._core.definitions import automation_tick_evaluation_context as upstream
from dagster._core.definitions.partitions.subset.default import DefaultPartitionsSubset
from hypothesis import given
from hypothesis import strategies as st

from stock_assets.instance import backfills

PARTITIONS = dg.MultiPartitionsDefinition(
    {
        "day": dg.DailyPartitionsDefinition("2026-01-05", end_date="2026-01-12"),
        "ticker": dg.StaticPartitionsDefinition(["A", "B", "C", "D"]),
    }
)
CELLS = st.sets(st.tuples(st.integers(0, 7), st.integers(0, 5)))


def covered(found: list[backfills.Rectangle]) -> list[tuple[int, int]]:
    return [
        (row, column)
        for first, last, left, right in found
        for row in range(first, last + 1)
        for column in range(left, right + 1)
    ]


@given(cells=CELLS)
def test_every_cell_is_in_exactly_one_rectangle(cells: set[tuple[int, int]]) -> None:
    assert sorted(covered(backfills.rectangles(cells))) == sorted(cells)


@given(
    top=st.integers(0, 20),
    height=st.integers(1, 9),
    left=st.integers(0, 9),
    width=st.integers(1, 9),
)
def test_a_rectangle_is_one(top: int, height: int, left: int, width: int) -> None:
    whole = (top, top + height - 1, left, left + width - 1)
    assert backfills.rectangles(covered([whole])) == [whole]


@given(cells=CELLS)
def test_never_more_than_the_stretches_of_the_rows(cells: set[tuple[int, int]]) -> None:
    stretches = {(row, column) for row, column in cells if (row, column - 1) not in cells}
    assert len(backfills.rectangles(cells)) <= len(stretches)


def ranges_of(days: list[str], tickers: str) -> list[tuple[str, str]]:
    keys = {f"{day}|{ticker}" for day in days for ticker in tickers}
    subset = PARTITIONS.empty_subset().with_partition_keys(keys)
    return [(str(r.start), str(r.end)) for r in subset.get_partition_key_ranges(PARTITIONS)]


def test_installed_a_rectangle_of_keys_is_one_range_and_the_off_switch_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    days = ["2026-01-06", "2026-01-07", "2026-01-08"]
    monkeypatch.setattr(
        DefaultPartitionsSubset, "get_partition_key_ranges", backfills._stock_ranges
    )
    monkeypatch.setenv(backfills.OFF_SWITCH, "0")
    backfills.install_one_run_backfills()
    assert len(ranges_of(days, "BC")) > 1, "Dagster changed: it keeps rectangles whole by itself"
    monkeypatch.delenv(backfills.OFF_SWITCH)
    backfills.install_one_run_backfills()
    assert ranges_of(days, "BC") == [("2026-01-06|B", "2026-01-08|C")], "Dagster changed"
    assert len(ranges_of(days, "AC")) == 2


def test_a_backfills_runs_are_made_of_these_ranges() -> None:
    """What the daemon calls for an asset backfill, and automation too."""
    names = upstream._build_run_requests_with_backfill_policy.__code__.co_names
    assert "get_partition_key_ranges" in names, "Dagster changed: ranges are made elsewhere"
