"""What asks for a training, tick by tick: once for each new reason, and within no cooldown."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl
import pytest
from dagster._core.events import StepMaterializationData
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration

from stock_assets.assets.live_check import live_verdicts
from stock_assets.assets.modelling import FORCE_TAG
from stock_assets.automation.jobs import build_jobs
from stock_assets.automation.retraining import build_training_due_sensor
from stock_assets.calendars import get_calendar
from stock_assets.forecasting.decision import forced_words
from stock_assets.forecasting.scoring import MIN_TEST_DAYS
from stock_assets.lake.schemas import Drift, Models, Scores
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid, cell_key
from stock_assets.settings import Settings, load_settings
from stock_assets.slices import WHY_TAG, Slice
from tests.automation.test_requests import forecast_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = """
[lake]
path = "data"
[partitions]
first_day = 2026-01-05
[[universe]]
tickers = ["AAA", "BBB"]
source = "sample"
exchange = "XMOS"
[sources.sample]
kind = "simulated"
[forecast]
cadence = 60
cooldown = 3
[scores]
window = 30
"""

TICKERS = ("AAA", "BBB")
DAYS = get_calendar("XMOS").between(dt.date(2026, 3, 2), dt.date(2026, 4, 30))


@dataclass
class World:
    """A lake and an instance, as the evenings leave them."""

    settings: Settings
    instance: dg.DagsterInstance
    asked: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lake = Lake(self.settings.lake_dir)
        self.grid = Grid.of(self.settings)

    def evening(self, day: dt.date, *, moved: bool, come: tuple[str, ...] = TICKERS) -> None:
        """The run of a day, without `model`: drift of who has come, its check, forecasts."""
        area = Slice(day, day, TICKERS)
        rows = [
            (day, ticker, "data", "ret_1d", 2.0 if moved else 0.5, 1.0, moved, 250, 20,
             None, None, 0.5, len(TICKERS), None)
            for ticker in come
        ]  # fmt: skip
        drift = pl.DataFrame(rows, schema=Drift.create_empty().schema, orient="row")
        self.lake.write("drift", drift, area)
        self.evaluated(day)
        self.lake.write("forecasts", forecast_rows(day, *TICKERS), area)

    def evaluated(self, *days: dt.date) -> None:
        """What a run of `drift` over these days leaves in the event log."""
        run_id = str(uuid.uuid4())
        for day, ticker in itertools.product(days, TICKERS):
            made = dg.AssetMaterialization("drift", partition=cell_key(day, ticker))
            event = dg.DagsterEvent(
                event_type_value="ASSET_MATERIALIZATION",
                job_name="j",
                event_specific_data=StepMaterializationData(made),
            )
            self.instance.report_dagster_event(event, run_id)

    def instance_run(self, asset: str) -> _Run:
        """A run that makes an asset."""
        return _Run(self.instance, asset)

    def decide(self, day: dt.date, decision: str = "trained") -> None:
        """The run of `model` on a day: tried unless it carried on."""
        held = self.lake.read("models")
        before = held["attempted_day"].max() if held.height else None
        attempted = before if decision == "carried" else day
        rows = pl.DataFrame(
            [
                {
                    "day": day, "ticker": ticker, "model": "m", "decision": decision,
                    "reason": "-", "trained_day": attempted, "attempted_day": attempted,
                }
                for ticker in TICKERS
            ],
            schema=Models.create_empty().schema,
        )  # fmt: skip
        self.lake.write("models", rows, Slice(day, day, TICKERS))

    def tick(self) -> dg.RunRequest | None:
        """What a tick launches: as Dagster does, nothing for a run key that it has seen."""
        sensor = build_training_due_sensor(self.settings, self.grid, build_jobs())
        asked = sensor(dg.build_sensor_context(instance=self.instance))
        if not isinstance(asked, dg.RunRequest) or asked.run_key in self.asked:
            return None
        self.asked.append(asked.run_key)
        return asked


class _Run:
    """A run of one asset that is in progress within the context."""

    def __init__(self, instance: dg.DagsterInstance, asset: str) -> None:
        self.instance = instance

        @dg.asset(name=asset)
        def made() -> None: ...

        self.job = dg.Definitions([made]).resolve_implicit_global_asset_job_def()
        self.asset = asset

    def __enter__(self) -> dg.DagsterRun:
        self.run = self.instance.create_run_for_job(
            self.job,
            asset_selection=frozenset([dg.AssetKey(self.asset)]),
            status=dg.DagsterRunStatus.STARTED,
        )
        return self.run

    def __exit__(self, *_: object) -> None:
        self.instance.report_run_failed(self.run)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A model trained long enough ago for drift to ask, but not for the cadence."""
    (tmp_path / "settings.toml").write_text(SETTINGS)
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(load_settings(tmp_path / "settings.toml"), instance)
        world.decide(DAYS[0])
        yield world


