"""Kill -9 while a batch is written: at the worst points, and at random moments.

The writer is a process of its own that stores batches and says after each that it is stored. After
the kill, whatever opens the log next must find every batch that was said to be stored, no part of
any other, in the run's log and in the index alike.
"""

import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEventType
from dagster._core.storage.event_log import SqliteEventLogStorage

from stock_assets.instance.event_log import BatchedSqliteEventLogStorage

BATCH = 200
RUN = "11111111-2222-3333-4444-555555555555"
KEY = dg.AssetKey("bars")
KINDS = {DagsterEventType.ASSET_MATERIALIZATION}

WRITER = textwrap.dedent("""\
    import itertools, os, signal, sys
    import dagster as dg
    from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
    from dagster._core.events.log import EventLogEntry
    from stock_assets.instance import event_log, unfinished_batches
    from stock_assets.instance.event_log import BatchedSqliteEventLogStorage

    folder, run, size, point = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]

    def entry(number):
        made = dg.AssetMaterialization("bars", partition=f"p{number:07d}")
        event = DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name="job",
            event_specific_data=StepMaterializationData(made, []),
            message="made",
            step_key="bars",
        )
        return EventLogEntry(None, 10, "made", run, 1700000000.5 + number, "bars", "job", event)

    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    storage = BatchedSqliteEventLogStorage(folder)
    for batch in itertools.count():
        if batch == 2 and point == "before the run's shard":
            event_log.insert_events = die
        if batch == 2 and point == "before the run's commit":
            unfinished_batches.sign = die
        if batch == 2 and point == "between the commits":
            store = storage._store_in_runs
            storage._store_in_runs = lambda *args: (store(*args), die())
        storage.store_event_batch([entry(batch * size + n) for n in range(size)])
        print(batch + 1, flush=True)
    """)


def _start(folder: Path, point: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), RUN, str(BATCH), point],
        stdout=subprocess.PIPE,
        text=True,
    )


def _check(folder: Path, said: int) -> int:
    """Open as the next process does; return the number of whole batches found."""
    ours = BatchedSqliteEventLogStorage(str(folder))
    stock = SqliteEventLogStorage(str(folder))
    run = [entry.dagster_event.partition for entry in stock.get_logs_for_run(RUN)]
    batches, rest = divmod(len(run), BATCH)
    assert rest == 0
    assert said <= batches <= said + 1
    cells = [f"p{n:07d}" for n in range(batches * BATCH)]
    assert run == cells
    for storage in (ours, stock):
        ids = storage.get_latest_storage_id_by_partition(
            KEY, DagsterEventType.ASSET_MATERIALIZATION
        )
        assert sorted(ids) == cells
        assert sorted(ids.values()) == list(range(1, len(cells) + 1))
    return batches


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "batches"),
    [
        ("before the run's shard", 2),
        ("before the run's commit", 2),
        # The run's log has it: the index gets it from there.
        ("between the commits", 3),
    ],
)
def test_a_kill_at_the_worst_points_leaves_whole_batches_in_both_shards(
    tmp_path: Path, point: str, batches: int
) -> None:
    writer = _start(tmp_path, point)
    out, _ = writer.communicate()
    assert writer.returncode == -9
    assert out.split() == ["1", "2"]
    assert _check(tmp_path, said=2) == batches
    # Nothing is mirrored twice by the one who opens next, and the run goes on.
    assert _check(tmp_path, said=2) == batches


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_whole_batches_in_both_shards(tmp_path: Path) -> None:
    moments = random.Random(7)
    found = []
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        writer = _start(folder, "never")
        assert writer.stdout
        said = [writer.stdout.readline()]  # it is at work
        time.sleep(moments.uniform(0, 0.5))
        writer.kill()
        said += writer.stdout.read().splitlines()
        writer.wait()
        found.append(_check(folder, said=len(said)))
    assert max(found) > 1
