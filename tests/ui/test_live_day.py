"""One day by itself: the schedule's tick, one run, a failed drift check, the training it caused.

`stock-assets dev` as a user starts it, its daemon, and a real Chromium that looks at what came of
it; the screenshots are in `artifacts/`. The schedule is told that it was switched on days ago: the
daemon then fires the ticks that it has missed, as it does on a machine that was off at the close.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorTick,
    ScheduleInstigatorData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from stock_assets.automation.jobs import DAILY_JOB, RETRAIN_JOB, makes
from stock_assets.automation.schedules import EXCHANGE_TAG
from stock_assets.calendars import get_calendar
from stock_assets.instance.run_launcher import PROCESS_TAG
from stock_assets.lake.store import Lake
from stock_assets.launch import open_instance, prepare_home
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG
from stock_assets.settings import SETTINGS_VARIABLE, Settings, load_settings
from stock_assets.slices import WHY_TAG

from .conftest import (
    EXCHANGE,
    TICKERS,
    Page,
    Server,
    clean_environment,
    free_ports,
    running_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dagster as dg

_TAKES_UP_TO = 400


def _settings(folder: Path, last: dt.date) -> Path:
    """A market that changed a week before `last`: drift is seen on it, after the cooldown."""
    calendar = get_calendar(EXCHANGE)
    first = calendar.back(last, 6)
    port, reports_port = free_ports()
    file = folder / "live.toml"
    file.write_text(
        f"""
[lake]
path = "data"
[partitions]
first_day = {first}
[[universe]]
tickers = {list(TICKERS)}
source = "sample"
exchange = "{EXCHANGE}"
[sources.sample]
kind = "simulated"
begin = {first - dt.timedelta(days=1000)}
regime_change = {calendar.back(last, 4)}
interval = "1d"
[forecast]
min_training_rows = 500
cooldown = 5
[server]
port = {port}
reports_port = {reports_port}
"""
    )
    return file


@dataclass(frozen=True)
class Daemon:
    """A server with the daemon at work, and the instance that both look at."""

    server: Server
    instance: dg.DagsterInstance

    def runs(self, asset: str) -> list[dg.DagsterRun]:
        """The runs that automation has asked for and that make `asset`."""
        return [
            run
            for run in self.instance.get_runs()
            if PROCESS_TAG not in run.tags and makes(run, asset)
        ]

    def wait(self, what: str, done: Callable[[], object]) -> None:
        self.server.wait(what, done, _TAKES_UP_TO)

    def ticks(self, origin: RemoteInstigatorOrigin) -> list[InstigatorTick]:
        return list(self.instance.get_ticks(origin.get_id(), _selector_id(origin)))


def _origin(name: str) -> RemoteInstigatorOrigin:
    """How the daemon calls a schedule or sensor of `workspace.yaml`'s code location."""
    location = ManagedGrpcPythonEnvCodeLocationOrigin(
        LoadableTargetOrigin(module_name="stock_assets.definitions"), "stock_assets"
    )
    return RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)


def _selector_id(origin: RemoteInstigatorOrigin) -> str:
    return origin.get_selector().get_id()


@pytest.fixture
def day() -> dt.date:
    return get_calendar(EXCHANGE).latest_closed(dt.datetime.now(tz=dt.UTC))


@pytest.fixture
def file(tmp_path: Path, day: dt.date) -> Path:
    """Settings of a lake that holds everything up to the session before `day`."""
    found = _settings(tmp_path, day)
    program = str(Path(sys.executable).with_name("stock-assets"))
    before = get_calendar(EXCHANGE).back(day, 1)
    subprocess.run(
        [program, "run", "--settings", str(found), "--to", str(before)],
        env=clean_environment(),
        check=True,
        capture_output=True,
    )
    return found