CODE = """
# The code location of a daemon: the sensor, and assets of the names that it asks for.
from pathlib import Path
import dagster as dg
from stock_assets.automation.jobs import build_jobs
from stock_assets.automation.retraining import build_training_due_sensor
from stock_assets.partitions import Grid
from stock_assets.settings import load_settings

settings = load_settings(Path(__file__).with_name("settings.toml"))
grid = Grid.of(settings)

def asset(name):
    return dg.AssetSpec(name, partitions_def=grid.definition)

@dg.multi_asset(
    specs=[asset(name) for name in ("model", "forecasts", "scores")],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def made(): ...

definitions = dg.Definitions(
    assets=[made], sensors=[build_training_due_sensor(settings, grid, build_jobs())]
)
"""


class Daemon(World):
    """A world whose sensor is ticked by Dagster's own daemon, which is restarted before each tick.

    Instance and code location are opened anew: what was asked for is known from storage alone.
    """

    def __init__(self, settings: Settings, home: Path) -> None:
        self.home = home
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        (home / "code.py").write_text(CODE)
        origin = InProcessCodeLocationOrigin(
            LoadableTargetOrigin(python_file=str(home / "code.py"), attribute="definitions")
        )
        self.target = InProcessWorkspaceLoadTarget(origin)
        self.now = dt.datetime.now(tz=dt.UTC)
        super().__init__(settings, self.opened())
        self.runs: set[str] = set()

    def opened(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.home))

    def look(self) -> dg.DagsterRun | None:
        """The run that a tick has brought into the queue, if any."""
        self.instance.dispose()
        self.instance = self.opened()
        self.now += dt.timedelta(minutes=1)
        log = logging.getLogger("daemon")
        with (
            freeze_time(self.now),
            WorkspaceProcessContext(self.instance, self.target) as process,
        ):
            assert not any(execute_sensor_iteration(process, log, None, None))
        records = self.instance.get_run_records(dg.RunsFilter(job_name="retrain"))
        new = [item.dagster_run for item in records if item.dagster_run.run_id not in self.runs]
        self.runs |= {run.run_id for run in new}
        assert len(new) <= 1
        return new[0] if new else None

    def request(self) -> str | None:
        """First and last day that a tick has asked for."""
        if (run := self.look()) is None:
            return None
        first, last = run.tags[RANGE_START_TAG], run.tags[RANGE_END_TAG]
        self.run = run
        return f"{DAYS.index(day_of(first))}-{DAYS.index(day_of(last))}"

    def end(self, *, trained: int | None = None, last: int | None = None) -> None:
        """The run ends: it has decided the days from one to another, or failed before."""
        if trained is None:
            self.instance.report_run_failed(self.run)
            return
        self.decide(DAYS[trained])
        for number in range(trained + 1, (last or trained) + 1):
            self.decide(DAYS[number], "carried")
        ended = dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name="retrain")
        self.instance.report_dagster_event(ended, self.run.run_id)


def day_of(cell: str) -> dt.date:
    return dt.date.fromisoformat(cell.partition("|")[0])


@pytest.mark.slow
def test_each_new_failure_asks_once_across_overlaps_and_restarts_of_the_daemon(
    tmp_path: Path,
) -> None:
    """pass, fail, fail, pass, fail through the daemon, which is restarted before every look."""
    (tmp_path / "settings.toml").write_text(SETTINGS)
    world = Daemon(load_settings(tmp_path / "settings.toml"), tmp_path)
    world.decide(DAYS[0])

    world.evening(DAYS[5], moved=False)
    assert world.request() is None

    world.evening(DAYS[6], moved=True)
    assert world.request() == "6-6"
    # The run goes on past the next close, and then dies without a decision.
    world.evening(DAYS[7], moved=False)
    assert world.request() is None
    world.end()
    assert world.request() is None, "nothing has failed since it was asked for"

    world.evening(DAYS[8], moved=True)
    assert world.request() == "6-8"
    # This one decides, after two more closes.
    world.evening(DAYS[9], moved=False)
    world.evening(DAYS[10], moved=True)
    assert world.request() is None
    world.end(trained=6, last=8)
    assert world.request() == "10-10", "the cooldown is of the day that was trained on"
    assert world.run.tags[WHY_TAG].startswith("drift, XMOS: ")
    world.end(trained=10)
    world.evening(DAYS[11], moved=False)
    assert world.request() is None


