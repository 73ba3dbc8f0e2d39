"""Keeping Delta tables small: compaction, and removal of files that no kept version needs.

Neither changes what a table says. Which versions there were is `history.py`'s to find.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deltalake import WriterProperties
from deltalake.exceptions import CommitFailedError

from stock_assets.errors import LakeError
from stock_assets.lake.history import commits
from stock_assets.lake.schemas import ALL_TABLES, LEDGERS
from stock_assets.lake.store import HOOKS, KEEP_LOG, ROW_GROUP, YEAR

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from stock_assets.lake.store import Lake

_ENOUGH_SMALL_FILES = 8
"""Small files beyond which the latest year is compacted: each time, the old files stay for old
versions."""

_ENOUGH_OF_A_PAST_YEAR = 2
"""The same of a year that is over: it is compacted once more, and then stays as it is."""

_SMALL = 32 * 2**20
"""Bytes: compaction makes larger files where there is more, and would otherwise not come to rest.
"""


@dataclass(frozen=True)
class Maintained:
    """What maintenance did to one table."""

    table: str
    files_before: int
    files_after: int
    removed: int
    bytes: int

    @property
    def told(self) -> str:
        """The same in words."""
        return (
            f"{self.table}: {self.files_before} files -> {self.files_after}, "
            f"{self.removed} old ones removed, {self.bytes / 1e6:.2f} MB"
        )


def maintain(
    lake: Lake, *, keep: dt.timedelta | None = None, now: dt.datetime | None = None
) -> list[Maintained]:
    """Compact each year of each table that has many files, and remove what is older than `keep`.

    Every version that was the latest at any moment since `now` (default: the clock) less `keep`
    stays readable; all there ever were without `keep`. Rows are sorted by ticker and key within
    the compacted files, as a slice's write sorts them. Raises `LakeError` when a table cannot be
    read, or a run replaced what was being compacted: the run's rows are the ones that stay.
    """
    done = []
    for table in ALL_TABLES:
        found = lake.open(table)
        if found is None:
            continue
        before = len(found.file_uris())
        if found.metadata().configuration.items().isdisjoint(KEEP_LOG.items()):
            # Made by an older version; and compaction heeds nothing but this.
            found.alter.set_table_properties(KEEP_LOG, post_commithook_properties=HOOKS)
        try:
            _compact(table, found)
        except CommitFailedError as error:
            message = f"{table}: a run wrote it while it was compacted; compact it after the run"
            raise LakeError(message) from error
        removed = [] if keep is None else _vacuum(found, keep, now or dt.datetime.now(tz=dt.UTC))
        size = sum(table_sizes(lake, table))
        done.append(Maintained(table, before, len(found.file_uris()), len(removed), size))
    return done


def _compact(table: str, found: DeltaTable) -> None:
    keys = [name for name in ALL_TABLES[table].primary_key() if name not in ("day", "ticker")]
    place = ["day"] if table in LEDGERS else ["ticker", "day"]
    parts = _parts(table, found)
    latest = parts[-1][0] if parts else None
    for part, files in parts:
        if files <= (_ENOUGH_SMALL_FILES if part == latest else _ENOUGH_OF_A_PAST_YEAR):
            continue
        found.optimize.z_order(
            [*place, *keys[:1]],
            partition_filters=part,
            writer_properties=WriterProperties(
                compression="ZSTD", compression_level=9, max_row_group_size=ROW_GROUP
            ),
        )


def _parts(table: str, found: DeltaTable) -> list[tuple[list[tuple[str, str, str]] | None, int]]:
    """The filter of each year of the table, and its small files; a ledger is not split."""
    if table in LEDGERS:
        return [(None, len(found.file_uris()))]
    actions = found.get_add_actions(flatten=True)
    years = actions.column(f"partition.{YEAR}").to_pylist()
    sizes = actions.column("size_bytes").to_pylist()
    small = dict.fromkeys(years, 0)
    for year, size in zip(years, sizes, strict=True):
        small[year] += size < _SMALL
    return [([(YEAR, "=", str(year))], count) for year, count in sorted(small.items())]


def _vacuum(found: DeltaTable, keep: dt.timedelta, now: dt.datetime) -> list[str]:
    """Remove the files that no version needs which was the latest since `now` less `keep`."""
    known = commits(found)
    before = [version for version, committed in known if committed <= now - keep]
    kept = [version for version, _ in known if not before or version >= before[-1]]
    return found.vacuum(
        retention_hours=int(keep.total_seconds() // 3600),
        dry_run=False,
        enforce_retention_duration=False,
        # What the log no longer tells of too: checkpoints forget a removed file after a week. Hence
        # the versions are named, of which such a file may be a part.
        full=True,
        keep_versions=kept,
        post_commithook_properties=HOOKS,
    )


def table_sizes(lake: Lake, table: str) -> list[int]:
    """Bytes of each live Parquet file of a table; empty when it was never written."""
    found = lake.open(table)
    if found is None:
        return []
    actions = found.get_add_actions(flatten=True)
    return [int(size) for size in actions.column("size_bytes").to_pylist()]
