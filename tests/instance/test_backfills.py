"""A rectangle is one run; any selection is covered exactly; large runs are cut between days."""

from __future__ import annotations

import datetime as dt
import inspect
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from dagster._core.definitions import automation_tick_evaluation_context as upstream
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.partitions.subset.default import DefaultPartitionsSubset
from dagster._core.execution import asset_backfill, job_backfill
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from hypothesis import given
from hypothesis import strategies as st

from stock_assets.errors import SettingsError
from stock_assets.instance import backfills, job_backfills
from stock_assets.slices import CELLS_PER_RUN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DAYS = [f"2026-01-{day:02}" for day in range(5, 17)]
TICKERS = "ABCDEF"
PARTITIONS = dg.MultiPartitionsDefinition(
    {
        # Two days are closed: the keys before and after them are neighbours.
        "day": dg.TimeWindowPartitionsDefinition(
            start=DAYS[0],
            end="2026-01-17",
            fmt="%Y-%m-%d",
            cron_schedule="0 0 * * *",
            exclusions=[dt.datetime.combine(dt.date(2026, 1, day), dt.time(0)) for day in (10, 11)],
        ),
        "ticker": dg.StaticPartitionsDefinition(list(TICKERS)),
    }
)
OPEN_DAYS = [day for day in DAYS if day not in ("2026-01-10", "2026-01-11")]
CELLS = st.sets(st.tuples(st.integers(0, 9), st.integers(0, 5)))


def covered(found: Iterable[backfills.Rectangle]) -> list[tuple[int, int]]:
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


def stretch_of(cell: tuple[int, int], cells: set[tuple[int, int]]) -> tuple[int, int]:
    """The first and last of the neighbouring columns around a cell, found by walking."""
    row, left = cell
    right = left
    while (row, left - 1) in cells:
        left -= 1
    while (row, right + 1) in cells:
        right += 1
    return left, right


@given(cells=CELLS)
def test_there_are_as_few_as_whole_stretches_of_rows_allow(cells: set[tuple[int, int]]) -> None:
    """Each stretch that does not continue the same stretch above it must begin a rectangle."""
    begun = {
        (row, stretch_of((row, column), cells))
        for row, column in cells
        if (row - 1, column) not in cells
        or stretch_of((row - 1, column), cells) != stretch_of((row, column), cells)
    }
    found = backfills.rectangles(cells)
    assert {(first, (left, right)) for first, _, left, right in found} == begun
    assert len(found) == len(begun)


