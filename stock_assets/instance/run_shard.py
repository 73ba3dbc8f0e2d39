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

from stock_assets.instance.cell_events import stock_moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Connection

    from stock_assets.instance.cell_events import CellEvent, Template

_COLUMNS = "run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition"
_NEW_COLUMNS = ", ".join(f"NEW.{name}" for name in _COLUMNS.split(", "))
_LAST_ID = (
    "max(coalesce((SELECT max(id) FROM ordinary_events), 0),"
    " coalesce((SELECT max(id) FROM cell_events), 0))"
)

# S608: statements are put together from the constants above.
_LAYOUT = (
    "ALTER TABLE event_logs RENAME TO ordinary_events",
    """
    CREATE TABLE event_templates (
      id INTEGER PRIMARY KEY, first_cell INTEGER NOT NULL, last_cell INTEGER NOT NULL,
      run_id TEXT, dagster_event_type TEXT, step_key TEXT, asset_key TEXT,
      before_metadata TEXT NOT NULL, no_metadata TEXT NOT NULL, before_partition TEXT NOT NULL,
      before_first TEXT, before_second TEXT, before_timestamp TEXT NOT NULL, rest TEXT NOT NULL
    )
    """,
    "CREATE INDEX idx_event_templates_type ON event_templates (dagster_event_type)",
    """
    CREATE TABLE cell_events (
      id INTEGER PRIMARY KEY,
      template INTEGER NOT NULL, partition TEXT NOT NULL, metadata TEXT,
      microseconds INTEGER NOT NULL, timestamp_in_event NOT NULL
    )
    """,
    """
    CREATE VIEW event_logs AS
    -- Both halves cast alike: only then does SQLite read them side by side in the order of ids,
    -- and a page of events costs a page.
    SELECT
      id, CAST(run_id AS TEXT) AS run_id, CAST(event AS TEXT) AS event, dagster_event_type,
      CAST(timestamp AS TEXT) AS timestamp, step_key, asset_key, partition
    FROM ordinary_events
    UNION ALL
    SELECT
      cell.id, CAST(template.run_id AS TEXT),
      CAST(before_metadata || coalesce(metadata, no_metadata)
        || before_partition || '"' || partition || '"'
        || CASE WHEN before_first IS NULL THEN '' ELSE
             before_first || '"' || substr(partition, 1, instr(partition, '|') - 1) || '"'
             || before_second || '"' || substr(partition, instr(partition, '|') + 1) || '"'
           END
        || before_timestamp
        || CASE typeof(timestamp_in_event) WHEN 'text' THEN timestamp_in_event ELSE
             rtrim(printf(
               '%d.%07d', timestamp_in_event / 10000000, timestamp_in_event % 10000000), '0')
           END
        || rest AS TEXT),
      dagster_event_type,
      CAST(strftime('%Y-%m-%d %H:%M:%S', microseconds / 1000000, 'unixepoch')
        || printf('.%06d', microseconds % 1000000) AS TEXT),
      step_key, asset_key, partition
    FROM cell_events AS cell JOIN event_templates AS template
      -- The span instead of an index: a question about other kinds of events reads no cell.
      ON template.id = cell.template AND cell.id BETWEEN first_cell AND last_cell
    """,
    f"""
    CREATE TRIGGER insert_event INSTEAD OF INSERT ON event_logs BEGIN
      INSERT INTO ordinary_events (id, {_COLUMNS})
      VALUES (coalesce(NEW.id, {_LAST_ID} + 1), {_NEW_COLUMNS});
    END
    """,  # noqa: S608
    f"""
    CREATE TRIGGER update_event INSTEAD OF UPDATE ON event_logs BEGIN
      DELETE FROM cell_events WHERE id = OLD.id;
      INSERT OR REPLACE INTO ordinary_events (id, {_COLUMNS}) VALUES (NEW.id, {_NEW_COLUMNS});
    END
    """,  # noqa: S608
    """
    CREATE TRIGGER delete_event INSTEAD OF DELETE ON event_logs BEGIN
      DELETE FROM cell_events WHERE id = OLD.id;
      DELETE FROM ordinary_events WHERE id = OLD.id;
    END
    """,
)


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

    template_ids: dict[Template, int] = {}
    cells, others = [], []
    for event_id, event in enumerate(events, first):
        if isinstance(event, dict):
            others.append((event_id, *stock_values(event)))
            continue
        template = event.template
        if template not in template_ids:
            template_ids[template] = _insert_template(
                shard, template, (first, first + len(events) - 1)
            )
        cells.append(
            (
                event_id,
                template_ids[template],
                event.partition,
                f'"metadata_entries": {event.metadata}' if event.metadata else None,
                event.moment.microseconds,
                _short_timestamp(event.moment.in_event),
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


def delete_events_of_run(shard: Connection, run_id: str) -> None:
    """Delete a run's events from its shard, in either layout, or from the index; and their tags.

    The tags are those of the kinds of events whose tags stock storage deletes.
    """
    shard.exec_driver_sql(
        "DELETE FROM asset_event_tags WHERE event_id IN (SELECT id FROM event_logs WHERE run_id = ?"
        " AND dagster_event_type IN ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION'))",
        (run_id,),
    )
    if not has_cell_layout(shard):
        shard.exec_driver_sql("DELETE FROM event_logs WHERE run_id = ?", (run_id,))
        return
    # Through the view, SQLite would first write down the texts of all events.
    of_run = "SELECT id FROM event_templates WHERE run_id = ?"
    for statement in (
        "DELETE FROM ordinary_events WHERE run_id = ?",
        f"DELETE FROM cell_events WHERE template IN ({of_run})",  # noqa: S608
        "DELETE FROM event_templates WHERE run_id = ?",
    ):
        shard.exec_driver_sql(statement, (run_id,))


def _short_timestamp(text: str) -> int | str:
    """A number of seconds as a count of 0.1 microseconds, where that is all the text says."""
    seconds, _, fraction = text.partition(".")
    if not (seconds.isdecimal() and fraction.isdecimal() and len(fraction) <= 7):  # noqa: PLR2004
        return text
    # The view writes no zeros at the end; Python writes one, after a whole number of seconds.
    return text if fraction.endswith("0") else int(seconds + fraction.ljust(7, "0"))


def _insert_template(shard: Connection, template: Template, span: tuple[int, int]) -> int:
    metadata = '"metadata_entries": []' if template.with_metadata else ""
    pieces = list(template.pieces)
    if not template.with_metadata:
        pieces.insert(0, "")
    before_metadata, before_partition, *dimensions, before_timestamp, rest = pieces
    first, second = dimensions or (None, None)
    added = shard.exec_driver_sql(
        "INSERT INTO event_templates VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *span,
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
