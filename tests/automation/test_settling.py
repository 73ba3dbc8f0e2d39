"""When an exchange is looked at whose sources are later than its close."""

from __future__ import annotations

import datetime as dt

import pytest

from stock_assets.automation.jobs import build_jobs
from stock_assets.automation.schedules import build_schedules
from stock_assets.calendars import get_calendar
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.sources.settling import instants, latest_settled

FRIDAY, MONDAY = dt.date(2026, 11, 13), dt.date(2026, 11, 16)


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate(
        {
            "partitions": {"first_day": "2026-06-01"},
            "universe": [
                {"tickers": ["SBER"], "source": "moex"},
                {"tickers": ["FILE"], "source": "mine", "exchange": "XMOS"},
                {"tickers": ["XAU"], "source": "cbr"},
            ],
            "sources": {"mine": {"kind": "files", "path": "candles"}},
        }
    )


def moscow(day: dt.date, hour: int, minute: int) -> dt.datetime:
    """A moment on Moscow's clock (UTC+3)."""
    local = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=dt.UTC)
    return local - dt.timedelta(hours=3)


def test_moscow_is_looked_at_after_its_close_and_after_its_evening_session(
    settings: Settings,
) -> None:
    schedules = {
        item.name: item for item in build_schedules(settings, Grid.of(settings), build_jobs())
    }
    crons = schedules["after_close_XMOS"].cron_schedule
    after_the_close = {"0 19 * * *", "30 19 * * *", "45 20 * * *", "45 23 * * *"}
    after_the_evening = {"20 0 * * *", "50 0 * * *", "5 2 * * *", "5 5 * * *"}
    assert set(crons) == after_the_close | after_the_evening
    assert schedules["after_close_XMOS"].execution_timezone == "Europe/Moscow"


def test_a_session_is_each_source_s_when_its_candles_are_final(settings: Settings) -> None:
    close = get_calendar("XMOS").closes_at(MONDAY)
    night = moscow(MONDAY + dt.timedelta(1), 0, 5)
    assert instants(settings, "XMOS", MONDAY) == (close, night)
    for now, files, moex in (
        (close - dt.timedelta(minutes=1), FRIDAY, FRIDAY),
        (close, MONDAY, FRIDAY),
        (night - dt.timedelta(minutes=1), MONDAY, FRIDAY),
        (night, MONDAY, MONDAY),
    ):
        assert latest_settled(settings, "XMOS", now, source="mine") == files
        assert latest_settled(settings, "XMOS", now, source="moex") == moex
        assert latest_settled(settings, "XMOS", now) == files
