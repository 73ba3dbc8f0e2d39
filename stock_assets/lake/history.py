"""What the tables were at a past moment: finding their versions, and opening them if they are kept.

A version's time is the one in its commit, not the file's on disk, which a copy of the lake changes.
How long versions are kept is `maintenance.py`'s affair; seeing them with SQL is in `views.py`.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from deltalake.exceptions import DeltaError

from stock_assets.errors import LakeError
from stock_assets.lake.schemas import ALL_TABLES
from stock_assets.lake.store import dataset

if TYPE_CHECKING:
    from collections.abc import Collection

    from deltalake import DeltaTable

    from stock_assets.lake.store import Lake

_KEPT_BY = (
    "Files of replaced rows are kept for lake.keep_days; without that setting, which is the "
    "default, `stock-assets maintain` keeps all of them"
)


def commits(found: DeltaTable) -> list[tuple[int, dt.datetime]]:
    """Each version that the log still has, and when (UTC) it was committed, in order.

    Clocks may be set back, and machines disagree: a version is never older than the one before it.
    """
    told = sorted((item["version"], item["timestamp"]) for item in found.history())
    ordered: list[tuple[int, dt.datetime]] = []
    latest = dt.datetime.min.replace(tzinfo=dt.UTC)
    for version, milliseconds in told:
        moment = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(milliseconds=milliseconds)
        latest = max(latest, moment)
        ordered.append((version, latest))
    return ordered


def version_at(lake: Lake, table: str, moment: dt.datetime) -> int | None:
    """The version of `table` that was the latest at `moment`; None when there was none yet.

    Raises `LakeError` when the log no longer reaches back so far.
    """
    found = lake.open(table)
    if found is None:
        return None
    known = commits(found)
    until = [version for version, committed in known if committed <= moment]
    if until:
        return until[-1]
    first, begun = known[0]
    if first == 0:
        return None
    message = (
        f"table {table}: what it was on {moment:%Y-%m-%d %H:%M} UTC cannot be said: its log "
        f"{found.table_uri} begins with version {first} of {begun:%Y-%m-%d %H:%M}. Something other "
        "than stock-assets removed what was before, or a version of it that did not keep it yet"
    )
    raise LakeError(message)


def versions_at(
    lake: Lake, moment: dt.datetime, tables: Collection[str] | None = None
) -> dict[str, int | None]:
    """The version of each table (all without `tables`) that a reader at `moment` (UTC) saw.

    None for one that had not been written. Raises `LakeError` as `version_at` does.
    """
    wanted = ALL_TABLES if tables is None else tables
    return {name: version_at(lake, name, moment) for name in wanted}


def open_version(lake: Lake, table: str, version: int) -> DeltaTable:
    """An earlier version of `table`, all of whose rows can be read.

    Raises `LakeError` when its log or any of its files is gone.
    """
    try:
        found = lake.open(table, version)
    except LakeError as error:
        raise _gone(table, version, str(error)) from error
    if found is None:
        raise _gone(table, version, "the log does not hold it")
    files = dataset(table, found)
    try:
        states = files.filesystem.get_file_info(files.files)
    except (DeltaError, OSError) as error:
        raise _gone(table, version, str(error)) from error
    lost = [item.path for item in states if not item.is_file]
    if lost:
        why = f"{len(lost)} of its {len(states)} files were removed, such as {lost[0]}"
        raise _gone(table, version, why)
    return found


def _gone(table: str, version: int, why: str) -> LakeError:
    return LakeError(f"table {table}: version {version} cannot be read: {why}. {_KEPT_BY}")