def test_half_of_a_market_asks_for_nothing_and_spends_no_cooldown(world: World) -> None:
    day = DAYS[5]
    world.evening(day, moved=True, come=TICKERS[:1])
    assert world.tick() is None
    # The rest has come, and the day is run again.
    world.evening(day, moved=True)
    assert world.tick() is not None


def test_the_request_is_the_day_and_all_tickers_and_says_why(world: World) -> None:
    world.evening(DAYS[5], moved=True)

    asked = world.tick()

    assert asked is not None
    assert asked.tags[RANGE_START_TAG] == f"{DAYS[5]}|AAA"
    assert asked.tags[RANGE_END_TAG] == f"{DAYS[5]}|BBB"
    assert asked.tags[WHY_TAG] == "drift, XMOS: 100% of pairs drifted (alarm above 50%)"
    assert FORCE_TAG not in asked.tags
    assert [key.to_user_string() for key in asked.asset_selection] == ["model", "forecasts"]


def test_a_failed_evaluation_that_nobody_could_act_on_is_asked_for_with_the_days_since(
    world: World,
) -> None:
    """A run that makes `model` is busy across the next close, or the daemon is off."""
    with world.instance_run("model"):
        world.evening(DAYS[5], moved=True)
        assert world.tick() is None
        world.evening(DAYS[6], moved=False)

    asked = world.tick()

    assert asked is not None
    assert asked.tags[RANGE_START_TAG] == f"{DAYS[5]}|AAA"
    assert asked.tags[RANGE_END_TAG] == f"{DAYS[6]}|BBB"
    assert asked.tags[WHY_TAG].endswith(f"(alarm above 50%), on {DAYS[5]}")
    # Forecasts of the first day are made again, and so are the scores of them.
    assert [key.to_user_string() for key in asked.asset_selection] == [
        "model", "forecasts", "scores",
    ]  # fmt: skip
    assert world.tick() is None


def test_a_day_in_the_middle_of_one_run_over_several_is_asked_for(world: World) -> None:
    """The check on drift is of the slice's last day alone; the numbers are of all days."""
    for day, moved in zip(DAYS[5:8], (False, True, False), strict=True):
        world.evening(day, moved=moved)
    world.evaluated(*DAYS[5:8])
    asked = world.tick()
    assert asked is not None
    assert asked.tags[RANGE_START_TAG] == f"{DAYS[6]}|AAA"


def test_what_lies_before_the_last_decision_asks_for_nothing(world: World) -> None:
    world.evening(DAYS[5], moved=False)
    world.evening(DAYS[6], moved=False)
    world.decide(DAYS[6], "carried")
    world.evening(DAYS[7], moved=False)
    world.evening(DAYS[5], moved=True)
    assert world.tick() is None


@pytest.mark.slow
def test_more_days_than_a_run_may_hold_are_asked_for_one_run_after_the_other(
    world: World,
) -> None:
    world.grid = replace(world.grid, cells_per_run=4)
    for day in DAYS[5:9]:
        world.evening(day, moved=True)
    first = world.tick()
    assert first is not None
    assert first.tags[RANGE_END_TAG] == f"{DAYS[6]}|BBB"
    world.decide(DAYS[5])
    world.decide(DAYS[6], "carried")
    assert world.tick() is None, "within the cooldown"
    world.evening(DAYS[9], moved=True)
    second = world.tick()
    assert second is not None
    assert second.tags[RANGE_START_TAG] == f"{DAYS[9]}|AAA"


def test_within_the_cooldown_nothing_is_asked_for(world: World) -> None:
    for day in DAYS[1:4]:
        world.evening(day, moved=True)
        assert world.tick() is None
    world.evening(DAYS[4], moved=True)
    assert world.tick() is not None


def test_a_day_that_has_been_decided_is_not_asked_for_again(world: World) -> None:
    """By hand, along a backfill, or for another reason: its data has been trained on."""
    world.evening(DAYS[5], moved=True)
    world.decide(DAYS[5], "rejected")
    assert world.tick() is None
    world.evening(DAYS[5], moved=True)
    assert world.tick() is None


