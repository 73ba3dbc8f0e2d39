"""A schedule for each exchange: a few looks after its close, and the slices that they find due.

The first look, a quarter of an hour after the close, normally finds the day and asks for it: one
run from candles to scores. The later ones of the evening find what came late, and ask for nothing
when nothing came. What is due is decided in `gaps.py`; here it becomes run requests, none over
cells that a run is working on already. So an exchange has at most as many runs of a day as there
are looks in an evening, whatever its sources, its tickers or its runs do.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

import dagster as dg

from stock_assets.automation.gaps import Ask, Held, due, first_of, read_held
from stock_assets.automation.jobs import Jobs, makes, slice_of_run, unfinished_runs
from stock_assets.automation.news import News, look_for_news, turn_of
from stock_assets.calendars import Calendar, get_calendar
from stock_assets.errors import SliceError
from stock_assets.lake.actions import otherwise_adjusted
from stock_assets.lake.dbt_request import build_request
from stock_assets.lake.store import Lake
from stock_assets.partitions import Grid, day_clock
from stock_assets.settings import Settings
from stock_assets.slices import WHY_TAG, Slice
from stock_assets.sources.settling import instants, latest_settled

LOOKS = tuple(dt.timedelta(minutes=minutes) for minutes in (15, 45, 120, 300))
"""After the close: when the source has usually published the last candle, and for what is late."""

EXCHANGE_TAG = "stock_assets/exchange"
"""Run tag by which an exchange's schedule finds the runs that it has asked for."""

_RUNS_READ = 100
"""More than the looks of all sessions that are looked back on."""

_OTHER_RUNS_READ = 1_000
"""Of people's successful runs since then: a backfill that is cut into many is among them."""


def after_close(
    calendar: Calendar, clock: str, settled: Sequence[dt.datetime] = ()
) -> tuple[list[str], str]:
    """Cron schedules and their zone: `LOOKS` after the calendar's close.

    Where sources are later with the last session (`settled`, UTC), `LOOKS` after each of them.
    Where the day only becomes a partition later (exchanges of the far east, see
    `partitions.day_clock`), `LOOKS` after that.
    """
    session = calendar.sessions[-1]
    close = calendar.closes_at(session)
    opens = [_first_instant(instant, clock, session) for instant in settled or (close,)]
    # On the exchange's clock, so that the looks keep to its summer time.
    zone = calendar.timezone if opens[0] == (settled or (close,))[0] else "UTC"
    times = sorted(
        {instant.astimezone(ZoneInfo(zone)) + look for instant in opens for look in LOOKS}
    )
    return [f"{time.minute} {time.hour} * * *" for time in times], zone


def _first_instant(settled: dt.datetime, clock: str, session: dt.date) -> dt.datetime:
    """When a session's candles are final and it is a partition (UTC)."""
    begins = dt.datetime.combine(session + dt.timedelta(1), dt.time(0), tzinfo=ZoneInfo(clock))
    return max(begins.astimezone(dt.UTC), settled)


def last_look(settings: Settings, exchange: str, session: dt.date, clock: str) -> dt.datetime:
    """When (UTC) a session's candles are looked for the last time that evening.

    `clock` is `partitions.day_clock` of the settings.
    """
    return _first_instant(instants(settings, exchange, session)[-1], clock, session) + LOOKS[-1]


def schedule_name(exchange: str) -> str:
    """The name of an exchange's schedule."""
    return "after_close_" + "".join(c if c.isalnum() else "_" for c in exchange)


def build_schedules(settings: Settings, grid: Grid, jobs: Jobs) -> list[dg.ScheduleDefinition]:
    """One schedule an exchange, running by default."""
    return [_schedule(name, settings, grid, jobs) for name in settings.exchanges]


def _schedule(exchange: str, settings: Settings, grid: Grid, jobs: Jobs) -> dg.ScheduleDefinition:
    calendar = get_calendar(exchange)
    settled = instants(settings, exchange, calendar.sessions[-1])
    cron, zone = after_close(calendar, day_clock(settings), settled)

    @dg.schedule(
        name=schedule_name(exchange),
        job=jobs.daily,
        cron_schedule=cron,
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            f"The slice of {exchange} after its close, and what came late or was missed before it."
        ),
    )
    def after_the_close(
        context: dg.ScheduleEvaluationContext,
    ) -> list[dg.RunRequest] | dg.SkipReason:
        # Not the tick's time: ticks that were missed while the machine was off come late, and
        # together, and must see what is there now.
        now = dt.datetime.now(tz=dt.UTC)
        tick = context.scheduled_execution_time
        return look(exchange, settings, grid, context.instance, now=now, tick=tick)

    return after_the_close


