"""Whatever the way a lake was made, it says the same; and nothing in it knows the future."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sqlite3
import subprocess
import textwrap
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING
from unittest import mock

import dagster as dg
import polars as pl
import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from stock_assets.assets.common import GROUPS
from stock_assets.assets.modelling import FORCE_TAG
from stock_assets.forecasting import forecasts
from stock_assets.launch import open_instance, prepare_home
from stock_assets.partitions import Grid, cell_key

from .conftest import FIRST, LAST, TICKERS, Market, assert_same, days_of, make_market

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("graph")]

CUT = dt.date(2025, 6, 5)
SHORT = dt.date(2025, 6, 3)
"""The last day of runs in processes of their own."""


def test_the_market_exercises_what_the_proofs_are_about(
    one_range: Market, market_rows: pl.DataFrame
) -> None:
    tables = one_range.tables()
    assert tables["candles"].height + tables["quarantine"].height == market_rows.height
    assert tables["quarantine"].height >= 2
    assert {"trained", "carried"} <= set(tables["models"]["decision"])
    assert tables["models"]["challenger"].n_unique() >= 3
    assert tables["scores"].height > 0
    assert {"baseline"} < set(tables["shadows"]["shadow_model"])
    assert tables["bars"].filter(ticker="AAA")["split_factor"].n_unique() == 2
    assert tables["drift"]["distance"].drop_nulls().len() > 0
    late = tables["forecasts"].filter(ticker="LATE")
    assert late.height == tables["forecasts"].filter(ticker="CCC").height


def test_day_by_day_equals_one_range(one_range: Market, lived: Market) -> None:
    assert_same(one_range.tables(), lived.tables())


def test_the_materialization_of_model_says_what_the_gate_found(one_range: Market) -> None:
    """Decision, reason and numbers, as the rows have them: one opens the asset, not the lake."""
    with mock.patch.dict(os.environ):
        prepare_home(one_range.settings, one_range.settings_file)
        with open_instance() as instance:
            event = instance.get_latest_materialization_event(dg.AssetKey("model"))
    assert event is not None
    assert event.asset_materialization is not None
    told = {name: item.value for name, item in event.asset_materialization.metadata.items()}
    rows = one_range.lake.read("models").sort("day", "ticker")
    last, tried = rows.row(-1, named=True), rows.filter(pl.col("challenger").is_not_null())
    assert (told["decision"], told["reason"], told["in force"]) == (
        last["decision"],
        last["reason"],
        last["model"],
    )
    assert told["trainings"] == tried["challenger"].n_unique()
    gate = tried.row(-1, named=True)
    for name in ("challenger", "challenger_loss", "in_force_loss", "baseline_loss", "baseline_t",
                 "in_force_t", "in_force_baseline_t", "validation_days"):  # fmt: skip
        assert told.get(name.replace("_", " ")) == gate[name], name
    assert gate["baseline_loss"] is not None
    assert "pages" not in told


def test_assets_run_in_any_order_that_respects_their_inputs(
    one_range: Market, tmp_path: Path, market_rows: pl.DataFrame
) -> None:
    market = make_market(tmp_path / "orders", market_rows)
    head, tail = dt.date(2025, 6, 4), dt.date(2025, 6, 5)
    parts = [(tail, LAST), (FIRST, head)]
    for assets in (("candles", "quarantine"), ("bars",), ("features",), ("drift",)):
        for first, last in parts:
            market.run(first, last, *assets)
    # A decision's inputs are those of the days before it.
    market.run(FIRST, head, "model")
    market.run(tail, LAST, "model")
    for asset in ("forecasts", "scores"):
        for first, last in parts:
            market.run(first, last, asset)
    assert_same(one_range.tables(), market.tables())


def test_a_rerun_makes_no_new_version(one_range: Market) -> None:
    before, versions = one_range.tables(), one_range.versions()
    one_range.run(FIRST, LAST)
    one_range.run(CUT, LAST)
    assert one_range.versions() == versions
    assert_same(before, one_range.tables())


def test_one_commit_a_table_and_run(one_range: Market) -> None:
    assert set(one_range.versions().values()) == {0}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory, market_rows: pl.DataFrame) -> Market:
    """The lake of a market whose file ends with CUT. To be read only."""
    rows = market_rows.filter(pl.col("timestamp").dt.date() <= CUT)
    market = make_market(tmp_path_factory.mktemp("cut"), rows)
    market.run(FIRST, CUT)
    return market


def test_cutting_the_future_off_changes_nothing_before(one_range: Market, cut: Market) -> None:
    assert_same(one_range.tables(last=CUT), cut.tables())


NO_PAGES = """
    from stock_assets.assets import drifting
    from stock_assets.drift import drawing
    drifting.write_pages = lambda *_, **__: []
    drawing.Drawer.start = lambda _: None
"""
"""As in runs within this process: half of the work, and tests/drift is about them."""

KILLED_AFTER_COMMITS = """
    import os, signal
    from stock_assets.lake.store import Lake
    left = int(os.environ["COMMITS"])
    write = Lake._write_once
    def write_and_die(self, *arguments):
        global left
        written = write(self, *arguments)
        left -= written.changed
        if left == 0:
            os.killpg(0, signal.SIGKILL)
        return written
    Lake._write_once = write_and_die
