"""Batches that a kill, a failure or another process left half written: what becomes of them.

A kill is played in this process: what the storage does from that point on is cut off. The real one
is in test_event_log_killed.py.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from sqlalchemy.engine import Connection

from stock_assets.instance import event_log, unfinished_batches
from stock_assets.instance.event_log import BatchedSqliteEventLogStorage

RUN, OTHER_RUN = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
BATCH = 5


class Killed(BaseException):
    """The end of the process that is played."""


def _batch(number: int, run_id: str = RUN) -> list[EventLogEntry]:
    """Return materializations of `BATCH` cells that are in no other batch."""
    entries = []
    for cell in range(number * BATCH, (number + 1) * BATCH):
        made = dg.AssetMaterialization("bars", partition=f"p{cell:03d}")
        event = DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name="job",
            event_specific_data=StepMaterializationData(made, []),
            message="made",
            step_key="bars",
        )
        entries.append(
            EventLogEntry(None, 10, "made", run_id, 1700000000.5 + cell, "bars", "job", event)
        )
    return entries


def _cells(*numbers: int) -> list[str]:
    return [
        f"p{cell:03d}"
        for number in numbers
        for cell in range(number * BATCH, number * BATCH + BATCH)
    ]


def _in_run(folder: Path, run_id: str = RUN) -> list[str | None]:
    entries = SqliteEventLogStorage(str(folder)).get_logs_for_run(run_id)
    return [entry.dagster_event and entry.dagster_event.partition for entry in entries]


def _in_index(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "index.db")) as index:
        return [key for (key,) in index.execute("SELECT partition FROM event_logs ORDER BY id")]


def _announced(folder: Path) -> list[Any]:
    with SqliteEventLogStorage(str(folder)).index_connection() as index:
        return list(unfinished_batches.announced(index))


def _open(folder: Path) -> BatchedSqliteEventLogStorage:
    return BatchedSqliteEventLogStorage(str(folder))


def _kill(folder: Path, batch: list[EventLogEntry], *, signed: bool) -> None:
    """Play a process that dies in `batch`: before its run's commit, or right after it."""
    storage = _open(folder)
    store = storage._store_in_runs

    def die(*arguments: Any) -> None:
        if signed:
            store(*arguments)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "_store_in_runs", die)
        patch.setattr(storage, "_forget", lambda *_: None)
        with pytest.raises(Killed):
            storage.store_event_batch(batch)


def _an_hour_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time() + 3601
    monkeypatch.setattr(time, "time", lambda: now)


# ---------------------------------------------------------------------------------------------
# Opening the instance


@pytest.mark.parametrize("storage", [SqliteEventLogStorage, BatchedSqliteEventLogStorage])
def test_an_unfinished_batch_of_a_deleted_run_does_not_keep_the_instance_shut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: type[SqliteEventLogStorage]
) -> None:
    webserver = storage(str(tmp_path))
    _kill(tmp_path, _batch(0), signed=True)
    webserver.delete_events(RUN)
    _open(tmp_path)
    _an_hour_passes(monkeypatch)
    _open(tmp_path)
    assert (_in_run(tmp_path), _in_index(tmp_path), _announced(tmp_path)) == ([], [], [])


def test_a_batch_that_cannot_be_copied_is_named_and_the_others_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = _open(tmp_path)
    writer.store_event_batch(_batch(0))
    _kill(tmp_path, _batch(1), signed=True)
    with closing(sqlite3.connect(tmp_path / f"{RUN}.db")) as shard:
        shard.execute("UPDATE event_logs SET event = '{' WHERE id = ?", (BATCH + 2,))
        shard.commit()
    (torn,) = _announced(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            BatchedSqliteEventLogStorage, "_mirror_batches_of_killed_runs", lambda _: None
        )
        _kill(tmp_path, _batch(2, OTHER_RUN), signed=True)
    with caplog.at_level(logging.WARNING):
        _open(tmp_path)
    assert RUN in caplog.text
    assert torn.batch in caplog.text
    assert OTHER_RUN not in caplog.text
    assert _in_index(tmp_path) == _cells(0, 2)
    assert _announced(tmp_path) == [torn]


def test_an_announcement_that_nobody_signed_goes_away_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kill(tmp_path, _batch(0), signed=False)
    _open(tmp_path)
    assert len(_announced(tmp_path)) == 1, "its writer may be waiting for the lock"
    _an_hour_passes(monkeypatch)
    _open(tmp_path)
    assert _announced(tmp_path) == []


def test_a_signed_batch_is_copied_however_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kill(tmp_path, _batch(0), signed=True)
    _an_hour_passes(monkeypatch)
    _open(tmp_path)
    assert _in_index(tmp_path) == _cells(0)
    assert _announced(tmp_path) == []


