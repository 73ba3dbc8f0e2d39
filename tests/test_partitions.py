"""Day x ticker partitions and the slices they mean."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from itertools import pairwise

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.calendars import get_calendar
from stock_assets.errors import SliceError
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid, cell_key, day_clock
from stock_assets.settings import Settings, load_settings
from stock_assets.slices import Slice


@pytest.fixture(scope="module")
def sample() -> Settings:
    return load_settings()


@pytest.fixture(scope="module")
def grid(sample: Settings) -> Grid:
    return Grid.of(sample)


def test_days_are_the_sessions_of_any_exchange(grid: Grid, sample: Settings) -> None:
    calendars = [get_calendar(name) for name in sample.exchanges]
    span = [dt.date(2026, 1, 5) + dt.timedelta(n) for n in range(200)]
    expected = [day for day in span if any(c.is_session(day) for c in calendars)]
    assert [day for day in grid.days() if day <= span[-1]] == expected


@pytest.mark.parametrize("exchanges", [("XMOS",), ("XMOS", "XNYS"), ("XTKS", "XNYS")])
@given(
    now=st.datetimes(
        dt.datetime(2026, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        dt.datetime(2026, 12, 31),  # noqa: DTZ001
        timezones=st.just(dt.UTC),
    )
)
@settings(max_examples=30, deadline=None)
def test_the_days_are_those_that_dagster_lists(
    sample: Settings, exchanges: tuple[str, ...], now: dt.datetime
) -> None:
    """Also before the first of them, and at weekends."""
    of = sample.universe[0]
    universe = tuple(
        of.model_copy(update={"exchange": name, "ticker": f"T{number}"})
        for number, name in enumerate(exchanges)
    )
    grid = Grid.of(sample.model_copy(update={"universe": universe}))
    keys = grid.definition.get_partitions_def_for_dimension("day")
    with freeze_time(now):
        assert [str(day) for day in grid.days()] == list(keys.get_partition_keys())


def test_a_day_is_a_partition_before_its_first_exchange_closes(sample: Settings) -> None:
    hours = int(day_clock(sample).removeprefix("Etc/GMT-"))
    zone = dt.timezone(dt.timedelta(hours=hours))
    for name in sample.exchanges:
        calendar = get_calendar(name)
        for day in calendar.between(dt.date(2026, 1, 1), dt.date(2026, 12, 31)):
            over = dt.datetime.combine(day + dt.timedelta(1), dt.time(0), tzinfo=zone)
            assert over <= calendar.closes_at(day), (name, day)


def test_the_first_day_carries_all_history(grid: Grid) -> None:
    area = grid.slice(dt.date(2000, 1, 1), dt.date(2026, 1, 6), grid.tickers)
    assert area.first_date is None
    assert area.contains(dt.date(1990, 1, 1))


def test_consecutive_slices_leave_no_date_out(grid: Grid) -> None:
    days = grid.days()[:60]
    covered: list[dt.date] = []
    for day in days[1:]:
        area = grid.slice(day, day, grid.tickers)
        assert area.first_date is not None
        span = (area.last_date - area.first_date).days + 1
        covered += [area.first_date + dt.timedelta(n) for n in range(span)]
    everything = (days[-1] - days[0]).days
    assert covered == [days[0] + dt.timedelta(n + 1) for n in range(everything)]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_tags_of_a_slice_mean_that_slice_to_dagster_and_to_us(data: st.DataObject) -> None:
    grid = Grid.of(load_settings())
    days = grid.days()
    low = data.draw(st.integers(0, len(days) - 1))
    high = data.draw(st.integers(low, min(len(days) - 1, low + 30)))
    left = data.draw(st.integers(0, len(grid.tickers) - 1))
    right = data.draw(st.integers(left, len(grid.tickers) - 1))
    area = grid.slice(days[low], days[high], grid.tickers[left : right + 1])
    tags = grid.tags(area)
    first, last = tags[RANGE_START_TAG], tags[RANGE_END_TAG]
    assert grid.slice_of_range(first, last) == area
    keys = grid.definition.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))
    assert set(keys) == {cell_key(day, name) for day in grid.days_of(area) for name in area.tickers}


@given(names=st.lists(st.sampled_from(Grid.of(load_settings()).tickers), min_size=1, unique=True))
@settings(max_examples=60, deadline=None)
def test_blocks_are_neighbours_and_cover_the_tickers_once(names: list[str]) -> None:
    grid = Grid.of(load_settings())
    blocks = grid.blocks(names)
    assert sorted(name for block in blocks for name in block) == sorted(names)
    for block in blocks:
        first = grid.tickers.index(block[0])
        assert grid.tickers[first : first + len(block)] == block
    joints = [(left[-1], right[0]) for left, right in pairwise(blocks)]
    assert all(grid.tickers.index(b) > grid.tickers.index(a) + 1 for a, b in joints)


SAMPLE = Grid.of(load_settings())


@given(
    names=st.lists(st.sampled_from(SAMPLE.tickers), min_size=1, unique=True),
    span=st.integers(0, 12),
    limit=st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_runs_hold_each_cell_of_a_slice_once_and_follow_its_days(
    names: list[str], span: int, limit: int
) -> None:
    grid = replace(SAMPLE, cells_per_run=limit)
    days = grid.days()
    area = grid.slice(days[3], days[3 + span], names)
    runs = grid.runs(area)
    cells = [
        cell_key(day, name) for run in runs for day in grid.days_of(run) for name in run.tickers
    ]
    assert sorted(cells) == sorted(
        cell_key(day, name) for day in grid.days_of(area) for name in area.tickers
    )
    firsts = [grid.days_of(run)[0] for run in runs]
    assert firsts == sorted(firsts)
    for run in runs:
        assert grid.blocks(run.tickers) == [run.tickers]
        count = len(grid.days_of(run))
        assert count * len(run.tickers) <= limit or count == 1
    # As backfills do: a rectangle that is small enough is one run.
    assert len(grid.runs(area)) >= len(grid.blocks(names))
    whole = replace(grid, cells_per_run=13 * len(names))
    assert len(whole.runs(area)) == len(grid.blocks(names))


def test_the_run_of_the_first_day_carries_the_history(grid: Grid) -> None:
    days = grid.days()
    cut = replace(grid, cells_per_run=len(grid.tickers))
    first, second = cut.runs(grid.slice(days[0], days[1], grid.tickers))
    assert first.has_history
    assert not second.has_history
    assert second.first_date == days[0] + dt.timedelta(1)


def test_keys_that_are_no_cells_are_refused(grid: Grid) -> None:
    day, (one, two, *_) = grid.days()[0], grid.tickers
    with pytest.raises(SliceError, match="swap its ends"):
        grid.slice_of_range(cell_key(day, two), cell_key(day, one))
    with pytest.raises(SliceError, match="not a cell"):
        grid.slice_of_range(cell_key(day, "NOPE"), cell_key(day, one))


def test_errors_name_the_culprit_and_the_fix(grid: Grid) -> None:
    with pytest.raises(SliceError, match=r"NOPE .*universe"):
        grid.slice(dt.date(2026, 2, 2), dt.date(2026, 2, 2), ["NOPE"])
    with pytest.raises(SliceError, match="no trading day between 2026-02-07"):
        grid.slice(dt.date(2026, 2, 7), dt.date(2026, 2, 7), grid.tickers)


def test_a_slice_needs_days_in_order_and_tickers() -> None:
    with pytest.raises(ValueError, match="before it starts"):
        Slice(dt.date(2026, 1, 2), dt.date(2026, 1, 1), ("A",))
    with pytest.raises(ValueError, match="at least one ticker"):
        Slice(None, dt.date(2026, 1, 1), ())
