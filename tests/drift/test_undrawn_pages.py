"""A page that cannot be drawn or saved costs neither the numbers nor the decision, and is told."""

from __future__ import annotations

import datetime as dt
import os
import time
from unittest import mock

import dagster as dg
import polars as pl
import pytest

from stock_assets.assets import drifting, modelling
from stock_assets.assets.drawer_resource import DRAWER
from stock_assets.assets.drifting import DRIFT_CHECK, build_drift
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.assets.modelling import build_model
from stock_assets.assets.page_check import PAGES_CHECK
from stock_assets.drift.drawing import Drawer
from stock_assets.drift.index import write_index
from stock_assets.drift.pages import index_file, page_file, save_whole, saved_pages
from stock_assets.errors import LakeError, StockAssetsError
from stock_assets.forecasting.decision import DecisionResult
from stock_assets.lake.schemas import Models
from stock_assets.lake.store import Lake
from stock_assets.partitions import Grid
from stock_assets.slices import Slice

from .drawn_market import DAY, TICKERS, Draws, market, stored_features
from .fake_evidently import write_package


@pytest.fixture
def own(tmp_path):
    settings = market(tmp_path / "data")
    Lake(settings.lake_dir).write("features", stored_features(), Slice(None, DAY, settings.tickers))
    return settings


class Outcome:
    """A run of one asset over DAY: its materialization's metadata, its checks, its log."""

    def __init__(self, settings, build, resources=None):
        grid = Grid.of(settings)
        definitions = dg.Definitions(
            assets=[build(settings, grid)],
            resources={
                "lake": LakeResource(database=":memory:", root=str(settings.lake_dir)),
                **(resources or {}),
            },
            executor=dg.in_process_executor,
        )
        with dg.DagsterInstance.ephemeral() as instance:
            result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
                instance=instance, tags=grid.tags(grid.slice(DAY, DAY, settings.tickers))
            )
            self.log = "\n".join(
                entry.user_message
                for entry in instance.all_logs(result.run_id)
                if entry.level >= 40
            )
        self.success = result.success
        found = [
            event.step_materialization_data.materialization.metadata
            for event in result.get_asset_materialization_events()
        ]
        self.metadata = {name: item.value for part in found for name, item in part.items()}
        self.checks = {item.check_name: item for item in result.get_asset_check_evaluations()}


def drift(settings, drawer):
    resource = dg.ResourceDefinition.hardcoded_resource(drawer)
    return Outcome(settings, build_drift, {DRAWER: resource})


def drawing(draw):
    return mock.Mock(spec=Drawer, draw=draw)


def occupied(settings):
    """A file in place of the pages' folder: nobody can write there, not even root."""
    settings.reports_dir.mkdir(parents=True, exist_ok=True)
    (settings.reports_dir / "drift").write_text("no folder")


def assert_told(outcome, *words):
    """In the log with a traceback, in the materialization and by a check that warns."""
    check = outcome.checks[PAGES_CHECK]
    assert outcome.success
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    for word in (*words, f"`stock-assets drift {DAY}` draws pages that are missing"):
        assert word in check.description
    assert outcome.metadata["pages"] == check.description
    assert "Traceback" in outcome.log


def test_pages_that_are_drawn_pass_their_check(own):
    outcome = drift(own, drawing(Draws()))

    assert outcome.checks[PAGES_CHECK].passed
    assert "pages" not in outcome.metadata
    assert not outcome.checks[DRIFT_CHECK].passed
    assert outcome.metadata["evidently report file"] == str(page_file(own, DAY))
    assert outcome.log == ""


def test_a_process_that_is_killed_while_it_draws_costs_the_page_alone(own, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(write_package(tmp_path)))
    monkeypatch.setenv("ORDER", "killed")
    old = page_file(own, DAY)
    save_whole("of other numbers", old)

    with Drawer() as drawer:
        outcome = drift(own, drawer)

    assert_told(outcome, f"the pages of {DAY} could not be drawn", "signal 9", "lack of memory")
    assert Lake(own.lake_dir).read("drift")["day"].unique().to_list() == [DAY]
    assert not outcome.checks[DRIFT_CHECK].passed, "the verdict is as ever"
    assert str(DAY) in index_file(own).read_text()
    assert not old.exists(), "a page of other numbers would keep the command from drawing"
    assert "evidently report" not in outcome.metadata


