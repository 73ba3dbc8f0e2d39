"""The batched event log on Postgres against its oracle, dagster-postgres' own: on a real server."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
import sqlalchemy as db
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.event_log import EventLogStorage
from dagster_postgres import PostgresEventLogStorage

from stock_assets.instance import batching
from stock_assets.instance.batching import BATCH_SIZE_VARIABLE
from stock_assets.instance.event_log_postgres import BatchedPostgresEventLogStorage

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

DAYS = [f"2024-01-{day:02d}" for day in range(1, 6)]
day_ticker = dg.MultiPartitionsDefinition(
    {"day": dg.StaticPartitionsDefinition(DAYS), "ticker": dg.StaticPartitionsDefinition("AB")}
)
CELLS = 2 * len(DAYS)
RANGE = {
    "dagster/asset_partition_range_start": f"{DAYS[0]}|A",
    "dagster/asset_partition_range_end": f"{DAYS[-1]}|B",
}
single_run = dg.BackfillPolicy.single_run()
kinds = DagsterEventType


@dg.asset(
    partitions_def=day_ticker,
    backfill_policy=single_run,
    check_specs=[dg.AssetCheckSpec("priced", asset="bars")],
)
def bars() -> dg.MaterializeResult:
    return dg.MaterializeResult(
        metadata={"rows": 12}, check_results=[dg.AssetCheckResult(check_name="priced", passed=True)]
    )


@dg.asset(partitions_def=day_ticker, backfill_policy=single_run, deps=[bars])
def features() -> dg.MaterializeResult:
    return dg.MaterializeResult()


@dg.asset_check(asset=features, partitions_def=day_ticker)
def finite() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def _run(instance: dg.DagsterInstance) -> None:
    definitions = dg.Definitions([bars, features], asset_checks=[finite])
    job = definitions.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, tags=RANGE).success


def _program(name: str) -> str | None:
    # Debian keeps the server's programs out of the PATH.
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of our own, on a free port of this machine."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("needs Postgres: apt-get install postgresql")
    # The server refuses to be root.
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    # Not pytest's folder: the server's user may not enter that, and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="stock-assets-postgres-"))
    shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        subprocess.run(
            [initdb, "-D", str(folder / "data"), "-A", "trust", "-U", "tester", "--no-sync"],
            check=True,
            user=user,
            cwd=folder,
            capture_output=True,
        )
        log = tmp_path_factory.mktemp("postgres") / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [server, "-F", "-D", "data", "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)],
                user=user,
                cwd=folder,
                stdout=output,
                stderr=output,
            )
        try:
            _await(port, process, log)
            yield f"postgresql+psycopg2://tester@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(folder)


def _await(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user="tester", dbname="postgres").close()
        except psycopg2.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return


@pytest.fixture(autouse=True)
def _no_batches_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set before deleted, so that what a test sets is undone as well.
    monkeypatch.setenv(BATCH_SIZE_VARIABLE, "0")
    monkeypatch.delenv(BATCH_SIZE_VARIABLE)


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """The address of an empty database."""
    yield from _schema(postgres, "ours")


@pytest.fixture
def stock_database(postgres: str) -> Iterator[str]:
    """The address of another, for stock storage."""
    yield from _schema(postgres, "stock")


def _schema(postgres: str, name: str) -> Iterator[str]:
    # Cheaper than a database, and all that a connection sees.
    server = db.create_engine(postgres, isolation_level="AUTOCOMMIT", poolclass=db.NullPool)
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    yield f"{postgres}?options=-csearch_path%3D{name}"
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture(scope="module")
def batches() -> list[list[EventLogEntry]]:
    """The batches of a run as Dagster hands them over: the planned events come first."""
    found: list[list[EventLogEntry]] = []
    stored = EventLogStorage.store_event_batch

    def spy(self: EventLogStorage, events: Sequence[EventLogEntry]) -> None:
        found.append(list(events))
        stored(self, events)

    with pytest.MonkeyPatch.context() as patched, dg.DagsterInstance.ephemeral() as instance:
        patched.setattr(EventLogStorage, "store_event_batch", spy)
        patched.setenv(BATCH_SIZE_VARIABLE, "1000")
        _run(instance)
    return found


def _kinds(events: Sequence[EventLogEntry]) -> Counter[DagsterEventType | None]:
    return Counter(event.dagster_event_type for event in events)


def _rows(storage: PostgresEventLogStorage) -> dict[str, list[dict[str, Any]]]:
    """All rows, but for the time they were written and what numbers upserts have used up."""
    found = {}
    ordered = {"event_logs": "id", "asset_keys": "asset_key", "asset_event_tags": "id"}
    with storage.index_connection() as connection:
        for table, order in {**ordered, "asset_check_executions": "id"}.items():
            query = db.text(f"SELECT * FROM {table} ORDER BY {order}")
            found[table] = [
                {
                    name: value
                    for name, value in row._mapping.items()
                    if name != "create_timestamp" and (table, name) != ("asset_keys", "id")
                }
                for row in connection.execute(query)
            ]
    return found


def _answers(storage: PostgresEventLogStorage) -> Any:
    """What the pages of assets and automation ask."""
    in_progress = (
        storage.get_latest_asset_partition_materialization_attempts_without_materializations
    )
    return {
        key: {
            "in progress": [in_progress(key, after) for after in (None, 0, CELLS, 3 * CELLS)],
            "materialized": storage.get_materialized_partitions(key),
            "planned ids": storage.get_latest_storage_id_by_partition(
                key, kinds.ASSET_MATERIALIZATION_PLANNED
            ),
            "tags": storage.get_latest_tags_by_partition(
                key, kinds.ASSET_MATERIALIZATION, ["dagster/data_version"]
            ),
            "entry": [record.asset_entry for record in storage.get_asset_records([key])],
        }
        for key in (bars.key, features.key)
    }


def _shown(instance: dg.DagsterInstance) -> tuple[int, int, int]:
    """Materialized, failed and in progress cells of `bars`, as the UI shows them now."""
    asked = [(bars.key, day_ticker)]
    context = LoadingContextForTest(instance)
    (value,) = instance.event_log_storage.get_asset_status_cache_values(asked, context)
    assert value is not None
    return (
        len(value.deserialize_materialized_partition_subsets(day_ticker)),
        len(value.deserialize_failed_partition_subsets(day_ticker)),
        len(value.deserialize_in_progress_partition_subsets(day_ticker)),
    )


@pytest.mark.parametrize("all_partitions_up_to", [1000, 3])
def test_every_reader_sees_what_stock_storage_would_have_stored(
    database: str,
    stock_database: str,
    batches: list[list[EventLogEntry]],
    all_partitions_up_to: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "PLANNED_CHECKS_WITH_ALL_PARTITIONS", all_partitions_up_to)
    stock = PostgresEventLogStorage(stock_database)
    ours = BatchedPostgresEventLogStorage(database)
    assert _kinds(batches[0])[kinds.ASSET_CHECK_EVALUATION_PLANNED] == 2
    for events in batches:
        for storage in (stock, ours):
            storage.store_event_batch(events)
        stored, expected = _rows(ours), _rows(stock)
        if all_partitions_up_to < CELLS:
            # As on SQLite, such a row's event names no partition; nobody asks it for one.
            for row in [*stored["asset_check_executions"], *expected["asset_check_executions"]]:
                del row["evaluation_event"]
        assert stored == expected
        assert _answers(ours) == _answers(stock)
    assert len(stored["asset_check_executions"]) == CELLS + len(
        [one for one in stored["asset_check_executions"] if one["check_name"] == "priced"]
    )


def test_planned_events_are_written_in_one_transaction_of_a_few_statements(
    database: str, batches: list[list[EventLogEntry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = BatchedPostgresEventLogStorage(database)
    statements: list[str] = []
    commits: list[Any] = []
    ours._engine = db.create_engine(database, isolation_level="AUTOCOMMIT", poolclass=db.NullPool)
    db.event.listen(ours._engine, "commit", commits.append)
    db.event.listen(
        ours._engine, "before_cursor_execute", lambda _c, _cursor, text, *_: statements.append(text)
    )
    monkeypatch.setattr(PostgresEventLogStorage, "store_event", None)
    planned = batches[0]
    assert _kinds(planned)[kinds.ASSET_MATERIALIZATION_PLANNED] == 2 * CELLS

    # Whatever order they come in, assets are locked in one.
    ours.store_event_batch(planned[::-1])

    written = [text.split("(")[0].strip() for text in statements if text.startswith("INSERT")]
    assert written == [
        "INSERT INTO event_logs",
        "INSERT INTO asset_check_executions",
        "INSERT INTO asset_keys",
        "INSERT INTO asset_keys",
    ]
    assert len(commits) == 1
    assert [row["asset_key"] for row in _rows(ours)["asset_keys"]] == ['["bars"]', '["features"]']


def test_a_batch_that_fails_leaves_nothing_for_dagster_to_store_twice(
    database: str, batches: list[list[EventLogEntry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = BatchedPostgresEventLogStorage(database)
    empty = _rows(ours)

    def fail(*_: Any) -> None:
        raise OSError("the server went away")

    monkeypatch.setattr(BatchedPostgresEventLogStorage, "_store_asset_event", fail)
    with pytest.raises(OSError, match="went away"):
        ours.store_event_batch(batches[0])
    assert _rows(ours) == empty


def test_a_run_on_an_instance_of_ours_stores_no_event_of_a_cell_alone(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[EventLogEntry] = []
    stored = PostgresEventLogStorage.store_event

    def spy(self: PostgresEventLogStorage, event: EventLogEntry) -> None:
        alone.append(event)
        stored(self, event)

    monkeypatch.setattr(PostgresEventLogStorage, "store_event", spy)
    address = f'{{postgres_url: "{database}"}}'
    (tmp_path / "dagster.yaml").write_text(
        textwrap.dedent(f"""\
            telemetry: {{enabled: false}}
            event_log_storage:
              module: stock_assets.instance.event_log_postgres
              class: BatchedPostgresEventLogStorage
              config: {address}
            run_storage: {{module: dagster_postgres, class: PostgresRunStorage, config: {address}}}
            schedule_storage:
              module: dagster_postgres
              class: PostgresScheduleStorage
              config: {address}
            """)
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        _run(instance)
        assert len(instance.get_materialized_partitions(bars.key)) == CELLS
        # A run under way, of which the UI asks again and again until it ends.
        run = instance.create_run_for_job(
            dg.Definitions([bars]).resolve_implicit_global_asset_job_def(),
            tags=RANGE,
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset([bars.key]),
        )
        assert _shown(instance) == _shown(instance) == (CELLS, 0, CELLS)
        instance.run_storage.handle_run_event(
            run.run_id, DagsterEvent(kinds.RUN_FAILURE.value, run.job_name)
        )
        assert _shown(instance) == (CELLS, CELLS, 0)
    # Checks that were evaluated come one by one on any storage.
    of_cells = {
        kinds.ASSET_MATERIALIZATION,
        kinds.ASSET_MATERIALIZATION_PLANNED,
        kinds.ASSET_CHECK_EVALUATION_PLANNED,
    }
    assert not of_cells & set(_kinds(alone))


def test_dagster_postgres_still_stores_planned_events_one_by_one(
    stock_database: str, batches: list[list[EventLogEntry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[EventLogEntry] = []
    stock = PostgresEventLogStorage(stock_database)
    monkeypatch.setattr(
        PostgresEventLogStorage, "store_event", lambda _, event: alone.append(event)
    )
    for events in batches:
        stock.store_event_batch(events)
    assert alone == batches[0], (
        "Dagster changed which batches dagster-postgres writes at once: is ours still needed?"
    )