def test_while_a_run_is_about_to_decide_nothing_is_asked_for(world: World) -> None:
    world.evening(DAYS[5], moved=True)
    with world.instance_run("model"):
        assert world.tick() is None
    # That run failed without a decision.
    assert world.tick() is not None


def test_a_training_that_failed_is_asked_for_again_when_drift_is_checked_again(
    world: World,
) -> None:
    world.evening(DAYS[5], moved=True)
    assert world.tick() is not None
    with world.instance_run("model"):
        pass
    assert world.tick() is None
    world.evening(DAYS[5], moved=True)
    assert world.tick() is not None


def test_nothing_is_asked_for_before_the_day_has_forecasts(world: World) -> None:
    """Its run is still going on: the training and the forecasts after it are one run."""
    world.evening(DAYS[5], moved=False)
    day = DAYS[6]
    drift = world.lake.read("drift").with_columns(
        pl.lit(day).alias("day"), pl.lit(value=True).alias("drifted")
    )
    world.lake.write("drift", drift, Slice(day, day, TICKERS))
    world.evaluated(day)
    assert world.tick() is None


def score_rows(days: tuple[dt.date, ...], *, held: float) -> pl.DataFrame:
    """Scores whose 80 and 90 % intervals held that share of the outcomes."""
    random = np.random.default_rng(4)
    types = Scores.create_empty().schema
    numbers = {name: 1.0 for name, dtype in types.items() if dtype == pl.Float64}
    flags = [name for name, dtype in types.items() if dtype == pl.Boolean]
    rows = [
        {
            **numbers,
            **dict.fromkeys(flags, bool(random.random() < held)),
            "day": day,
            "ticker": ticker,
            "horizon": 1,
            "forecast_day": day - dt.timedelta(1),
            "model": "m",
        }
        for day in days
        for ticker in TICKERS
    ]
    return pl.DataFrame(rows, schema=types).sort("day", "ticker")


def test_live_scores_that_left_their_band_ask_too_and_the_run_says_so(world: World) -> None:
    days = DAYS[:35]
    world.evening(days[-1], moved=False)
    world.lake.write("scores", score_rows(days, held=0.85), Slice(days[0], days[-1], TICKERS))
    assert world.tick() is None

    world.lake.write("scores", score_rows(days, held=0.3), Slice(days[0], days[-1], TICKERS))
    asked = world.tick()

    assert asked is not None
    assert asked.tags[WHY_TAG].startswith("performance (XMOS, the 80 % interval is too narrow")
    # What the decision then writes down, so that a replay tries it again.
    assert forced_words(asked.tags[FORCE_TAG]) == asked.tags[WHY_TAG]
    assert world.tick() is None
    world.decide(days[-1], "rejected")
    world.evening(DAYS[36], moved=False)
    assert world.tick() is None, "within the cooldown"


def test_a_model_is_not_retrained_for_the_faults_of_the_one_before_it(world: World) -> None:
    replaced = score_rows(DAYS[:30], held=0.3)
    world.lake.write("scores", replaced, Slice(DAYS[0], DAYS[29], TICKERS))
    world.evening(DAYS[29], moved=False)
    assert world.tick() is not None
    world.decide(DAYS[29])

    # Right from its first day on, and long enough for all that its predecessor did to be judged.
    right = score_rows(DAYS[30:40], held=0.86).with_columns(pl.lit("baseline").alias("model"))
    world.lake.write("scores", right, Slice(DAYS[30], DAYS[39], TICKERS))
    world.evening(DAYS[39], moved=False)
    with connect(world.lake) as connection:
        (verdict,) = live_verdicts(connection, world.settings, DAYS[39], ["XMOS"])
    assert verdict.failures, "the check still fails, and says of whom"
    assert "most of these forecasts are of a model that has been replaced" in verdict.sentence
    assert world.tick() is None


@pytest.mark.slow
def test_a_new_model_that_fails_too_is_retrained_once_it_can_be_judged(world: World) -> None:
    world.decide(DAYS[2])
    asked = []
    for number in (20, 21, 22, 23, 24):
        scores = score_rows(DAYS[: number + 1], held=0.3)
        world.lake.write("scores", scores, Slice(DAYS[0], DAYS[number], TICKERS))
        world.evening(DAYS[number], moved=False)
        if world.tick() is not None:
            asked.append(number)
    assert asked
    made = [day for day in DAYS[: asked[0] + 1] if day - dt.timedelta(1) > DAYS[2]]
    assert len(made) == MIN_TEST_DAYS
