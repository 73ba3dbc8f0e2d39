"""What a finished run has to tell: that it failed, which checks did, what its training came to.

Which failures are final and which checks are worth a message is decided here, how they are worded
in `notices/wording.py`, and when runs are looked at in `automation/notices.py`.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
import duckdb

from stock_assets.assets.checks import NO_UNDECLARED_SPLIT
from stock_assets.assets.drifting import DRIFT_CHECK, EPISODES, WAITING
from stock_assets.assets.live_check import LIVE_CHECK
from stock_assets.assets.page_check import PAGES_CHECK
from stock_assets.automation.batches import ATTEMPT_TAG, BATCH_TAG
from stock_assets.automation.inbox import RETRIES
from stock_assets.automation.jobs import makes, slice_of_run
from stock_assets.automation.schedules import EXCHANGE_TAG
from stock_assets.automation.staleness import Watch
from stock_assets.errors import SliceError
from stock_assets.lake.store import Lake
from stock_assets.lake.views import prepare, register_views
from stock_assets.launch import reason_of
from stock_assets.notices import wording
from stock_assets.notices.notice import Notice
from stock_assets.notices.wording import Check, Places, Run, Training
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import WHY_TAG, Slice

WILL_RETRY_TAG = "dagster/will_retry"
RETRIED_TAG = "dagster/auto_retry_run_id"
BACKFILL_TAG = "dagster/backfill"

UNDECIDED = dt.timedelta(minutes=1)
"""By then Dagster has said whether it retries a failed run; where it says nothing it does not."""

RETRY_COMES = dt.timedelta(hours=1)
"""A retry that is so late does not come: the failure is final."""

_STOPPED = "DagsterAssetCheckFailedError"
_DRIFT = "drift"

_READ = {
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}

_LASTING = frozenset({("scores", LIVE_CHECK)})
"""Warnings that go on for weeks once they begin: told when they begin, and weekly after that.

So do those of a market that has moved, of pages that cannot be drawn, and all that are marked as
blocking.
"""

_SINGLE = frozenset({("bars", NO_UNDECLARED_SPLIT)})
"""Warnings of which each is an event of its own.

Not told: `complete`, `whole_market` and `nothing_set_aside`. They warn of single rows every other
day, and where more is missing than that the notice of stale data says it.
"""


@dataclass
class Lasting:
    """Checks that fail for the time being, by name and exchanges, and when that was last told."""

    told: dict[str, dt.datetime]
    again_after: dt.timedelta

    def is_news(self, check: str, when: dt.datetime, *, passed: bool) -> bool:
        """Whether to tell this evaluation."""
        if passed:
            self.told.pop(check, None)
            return False
        last = self.told.get(check)
        if last is not None and when - last < self.again_after:
            return False
        self.told[check] = when
        return True


def waits_for_retry(
    instance: dg.DagsterInstance, run: dg.DagsterRun, ended: dt.datetime, now: dt.datetime
) -> bool | None:
    """Whether a failed run will be tried again without anybody's doing; None: it has been."""
    tags = run.tags
    if RETRIED_TAG in tags:
        return None
    if instance.run_retries_enabled and WILL_RETRY_TAG not in tags:
        return now - ended < UNDECIDED
    if tags.get(WILL_RETRY_TAG) == "true":
        return now - ended < RETRY_COMES
    attempt = int(tags.get(ATTEMPT_TAG, "0"))
    if BATCH_TAG in tags and 0 < attempt <= len(RETRIES):
        following = {BATCH_TAG: tags[BATCH_TAG], ATTEMPT_TAG: str(attempt + 1)}
        if instance.get_run_records(dg.RunsFilter(tags=following), limit=1):
            return None
        return now - ended < RETRIES[attempt - 1] + RETRY_COMES
    return False


def news_of_run(  # noqa: PLR0913
    record: dg.RunRecord,
    watch: Watch,
    instance: dg.DagsterInstance,
    lasting: Lasting,
    now: dt.datetime,
    *,
    retried: bool,
) -> list[Notice]:
    """Everything that a finished run has to tell. `retried`: its failure is not final."""
    settings, grid, places = watch.settings, watch.grid, watch.places
    run = record.dagster_run
    about = _about(record, grid)
    events = [
        entry.event_log_entry.get_dagster_event()
        for entry in instance.get_records_for_run(run.run_id, of_type=_READ).records
    ]
    evaluations = {
        item.asset_check_key: item
        for event in events
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
        for item in (event.asset_check_evaluation_data,)
    }
    before = now.date() - dt.timedelta(settings.notices.days)
    days = grid.days_of(about.area) if about.area is not None else ()
    is_history = bool(days) and days[-1] < before
    scope = "" if about.area is None else _exchanges(settings, about.area)
    found: list[Notice] = []

    errors = [
        item
        for item in evaluations.values()
        if not item.passed and item.severity == dg.AssetCheckSeverity.ERROR
    ]
    failures = [item for item in events if item.event_type == dg.DagsterEventType.STEP_FAILURE]
    stopped = bool(failures) and all(_is_stop(item) for item in failures)
    failed = run.status == dg.DagsterRunStatus.FAILURE and not retried
    if failed and not (stopped and errors):
        reasons = [reason_of(item) for item in failures] or _without_a_step(events)
        found.append(wording.run_failed(places, about, reasons, dropped=BATCH_TAG in run.tags))
    if not retried:
        # Of a backfill once; else once a day and exchange, however often that day is run.
        once = "" if is_history or about.backfill or not days else f"{scope} {days[-1]}"
        found += _of_errors(errors, places, about, once, before, stopped=stopped)

    warnings = [
        item
        for item in evaluations.values()
        if item.passed or item.severity == dg.AssetCheckSeverity.WARN
    ]
    passed_over = 0
    for item in warnings:
        word = _word_of(item)
        if word is None:
            continue
        if is_history:
            passed_over += not item.passed
        elif (key := _news(item, scope, days, about, lasting)) is not None:
            found.append(word(places, about, _check(item), key))

    trainings = list(_trainings(Lake(settings.lake_dir), run, days, about))
    found += [
        wording.challenger_refused(places, about, item) for item in trainings if item.day >= before
    ]
    old = [item for item in trainings if item.day < before]
    if passed_over or old:
        found.append(wording.history_passed(places, about, before, passed_over, old))
    return found


