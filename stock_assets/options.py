"""What the commands of `stock-assets` share: their options, and how those are read.

The commands themselves are in `cli.py` and the modules it adds; what they print in `console.py`.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Annotated

import typer

from stock_assets.errors import SliceError
from stock_assets.settings import SAMPLE_SETTINGS, SETTINGS_VARIABLE, Settings, load_settings

SettingsOption = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        help="TOML with the lake, universe and sources; default: the sample market.",
        metavar="FILE.toml",
    ),
]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="DAY|MOMENT",
        help="As the lake was at the end of this day (UTC), or at a moment as 2026-05-04T18:30.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def settings_file(option: Path | None) -> Path:
    """The settings file that is meant: the option's, the environment's, or the sample market's."""
    return option or Path(os.environ.get(SETTINGS_VARIABLE, SAMPLE_SETTINGS))


def load(option: Path | None) -> Settings:
    """The settings that are meant. Raises `SettingsError` for a file that is wrong."""
    return load_settings(settings_file(option))


def parse_day(text: str | None, option: str) -> dt.date | None:
    """The day of an option's text. Raises `SliceError` when it is none."""
    if text is None:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        message = f"{option} {text!r} is not a day; write it as 2026-06-30"
        raise SliceError(message) from None


def parse_as_of(text: str | None, now: dt.datetime) -> dt.datetime | None:
    """The moment (UTC) that `--as-of` means: the end of a day, or the moment itself.

    A moment without a zone is in UTC. Raises `SliceError` when it is none, or has not come yet.
    """
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
        day = _is_day(text)
    except ValueError:
        message = (
            f"--as-of {text!r} is neither a day nor a moment; write 2026-05-04, or "
            "2026-05-04T18:30 (UTC), or 2026-05-04T18:30+03:00"
        )
        raise SliceError(message) from None
    moment = moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    if day:
        moment += dt.timedelta(days=1) - dt.timedelta(milliseconds=1)
    if moment > now:
        ends = "the end of that day" if day else "that moment"
        message = (
            f"--as-of {text}: {ends} is still to come (it is {now:%Y-%m-%d %H:%M} UTC); leave it "
            "out for what is known now"
        )
        raise SliceError(message)
    return moment


def _is_day(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def parse_names(text: str | None, option: str) -> list[str] | None:
    """The names of an option's comma-separated text. Raises `SliceError` when it names nothing."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise SliceError(f"{option} {text!r} names nothing; leave it out to mean all of them")
    return names