@given(cells=CELLS, limit=st.integers(1, 40))
def test_cut_runs_hold_the_same_cells_in_the_order_of_days(
    cells: set[tuple[int, int]], limit: int
) -> None:
    whole = backfills.rectangles(cells)
    runs = backfills.cut(whole, limit)
    assert sorted(covered(runs)) == sorted(cells)
    assert [run[0] for run in runs] == sorted(run[0] for run in runs)
    for first, last, left, right in runs:
        width, height = right - left + 1, last - first + 1
        # A day is never divided, and a run that ends early ends with its rectangle.
        assert width * height <= limit or height == 1
        fuller = (first, last + 1, left, right)
        inside = any(
            left == a and right == b and last < end for start, end, a, b in whole if start <= first
        )
        assert not inside or len(covered([fuller])) > limit


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One-run backfills in this process, and what was there before afterwards."""
    for owner, name in (
        (DefaultPartitionsSubset, "get_partition_key_ranges"),
        (upstream, "_build_run_requests_with_backfill_policy"),
        (job_backfill, "_get_partitions_chunk"),
        (job_backfill, "create_backfill_run"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    backfills.install_one_run_backfills()
    return


def key_ranges(keys: Iterable[str]) -> list[tuple[str, str]]:
    subset = PARTITIONS.empty_subset().with_partition_keys(keys)
    return [(str(r.start), str(r.end)) for r in subset.get_partition_key_ranges(PARTITIONS)]


def keys_of(days: Iterable[str], tickers: str) -> set[str]:
    return {f"{day}|{ticker}" for day in days for ticker in tickers}


def runs_of(keys: set[str]) -> list[tuple[str, str]]:
    """The first and last cells of the runs that the daemon makes of a backfill."""
    return [
        (
            str(tags["dagster/asset_partition_range_start"]),
            str(tags["dagster/asset_partition_range_end"]),
        )
        for tags in tags_of_runs(keys)
    ]


def tags_of_runs(keys: set[str]) -> list[Mapping[str, str]]:
    """The tags of the runs that the daemon makes of a backfill of two assets over these cells."""

    @dg.asset(partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run())
    def one() -> None: ...

    @dg.asset(partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run(), deps=[one])
    def other() -> None: ...

    graph = dg.Definitions(assets=[one, other]).resolve_asset_graph()
    with dg.DagsterInstance.ephemeral() as instance:
        requests = asset_backfill.build_run_requests_with_backfill_policies(
            asset_partitions={
                AssetKeyPartitionKey(dg.AssetKey(name), key)
                for name in ("one", "other")
                for key in keys
            },
            asset_graph=graph,
            dynamic_partitions_store=instance,
        )
    assert all(len(request.asset_selection) == 2 for request in requests)
    return [request.tags for request in requests]


# As a backfill has them whose instruments or days have left the universe since.
UNKNOWN = st.sets(
    st.sampled_from([f"{DAYS[0]}|GONE", f"2026-01-10|{TICKERS[0]}", f"2031-01-06|{TICKERS[1]}"])
)


@pytest.mark.usefixtures("installed")
@given(cells=CELLS, unknown=UNKNOWN)
def test_ranges_of_keys_mean_exactly_the_selected_cells(
    cells: set[tuple[int, int]], unknown: set[str]
) -> None:
    """Of the universe: a key that is not in it has no range, and takes none from the others."""
    keys = {f"{OPEN_DAYS[row]}|{TICKERS[column]}" for row, column in cells}
    meant = [
        key
        for first, last in key_ranges(keys | unknown)
        for key in PARTITIONS.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))
    ]
    assert sorted(meant) == sorted(keys), "Dagster changed: a range is not the product of its ends"


@pytest.mark.usefixtures("installed")
def test_neighbours_are_those_of_the_keys() -> None:
    """A closed day is no gap; a ticker between two others is."""
    across = ["2026-01-09", "2026-01-12"]
    assert key_ranges(keys_of(across, "BC")) == [("2026-01-09|B", "2026-01-12|C")]
    assert key_ranges(keys_of(across, "AC")) == [
        ("2026-01-09|A", "2026-01-12|A"),
        ("2026-01-09|C", "2026-01-12|C"),
    ]
    assert len(key_ranges(keys_of(["2026-01-07", "2026-01-09"], "AB"))) == 2


@pytest.mark.usefixtures("installed")
def test_dimensions_are_told_apart_whatever_their_names() -> None:
    """The text of a key has the dimensions by name; the days are rows in any case."""
    turned = dg.MultiPartitionsDefinition(
        {
            "zone_day": PARTITIONS.primary_dimension.partitions_def,
            "asset": PARTITIONS.secondary_dimension.partitions_def,
        }
    )
    keys = {f"{ticker}|{day}" for day in DAYS[:3] for ticker in "BC"}
    (found,) = turned.subset_with_partition_keys(keys).get_partition_key_ranges(turned)
    assert (str(found.start), str(found.end)) == ("B|2026-01-05", "C|2026-01-07")


@pytest.mark.usefixtures("installed")
def test_a_backfill_of_a_rectangle_is_one_run() -> None:
    assert runs_of(keys_of(OPEN_DAYS, "BCDE")) == [("2026-01-05|B", "2026-01-16|E")], (
        "Dagster changed: the ranges of a backfill's runs are made elsewhere"
    )


def submitted_of(backfill: PartitionBackfill) -> tuple[int, list[str]]:
    """How many runs the daemon makes of a job's backfill, chunk by chunk, and their cells."""
    cells: Any = SimpleNamespace(
        backfill_policy=dg.BackfillPolicy.single_run(),
        has_partitions_definition=lambda: True,
        get_partitions_definition=lambda: PARTITIONS,
    )
    runs: list[str | dg.PartitionKeyRange] = []
    more = True
    with dg.DagsterInstance.ephemeral() as instance:
        while more:
            chunk, checkpoint, more = job_backfill._get_partitions_chunk(
                instance, logging.getLogger(), backfill, job_backfill.CHECKPOINT_COUNT, cells
            )
            assert len(chunk) <= job_backfill.CHECKPOINT_COUNT
            assert chunk or not more
            runs += chunk
            backfill = backfill.with_partition_checkpoint(checkpoint)
    return len(runs), [
        key
        for run in runs
        for key in (
            PARTITIONS.get_partition_keys_in_range(run)
            if isinstance(run, dg.PartitionKeyRange)
            else [run]
        )
    ]


@pytest.mark.usefixtures("installed")
def test_a_jobs_backfill_of_more_ranges_than_a_chunk_submits_every_cell_once() -> None:
    """The UI names cells ticker by ticker, ranges follow the days: a chunk ends in both orders."""
    board = [
        f"{day}|{ticker}"
        for column, ticker in enumerate(TICKERS)
        for row, day in enumerate(OPEN_DAYS)
        if (row + column) % 2 == 0
    ]
    runs, cells = submitted_of(
        PartitionBackfill(
            "board", BulkActionStatus.REQUESTED, False, {}, 0.0, partition_names=board
        )
    )
    assert sorted(cells) == sorted(board)
    assert runs == 30 > job_backfill.CHECKPOINT_COUNT