def _about(record: dg.RunRecord, grid: Grid) -> Run:
    run = record.dagster_run
    try:
        area = slice_of_run(run, grid)
    except SliceError:
        area = None
    ended = (
        record.update_timestamp
        if record.end_time is None
        else dt.datetime.fromtimestamp(record.end_time, tz=dt.UTC)
    )
    return Run(
        run.run_id,
        run.job_name.strip("_"),
        area,
        ended,
        asked=run.tags.get(WHY_TAG, ""),
        backfill=run.tags.get(BACKFILL_TAG, ""),
        exchange=run.tags.get(EXCHANGE_TAG, ""),
    )


def _exchanges(settings: Settings, area: Slice) -> str:
    instruments = settings.instruments
    return ",".join(sorted({instruments[name].exchange for name in area.tickers}))


def _check(item: dg.AssetCheckEvaluation) -> Check:
    pages = [
        value.url for value in item.metadata.values() if isinstance(value, dg.UrlMetadataValue)
    ]
    return Check(
        item.asset_key.to_user_string(),
        item.check_name,
        item.description or "",
        str(pages[0]) if pages else "",
    )


def _of_errors(  # noqa: PLR0913
    errors: Sequence[dg.AssetCheckEvaluation],
    places: Places,
    about: Run,
    once: str,
    before: dt.date,
    *,
    stopped: bool,
) -> Iterator[Notice]:
    """Checks that failed with ERROR, in one notice; but of prices each fault, when it begins."""
    others = []
    for item in errors:
        faults = _faults(item, before) if once else []
        yield from (wording.fault_found(places, about, _check(item), fault) for fault in faults)
        if not faults:
            others.append(_check(item))
    if others:
        yield wording.checks_failed(places, about, others, once, stopped=stopped)


def _faults(item: dg.AssetCheckEvaluation, before: dt.date) -> list[dict[str, str]]:
    """What a check of prices has found that blocks (`drift.quality.Episode`), but for history."""
    listed = item.metadata.get(EPISODES)
    if not isinstance(listed, dg.JsonMetadataValue) or not isinstance(listed.value, list):
        return []
    return [fault for fault in listed.value if dt.date.fromisoformat(fault["last"]) >= before]


def _is_stop(event: dg.DagsterEvent) -> bool:
    """Whether a step failed because a blocking check did, and for no other reason."""
    error = event.step_failure_data.error
    while error is not None:
        if error.cls_name == _STOPPED:
            return True
        error = error.cause
    return False


def _without_a_step(events: Sequence[dg.DagsterEvent]) -> list[str]:
    """What is said of a run that failed between its steps: its process died, or never started."""
    said = [item for item in events if item.event_type == dg.DagsterEventType.RUN_FAILURE]
    found = []
    for item in said:
        error = item.job_failure_data.error
        found.append(item.message or (error.message if error is not None else ""))
    return [text for text in found if text]


def _word_of(item: dg.AssetCheckEvaluation):  # noqa: ANN202 - one of the functions of wording
    """How a warning is worded; None for one that is not told."""
    name = (item.asset_key.to_user_string(), item.check_name)
    if name in _SINGLE:
        return wording.split_suspected
    if name in _LASTING:
        return wording.forecasts_failed
    if name == (_DRIFT, DRIFT_CHECK):
        return wording.drift_failed
    return wording.warned if item.blocking or item.check_name == PAGES_CHECK else None


def _news(
    item: dg.AssetCheckEvaluation,
    scope: str,
    days: Sequence[dt.date],
    about: Run,
    lasting: Lasting,
) -> str | None:
    """The key of what this evaluation tells; None when it tells nothing new."""
    name = f"{item.asset_key.to_user_string()}.{item.check_name}"
    if (item.asset_key.to_user_string(), item.check_name) in _SINGLE:
        return None if item.passed else f"check: {name}: {item.description}"
    if item.passed and WAITING in item.metadata:
        # A market that is not judged yet has neither moved nor calmed down.
        return None
    if not lasting.is_news(f"{name} of {scope}", about.when, passed=bool(item.passed)):
        return None
    return f"check: {name} of {scope} {days[-1] if days else about.event}"


def _trainings(
    lake: Lake, run: dg.DagsterRun, days: Sequence[dt.date], about: Run
) -> Iterator[Training]:
    """The challengers of a run that were not put in force, or that look like a leak."""
    if about.area is None or not makes(run, "model"):
        return
    marks = ", ".join("?" * len(about.area.tickers))
    with duckdb.connect(":memory:") as connection:
        prepare(connection)
        register_views(connection, lake, ["models"])
        rows = connection.execute(
            "select max(day), challenger, decision, min(reason), min(leak_alarm),"  # noqa: S608
            " count(distinct ticker) from models where challenger is not null"
            " and (decision in ('rejected', 'demoted') or leak_alarm is not null)"
            f" and day between ? and ? and ticker in ({marks})"
            " group by challenger, decision order by 1, 2, 3",
            [days[0], days[-1], *about.area.tickers],
        ).fetchall()
    yield from (Training(*row) for row in rows)
