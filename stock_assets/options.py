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


def parse_names(text: str | None, option: str) -> list[str] | None:
    """The names of an option's comma-separated text. Raises `SliceError` when it names nothing."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise SliceError(f"{option} {text!r} names nothing; leave it out to mean all of them")
    return names
