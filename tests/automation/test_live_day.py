"""One day through the real daemon: the schedule's tick, one run, a failed drift check, one more.

The schedule is told that it was switched on days ago: the daemon then fires the ticks that it has
missed, as it does on a machine that was off at the close.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
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
from stock_assets.lake.store import Lake
from stock_assets.launch import PROCESS_TAG, open_instance, prepare_home
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG
from stock_assets.settings import PROJECT_DIR, SETTINGS_VARIABLE, Settings, load_settings
from stock_assets.slices import WHY_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dagster as dg

EXCHANGE = "XMOS"
TICKERS = ("BANK", "GRID", "METL")
_ENDS_IN, _TAKES_UP_TO = 20, 400


def _settings(folder: Path, last: dt.date) -> Path:
    """A market whose regime changed so shortly before `last` that drift must be seen on it."""
    calendar = get_calendar(EXCHANGE)
    first = calendar.back(last, 6)
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
regime_change = {calendar.back(first, 17)}
interval = "1d"
[forecast]
min_training_rows = 500
"""
    )
    return file


class Daemon:
    """Dagster's own daemon on a lake, and the instance that both look at."""

    def __init__(self, instance: dg.DagsterInstance, log: Path) -> None:
        self.instance = instance
        self.log = log

    def runs(self, asset: str) -> list[dg.DagsterRun]:
        """The runs that automation has asked for and that make `asset`."""
        return [
            run
            for run in self.instance.get_runs()
            if PROCESS_TAG not in run.tags and makes(run, asset)
        ]

    def wait(self, what: str, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + _TAKES_UP_TO
        while not done():
            if time.monotonic() > deadline:
                end = self.log.read_text(errors="replace")[-4000:]
                pytest.fail(
                    f"{what} took more than {_TAKES_UP_TO} s; the daemon's last words:\n{end}"
                )
            time.sleep(0.5)

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
        env=_clean(),
        check=True,
        capture_output=True,
    )
    return found


def _clean() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STOCK_ASSETS_", "DAGSTER_"))
    }


@pytest.fixture
def daemon(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    settings = load_settings(file)
    for name in ("DAGSTER_HOME", "STOCK_ASSETS_EVENT_LOG", SETTINGS_VARIABLE):
        # So that what `prepare_home` sets goes away with the test.
        monkeypatch.setenv(name, "")
    home = prepare_home(settings, file)
    log = tmp_path / "daemon.log"
    with open_instance() as instance:
        _switch_on_three_days_ago(instance)
        program = str(Path(sys.executable).with_name("dagster-daemon"))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "run", "-w", str(PROJECT_DIR / "workspace.yaml")],
                cwd=home,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Daemon(instance, log)
        finally:
            _end_group(process)


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


def _end_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _ENDS_IN
    while time.monotonic() < deadline:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _finished(runs: list[dg.DagsterRun]) -> bool:
    return bool(runs) and all(run.is_finished for run in runs)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_day_is_one_run_from_schedule_to_scores_and_a_failed_check_asks_once(
    daemon: Daemon, file: Path, day: dt.date
) -> None:
    settings: Settings = load_settings(file)
    schedule, automation = _origin(f"after_close_{EXCHANGE}"), _origin("retraining")

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
    # Not of the sensor for a missing model or the cadence: here only drift can ask.
    assert training.job_name != RETRAIN_JOB, training.tags.get(WHY_TAG)
    assert {key.to_user_string() for key in training.asset_selection or ()} == {
        "model",
        "forecasts",
    }
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
