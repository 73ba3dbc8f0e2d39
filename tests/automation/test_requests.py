"""What schedules and sensors ask for: exactly the slice, once, with a reason when nothing."""

import datetime as dt
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from stock_assets.automation.inbox import build_inbox_sensor
from stock_assets.automation.jobs import build_jobs
from stock_assets.automation.retraining import build_training_due_sensor
from stock_assets.automation.schedules import after_close, build_schedules
from stock_assets.calendars import get_calendar
from stock_assets.forecasting.registry import Registry
from stock_assets.lake.schemas import Forecasts, Models, Orders
from stock_assets.lake.store import Lake
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid
from stock_assets.settings import Settings, load_settings
from stock_assets.slices import Slice

SETTINGS = """
[lake]
path = "data"
[partitions]
first_day = 2026-06-01
[[universe]]
tickers = ["AAA", "BBB", "CCC"]
source = "inbox"
exchange = "XMOS"
[[universe]]
ticker = "USA"
source = "inbox"
exchange = "XNYS"
[sources.inbox]
kind = "files"
path = "data/inbox"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    found = load_settings(tmp_path / "settings.toml")
    found.inbox_dir.mkdir(parents=True)
    return found


@pytest.fixture
def grid(settings: Settings) -> Grid:
    return Grid.of(settings)


def hold(settings: Settings, last: dt.date, *tickers: str) -> None:
    """Have the lake hold forecasts of `tickers` on `last`."""
    area = Slice(last, last, tickers)
    Lake(settings.lake_dir).write("forecasts", forecast_rows(last, *tickers), area)


def forecast_rows(day: dt.date, *tickers: str) -> pl.DataFrame:
    types = Forecasts.create_empty().schema
    numbers = {name: 1.0 for name, dtype in types.items() if dtype == pl.Float64}
    versions = {"bars_version": 0, "features_version": 0}
    row = {**numbers, **versions, "day": day, "target_day": day + dt.timedelta(1), "horizon": 1}
    nothing = ("model_version", "models_version", "drift_version", "held_from", "note")
    texts = {"currency": "", "model": "baseline", **dict.fromkeys(nothing)}
    return pl.DataFrame([{**row, **texts, "ticker": name} for name in tickers])


def test_an_exchange_of_the_far_east_waits_for_its_partition() -> None:
    tokyo = get_calendar("XTKS")
    assert after_close(tokyo, "Etc/GMT-14") == (
        ["15 10 * * *", "45 10 * * *", "0 12 * * *", "0 15 * * *"],
        "UTC",
    )
    assert after_close(get_calendar("XMOS"), "Etc/GMT-14") == (
        ["0 19 * * *", "30 19 * * *", "45 20 * * *", "45 23 * * *"],
        "Europe/Moscow",
    )


def test_schedules_and_sensors_run_by_default(settings: Settings, grid: Grid) -> None:
    jobs = build_jobs()
    schedules = build_schedules(settings, grid, jobs)
    assert [item.execution_timezone for item in schedules] == ["Europe/Moscow", "America/New_York"]
    assert [item.cron_schedule[0] for item in schedules] == ["0 19 * * *", "15 16 * * *"]
    assert all(item.default_status == dg.DefaultScheduleStatus.RUNNING for item in schedules)
    for sensor in (
        build_inbox_sensor(settings, grid, jobs),
        build_training_due_sensor(settings, grid, jobs),
    ):
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING


def test_the_first_forecasts_ask_for_a_training_of_their_day(
    settings: Settings, grid: Grid
) -> None:
    sensor = build_training_due_sensor(settings, grid, build_jobs())
    with dg.DagsterInstance.ephemeral() as instance:
        assert isinstance(sensor(dg.build_sensor_context(instance=instance)), dg.SkipReason)
        day = dt.date(2026, 6, 4)
        hold(settings, day, "AAA")
        asked = sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(asked, dg.RunRequest)
    assert asked.tags["stock_assets/why"] == "no model in force"
    assert asked.tags[RANGE_START_TAG] == "2026-06-04|AAA"
    assert asked.tags[RANGE_END_TAG] == "2026-06-04|USA"


def test_a_model_of_other_code_asks_for_a_training(
    settings: Settings, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = build_training_due_sensor(settings, grid, build_jobs())
    lake, day, following = Lake(settings.lake_dir), dt.date(2026, 6, 4), dt.date(2026, 6, 5)
    row = {
        "day": day, "ticker": "AAA", "model": "old", "decision": "trained", "reason": "-",
        "trained_day": day, "attempted_day": day,
    }  # fmt: skip
    rows = pl.DataFrame([row], schema=Models.create_empty().schema)
    lake.write("models", rows, Slice(day, day, ("AAA",)))
    hold(settings, following, "AAA")
    with dg.DagsterInstance.ephemeral() as instance:
        asked = sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(asked, dg.SkipReason)
        monkeypatch.setattr(Registry, "unfit", lambda _: {"old": "was registered otherwise"})
        asked = sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(asked, dg.RunRequest)
    assert asked.tags["stock_assets/why"] == "no model in force"


def test_an_order_asks_for_model_of_the_day_that_it_counts_from_once(
    settings: Settings, grid: Grid
) -> None:
    sensor = build_training_due_sensor(settings, grid, build_jobs())
    lake, day, following = Lake(settings.lake_dir), dt.date(2026, 6, 4), dt.date(2026, 6, 5)
    kept = {
        "day": day, "ticker": "AAA", "model": "baseline", "decision": "baseline", "reason": "-",
        "attempted_day": day,
    }  # fmt: skip
    types = Models.create_empty().schema
    lake.write("models", pl.DataFrame([kept], schema=types), Slice(day, day, ("AAA",)))
    hold(settings, day, "AAA")
    order = {
        "day": following, "ordered_at": dt.datetime(2026, 6, 4, 20, tzinfo=dt.UTC),
        "ordered_by": "ann", "why": "because", "action": "promote", "model": "baseline",
    }  # fmt: skip
    lake.append("orders", pl.DataFrame([order], schema=Orders.create_empty().schema))
    with dg.DagsterInstance.ephemeral() as instance:

        def ask() -> dg.RunRequest | dg.SkipReason:
            return sensor(dg.build_sensor_context(instance=instance))

        assert isinstance(ask(), dg.SkipReason)  # it does not count yet
        hold(settings, following, "AAA")
        asked = ask()
        assert isinstance(asked, dg.RunRequest)
        assert asked.tags["stock_assets/why"] == "baseline was ordered from 2026-06-05 on"
        assert asked.run_key == ask().run_key  # so that Dagster runs it once
        obeyed = kept | {"day": following, "decision": "ordered", "attempted_day": following}
        area = Slice(following, following, ("AAA",))
        lake.write("models", pl.DataFrame([obeyed], schema=types), area)
        assert isinstance(ask(), dg.SkipReason)