def look(  # noqa: PLR0913
    exchange: str,
    settings: Settings,
    grid: Grid,
    instance: dg.DagsterInstance,
    *,
    now: dt.datetime,
    tick: dt.datetime,
) -> list[dg.RunRequest] | dg.SkipReason:
    """What to run for an exchange as things stand at `now` (UTC); `tick` names the requests.

    Raises `SourceError` when a source cannot be read: the tick then fails in the UI, and the next
    look tries again.
    """
    calendar = get_calendar(exchange)
    instruments = [item for item in settings.universe if item.exchange == exchange]
    tickers = [item.ticker for item in instruments]
    days = [day for day in grid.days() if calendar.is_session(day)]
    settled = latest_settled(settings, exchange, now)
    day = max((day for day in days if day <= settled), default=None)
    if day is None:
        return dg.SkipReason(f"no session of {exchange} is a partition yet")
    lake = Lake(settings.lake_dir)
    held = read_held(lake, calendar, instruments, days[0], day)
    if held.newest_forecast is None:
        return dg.SkipReason(
            f"the lake holds no forecast of {exchange} yet: materialize a first range "
            f"(stock-assets run --to {day}, or a backfill in the UI)"
        )
    opened = _first_instant(instants(settings, exchange, day)[-1], day_clock(settings), day)
    news = look_for_news(settings, lake, held, now, turn_of(opened, now, LOOKS))
    # Nobody knows yet what is missing of those that there was no time for.
    missing = frozenset(cell for cell in held.missing if cell[1] not in news.unasked)
    held = replace(held, missing=missing)
    # What was declared of shares since bars were made changes them from its day on.
    request = build_request(settings, Slice(day, day, tuple(tickers)), news=news.splits)
    adjusted = otherwise_adjusted(request, lake, None, day)
    revised = news.revised | {(max(since, days[0]), name) for name, since in adjusted.items()}
    asks = due(
        held,
        news.arrived,
        revised,
        _outcomes(instance, exchange, tickers, grid),
        calendar,
        on_time=now < opened + LOOKS[1],
    )
    slices = [
        (ask, area) for ask in asks for area in grid.runs(grid.slice(ask.first, ask.last, tickers))
    ]
    busy = [_run_over(instance, area, grid) for _, area in slices]
    requests = [
        _request(ask, area, exchange, grid, tick, news)
        for (ask, area), run in zip(slices, busy, strict=True)
        if run is None
    ]
    if requests:
        return requests
    if asks:
        runs = ", ".join(sorted({run for run in busy if run}))
        return dg.SkipReason(f"what is due is being run already: {runs}")
    return dg.SkipReason(_nothing_due(held, exchange, len(tickers)) + _besides(news))


def _request(  # noqa: PLR0913, PLR0917
    ask: Ask, area: Slice, exchange: str, grid: Grid, tick: dt.datetime, news: News
) -> dg.RunRequest:
    tags = grid.tags(area)
    return dg.RunRequest(
        # One tick asks once; a later one may ask for the same days again, after a failure.
        run_key=":".join((exchange, *tags.values(), tick.isoformat(timespec="minutes"))),
        tags={**tags, EXCHANGE_TAG: exchange, WHY_TAG: ask.why + _besides(news)},
    )


def _outcomes(
    instance: dg.DagsterInstance, exchange: str, tickers: Sequence[str], grid: Grid
) -> dict[dt.date, bool]:
    """Days that a run of the schedule has ended over: False where it failed and nobody mended it.

    A later run of a person, from candles to forecasts of the same cells, mends it. One that the
    person canceled is as good as done: what it left is left on purpose. A day of which a later run
    made candles without bars is left out: what is built on them is open again.
    """
    asked = instance.get_run_records(dg.RunsFilter(tags={EXCHANGE_TAG: exchange}), limit=_RUNS_READ)
    if not asked:
        return {}
    good = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS], created_after=asked[-1].create_timestamp
    )
    later = instance.get_run_records(good, limit=_OTHER_RUNS_READ)
    runs = {record.storage_id: record.dagster_run for record in (*asked, *later)}
    found: dict[dt.date, bool] = {}
    opened: set[dt.date] = set()
    mended: dict[dt.date, set[str]] = {}
    for _, run in sorted(runs.items(), reverse=True):
        area = _slice_of(run, grid) if run.is_finished and makes(run, "candles") else None
        own = set(tickers).intersection(area.tickers) if area else set()
        if area is None or not own:
            continue
        for day in grid.days_of(area):
            if day in found or day in opened:
                continue
            if EXCHANGE_TAG in run.tags:
                canceled = run.status == dg.DagsterRunStatus.CANCELED
                found[day] = run.is_success or canceled or mended.get(day, set()) >= own
            elif not makes(run, "bars"):
                opened.add(day)
            elif makes(run, "forecasts"):
                mended.setdefault(day, set()).update(own)
    return found


def _run_over(instance: dg.DagsterInstance, area: Slice, grid: Grid) -> str | None:
    """The run, if any, that is queued or in progress over a part of the slice, whoever asked."""
    days, tickers = set(grid.days_of(area)), set(area.tickers)
    for run in unfinished_runs(instance, "candles"):
        other = _slice_of(run, grid)
        if other and days.intersection(grid.days_of(other)) and tickers.intersection(other.tickers):
            return run.run_id
    return None


def _slice_of(run: dg.DagsterRun, grid: Grid) -> Slice | None:
    """The slice of a run; None where the settings no longer have its cells."""
    try:
        return slice_of_run(run, grid)
    except SliceError:
        return None


def _nothing_due(held: Held, exchange: str, universe: int) -> str:
    """Why nothing is asked for: all is there, or nobody has what is missing."""
    day = held.sessions[-1]
    silent = sorted(ticker for session, ticker in held.missing if session == day)
    if len(silent) == universe:
        return f"late: no source has a candle of {exchange} for {day} yet; looking again later"
    if silent:
        return (
            f"{exchange} is forecast up to its last closed session, {day}, but for "
            f"{first_of(silent)}: no source has a candle of theirs yet"
        )
    return f"{exchange} is forecast up to its last closed session, {day}"


def _besides(news: News) -> str:
    """What a person should know of besides: who was not asked, and what sources have withdrawn."""
    found = ""
    if news.unasked:
        found += (
            f"; {len(news.unasked)} tickers have their turn at later looks, as the limits of their "
            f"sources allow: {first_of(sorted(news.unasked))}"
        )
    if news.withdrawn:
        names = [f"{ticker} {day}" for day, ticker in sorted(news.withdrawn)]
        found += (
            f"; sources no longer have what the lake holds of {first_of(names)}: it stays until a "
            "person runs those days"
        )
    return found