@pytest.fixture
def daemon(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    settings = load_settings(file)
    for name in ("DAGSTER_HOME", "STOCK_ASSETS_EVENT_LOG", SETTINGS_VARIABLE):
        # So that what `prepare_home` sets goes away with the test.
        monkeypatch.setenv(name, "")
    prepare_home(settings, file)
    with open_instance() as instance:
        _switch_on_three_days_ago(instance)
        with running_server(file, automation=True) as server:
            yield Daemon(server, instance)


def _switch_on_three_days_ago(instance: dg.DagsterInstance) -> None:
    began = dt.datetime.now(tz=dt.UTC) - dt.timedelta(days=3)
    instance.add_instigator_state(
        InstigatorState(
            _origin(f"after_close_{EXCHANGE}"),
            InstigatorType.SCHEDULE,
            InstigatorStatus.DECLARED_IN_CODE,
            ScheduleInstigatorData(cron_schedule="0 19 * * *", start_timestamp=began.timestamp()),
        )
    )


def _finished(runs: list[dg.DagsterRun]) -> bool:
    return bool(runs) and all(run.is_finished for run in runs)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_day_is_one_run_from_schedule_to_scores_and_a_failed_check_asks_once(
    page: Page, daemon: Daemon, file: Path, day: dt.date
) -> None:
    settings: Settings = load_settings(file)
    schedule, automation = _origin(f"after_close_{EXCHANGE}"), _origin("training_due")

    daemon.wait("the day's run", lambda: _finished(daemon.runs("candles")))
    daemon.wait("the training's run", lambda: _finished(daemon.runs("model")))
    ended = time.time()
    daemon.wait(
        "another look of the automation",
        lambda: any(tick.timestamp > ended for tick in daemon.ticks(automation)),
    )

    (daily,) = daemon.runs("candles")
    assert daily.is_success
    assert daily.job_name == DAILY_JOB
    assert daily.tags[EXCHANGE_TAG] == EXCHANGE
    assert daily.tags[WHY_TAG] in ("on time", "late")
    cells = f"{day}|{TICKERS[0]}", f"{day}|{TICKERS[-1]}"
    assert (daily.tags[RANGE_START_TAG], daily.tags[RANGE_END_TAG]) == cells
    ends = [tick.status for tick in daemon.ticks(schedule)]
    assert ends.count(TickStatus.SUCCESS) == 1
    assert set(ends) <= {TickStatus.SUCCESS, TickStatus.SKIPPED}

    (training,) = daemon.runs("model")
    assert training.is_success
    assert training.job_name == RETRAIN_JOB
    # Not for a missing model or the cadence: here only drift can ask.
    assert training.tags[WHY_TAG].startswith(f"drift, {EXCHANGE}: ")
    assert {run.run_id for run in daemon.runs("forecasts")} == {daily.run_id, training.run_id}

    lake = Lake(settings.lake_dir)
    for table in ("scores", "forecasts", "models"):
        rows = lake.read(table).filter(day=day)
        assert set(rows["ticker"]) == set(TICKERS), table
    # Not by their version of `models`: where the gate kept the model, the same forecasts came out
    # and nothing was written again.
    used, decided = (
        lake.read(table).filter(pl.col("day") == day).select("ticker", "model").unique()
        for table in ("forecasts", "models")
    )
    assert used.sort("ticker").equals(decided.sort("ticker"))

    # The same, as a person finds it.
    page.follow_failed_drift(daemon.server, day)
    page.close_tab()
    url = daemon.server.url
    page.open(f"{url}/runs/{training.run_id}")
    page.click("//button[normalize-space() = 'View tags and config']")
    page.see(f"//*[contains(., 'drift, {EXCHANGE}: ')]")
    page.save("retraining.png")
    page.open(f"{url}/assets/forecasts?view=partitions&partition={day}%7C{TICKERS[-1]}")
    page.see(f"//a[contains(@href, '/runs/{training.run_id}')]")
    page.click("//*[text() = '[Show Markdown]']")
    page.see("img[src^='data:image/png;base64,']")
    page.save("forecast_of_the_new_model.png")
    page.leave()