"""


def patched(folder: Path, code: str) -> dict[str, str]:
    """Environment in which every Python process, dbt's too, runs `code` when it starts."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(textwrap.dedent(code))
    return {"PYTHONPATH": str(folder)}


def test_a_planted_leak_is_caught_by_cutting(
    one_range: Market, cut: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = forecasts.baseline_forecasts

    def leaking(cells: pl.DataFrame, features: pl.DataFrame, *more: object) -> pl.DataFrame:
        tomorrow = pl.col("vol_ewma").shift(-1).over("ticker", order_by="day")
        known = features.with_columns(tomorrow.fill_null(pl.col("vol_ewma")))
        return honest(cells, known, *more)

    monkeypatch.setattr(forecasts, "baseline_forecasts", leaking)
    whole, short = one_range.copied(tmp_path / "whole"), cut.copied(tmp_path / "cut")
    whole.run(FIRST, LAST, "forecasts")
    short.run(FIRST, CUT, "forecasts")
    with pytest.raises(AssertionError, match="forecasts differs"):
        assert_same(whole.tables(last=CUT), short.tables())


def test_a_forced_training_is_part_of_what_a_rerun_gives(one_range: Market, tmp_path: Path) -> None:
    market = one_range.copied(tmp_path / "forced")
    carried = market.tables()["models"]
    day = dt.date(2025, 6, 5)
    assert set(carried.filter(day=day)["decision"]) == {"carried"}
    market.run(day, day, "model", tags={FORCE_TAG: "1"})
    market.run(day + dt.timedelta(1), LAST, "model")
    forced = market.tables()["models"]
    assert forced.filter(day=day)["reason"].str.starts_with("forced: ").all()
    market.run(FIRST, LAST, "model")
    assert market.tables()["models"].equals(forced, null_equal=True)


def test_killed_between_two_commits_a_rerun_completes(
    one_range: Market, tmp_path: Path, market_rows: pl.DataFrame
) -> None:
    """Within each step of two tables, after the registry's, and with all but the last table."""
    market = make_market(tmp_path / "killed", market_rows)
    environment = {**os.environ, **patched(tmp_path / "patch", NO_PAGES + KILLED_AFTER_COMMITS)}
    written: list[set[str]] = []
    for commits in (1, 2, 3, 1):
        before = market.versions()
        run = subprocess.Popen(
            market.command("run", "--from", str(FIRST), "--to", str(SHORT)),
            env={**environment, "COMMITS": str(commits)},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert run.wait(timeout=280) == -signal.SIGKILL
        after = market.versions()
        written.append({name for name, version in after.items() if version != before[name]})
    # Each run got that much further than the one before it.
    assert written == [
        {"quarantine"}, {"candles", "bars"}, {"features", "drift", "models"}, {"forecasts"},
    ]  # fmt: skip
    market.run(FIRST, SHORT)
    assert_same(one_range.tables(last=SHORT), market.tables())
    assert set(market.versions().values()) == {0}
    runs = market.cli("status", "--json").stdout
    assert "STARTED" not in runs
    assert runs.count("FAILURE") >= 1


def test_the_same_slice_twice_at_once(
    one_range: Market, tmp_path: Path, market_rows: pl.DataFrame
) -> None:
    market = make_market(tmp_path / "twice", market_rows)
    environment = {**os.environ, **patched(tmp_path / "patch", NO_PAGES)}
    runs = [
        subprocess.Popen(
            market.command("run", "--from", str(FIRST), "--to", str(SHORT)),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    for run in runs:
        output, _ = run.communicate(timeout=280)
        assert run.returncode == 0, output
        assert "Falling back" not in output, "a batch of events was refused"
    assert_same(one_range.tables(last=SHORT), market.tables())
    assert_each_run_is_recorded_once(market, runs=2)


def materializations(shard: Path) -> Counter[tuple[str, str, str]]:
    """How often a file of the event log has each (run, asset, cell)."""
    with closing(sqlite3.connect(shard)) as connection:
        return Counter(
            connection.execute(
                "SELECT run_id, asset_key, partition FROM event_logs"
                " WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
            )
        )


def assert_each_run_is_recorded_once(market: Market, *, runs: int) -> None:
    """Every cell of every asset once a run, in the run's own file and in the index; all done."""
    cells = [cell_key(day, ticker) for day in days_of(market) if day <= SHORT for ticker in TICKERS]
    with mock.patch.dict(os.environ):
        home = prepare_home(market.settings, market.settings_file)
        with open_instance() as instance:
            found = {run.run_id: run.status for run in instance.get_runs()}
            definition = Grid.of(market.settings).definition
            shown = {
                name: instance.get_status_by_partition(dg.AssetKey(name), cells, definition)
                for name in GROUPS
            }
    assert list(found.values()) == [dg.DagsterRunStatus.SUCCESS] * runs
    done = AssetPartitionStatus.MATERIALIZED
    assert shown == {name: dict.fromkeys(cells, done) for name in GROUPS}
    expected = {
        run_id: Counter(
            (run_id, dg.AssetKey(name).to_string(), cell) for name in GROUPS for cell in cells
        )
        for run_id in found
    }
    shards = home / "history" / "runs"
    for run_id, events in expected.items():
        assert materializations(shards / f"{run_id}.db") == events
    assert materializations(shards / "index.db") == sum(expected.values(), Counter())
