"""Which batches may lack their copy in the index: a kill between the commits of two shards.

SQLite commits one file at a time (and with write-ahead logs an attached file is no help), so a
batch is announced in the index before, signed in the run's shard in the transaction that stores it
there, and finished in the index in the transaction that stores its copy. Announced and signed, but
not finished, is a batch that the index lacks. Tables of ours in the shards; Dagster does not look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection


def announce(index: Connection, batch: str, run_ids: Iterable[str]) -> None:
    """Say that `batch` is about to be written; a run's earlier announcement is history."""
    index.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS unfinished_batches"
        " (run_id TEXT PRIMARY KEY, batch TEXT NOT NULL)"
    )
    index.exec_driver_sql(
        "INSERT OR REPLACE INTO unfinished_batches VALUES (?, ?)",
        [(run_id, batch) for run_id in run_ids],
    )


def announced(index: Connection) -> list[tuple[str, str]]:
    """(batch, run) of what was announced and never finished."""
    if not inspect(index).has_table("unfinished_batches"):
        return []
    rows = index.exec_driver_sql("SELECT batch, run_id FROM unfinished_batches")
    return [(batch, run_id) for batch, run_id in rows]


def finish(index: Connection, batch: str) -> None:
    """Say that the index has `batch`, as part of the transaction that writes it."""
    index.exec_driver_sql("DELETE FROM unfinished_batches WHERE batch = ?", (batch,))


def sign(shard: Connection, batch: str, ids: range) -> None:
    """Say that the events `ids` are `batch`, as part of the transaction that writes them."""
    shard.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS last_batch"
        " (batch TEXT NOT NULL, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL)"
    )
    shard.exec_driver_sql("DELETE FROM last_batch")
    shard.exec_driver_sql(
        "INSERT INTO last_batch VALUES (?, ?, ?)", (batch, ids.start, ids.stop - 1)
    )


def signed(shard: Connection, batch: str) -> list[str] | None:
    """The texts of the events of `batch` in the run's shard, None if that lacks it too."""
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
        shard.exec_driver_sql("DELETE FROM last_batch")


def _span(shard: Connection, batch: str) -> tuple[int, int] | None:
    if not inspect(shard).has_table("last_batch"):
        return None
    row = shard.exec_driver_sql(
        "SELECT first_id, last_id FROM last_batch WHERE batch = ?", (batch,)
    ).first()
    return None if row is None else (row[0], row[1])
