"""Keeping Delta tables small: compaction, and removal of files that no version needs.

Neither changes what a table says. Old versions stay readable for the retention period.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deltalake import WriterProperties

from stock_assets.lake.schemas import ALL_TABLES, LEDGERS
from stock_assets.lake.store import ROW_GROUP

if TYPE_CHECKING:
    from stock_assets.lake.store import Lake

KEEP_VERSIONS = dt.timedelta(days=30)
"""How long the files of replaced rows are kept, for reading earlier versions."""

_ENOUGH_SMALL_FILES = 8


@dataclass(frozen=True)
class Maintained:
    """What maintenance did to one table."""

    table: str
    files_before: int
    files_after: int
    removed: int
    bytes: int


def maintain(lake: Lake, *, keep: dt.timedelta = KEEP_VERSIONS) -> list[Maintained]:
    """Compact each year of each table into few sorted files, and vacuum what is older than `keep`.

    Rows are sorted by ticker and key within the compacted files, as a slice's write sorts them.
    Raises `LakeError` when a table cannot be read.
    """
    done = []
    for table, schema in ALL_TABLES.items():
        found = lake.open(table)
        if found is None:
            continue
        before = len(found.file_uris())
        years = found.partitions() or []
        if before >= len(years) + _ENOUGH_SMALL_FILES:
            keys = [name for name in schema.primary_key() if name not in ("day", "ticker")]
            place = ["day"] if table in LEDGERS else ["ticker", "day"]
            found.optimize.z_order(
                [*place, *keys[:1]],
                writer_properties=WriterProperties(
                    compression="ZSTD", compression_level=9, max_row_group_size=ROW_GROUP
                ),
            )
        removed = found.vacuum(
            retention_hours=int(keep.total_seconds() // 3600),
            dry_run=False,
            enforce_retention_duration=False,
        )
        size = sum(table_sizes(lake, table))
        done.append(Maintained(table, before, len(found.file_uris()), len(removed), size))
    return done


def table_sizes(lake: Lake, table: str) -> list[int]:
    """Bytes of each live Parquet file of a table; empty when it was never written."""
    found = lake.open(table)
    if found is None:
        return []
    actions = found.get_add_actions(flatten=True)
    return [int(size) for size in actions.column("size_bytes").to_pylist()]