def test_a_folder_that_cannot_be_written_costs_the_pages_alone(own):
    occupied(own)

    outcome = drift(own, drawing(Draws()))

    assert_told(outcome, "cannot be written", "the index could not be drawn", "lake.path")
    assert not Lake(own.lake_dir).read("drift").is_empty()


def test_a_full_disk_costs_the_pages_alone(own, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stock_assets.drift.pages.tempfile.NamedTemporaryFile", full)

    assert_told(drift(own, drawing(Draws())), "No space left on device")
    assert saved_pages(own) == []


@pytest.mark.slow
def test_the_next_run_says_nothing_of_the_failures_before_it(own, monkeypatch):
    failing = mock.Mock(side_effect=StockAssetsError("out of memory"))
    monkeypatch.setattr(drifting, "write_pages", failing)
    asset = build_drift(own, Grid.of(own))
    resources = {DRAWER: dg.ResourceDefinition.hardcoded_resource(drawing(Draws()))}

    first = Outcome(own, lambda *_: asset, resources)
    failing.side_effect, failing.return_value = None, []
    second = Outcome(own, lambda *_: asset, resources)

    assert not first.checks[PAGES_CHECK].passed
    assert second.checks[PAGES_CHECK].passed


def test_a_mistake_in_the_code_of_pages_is_no_warning(own, monkeypatch):
    monkeypatch.setattr(drifting, "write_pages", mock.Mock(side_effect=KeyError("threshold")))

    with pytest.raises(KeyError, match="threshold"):
        drift(own, drawing(Draws()))


def decided(settings):
    """A training that drift asked for, as the step of `model` gets it."""
    row = {
        **dict.fromkeys(Models.column_names()), "day": DAY, "model": "m2", "model_version": 2,
        "trained_day": DAY, "attempted_day": DAY, "decision": "trained", "challenger": "m2",
        "reason": "drift, XMOS: all of it: better", "challenger_loss": 0.8, "in_force_loss": 0.9,
        "baseline_loss": 1.0, "baseline_t": 3.5, "in_force_t": 2.5, "validation_days": 63,
    }  # fmt: skip
    rows = [{**row, "ticker": ticker} for ticker in settings.tickers]
    frame = pl.DataFrame(rows, schema=Models.create_empty().schema).sort("day", "ticker")
    return mock.Mock(spec=DecisionResult, rows=frame, attempts=(), aliases={})


@pytest.fixture
def model(own, monkeypatch):
    """A run of `model` on DAY, without a training."""
    monkeypatch.setattr(modelling, "decide", lambda *_, **__: decided(own))
    return lambda: Outcome(own, build_model)


def test_an_index_that_cannot_be_written_leaves_the_decision_made_and_announced(own, model):
    """Forecasts follow the materialization: without it a decided day would be asked for by none."""
    occupied(own)

    outcome = model()

    assert_told(outcome, "the index of drift could not be drawn", "lake.path")
    assert Lake(own.lake_dir).read("models")["model"].unique().to_list() == ["m2"]
    assert outcome.metadata["in force"] == "m2"


def test_rows_of_drift_that_cannot_be_read_leave_the_decision_made(model, monkeypatch):
    monkeypatch.setattr(
        modelling, "write_index", mock.Mock(side_effect=LakeError("table drift: file is gone"))
    )

    assert_told(model(), "table drift: file is gone")


@pytest.mark.slow
def test_the_index_that_the_model_step_writes_leads_to_its_decision(own, model):
    drift(own, drawing(Draws()))

    outcome = model()

    assert outcome.checks[PAGES_CHECK].passed
    last = own.tickers[-1]
    assert last == "GOLD"
    address = f"http://127.0.0.1:3000/assets/model?view=partitions&amp;partition={DAY}%7C{last}"
    assert f'<a href="{address}">trained m2</a>: drift, XMOS' in index_file(own).read_text()


@pytest.mark.slow
def test_a_page_drawn_because_somebody_asked_outlives_the_next_runs(own):
    """For as long as the pages of a day are kept, and no longer."""
    asked = page_file(own, dt.date(2022, 2, 24))
    save_whole("asked for", asked)

    assert drift(own, drawing(Draws())).success
    assert asked.exists()
    assert asked.name in index_file(own).read_text()

    long_ago = time.time() - 91 * 86_400
    os.utime(asked, (long_ago, long_ago))
    assert drift(own, drawing(Draws())).success
    assert not asked.exists()
    assert write_index(Lake(own.lake_dir), own, DAY).read_text().count(asked.name) == 0


assert set(TICKERS) == {"AAA", "CALM", "GOLD", "S&P_1"}
