"""Which batches may lack their copy in the index: a kill between the commits of two shards.

SQLite commits one file at a time (and with write-ahead logs an attached file is no help), so a
batch is announced in the index before, signed in the run's shard in the transaction that stores it
there, and finished in the index in the transaction that stores its copy. Announced and signed, but
not finished, is a batch that the index lacks. Tables of ours in the shards; Dagster does not look.

An announcement is committed before its writer has the index's write lock; from then until it is
finished the writer holds that lock. Whoever reads here to change something must hold it as well.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import inspect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection

ABANDONED_AFTER_SECONDS = 3600
"""A writer waits half a minute for the index's lock (Dagster's time-out), then gives up."""


class Announcement(NamedTuple):
    """The part of one run in a batch that the index may lack."""

    batch: str
    run_id: str
    announced_at: float
    """Seconds since 1970."""

    def is_abandoned(self) -> bool:
        """Whether no writer can be about to sign it. A clock set back must not keep it for ever."""
        return abs(time.time() - self.announced_at) > ABANDONED_AFTER_SECONDS


def announce(index: Connection, batch: str, run_ids: Iterable[str]) -> None:
    """Say that `batch` is about to be written to the shards of these runs."""
    index.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS batch_announcements (batch TEXT NOT NULL, run_id TEXT NOT NULL,"
        " announced_at REAL NOT NULL, PRIMARY KEY (batch, run_id))"
    )
    index.exec_driver_sql(
        "INSERT INTO batch_announcements VALUES (?, ?, ?)",
        [(batch, run_id, time.time()) for run_id in run_ids],
    )


def announced(index: Connection) -> list[Announcement]:
    """What was announced and is not finished."""
    if not inspect(index).has_table("batch_announcements"):
        return []
    rows = index.exec_driver_sql("SELECT batch, run_id, announced_at FROM batch_announcements")
    return [Announcement(*row) for row in rows]


def finish(index: Connection, batch: str, run_id: str) -> None:
    """Say that the index has this batch of the run, as part of the transaction that writes it.

    Raises `RuntimeError` when it is not announced: nobody would mirror it after a kill.
    """
    done = index.exec_driver_sql(
        "DELETE FROM batch_announcements WHERE batch = ? AND run_id = ?", (batch, run_id)
    )
    if done.rowcount != 1:
        message = (
            f"batch {batch} of run {run_id} was not written within {ABANDONED_AFTER_SECONDS} s of"
            " its announcement, which another process has removed; store its events anew"
        )
        raise RuntimeError(message)


def sign(shard: Connection, batch: str, ids: range, unfinished: Iterable[str]) -> None:
    """Say that the events `ids` are `batch`, as part of the transaction that writes them.

    Drops the signatures of all batches but the `unfinished`: nobody will ask for them.
    """
    shard.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS batch_signatures"
        " (batch TEXT PRIMARY KEY, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL)"
    )
    shard.exec_driver_sql(
        "DELETE FROM batch_signatures WHERE batch NOT IN (SELECT value FROM json_each(?))",
        (json.dumps(list(unfinished)),),
    )
    shard.exec_driver_sql(
        "INSERT INTO batch_signatures VALUES (?, ?, ?)", (batch, ids.start, ids.stop - 1)
    )


def signed(shard: Connection, batch: str) -> list[str] | None:
    """The texts of the events of `batch` in the run's shard, None if that lacks it too.

    Fewer than were signed, or none, where events were deleted since.
    """
    span = _span(shard, batch)
    if span is None:
        return None
    rows = shard.exec_driver_sql(
        "SELECT event FROM event_logs WHERE id BETWEEN ? AND ? ORDER BY id", span
    )
    return [text for (text,) in rows]


def remove(shard: Connection, batch: str) -> None:
    """Delete the events of `batch` from the run's shard, if it has them."""
    span = _span(shard, batch)
    if span is not None:
        shard.exec_driver_sql("DELETE FROM event_logs WHERE id BETWEEN ? AND ?", span)
        shard.exec_driver_sql("DELETE FROM batch_signatures WHERE batch = ?", (batch,))


def remove_signatures(shard: Connection) -> None:
    """Forget what is signed in a shard whose events are deleted: their ids are given out again."""
    if inspect(shard).has_table("batch_signatures"):
        shard.exec_driver_sql("DELETE FROM batch_signatures")


def _span(shard: Connection, batch: str) -> tuple[int, int] | None:
    if not inspect(shard).has_table("batch_signatures"):
        return None
    row = shard.exec_driver_sql(
        "SELECT first_id, last_id FROM batch_signatures WHERE batch = ?", (batch,)
    ).first()
    return None if row is None else (row[0], row[1])