def test_of_two_who_open_at_once_one_copies_a_batch_and_the_other_has_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _kill(tmp_path, _batch(0), signed=True)
    announced = unfinished_batches.announced
    both_have_read = threading.Barrier(2, timeout=120)
    readers: set[int] = set()

    def read_then_wait_once(index: Connection) -> list[unfinished_batches.Announcement]:
        found = announced(index)
        if threading.get_ident() not in readers:
            readers.add(threading.get_ident())
            both_have_read.wait()
        return found

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as processes:
        patch.setattr(unfinished_batches, "announced", read_then_wait_once)
        opening = [processes.submit(_open, tmp_path) for _ in range(2)]
        for one in opening:
            one.result()
    assert not caplog.records
    assert _in_index(tmp_path) == _cells(0)
    assert _announced(tmp_path) == []


def test_a_shard_that_was_removed_is_not_made_anew(tmp_path: Path) -> None:
    _kill(tmp_path, _batch(0), signed=True)
    for file in tmp_path.glob(f"{RUN}.db*"):
        file.unlink()
    _open(tmp_path)
    assert not list(tmp_path.glob(f"{RUN}.db*"))


def test_a_writer_whose_announcement_was_removed_stores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It slept for an hour: killed between the commits, nobody would copy its batch."""
    storage = _open(tmp_path)
    storage.store_event_batch(_batch(0))
    monkeypatch.setattr(unfinished_batches, "announce", lambda *_: None)
    with pytest.raises(RuntimeError, match=f"run {RUN}.*store its events anew"):
        storage.store_event_batch(_batch(1))
    assert _in_run(tmp_path) == _in_index(tmp_path) == _cells(0)


# ---------------------------------------------------------------------------------------------
# Taking a batch back


def _fail(*_: Any) -> None:
    raise OSError("disk full")


def _then_fail(function: Callable[..., Any]) -> Callable[..., None]:
    def failing(*arguments: Any) -> None:
        function(*arguments)
        _fail()

    return failing


def test_a_batch_that_failed_is_no_longer_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = _open(tmp_path)
    monkeypatch.setattr(event_log, "_insert_in_index", _fail)
    with pytest.raises(OSError, match="disk full"):
        storage.store_event_batch(_batch(0))
    assert _announced(tmp_path) == []


def test_only_ones_own_batch_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = _open(tmp_path)
    _kill(tmp_path, _batch(0), signed=True)
    (others,) = _announced(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_store_in_runs", _then_fail(storage._store_in_runs))
        with pytest.raises(OSError, match="disk full"):
            storage.store_event_batch(_batch(1))
    assert not caplog.records
    assert _announced(tmp_path) == [others]
    _open(tmp_path)
    assert _in_run(tmp_path) == _in_index(tmp_path) == _cells(0)


def test_a_batch_that_the_index_has_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = _open(tmp_path)
    in_index = storage._batch_in_index
    interrupts = iter([KeyboardInterrupt])

    @contextmanager
    def interrupted_after_the_commit() -> Iterator[Connection]:
        with in_index() as index:
            yield index
        for interrupt in interrupts:
            raise interrupt

    monkeypatch.setattr(storage, "_batch_in_index", interrupted_after_the_commit)
    with pytest.raises(KeyboardInterrupt):
        storage.store_event_batch(_batch(0))
    assert _in_run(tmp_path) == _in_index(tmp_path) == _cells(0)


def test_a_batch_that_cannot_be_taken_back_is_stored_and_copied_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Were it reported as failed, Dagster would store its events a second time."""
    storage = _open(tmp_path)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(storage, "_store_in_runs", _then_fail(storage._store_in_runs))
        patch.setattr(unfinished_batches, "remove", _fail)
        storage.store_event_batch(_batch(0))
    assert "disk full" in caplog.text
    assert f"run {RUN} is stored" in caplog.text
    assert (_in_run(tmp_path), _in_index(tmp_path)) == (_cells(0), [])
    _open(tmp_path)
    assert _in_run(tmp_path) == _in_index(tmp_path) == _cells(0)


def test_an_interrupt_stays_one_where_the_batch_cannot_be_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = _open(tmp_path)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "_mirror", interrupt)
    monkeypatch.setattr(storage, "_forget", _fail)
    with pytest.raises(KeyboardInterrupt):
        storage.store_event_batch(_batch(0))


def test_a_kill_while_a_batch_is_taken_back_leaves_it_in_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = _open(tmp_path)
    remove = unfinished_batches.remove

    def remove_and_die(shard: Connection, batch: str) -> None:
        remove(shard, batch)
        shard.commit()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_store_in_runs", _then_fail(storage._store_in_runs))
        patch.setattr(unfinished_batches, "remove", remove_and_die)
        with pytest.raises(Killed):
            storage.store_event_batch(_batch(0))
    _open(tmp_path).store_event_batch(_batch(1))
    _an_hour_passes(monkeypatch)
    _open(tmp_path)
    assert _in_run(tmp_path) == _in_index(tmp_path) == _cells(1)
    assert _announced(tmp_path) == []


# ---------------------------------------------------------------------------------------------
# A batch of several runs: one commit each


