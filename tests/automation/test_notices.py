"""The sensor that tells: each event once, over ticks, retries, restarts and backfills."""

from __future__ import annotations

import datetime as dt
import json
import os
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import dagster as dg
import pytest
from api_server import ApiServer
from dagster._core.storage.runs.schema import RunsTable
from werkzeug.wrappers import Request, Response

from stock_assets.assets.checks import COMPLETE, NO_UNDECLARED_SPLIT
from stock_assets.assets.drifting import DRIFT_CHECK, EPISODES, QUALITY_CHECK, WAITING
from stock_assets.assets.live_check import LIVE_CHECK
from stock_assets.assets.page_check import PAGES_CHECK
from stock_assets.automation import notices
from stock_assets.automation.batches import ATTEMPT_TAG, BATCH_TAG
from stock_assets.automation.inbox import RETRIES
from stock_assets.automation.notices import Cursor, build_notices_sensor, read_cursor, tick
from stock_assets.automation.run_news import BACKFILL_TAG, RETRIED_TAG, WILL_RETRY_TAG
from stock_assets.automation.schedules import EXCHANGE_TAG
from stock_assets.automation.staleness import Watch
from stock_assets.errors import SourceError
from stock_assets.lake.store import Lake
from stock_assets.launch import open_instance, prepare_home
from stock_assets.notices.channels import configured
from stock_assets.notices.journal import Journal
from stock_assets.notices.notice import Kind, Level, Notice
from stock_assets.notices.wording import places_of
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid, day_clock
from stock_assets.settings import load_settings

from .market import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
TODAY = dt.datetime.now(tz=dt.UTC).date()
SETTINGS = f"""
[lake]
path = "data"
[partitions]
first_day = {TODAY - dt.timedelta(60)}
[[universe]]
tickers = ["AAA", "BBB"]
source = "made"
[[universe]]
tickers = ["MMM", "NNN"]
source = "made"
exchange = "XNYS"
[sources.made]
kind = "simulated"
"""
OURS, AMERICAN = ("AAA", "BBB"), ("MMM", "NNN")


@dataclass
class World:
    """A lake, an instance, and runs that end as they are told to."""

    folder: Path
    instance: dg.DagsterInstance
    toml: str = SETTINGS
    cursor: Cursor | None = None
    told: list[Notice] = field(default_factory=list)

    def __post_init__(self) -> None:
        file = self.folder / "settings.toml"
        file.write_text(self.toml)
        self.settings = load_settings(file)
        self.grid = Grid.of(self.settings)
        self.lake = Lake(self.settings.lake_dir)
        places = places_of(self.settings, file)
        self.watch = Watch(self.settings, self.grid, places, day_clock(self.settings))
        self.file = file
        self.tick()

    @property
    def days(self) -> tuple[dt.date, ...]:
        return self.grid.days()

    def tick(self, after: float = 0.0) -> list[Notice]:
        """What the sensor newly tells, so many seconds from now; it knows its last cursor."""
        now = dt.datetime.now(tz=dt.UTC) + dt.timedelta(seconds=after)
        cursor = self.cursor or read_cursor(None, now)
        found = tick(self.watch, self.instance, configured(self.settings), cursor, now)
        # As Dagster stores it.
        self.cursor = read_cursor(found.cursor.model_dump_json(), now)
        self.told += found.new
        return found.new

    def tags(
        self, first: dt.date, last: dt.date, tickers: tuple[str, ...] = OURS
    ) -> dict[str, str]:
        return self.grid.tags(self.grid.slice(first, last, tickers))

    def play(
        self,
        first: dt.date | None = None,
        last: dt.date | None = None,
        *,
        tickers: tuple[str, ...] = OURS,
        checks: dict[tuple[str, str], dict[str, Any]] | None = None,
        blocking: bool = False,
        error: Exception | None = None,
        tags: dict[str, str] | None = None,
    ) -> str:
        """Run a slice (today's without days) whose checks are evaluated so; return the run."""
        end = last or first or self.days[-1]
        checks = checks or {}
        assets = sorted({asset for asset, _ in checks} | {"candles"})

        @dg.multi_asset(
            specs=[dg.AssetSpec(name, skippable=True) for name in assets],
            check_specs=[
                dg.AssetCheckSpec(name, asset=asset, blocking=blocking) for asset, name in checks
            ],
            can_subset=True,
        )
        def step():
            for name in assets:
                yield dg.MaterializeResult(name)
            for (asset, name), result in checks.items():
                yield dg.AssetCheckResult(asset_key=asset, check_name=name, **result)
            if error is not None:
                raise error

        run = dg.materialize(
            [step],
            instance=self.instance,
            tags={**self.tags(first or end, end, tickers), **(tags or {})},
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        return run.run_id

    def end(
        self,
        first: dt.date | None = None,
        last: dt.date | None = None,
        *,
        tickers: tuple[str, ...] = OURS,
        checks: dict[tuple[str, str], dict[str, Any]] | None = None,
        tags: dict[str, str] | None = None,
        status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS,
    ) -> str:
        """Only note that a slice (today's without days) was run, and what its checks said."""
        end = last or first or self.days[-1]
        run = dg.DagsterRun(
            job_name="everything",
            run_id=str(uuid.uuid4()),
            tags={**self.tags(first or end, end, tickers), **(tags or {})},
            status=status,
        )
        self.instance.add_run(run)
        with self.instance.run_storage.connect() as runs:
            # As a run's last event leaves it; the column's own default knows whole seconds only.
            moment = dt.datetime.now(dt.UTC).replace(tzinfo=None)
            own = RunsTable.c.run_id == run.run_id
            runs.execute(RunsTable.update().where(own).values(update_timestamp=moment))
        for (asset, name), result in (checks or {}).items():
            data = dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(asset),
                check_name=name,
                **({"metadata": {}, "blocking": False} | result),
            )
            event = dg.DagsterEvent(
                dg.DagsterEventType.ASSET_CHECK_EVALUATION.value,
                job_name=run.job_name,
                event_specific_data=data,
            )
            self.instance.report_dagster_event(event, run_id=run.run_id)
        return run.run_id

    def fail(self, **tags: str) -> str:
        """A failed run of which there is nothing but its record."""
        return self.end(tags=tags, status=dg.DagsterRunStatus.FAILURE)


