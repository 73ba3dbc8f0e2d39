"""With Postgres storage the same setting makes Dagster's own batches: on a real server."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
from dagster._core.events import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster_postgres import PostgresEventLogStorage

from stock_assets.instance.event_log import BATCH_SIZE_VARIABLE, enable_event_batching

CELLS = [f"2024-01-{day:02d}" for day in range(1, 21)]


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
                [server, "-D", "data", "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)],
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_setting_makes_postgres_storages_own_batches(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[set[DagsterEventType | None]] = []
    stored = PostgresEventLogStorage.store_event_batch

    def spy(self: PostgresEventLogStorage, events: Sequence[EventLogEntry]) -> None:
        assert len(events) > 1
        batches.append({event.dagster_event_type for event in events})
        stored(self, events)

    monkeypatch.setattr(PostgresEventLogStorage, "store_event_batch", spy)
    monkeypatch.setenv(BATCH_SIZE_VARIABLE, "0")
    monkeypatch.delenv(BATCH_SIZE_VARIABLE)
    enable_event_batching()

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(CELLS),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def bars() -> None: ...

    (tmp_path / "dagster.yaml").write_text(
        textwrap.dedent(f"""\
            telemetry: {{enabled: false}}
            storage: {{postgres: {{postgres_url: "{postgres}"}}}}
            """)
    )
    tags = {
        "dagster/asset_partition_range_start": CELLS[0],
        "dagster/asset_partition_range_end": CELLS[-1],
    }
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        job = dg.Definitions([bars]).resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, tags=tags).success
        assert instance.get_materialized_partitions(bars.key) == set(CELLS)
    # Dagster stores a batch that fails one by one: it would have been seen here all the same.
    assert batches == [
        {DagsterEventType.ASSET_MATERIALIZATION_PLANNED},
        {DagsterEventType.ASSET_MATERIALIZATION},
    ], "Dagster changed the batches of dagster-postgres: is the setting still enough?"
