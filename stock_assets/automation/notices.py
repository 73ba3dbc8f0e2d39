"""A sensor that tells people what needs them: it finds what is new, notes it, and has it told.

Each tick asks for the runs that have ended since the one before, and reads those alone; where no
run has ended and no session has become late it costs one query and tells nothing. What was found is
noted before the cursor moves on, by a key that names the event: a tick that is lost or done twice
changes nothing (docs/adr/0025). What runs tell is in `run_news.py`, what is late in `staleness.py`,
how it is told in `notices/`.
"""

import datetime as dt
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import dagster as dg
from pydantic import BaseModel, Field, ValidationError

from stock_assets.automation.run_news import Lasting, news_of_run, waits_for_retry
from stock_assets.automation.staleness import Known, Watch, look_at
from stock_assets.notices.channels import Channel, configured
from stock_assets.notices.delivery import deliver
from stock_assets.notices.journal import BusyJournalError, Journal
from stock_assets.notices.notice import Notice
from stock_assets.notices.wording import places_of
from stock_assets.options import settings_file
from stock_assets.partitions import Grid, day_clock
from stock_assets.settings import Settings

OVERLAP = dt.timedelta(minutes=2)
"""So far behind the last run that was read it is looked again: processes write a run's end by their
own clocks, and not in their order."""

_READ_AT_ONCE = 200
"""Runs that one tick reads at most, and ..."""

_READING = 15.0
"""... seconds for it. The rest is read by the next tick."""

_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)
"""A canceled run has somebody who knows."""

_log = logging.getLogger(__name__)


class Cursor(BaseModel):
    """What ticks know of those before them."""

    since: dt.datetime
    """Up to here, by when a run was last changed, runs have been read."""
    read: dict[str, str] = Field(default_factory=dict)
    """Runs within `OVERLAP` before it: id, and when it was last changed."""
    waiting: dict[str, dt.datetime] = Field(default_factory=dict)
    """Failed runs that may be tried again, and when they ended."""
    failing: dict[str, dt.datetime] = Field(default_factory=dict)
    """`Lasting` checks."""
    exchanges: dict[str, Known] = Field(default_factory=dict)
    untold: bool = True
    """Whether anything waits for a channel."""


@dataclass
class Tick:
    """What one tick found, and what is known after it."""

    cursor: Cursor
    new: list[Notice] = field(default_factory=list)
    said: str = ""


def build_notices_sensor(settings: Settings, grid: Grid) -> dg.SensorDefinition:
    """The sensor; it asks for no runs."""
    places = places_of(settings, settings_file(None))
    watch = Watch(settings, grid, places, day_clock(settings))
    channels = configured(settings)
    told = ", ".join(["the log", *(channel.name for channel in channels)])

    @dg.sensor(
        name="notices",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Tells of failed runs and checks, drift, stale data and refused challengers: "
            f"{told}. See `stock-assets notices list`."
        ),
    )
    def notices(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        now = dt.datetime.now(tz=dt.UTC)
        found = tick(watch, context.instance, channels, read_cursor(context.cursor, now), now)
        context.update_cursor(found.cursor.model_dump_json())
        for notice in found.new:
            context.log.info("%s %s: %s", notice.id, notice.kind, notice.what)
        return dg.SkipReason(found.said)

    return notices


def read_cursor(text: str | None, now: dt.datetime) -> Cursor:
    """The cursor of the last tick. Without one, what has been until now is no news."""
    if text:
        try:
            return Cursor.model_validate_json(text)
        except ValidationError:
            _log.warning("the cursor of the sensor `notices` cannot be read: it begins anew")
    # What is looked at again begins here as well.
    return Cursor(since=now + OVERLAP)


def tick(
    watch: Watch,
    instance: dg.DagsterInstance,
    channels: Sequence[Channel],
    cursor: Cursor,
    now: dt.datetime,
) -> Tick:
    """One look at `now` (UTC): what is new, noted and told as far as it goes.

    Raises `NoticeError` when the journal cannot be written: the next tick finds the same again.
    """
    after = cursor.model_copy(deep=True)
    found = _of_runs(watch, instance, after, now)
    for exchange in watch.settings.exchanges:
        known = after.exchanges.get(exchange, Known())
        after.exchanges[exchange], late = look_at(exchange, known, watch, instance, now)
        found += late
    if not found and not cursor.untold:
        return Tick(after, said="nothing new")
    journal = Journal(watch.settings.notices_dir)
    try:
        with journal.lock():
            new = journal.add(found, [channel.name for channel in channels], now)
            after.untold = deliver(journal, channels, now)
    except BusyJournalError:
        return Tick(cursor, said="the tick before is still telling")
    left = "; some wait for a channel that is down" if after.untold else ""
    return Tick(after, new, f"{len(new)} new{left}")


def _of_runs(
    watch: Watch, instance: dg.DagsterInstance, cursor: Cursor, now: dt.datetime
) -> list[Notice]:
    """What the runs tell that have ended, or whose retry is decided, since the cursor; moves it."""
    lasting = Lasting(cursor.failing, dt.timedelta(watch.settings.notices.days))
    began = time.monotonic()
    found: list[Notice] = []

    def read(record: dg.RunRecord) -> None:
        run = record.dagster_run
        retried = False
        if run.status == dg.DagsterRunStatus.FAILURE:
            ended = record.update_timestamp if record.end_time is None else _moment(record.end_time)
            waits = waits_for_retry(instance, run, ended, now)
            retried = waits is not False
            if waits:
                cursor.waiting[run.run_id] = ended
                return
        cursor.waiting.pop(run.run_id, None)
        found.extend(news_of_run(record, watch, instance, lasting, now, retried=retried))

    for record in _open_again(instance, cursor):
        read(record)
    for record in _ended_since(instance, cursor):
        if time.monotonic() - began > _READING:
            break
        changed = record.update_timestamp
        run_id = record.dagster_run.run_id
        if cursor.read.get(run_id) != changed.isoformat():
            read(record)
            cursor.read[run_id] = changed.isoformat()
        cursor.since = max(cursor.since, changed)
    edge = (cursor.since - OVERLAP).isoformat()
    cursor.read = {run_id: changed for run_id, changed in cursor.read.items() if changed > edge}
    return found


def _ended_since(instance: dg.DagsterInstance, cursor: Cursor) -> Sequence[dg.RunRecord]:
    return instance.get_run_records(
        dg.RunsFilter(statuses=list(_ENDED), updated_after=cursor.since - OVERLAP),
        # Those that were read are among them.
        limit=len(cursor.read) + _READ_AT_ONCE,
        order_by="update_timestamp",
        ascending=True,
    )


def _open_again(instance: dg.DagsterInstance, cursor: Cursor) -> Sequence[dg.RunRecord]:
    """Failed runs of which it was not known whether they are tried again."""
    if not cursor.waiting:
        return []
    found = instance.get_run_records(dg.RunsFilter(run_ids=list(cursor.waiting)))
    there = {record.dagster_run.run_id for record in found}
    # A run that somebody deleted is nobody's news.
    cursor.waiting = {run_id: at for run_id, at in cursor.waiting.items() if run_id in there}
    return found


def _moment(timestamp: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(timestamp, tz=dt.UTC)