def _refuse_the_commit_of(run_id: str, storage: BatchedSqliteEventLogStorage) -> Any:
    """What connects to the shards as `storage` does, but for the first commit of this run's."""
    connect = storage.run_connection
    refusals = iter([OSError("disk full")])

    @contextmanager
    def connection(to: str) -> Iterator[Connection]:
        with connect(to) as shard:
            yield shard
            if to == run_id:
                for refusal in refusals:
                    raise refusal

    return connection


def test_a_batch_of_two_runs_is_finished_in_both(tmp_path: Path) -> None:
    storage = _open(tmp_path)
    storage.store_event_batch([*_batch(0), *_batch(1, OTHER_RUN)])
    assert _announced(tmp_path) == []
    assert (_in_run(tmp_path), _in_run(tmp_path, OTHER_RUN)) == (_cells(0), _cells(1))
    assert _in_index(tmp_path) == _cells(0, 1)


@pytest.mark.parametrize("refused", [RUN, OTHER_RUN])
def test_a_batch_that_one_of_its_runs_refuses_is_in_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    storage = _open(tmp_path)
    monkeypatch.setattr(storage, "run_connection", _refuse_the_commit_of(refused, storage))
    with pytest.raises(OSError, match="disk full"):
        storage.store_event_batch([*_batch(0), *_batch(1, OTHER_RUN)])
    assert (_in_run(tmp_path), _in_run(tmp_path, OTHER_RUN), _in_index(tmp_path)) == ([], [], [])
    assert _announced(tmp_path) == []


def test_a_batch_that_one_of_its_runs_lacks_does_not_count_as_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster must hear of it, though the other run cannot be rid of its part: none is lost."""
    storage = _open(tmp_path)
    monkeypatch.setattr(storage, "run_connection", _refuse_the_commit_of(RUN, storage))
    monkeypatch.setattr(unfinished_batches, "remove", _fail)
    with pytest.raises(OSError, match="disk full"):
        storage.store_event_batch([*_batch(0), *_batch(1, OTHER_RUN)])
    assert (_in_run(tmp_path), _in_run(tmp_path, OTHER_RUN)) == ([], _cells(1))


# ---------------------------------------------------------------------------------------------
# Threads that share a storage


def test_an_event_of_another_thread_stays_where_the_open_batch_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in its run's shard when the batch begins, and has the index yet to write."""
    storage = _open(tmp_path)
    (event, *_) = _batch(1, OTHER_RUN)
    transaction = storage.index_transaction
    in_its_run, batch_is_open, in_index = (threading.Event() for _ in range(3))

    @contextmanager
    def once_the_batch_is_open() -> Iterator[Connection]:
        in_its_run.set()
        assert batch_is_open.wait(120)
        with transaction() as index:
            yield index

    def fail_when_the_other_had_its_chance(*_: Any) -> None:
        batch_is_open.set()
        in_index.wait(0.5)  # it is to wait for the end of the batch
        _fail()

    def store_event() -> None:
        storage.store_event(event)
        in_index.set()

    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as other_thread:
        patch.setattr(storage, "index_transaction", once_the_batch_is_open)
        patch.setattr(storage, "_mirror", fail_when_the_other_had_its_chance)
        storing = other_thread.submit(store_event)
        assert in_its_run.wait(120)
        with pytest.raises(OSError, match="disk full"):
            storage.store_event_batch(_batch(0))
        storing.result()
    assert (_in_run(tmp_path), _in_run(tmp_path, OTHER_RUN)) == ([], _cells(1)[:1])
    assert _in_index(tmp_path) == _cells(1)[:1]


# ---------------------------------------------------------------------------------------------
# Two processes that write one run


def test_a_process_that_goes_on_with_a_run_leaves_the_others_batch_to_be_copied(
    tmp_path: Path,
) -> None:
    going_on = _open(tmp_path)
    _kill(tmp_path, _batch(0), signed=True)
    for number in (1, 2, 3):
        going_on.store_event_batch(_batch(number))
    assert _in_index(tmp_path) == _cells(1, 2, 3)
    _open(tmp_path)
    assert _in_index(tmp_path) == _cells(1, 2, 3, 0)
    assert _in_run(tmp_path) == _cells(0, 1, 2, 3)


def test_signatures_of_finished_batches_do_not_pile_up(tmp_path: Path) -> None:
    _kill(tmp_path, _batch(0), signed=True)
    storage = _open(tmp_path)
    for number in (1, 2, 3):
        storage.store_event_batch(_batch(number))
    with closing(sqlite3.connect(tmp_path / f"{RUN}.db")) as shard:
        assert shard.execute("SELECT first_id, last_id FROM batch_signatures").fetchall() == [
            (3 * BATCH + 1, 4 * BATCH)
        ]


# ---------------------------------------------------------------------------------------------
# Deleting a run


def test_what_is_written_after_a_deletion_is_not_taken_for_the_batch_that_was_deleted(
    tmp_path: Path,
) -> None:
    storage = _open(tmp_path)
    _kill(tmp_path, _batch(0), signed=True)
    storage.delete_events(RUN)
    storage.store_event_batch(_batch(1))
    _open(tmp_path)
    assert _in_run(tmp_path) == _in_index(tmp_path) == _cells(1)