def kinds(found: list[Notice]) -> list[Kind]:
    return [item.kind for item in found]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path, instance)


# Runs.


def test_a_failed_run_is_told_once_with_its_reason_its_page_and_the_command(world: World) -> None:
    day = world.days[-1]
    trouble = SourceError("source made: it is down; start it")
    run = world.play(day, error=trouble, tags={EXCHANGE_TAG: "weekdays"})
    (notice,) = world.tick()
    assert (notice.kind, notice.level) == (Kind.RUN_FAILED, Level.ERROR)
    assert "source made: it is down; start it" in notice.why
    assert notice.link == f"http://127.0.0.1:3000/runs/{run}"
    assert notice.command == (
        f"stock-assets run --from {day} --to {day} --tickers AAA,BBB --settings {world.file}"
    )
    assert any("schedule of weekdays asks for these days again" in step for step in notice.next)
    assert [world.tick(), world.tick(200)] == [[], []]
    world.play(day)
    assert world.tick() == [], "a run that succeeds has nothing to tell"


def test_what_ended_before_the_first_tick_is_no_news(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(tmp_path, instance)
        world.fail()
        world.cursor = None
        assert world.tick() == []


def test_a_lost_cursor_or_a_tick_done_twice_tells_nothing_twice(world: World) -> None:
    before = world.cursor
    failure = dg.DagsterRunStatus.FAILURE
    world.end(checks={("scores", LIVE_CHECK): failed(WARN)}, status=failure)
    assert len(world.tick()) == 2
    world.cursor = before
    assert world.tick() == []


@pytest.fixture
def retrying(tmp_path: Path) -> Iterator[World]:
    enabled = {"run_retries": {"enabled": True}}
    with dg.DagsterInstance.ephemeral(settings=enabled) as instance:
        yield World(tmp_path, instance)


def test_of_a_run_that_is_tried_again_only_the_last_failure_is_told(retrying: World) -> None:
    world = retrying
    first = world.play(error=ValueError("first"), tags={"dagster/max_retries": "1"})
    assert world.instance.get_run_by_id(first).tags[WILL_RETRY_TAG] == "true"
    assert world.tick() == []
    last = world.play(error=ValueError("second"))
    world.instance.add_run_tags(first, {RETRIED_TAG: last})
    found = [item for after in (0, 10, 4000) for item in world.tick(after)]
    (notice,) = found
    assert "second" in notice.why
    assert world.cursor.waiting == {}


def test_a_retry_that_succeeds_leaves_nothing_to_tell(retrying: World) -> None:
    world = retrying
    first = world.play(error=ValueError("first"), tags={"dagster/max_retries": "1"})
    assert world.tick() == []
    world.instance.add_run_tags(first, {RETRIED_TAG: world.play()})
    assert [world.tick(after) for after in (0, 10, 4000)] == [[], [], []]


def test_a_retry_that_never_comes_makes_the_failure_final(retrying: World) -> None:
    world = retrying
    world.play(error=ValueError("first"), tags={"dagster/max_retries": "1"})
    assert [world.tick(after) for after in (0, 3500)] == [[], []]
    assert kinds(world.tick(3700)) == [Kind.RUN_FAILED]
    assert world.tick(3800) == []


def test_a_failure_of_which_dagster_has_not_decided_yet_waits_for_that(retrying: World) -> None:
    world = retrying
    world.fail()
    assert [world.tick(after) for after in (0, 50)] == [[], []]
    assert kinds(world.tick(61)) == [Kind.RUN_FAILED]


def test_the_inbox_tries_again_by_itself_and_its_last_failure_is_told(world: World) -> None:
    for attempt in range(1, len(RETRIES) + 1):
        world.fail(**{BATCH_TAG: "b", ATTEMPT_TAG: str(attempt)})
        assert world.tick() == []
    world.fail(**{BATCH_TAG: "b", ATTEMPT_TAG: str(len(RETRIES) + 1)})
    (notice,) = world.tick()
    assert any("files stay in the inbox" in step for step in notice.next)
    assert world.tick(9000) == []


def test_a_backfill_tells_its_first_failure_only(world: World) -> None:
    for place in range(5):
        day, tags = world.days[place], {BACKFILL_TAG: "bf"}
        world.end(day, tags=tags, status=dg.DagsterRunStatus.FAILURE)
    (notice,) = world.tick()
    assert notice.link == "http://127.0.0.1:3000/runs/b/bf"
    world.fail(**{BACKFILL_TAG: "bf"})
    assert world.tick() == []


def test_a_run_without_a_slice_or_with_one_that_is_gone_is_told_all_the_same(world: World) -> None:
    world.fail(**dict.fromkeys((RANGE_START_TAG, RANGE_END_TAG), "1999-01-01|ZZZ"))
    (notice,) = world.tick()
    assert notice.command == ""


def test_more_runs_than_a_tick_reads_are_read_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_READ_AT_ONCE", 3)
    for _ in range(10):
        world.fail()
    with world.instance.run_storage.connect() as runs:
        # All at the same moment, as when a thousand are failed at once.
        runs.execute(
            RunsTable.update().values(update_timestamp=dt.datetime.now(dt.UTC).replace(tzinfo=None))
        )
    counts = [len(world.tick()) for _ in range(5)]
    assert counts == [3, 3, 3, 1, 0]


# Checks.


def failed(severity: dg.AssetCheckSeverity, text: str = "it moved", **more: Any) -> dict[str, Any]:
    return {"passed": False, "severity": severity, "description": text, **more}


PASSED = {"passed": True}


def test_failed_errors_of_a_run_are_one_notice_once_a_day(world: World) -> None:
    checks = {("bars", "schema"): failed(ERROR, "3 rows"), ("features", "schema"): failed(ERROR)}
    world.end(checks=checks)
    (notice,) = world.tick()
    assert (notice.kind, notice.level) == (Kind.CHECKS_FAILED, Level.ERROR)
    assert "bars.schema: 3 rows" in notice.why
    assert "The rows are in the lake all the same" in notice.next[0]
    world.end(checks=checks)
    assert world.tick() == [], "the same day again, at the evening's next look"
    world.end(tickers=AMERICAN, checks=checks)
    assert kinds(world.tick()) == [Kind.CHECKS_FAILED]


def test_a_blocking_check_that_stops_a_run_is_one_notice_and_not_two(world: World) -> None:
    world.play(checks={("drift", "prices_are_live"): failed(ERROR)}, blocking=True)
    (notice,) = world.tick()
    assert notice.kind == Kind.CHECKS_FAILED
    # What the run does after a blocking check failed is Dagster's affair.
    assert world.tick() == []


def test_drift_is_told_when_it_begins_and_weekly_while_it_lasts(world: World) -> None:
    check, url = ("drift", DRIFT_CHECK), dg.MetadataValue.url("http://127.0.0.1:3001/a.html")
    for bad, expected in [(0, 0), (1, 1), (1, 0), (0, 0), (1, 0)]:
        world.end(checks={check: failed(WARN, metadata={"report": url}) if bad else PASSED})
        assert len(world.tick()) == expected, "it began twice on one day: that is one event"
    (notice,) = world.told
    assert notice.kind == Kind.DRIFT
    assert "http://127.0.0.1:3001/a.html" in notice.next[0]
    assert notice.link.endswith(f"/assets/drift?view=checks&checkDetail={DRIFT_CHECK}")
    world.cursor.failing = {
        name: when - dt.timedelta(7) for name, when in world.cursor.failing.items()
    }
    world.end(world.days[-2], checks={check: failed(WARN)})
    assert kinds(world.tick()) == [Kind.DRIFT]


def test_a_market_that_is_not_judged_yet_has_not_calmed_down(world: World) -> None:
    """A run with few of the day's tickers, amid days of drift: it is the same event after it."""
    check = ("drift", DRIFT_CHECK)
    waiting = {"passed": True, "metadata": {WAITING: "weekdays"}}
    for day, result in zip(
        (world.days[-3], world.days[-2], world.days[-2], world.days[-1]),
        (failed(WARN), waiting, failed(WARN), PASSED),
        strict=True,
    ):
        world.end(day, checks={check: result})
    assert kinds(world.tick()) == [Kind.DRIFT]
    world.end(checks={check: failed(WARN)})
    assert kinds(world.tick()) == [Kind.DRIFT], "it was over, and began again"


def faulty(*faults: tuple[str, str, dt.date, dt.date]) -> dict[tuple[str, str], dict[str, Any]]:
    """An evaluation that found these blocking faults."""
    listed = [
        {
            "ticker": ticker, "fault": fault, "first": str(first), "last": str(last),
            "words": f"found {last}",
        }
        for ticker, fault, first, last in faults
    ]  # fmt: skip
    metadata = {EPISODES: dg.MetadataValue.json(listed)}
    return {("drift", QUALITY_CHECK): failed(ERROR, f"of {len(listed)}", metadata=metadata)}


def test_a_fault_of_prices_is_told_when_it_begins_however_long_it_lasts(world: World) -> None:
    days = world.days[-4:]
    for day in days[:2]:
        world.end(day, checks=faulty(("AAA", "unchanged", days[0], day)))
    (notice,) = world.tick()
    assert (notice.kind, notice.level) == (Kind.CHECKS_FAILED, Level.ERROR)
    assert f"AAA unchanged since {days[0]}" in notice.what
    assert notice.link.endswith(f"/assets/drift?view=checks&checkDetail={QUALITY_CHECK}")

    # Days run again meet it again, and another ticker's; then it has come back.
    again, other = ("AAA", "unchanged", days[0], days[1]), ("BBB", "unchanged", days[2], days[2])
    world.end(days[0], days[2], checks=faulty(other, again))
    assert [item.what.split(": ")[1] for item in world.tick()] == [f"BBB unchanged since {days[2]}"]
    world.end(days[3], checks=faulty(("AAA", "unchanged", days[3], days[3])))
    assert [item.what.split(": ")[1] for item in world.tick()] == [f"AAA unchanged since {days[3]}"]


def test_beside_faults_of_prices_other_checks_that_failed_are_told(world: World) -> None:
    day = world.days[-1]
    checks = faulty(("AAA", "price_level", day, day)) | {("bars", "schema"): failed(ERROR)}
    world.end(checks=checks)
    fault, others = world.tick()
    assert "price_level" in fault.what
    assert "1 check failed" in others.what
    assert "bars.schema" in others.what


def test_faults_of_history_and_of_backfills_are_one_notice(world: World) -> None:
    old = world.days[0]
    world.end(old, world.days[2], checks=faulty(("AAA", "unchanged", old, old)))
    world.end(old, world.days[-1], checks=faulty(("AAA", "unchanged", old, old)))
    for day in world.days[-3:]:
        found = faulty(("AAA", "price_level", day, day), ("BBB", "price_level", day, day))
        world.end(day, checks=found, tags={BACKFILL_TAG: "bf"})
    told = world.tick()
    assert [("1 check failed" in item.what) for item in told] == [True] * 3


def test_exchanges_do_not_hide_each_others_warnings(world: World) -> None:
    check = ("scores", LIVE_CHECK)
    for tickers in (OURS, AMERICAN, OURS):
        world.end(tickers=tickers, checks={check: failed(WARN)})
    assert [item.key.split(" of ")[1].split()[0] for item in world.tick()] == ["weekdays", "XNYS"]
    world.end(tickers=AMERICAN, checks={check: PASSED})
    assert world.tick() == []
    assert [name.split(" of ")[1] for name in world.cursor.failing] == ["weekdays"]


def test_each_undeclared_split_is_told(world: World) -> None:
    check = ("bars", NO_UNDECLARED_SPLIT)
    for text in ("AAA 1:10", "AAA 1:10", "BBB 1:2"):
        world.end(checks={check: failed(WARN, text)})
    assert [item.why for item in world.tick()] == ["AAA 1:10", "BBB 1:2"]


def test_warnings_of_single_rows_are_not_told(world: World) -> None:
    world.end(checks={("candles", COMPLETE): failed(WARN)})
    assert world.tick() == []


@pytest.mark.parametrize("asset", ["drift", "model"])
def test_pages_that_cannot_be_drawn_are_told_once_with_the_command(
    world: World, asset: str
) -> None:
    words = "the index could not be drawn: disk full; `stock-assets drift 2026-06-01` draws it"
    for _ in range(2):
        world.end(checks={(asset, PAGES_CHECK): failed(WARN, words)})
    (notice,) = world.tick()
    assert (notice.kind, notice.level) == (Kind.CHECKS_FAILED, Level.WARNING)
    assert notice.why == words


def test_a_new_check_that_blocks_is_told_without_being_listed(world: World) -> None:
    world.end(checks={("drift", "another_market"): failed(WARN, blocking=True)})
    assert kinds(world.tick()) == [Kind.CHECKS_FAILED]


# Trainings.


def decide(world: World, day: dt.date, decision: str, **more: Any) -> None:
    rows = [
        {"day": day, "ticker": ticker, "decision": decision, "challenger": f"catboost-{day}",
         "reason": "worse than the baseline", "leak_alarm": None, **more}
        for ticker in OURS
    ]  # fmt: skip
    world.lake.write("models", rows_of("models", rows), world.grid.slice(day, day, OURS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decision", "alarm", "kind"),
    [
        ("rejected", None, Kind.REJECTED),
        ("demoted", None, Kind.DEMOTED),
        ("rejected", "R2 40 %", Kind.LEAK),
        ("trained", "R2 40 %", Kind.LEAK),
    ],
)
def test_a_challenger_that_was_refused_is_told_once_however_often_it_is_decided(
    world: World, decision: str, alarm: str | None, kind: Kind
) -> None:
    decide(world, world.days[-1], decision, leak_alarm=alarm)
    for _ in range(2):
        world.end()
    (notice,) = world.tick()
    assert notice.kind == kind
    assert f"model show catboost-{world.days[-1]}" in notice.command
    assert "2 tickers" in notice.what


def test_a_challenger_in_force_and_days_without_one_are_not_told(world: World) -> None:
    decide(world, world.days[-1], "trained")
    decide(world, world.days[-2], "carried", challenger=None)
    world.end(world.days[-2], world.days[-1])
    assert world.tick() == []


# History.


@pytest.mark.slow
def test_a_run_over_history_is_summed_up(world: World) -> None:
    old = [day for day in world.days if day < TODAY - dt.timedelta(14)]
    for day in old[:20]:
        decide(world, day, "rejected", leak_alarm="R2" if day == old[3] else None)
    checks = {("drift", DRIFT_CHECK): failed(WARN), ("bars", NO_UNDECLARED_SPLIT): failed(WARN)}
    world.end(old[0], old[-1], checks=checks)
    (notice,) = world.tick()
    assert notice.kind == Kind.HISTORY
    assert "2 warnings of checks, 20 challengers" in notice.what
    assert "1 of them too good to be true" in notice.what
    assert not world.cursor.failing, "what failed long ago does not fail now"


@pytest.mark.slow
def test_a_backfill_of_history_in_many_runs_is_one_notice(world: World) -> None:
    for day in world.days[:12]:
        decide(world, day, "rejected")
        checks = {("drift", DRIFT_CHECK): failed(WARN), ("bars", "schema"): failed(ERROR)}
        world.end(day, checks=checks, tags={BACKFILL_TAG: "bf"})
    assert sorted(kinds(world.tick())) == [Kind.CHECKS_FAILED, Kind.HISTORY]


def test_a_run_from_history_to_now_tells_of_now_and_sums_up_the_rest(world: World) -> None:
    for day in (world.days[0], world.days[1], world.days[-1]):
        decide(world, day, "rejected")
    world.end(world.days[0], world.days[-1], checks={("drift", DRIFT_CHECK): failed(WARN)})
    assert sorted(kinds(world.tick())) == [Kind.REJECTED, Kind.DRIFT, Kind.HISTORY]


# The sensor in its place.


def evaluate(world: World, cursor: str | None) -> tuple[str, str | None]:
    """What the sensor says, and its cursor after it."""
    sensor = build_notices_sensor(world.settings, world.grid)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    context = dg.build_sensor_context(world.instance, cursor=cursor)
    found = sensor.evaluate_tick(context)
    assert not found.run_requests
    return str(found.skip_message), found.cursor


@pytest.mark.slow
def test_the_sensor_tells_through_a_webhook_that_stands_in_the_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "T0PLANTED/B0PLANTED/zzzzSECRETzzzz"
    caplog.set_level("DEBUG")

    def answer(request: Request) -> Response:
        return Response(f"ok {request.url}")

    with ApiServer(answer) as server, mock.patch.dict(os.environ):
        monkeypatch.setenv("STOCK_ASSETS_NOTICES__WEBHOOK", f"{server.url}/services/{secret}")
        file = tmp_path / "settings.toml"
        file.write_text(SETTINGS)
        prepare_home(load_settings(file), file)
        with open_instance() as instance:
            world = World(tmp_path, instance)
            said, cursor = evaluate(world, None)
            world.play(error=ValueError("boom"))
            said, cursor = evaluate(world, cursor)
            assert said == "1 new"
        # The daemon and the code server start again.
        with open_instance() as instance:
            world = World(tmp_path, instance)
            for _ in range(2):
                said, cursor = evaluate(world, cursor)
                assert said == "nothing new"
    (seen,) = server.seen
    assert seen.path == f"/services/{secret}"
    assert json.loads(seen.body)["text"].startswith("Run failed")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"boom" in written
    assert b"[secret]" in written, "the answer repeated the address"
    for text in (written.decode("latin-1"), caplog.text, repr(world.settings), str(cursor)):
        for part in secret.split("/"):
            assert part not in text


def test_a_daemon_that_dies_before_the_cursor_is_stored_tells_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ApiServer(lambda _: Response("ok")) as server, dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setenv("STOCK_ASSETS_NOTICES__WEBHOOK", server.url + "/x")
        world = World(tmp_path, instance)
        before = world.cursor
        world.fail()
        world.tick()
        world.cursor = before
        world.tick()
        assert len(server.seen) == 1


def test_a_tick_beside_one_that_still_goes_on_moves_nothing(world: World) -> None:
    world.fail()
    with Journal(world.settings.notices_dir).lock():
        assert world.tick() == []
    assert kinds(world.tick()) == [Kind.RUN_FAILED]


def test_a_tick_without_news_opens_no_journal_and_no_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.tick()
    monkeypatch.setattr(notices, "Journal", None)
    monkeypatch.setattr(notices, "deliver", None)
    monkeypatch.setattr("stock_assets.automation.staleness.read_held", None)
    monkeypatch.setattr(notices, "news_of_run", None)
    assert world.tick() == []


def test_a_cursor_of_nonsense_begins_anew() -> None:
    now = dt.datetime.now(tz=dt.UTC)
    for text in ("{", "{}", '{"since": "soon"}', ""):
        assert read_cursor(text, now) == Cursor(since=now + notices.OVERLAP)
