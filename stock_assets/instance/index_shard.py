"""How the index is made where we make it: no indexes that nobody asks, and pages that rows fill.

Half of what a cell costs in the index are SQLite's own indexes and the ends of pages. The tables
are those of stock storage, which works on this file as on its own; an index made by stock storage
is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

PAGE_BYTES = 32_768
"""Of SQLite's 4,096 a seventh would stay empty under rows of 500 to 900 bytes."""

_UNASKED = (
    # Steps are asked for in a run's own shard only.
    "DROP INDEX IF EXISTS idx_step_key",
    # Of a run the index is asked together with an asset (idx_events_by_asset), or to delete it.
    "DROP INDEX IF EXISTS idx_events_by_run_id",
    # Tags are asked for by asset, or by event. Nearly all are data versions: neither the key nor
    # its 64 digits tell an asset's apart.
    "DROP INDEX IF EXISTS idx_asset_event_tags",
    "CREATE INDEX idx_asset_event_tags ON asset_event_tags (asset_key)",
)


def choose_page_size(empty_index: Connection) -> None:
    """Set the page size of an index file that has no tables yet; of any other it stays."""
    empty_index.exec_driver_sql(f"PRAGMA page_size = {PAGE_BYTES}")
    # Writes the file's first page, so that connections to come find the size set.
    empty_index.exec_driver_sql("PRAGMA journal_mode = WAL")


def drop_unasked_indexes(new_index: Connection) -> None:
    """Drop what no query of Dagster's to the index uses."""
    new_index.exec_driver_sql("BEGIN IMMEDIATE")
    for statement in _UNASKED:
        new_index.exec_driver_sql(statement)
    new_index.commit()
