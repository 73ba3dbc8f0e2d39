"""A sensor on the inbox: a new or changed file asks for exactly the slice that it touches.

Files are known by their content: touching one asks for nothing.
How a file is read, and which cells its rows belong to, is in `sources/files.py`; it is read by the
sources of kind `files` whose path lies in the inbox.
"""

import datetime as dt
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from stock_assets.automation.jobs import Jobs
from stock_assets.errors import StockAssetsError
from stock_assets.partitions import Grid
from stock_assets.settings import FilesSettings, Settings
from stock_assets.sources.files import cells_touched


@dataclass(frozen=True)
class Touched:
    """The days and tickers that one file's rows belong to, and the hash of its bytes."""

    first: dt.date
    last: dt.date
    tickers: tuple[str, ...]
    digest: str


SETTLED_SECONDS = 5.0
"""A file that changed more recently may still be being written."""


def build_inbox_sensor(settings: Settings, grid: Grid, jobs: Jobs) -> dg.SensorDefinition:
    """The sensor over `<lake.path>/inbox`."""

    @dg.sensor(
        name="inbox",
        job=jobs.daily,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Runs the slice that a file dropped in {settings.inbox_dir} touches.",
    )
    def inbox(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        sources = inbox_sources(settings)
        if not sources:
            return dg.SkipReason(f"no source of kind 'files' reads from {settings.inbox_dir}")
        known: dict[str, list[str]] = json.loads(context.cursor or "{}")
        seen: dict[str, list[str]] = {}
        touched: list[Touched] = []
        for file, owners in settled_files(settings, sources):
            stamp = f"{file.stat().st_size}:{file.stat().st_mtime_ns}"
            before = known.get(file.name, ["", ""])
            # Contents are read only when the file was touched at all.
            digest = before[1] if before[0] == stamp else content_hash(file)
            seen[file.name] = [stamp, digest]
            if digest == before[1]:
                continue
            refusals = []
            for source in owners:
                try:
                    if (found := cells_touched(file, settings, source)) is not None:
                        touched.append(Touched(*found, digest))
                except StockAssetsError as error:
                    refusals.append(str(error))
            if len(refusals) == len(owners):
                # Said once for each content: the same bytes will not read better next time.
                context.log.warning(
                    "inbox file %s asks for nothing: %s", file.name, "; ".join(refusals)
                )
        return dg.SensorResult(
            run_requests=requests_for(touched, grid), cursor=json.dumps(known | seen)
        )

    return inbox


def inbox_sources(settings: Settings) -> dict[str, Path]:
    """Sources of files that read from the inbox, by name, with the path that each reads."""
    inbox = settings.inbox_dir.resolve()
    return {
        name: source.path.resolve()
        for name, source in settings.sources.items()
        if isinstance(source, FilesSettings) and source.path.resolve().is_relative_to(inbox)
    }


def settled_files(settings: Settings, sources: dict[str, Path]) -> list[tuple[Path, list[str]]]:
    """Files of the inbox that are not being written, each with the sources that may read it."""
    found = []
    for file in sorted(settings.inbox_dir.resolve().iterdir()):
        if not file.is_file() or file.name.startswith("."):
            continue
        if time.time() - file.stat().st_mtime < SETTLED_SECONDS:
            continue
        owners = [name for name, path in sources.items() if path in (file, file.parent)]
        if owners:
            found.append((file, owners))
    return found


def content_hash(file: Path) -> str:
    """SHA-256 of the file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def requests_for(touched: Sequence[Touched], grid: Grid) -> list[dg.RunRequest]:
    """One request for each run over the tickers that were touched on the same days.

    Files that came together are run together: features that span tickers then see all of them.
    Rows of history mean the first day of the partitions.
    """
    by_days: dict[tuple[dt.date, dt.date], list[Touched]] = {}
    for item in touched:
        days = item.first, max(item.last, grid.sessions[0])
        by_days.setdefault(days, []).append(item)
    requests = []
    for (first, last), items in sorted(by_days.items()):
        digest = hashlib.sha256("".join(sorted(item.digest for item in items)).encode())
        area = grid.slice(first, last, [name for item in items for name in item.tickers])
        requests += [
            dg.RunRequest(
                run_key=f"{digest.hexdigest()}:{run.last_date}:{run.tickers[0]}",
                tags=grid.tags(run),
            )
            for run in grid.runs(area)
        ]
    return requests
