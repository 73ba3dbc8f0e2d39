"""A sensor on the inbox: a new or changed file asks for exactly the slice that it touches.

Files are known by their content: touching one, or renaming it back and forth, asks for nothing.
How a file is read, and which cells its rows belong to, is in `sources/files.py`; it is read by the
sources of kind `files` whose path lies in the inbox.
"""

import hashlib
import json
import time
from pathlib import Path

import dagster as dg

from stock_assets.automation.jobs import Jobs
from stock_assets.errors import StockAssetsError
from stock_assets.partitions import Grid
from stock_assets.settings import FilesSettings, Settings
from stock_assets.sources.files import cells_touched

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
        known: dict[str, str] = json.loads(context.cursor or "{}")
        seen: dict[str, str] = {}
        requests: list[dg.RunRequest] = []
        for file, source in settled_files(settings, sources):
            name = str(file.relative_to(settings.inbox_dir))
            seen[name] = content_hash(file)
            if known.get(name) == seen[name]:
                continue
            try:
                requests += requests_for(file, source, seen[name], settings, grid)
            except StockAssetsError as error:
                # Said once for each content: the same bytes will not read better next time.
                context.log.warning("inbox file %s asks for nothing: %s", name, error)
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(known | seen))

    return inbox


def inbox_sources(settings: Settings) -> dict[str, Path]:
    """Sources of files that read from the inbox, by name, with the path that each reads."""
    inbox = settings.inbox_dir.resolve()
    return {
        name: source.path
        for name, source in settings.sources.items()
        if isinstance(source, FilesSettings) and source.path.resolve().is_relative_to(inbox)
    }


def settled_files(settings: Settings, sources: dict[str, Path]) -> list[tuple[Path, str]]:
    """Files of the inbox that are not being written, each with the source that reads it."""
    found = []
    for file in sorted(settings.inbox_dir.rglob("*")):
        if not file.is_file() or file.name.startswith("."):
            continue
        if time.time() - file.stat().st_mtime < SETTLED_SECONDS:
            continue
        owner = next((n for n, path in sources.items() if file.is_relative_to(path)), None)
        if owner is not None:
            found.append((file, owner))
    return found


def content_hash(file: Path) -> str:
    """SHA-256 of the file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def requests_for(
    file: Path, source: str, digest: str, settings: Settings, grid: Grid
) -> list[dg.RunRequest]:
    """One request for each block of neighbouring tickers; rows of history mean the first day."""
    touched = cells_touched(file, settings, source)
    if touched is None:
        return []
    first, last, tickers = touched
    last = max(last, grid.sessions[0])
    requests = []
    for block in grid.blocks(tickers):
        tags = grid.tags(grid.slice(first, last, block))
        requests.append(
            dg.RunRequest(
                run_key=f"{digest}:{block[0]}", tags={**tags, "stock_assets/inbox": file.name}
            )
        )
    return requests
