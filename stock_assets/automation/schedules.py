"""A schedule for each exchange: after its close, the slice of the day and of missed days.

The request covers every session since the last one that the lake holds for the exchange, so a
machine that was off for a week catches up in one run.
"""

import datetime as dt

import dagster as dg

from stock_assets.automation.jobs import Jobs
from stock_assets.calendars import Calendar, get_calendar
from stock_assets.errors import SliceError
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect
from stock_assets.partitions import Grid
from stock_assets.settings import Settings

_DELAY = dt.timedelta(minutes=15)
"""After the close, for the source to publish the last candle."""


def after_close(calendar: Calendar) -> str:
    """The cron schedule, in the calendar's own zone, of `_DELAY` after its close."""
    closing = dt.datetime.combine(dt.date(2000, 1, 1), calendar.close) + _DELAY
    return f"{closing.minute} {closing.hour} * * *"


def build_schedules(settings: Settings, grid: Grid, jobs: Jobs) -> list[dg.ScheduleDefinition]:
    """One schedule an exchange, running by default."""
    return [_schedule(name, settings, grid, jobs) for name in settings.exchanges]


def _schedule(exchange: str, settings: Settings, grid: Grid, jobs: Jobs) -> dg.ScheduleDefinition:
    calendar = get_calendar(exchange)
    tickers = [item.ticker for item in settings.universe if item.exchange == exchange]

    @dg.schedule(
        name="after_close_" + "".join(c if c.isalnum() else "_" for c in exchange),
        job=jobs.daily,
        cron_schedule=after_close(calendar),
        execution_timezone=calendar.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"The slice of {exchange} after its close, with the sessions missed before it.",
    )
    def after_the_close(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(dt.UTC)
        day = calendar.latest_closed(now)
        held = last_held(Lake(settings.lake_dir), tickers)
        if held is None:
            return dg.SkipReason(
                f"the lake holds no candle of {exchange} yet: materialize a first range "
                f"(stock-assets run --to {day}, or a backfill in the UI)"
            )
        if held >= day:
            return dg.SkipReason(f"{exchange} is held up to its last closed session, {day}")
        try:
            area = grid.slice(held + dt.timedelta(1), day, tickers)
        except SliceError as error:
            return dg.SkipReason(str(error))
        return dg.RunRequest(run_key=f"{exchange}:{day}", tags=grid.tags(area))

    return after_the_close


def last_held(lake: Lake, tickers: list[str]) -> dt.date | None:
    """The last day of which the lake holds a candle of any of `tickers`."""
    marks = ", ".join("?" * len(tickers))
    with connect(lake) as connection:
        ((day,),) = connection.execute(
            f"select max(day) from candles where ticker in ({marks})",  # noqa: S608
            tickers,
        ).fetchall()
    return day
