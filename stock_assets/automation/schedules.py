"""A schedule for each exchange: after its close, the slice of the day and of missed days.

The request covers every session whose forecasts the lake does not hold yet, so a machine that was
off for a week, or a run that died, is caught up in one run.
"""

import datetime as dt
from zoneinfo import ZoneInfo

import dagster as dg

from stock_assets.automation.jobs import Jobs
from stock_assets.calendars import Calendar, get_calendar
from stock_assets.errors import SliceError
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect
from stock_assets.partitions import Grid, day_clock
from stock_assets.settings import Settings

_DELAY = dt.timedelta(minutes=15)
"""After the close, for the source to publish the last candle."""

_LOOK_BACK = 20
"""Sessions over which a ticker that stays behind the others is asked for again."""


def after_close(calendar: Calendar, clock: str) -> tuple[str, str]:
    """Cron schedule and its zone: `_DELAY` after the calendar's close.

    Where the day only becomes a partition later (exchanges of the far east, see
    `partitions.day_clock`), `_DELAY` after that.
    """
    session = calendar.sessions[-1]
    begins = dt.datetime.combine(session + dt.timedelta(1), dt.time(0), tzinfo=ZoneInfo(clock))
    if begins > calendar.closes_at(session):
        opening = begins.astimezone(dt.UTC) + _DELAY
        return f"{opening.minute} {opening.hour} * * *", "UTC"
    closing = dt.datetime.combine(session, calendar.close) + _DELAY
    return f"{closing.minute} {closing.hour} * * *", calendar.timezone


def build_schedules(settings: Settings, grid: Grid, jobs: Jobs) -> list[dg.ScheduleDefinition]:
    """One schedule an exchange, running by default."""
    return [_schedule(name, settings, grid, jobs) for name in settings.exchanges]


def _schedule(exchange: str, settings: Settings, grid: Grid, jobs: Jobs) -> dg.ScheduleDefinition:
    calendar = get_calendar(exchange)
    tickers = [item.ticker for item in settings.universe if item.exchange == exchange]
    cron, zone = after_close(calendar, day_clock(settings))

    @dg.schedule(
        name="after_close_" + "".join(c if c.isalnum() else "_" for c in exchange),
        job=jobs.daily,
        cron_schedule=cron,
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"The slice of {exchange} after its close, with the sessions missed before it.",
    )
    def after_the_close(
        context: dg.ScheduleEvaluationContext,
    ) -> list[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(dt.UTC)
        day = calendar.latest_closed(now)
        held = last_forecasts(Lake(settings.lake_dir), tickers)
        if not held:
            return dg.SkipReason(
                f"the lake holds no forecast of {exchange} yet: materialize a first range "
                f"(stock-assets run --to {day}, or a backfill in the UI)"
            )
        first = first_missing(calendar, held, day)
        if first is None:
            return dg.SkipReason(f"{exchange} is forecast up to its last closed session, {day}")
        try:
            area = grid.slice(first, day, tickers)
        except SliceError as error:
            return dg.SkipReason(str(error))
        return [
            dg.RunRequest(
                run_key=f"{exchange}:{run.first_date}:{run.last_date}", tags=grid.tags(run)
            )
            for run in grid.runs(area)
        ]

    return after_the_close


def first_missing(calendar: Calendar, held: dict[str, dt.date], day: dt.date) -> dt.date | None:
    """The first session up to `day` without the forecasts of some ticker; None when all are there.

    A ticker that has been silent for long (halted, delisted) is looked for over `_LOOK_BACK`
    sessions only, so that it does not ask for its whole past each evening.
    """
    newest, oldest = max(held.values()), min(held.values())
    if oldest >= day:
        return None
    behind = max(oldest, calendar.back(day, _LOOK_BACK))
    (first, *_) = calendar.after(min(newest, behind), 1)
    return first


def last_forecasts(lake: Lake, tickers: list[str]) -> dict[str, dt.date]:
    """The last day with forecasts of each of `tickers` that has any."""
    marks = ", ".join("?" * len(tickers))
    with connect(lake) as connection:
        found = connection.execute(
            f"select ticker, max(day) from forecasts where ticker in ({marks}) group by ticker",  # noqa: S608
            tickers,
        )
        return dict(found.fetchall())
