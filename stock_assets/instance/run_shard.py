"""How the events of cells lie in a run's own shard: a template once, and a short row for each.

Stock storage reads and writes a shard by its table `event_logs`. Here that name is a view: over
the table itself, renamed, and over the cells' rows, out of which it puts together the very text
that stock storage would have stored. Triggers let stock storage insert, update and delete through
the view. So any reader, Dagster without our storage or plain SQL, sees the rows it expects.

A shard is changed to this layout by the first batch of cells that is written to it, in that
batch's transaction. The index cannot have it: there, stock storage asks an insert for the id of its
row, which SQLite does not tell of a view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Connection

    from stock_assets.instance.cell_events import CellEvent, Template

_COLUMNS = "run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition"
_NEW_COLUMNS = ", ".join(f"NEW.{name}" for name in _COLUMNS.split(", "))
_LAST_ID = (
    "max(coalesce((SELECT max(id) FROM ordinary_events), 0),"
    " coalesce((SELECT max(id) FROM cell_events), 0))"
)

_LAYOUT = (
    "ALTER TABLE event_logs RENAME TO ordinary_events",
    """
    CREATE TABLE event_templates (
      id INTEGER PRIMARY KEY,
      run_id TEXT, dagster_event_type TEXT, step_key TEXT, asset_key TEXT,
      before_metadata TEXT NOT NULL, no_metadata TEXT NOT NULL, before_partition TEXT NOT NULL,
      before_first TEXT, before_second TEXT, before_timestamp TEXT NOT NULL, rest TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE cell_events (
      id INTEGER PRIMARY KEY,
      template INTEGER NOT NULL, partition TEXT NOT NULL, metadata TEXT,
      timestamp TEXT NOT NULL, timestamp_in_event TEXT NOT NULL
    )
    """,
    # For questions about other kinds of events: which steps succeeded, how the run ended.
    "CREATE INDEX idx_cell_events_template ON cell_events (template)",
    f"""
    CREATE VIEW event_logs AS
    SELECT id, {_COLUMNS} FROM ordinary_events
    UNION ALL
    SELECT
      cell.id, template.run_id,
      before_metadata || coalesce(metadata, no_metadata)
        || before_partition || '"' || partition || '"'
        || CASE WHEN before_first IS NULL THEN '' ELSE
             before_first || '"' || substr(partition, 1, instr(partition, '|') - 1) || '"'
             || before_second || '"' || substr(partition, instr(partition, '|') + 1) || '"'
           END
        || before_timestamp || timestamp_in_event || rest AS event,
      dagster_event_type, timestamp, step_key, asset_key, partition
    FROM cell_events AS cell JOIN event_templates AS template ON template.id = cell.template
    """,
    f"""
    CREATE TRIGGER insert_event INSTEAD OF INSERT ON event_logs BEGIN
      INSERT INTO ordinary_events (id, {_COLUMNS})
      VALUES (coalesce(NEW.id, {_LAST_ID} + 1), {_NEW_COLUMNS});
    END
    """,
    f"""
    CREATE TRIGGER update_event INSTEAD OF UPDATE ON event_logs BEGIN
      DELETE FROM cell_events WHERE id = OLD.id;
      INSERT OR REPLACE INTO ordinary_events (id, {_COLUMNS}) VALUES (NEW.id, {_NEW_COLUMNS});
    END
    """,
    """
    CREATE TRIGGER delete_event INSTEAD OF DELETE ON event_logs BEGIN
      DELETE FROM cell_events WHERE id = OLD.id;
      DELETE FROM ordinary_events WHERE id = OLD.id;
    END
    """,
)


def stock_moment(timestamp: dt.datetime) -> str:
    """A time in UTC as stock storage writes it to a shard."""
    return timestamp.isoformat(" ", "microseconds")


def stock_values(row: Mapping[str, Any]) -> tuple[str | None, ...]:
    """A row as stock storage makes it of an event: what to write, in the columns' order."""
    return (
        row["run_id"],
        row["event"],
        row["dagster_event_type"],
        stock_moment(row["timestamp"]),
        row["step_key"],
        row["asset_key"],
        row["partition"],
    )


def has_cell_layout(shard: Connection) -> bool:
    """Whether cells' events of this shard lie in rows of their own."""
    found = shard.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'cell_events'")
    return found.first() is not None


def insert_events(shard: Connection, events: Sequence[CellEvent | dict[str, Any]]) -> range:
    """Insert events in order, cells' or rows of `event_logs`; return their ids.

    The transaction must hold the write lock.
    """
    ordinary = "event_logs"
    if has_cell_layout(shard):
        ordinary = "ordinary_events"
    elif any(not isinstance(event, dict) for event in events):
        for statement in _LAYOUT:
            shard.exec_driver_sql(statement)
        ordinary = "ordinary_events"
    last = f"SELECT {_LAST_ID}" if ordinary != "event_logs" else "SELECT max(id) FROM event_logs"
    first = (shard.exec_driver_sql(last).scalar() or 0) + 1

    template_ids: dict[int, int] = {}
    cells, others = [], []
    for event_id, event in enumerate(events, first):
        if isinstance(event, dict):
            others.append((event_id, *stock_values(event)))
            continue
        template = event.template
        if id(template) not in template_ids:
            template_ids[id(template)] = _insert_template(shard, template)
        cells.append(
            (
                event_id,
                template_ids[id(template)],
                event.partition,
                f'"metadata_entries": {event.metadata}' if event.metadata else None,
                event.moment,
                repr(event.entry.timestamp),
            )
        )
    if cells:
        shard.exec_driver_sql("INSERT INTO cell_events VALUES (?, ?, ?, ?, ?, ?)", cells)
    if others:
        shard.exec_driver_sql(
            f"INSERT INTO {ordinary} (id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            others,
        )
    return range(first, first + len(events))


def _insert_template(shard: Connection, template: Template) -> int:
    metadata = '"metadata_entries": []' if template.with_metadata else ""
    pieces = list(template.pieces)
    if not template.with_metadata:
        pieces.insert(0, "")
    before_metadata, before_partition, *dimensions, before_timestamp, rest = pieces
    first, second = dimensions or (None, None)
    added = shard.exec_driver_sql(
        "INSERT INTO event_templates VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            template.entry.run_id,
            template.event.event_type_value,
            template.event.step_key,
            template.kind[0],
            before_metadata,
            metadata,
            before_partition,
            first,
            second,
            before_timestamp,
            rest,
        ),
    )
    return int(added.lastrowid)


def restore_stock_layout(shard: Connection) -> None:
    """Make `event_logs` the table again that a migration of Dagster's schema expects."""
    if not has_cell_layout(shard):
        return
    shard.exec_driver_sql(
        f"INSERT INTO ordinary_events (id, {_COLUMNS})"  # noqa: S608
        f" SELECT id, {_COLUMNS} FROM event_logs WHERE id IN (SELECT id FROM cell_events)"
    )
    for statement in (
        "DROP VIEW event_logs",
        "DROP TABLE cell_events",
        "DROP TABLE event_templates",
        "ALTER TABLE ordinary_events RENAME TO event_logs",
    ):
        shard.exec_driver_sql(statement)