def test_stock_dagster_divides_a_rectangle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why all this is here; also what the off switch leaves."""
    monkeypatch.setattr(
        DefaultPartitionsSubset, "get_partition_key_ranges", backfills._stock_ranges
    )
    monkeypatch.setattr(
        upstream, "_build_run_requests_with_backfill_policy", backfills._stock_run_requests
    )
    monkeypatch.setattr(job_backfill, "_get_partitions_chunk", job_backfills._stock_chunk)
    monkeypatch.setattr(job_backfill, "create_backfill_run", job_backfills._stock_run)
    monkeypatch.setenv(backfills.OFF_SWITCH, "0")
    monkeypatch.setenv(backfills.CELLS_VARIABLE, "4")
    backfills.install_one_run_backfills()
    assert DefaultPartitionsSubset.get_partition_key_ranges is backfills._stock_ranges
    assert job_backfill.create_backfill_run is job_backfills._stock_run
    assert len(runs_of(keys_of(OPEN_DAYS[:3], "BC"))) == 2, (
        "Dagster changed: it keeps rectangles whole by itself"
    )


@pytest.mark.usefixtures("installed")
def test_a_backfill_too_large_is_cut_between_days_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(backfills.CELLS_VARIABLE, "9")
    keys = keys_of(OPEN_DAYS[:5], "ABCD") | keys_of(OPEN_DAYS[1:2], "F")
    assert runs_of(keys) == [
        ("2026-01-05|A", "2026-01-06|D"),
        ("2026-01-06|F", "2026-01-06|F"),
        ("2026-01-07|A", "2026-01-08|D"),
        ("2026-01-09|A", "2026-01-09|D"),
    ]
    whys = [tags["stock_assets/why"] for tags in tags_of_runs(keys)]
    assert whys == [f"part {number} of 4 (partitions.cells_per_run)" for number in (1, 2, 3, 4)]
    monkeypatch.setenv(backfills.CELLS_VARIABLE, "20")
    assert not any("stock_assets/why" in tags for tags in tags_of_runs(keys))
    # A day larger than a run is to be stays whole, and a run that there is keeps its one range.
    monkeypatch.setenv(backfills.CELLS_VARIABLE, "3")
    assert len(runs_of(keys_of(OPEN_DAYS[:2], "ABCD"))) == 2
    assert len(key_ranges(keys_of(OPEN_DAYS, "ABCD"))) == 1


def test_fifty_tickers_over_five_years_are_one_run_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(backfills.CELLS_VARIABLE, raising=False)
    assert len(backfills.cut([(0, 1304, 0, 49)], backfills.cells_per_run())) == 1
    assert [run[:2] for run in backfills.cut([(0, 2000, 0, 49)], CELLS_PER_RUN)] == [
        (0, 1999),
        (2000, 2000),
    ]
    # What no command of ours has started asks the settings itself.
    monkeypatch.setenv("STOCK_ASSETS_PARTITIONS__CELLS_PER_RUN", "7")
    assert backfills.cells_per_run() == 7
    monkeypatch.setenv(backfills.CELLS_VARIABLE, "many")
    with pytest.raises(SettingsError, match="CELLS_PER_RUN='many' is not a positive"):
        backfills.cells_per_run()


@pytest.mark.usefixtures("installed")
def test_a_hundred_thousand_cells_take_a_fraction_of_a_second() -> None:
    days = dg.DailyPartitionsDefinition("2020-01-01", end_date="2025-06-23")
    tickers = [f"T{number:02}" for number in range(50)]
    large = dg.MultiPartitionsDefinition(
        {"day": days, "ticker": dg.StaticPartitionsDefinition(tickers)}
    )
    keys = [f"{day}|{ticker}" for day in days.get_partition_keys() for ticker in tickers]
    assert len(keys) == 100_000
    subset = large.subset_with_partition_keys(keys)
    began = time.process_time()
    assert len(subset.get_partition_key_ranges(large)) == 1
    assert time.process_time() - began < 1


def test_what_is_replaced_is_where_dagster_looks_for_it() -> None:
    """The names that our replacements stand for, as Dagster's own functions refer to them."""
    looked_up = {
        backfills._stock_run_requests: "get_partition_key_ranges",
        upstream.build_run_requests_with_backfill_policies: (
            "_build_run_requests_with_backfill_policy"
        ),
        asset_backfill._execute_asset_backfill_iteration_inner: (
            "build_run_requests_with_backfill_policies"
        ),
        job_backfills._stock_chunk: "get_partition_key_ranges",
        job_backfill.execute_job_backfill_iteration: "_get_partitions_chunk",
    }
    for function, name in looked_up.items():
        assert name in inspect.unwrap(function).__code__.co_names, (
            f"Dagster changed: {function.__name__} does not use {name}"
        )
    source = inspect.getsource(job_backfill.submit_backfill_runs)
    assert "create_backfill_run(" in source, "Dagster changed: runs of job backfills"
    command = Path(job_backfill.__file__).parents[2] / "_cli" / "job.py"
    assert "dagster_run = create_backfill_run(" in command.read_text(), (
        "Dagster changed: `dagster job backfill` makes its runs elsewhere"
    )
    parameters = [*inspect.signature(job_backfills._stock_run).parameters]
    assert parameters[5:8] == ["backfill_job", "partition_key_or_range", "run_tags"], (
        "Dagster changed: create_backfill_run"
    )
