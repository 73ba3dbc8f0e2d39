"""Typed settings: the universe, its sources, where the lake is, and every threshold.

One TOML file, each key also an environment variable (`STOCK_ASSETS_LAKE__PATH`, a double
underscore for each level); the environment wins. Without a file the packaged `sample_market.toml`
is used, which is also the commented example to copy. Secrets are never settings: sources read
them from the environment by themselves.
"""

from __future__ import annotations

import datetime as dt
import difflib
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stock_assets.errors import SettingsError
from stock_assets.slices import CELLS_PER_RUN
from stock_assets.source_settings import (
    BUILT_IN_SOURCES,
    OWN_CALENDARS,
    ApiSettings,
    CbrSettings,
    FilesSettings,
    Instrument,
    MoexSettings,
    Section,
    SimulatedSettings,
    SourceSettings,
    TInvestSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ApiSettings",
    "CbrSettings",
    "FilesSettings",
    "Instrument",
    "MoexSettings",
    "Settings",
    "SimulatedSettings",
    "TInvestSettings",
    "load_settings",
]

SETTINGS_VARIABLE = "STOCK_ASSETS_SETTINGS"
"""Environment variable with the path of the settings file, for processes Dagster starts."""

_PREFIX = "STOCK_ASSETS_"

SAMPLE_SETTINGS = Path(__file__).with_name("sample_market.toml")
PROJECT_DIR = Path(__file__).resolve().parent.parent


class LakeSettings(Section):
    """Where everything that the product writes lives."""

    path: Path = Path("data")
    """Folder of the lake and its by-products; relative to the settings file."""

    dividends: Path | None = None
    """CSV with ticker,date,amount (ex-date, per share as traded that day), or such a folder."""

    splits: Path | None = None
    """CSV with ticker,date,before,after, or a folder of such files named by ticker."""

    keep_days: int | None = Field(default=None, ge=1)
    """Days for which `stock-assets maintain` keeps the files of replaced rows, so that what was
    known then can be asked; None: for ever (docs/adr/0022 says what that costs)."""


class PartitionSettings(Section):
    """The days that are partitions."""

    first_day: dt.date = dt.date(2025, 1, 3)
    """First day of the partitions: its cell carries all earlier history as well.

    A fixed day also when it is left out: partitions must not change by themselves."""

    cells_per_run: int = Field(default=CELLS_PER_RUN, ge=1)
    """Days x tickers above which a run is cut along its days (docs/adr/0008 says why here)."""


class ForecastSettings(Section):
    """What is forecast, and when the model trains."""

    horizons: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Sessions ahead."""
    cadence: int = Field(default=63, ge=1)
    """Sessions between routine trainings."""
    cooldown: int = Field(default=21, ge=0)
    """Sessions after a training during which drift does not ask for another."""
    min_training_rows: int = Field(default=1000, ge=50)
    """Labelled (day, ticker) rows below which no model is trained: the baseline answers."""
    window: int = Field(default=2600, ge=250)
    """Sessions of history that a training looks at: what bounds its cost."""

    @field_validator("horizons")
    @classmethod
    def _sane_horizons(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or sorted(set(value)) != list(value) or value[0] < 1 or value[-1] > 5:  # noqa: PLR2004
            raise ValueError("horizons must be rising sessions between 1 and 5, such as [1, 5]")
        return value


class DriftSettings(Section):
    """When the universe counts as moved.

    The defaults, measured day by day on 50 Moscow stocks 2014-2026: 6 % of months hold an alarm
    (2014-03, 2014-12 to 2015-01, 2020-03 to -04, 2022-01 to -04, 2026-06), in six episodes:
    neighbouring days share all but one session of their windows.
    """

    reference: int = Field(default=250, ge=20)
    """Sessions to compare with."""
    current: int = Field(default=20, ge=5)
    """Latest sessions that are compared."""
    feature_threshold: float = Field(default=1.0, gt=0)
    """Normed Wasserstein distance from which one feature of one ticker has drifted."""
    universe_share: float = Field(default=0.3, gt=0, le=1)
    """Share of drifted (ticker, feature) pairs from which the universe has moved."""


class ScoreSettings(Section):
    """When live forecasts have left their band, for each exchange by itself.

    The defaults, measured on simulated markets of calibrated forecasts (1 to 200 tickers, the
    correlation of two tickers up to 0.6): a false alarm in about 5 % of months at most, asked every
    day. Intervals of half the width are found within 60 days (docs/adr/0016 has the figures).
    """

    window: int = Field(default=60, ge=20)
    """Latest target days that are looked at; on fewer than 20 nothing is said."""
    coverage_tolerance: float = Field(default=0.05, ge=0, lt=0.2)
    """Distance of a coverage from its nominal value that is never a failure."""
    significance: float = Field(default=0.005, gt=0, lt=0.5)
    """Chance from which on more than luck is needed: lower is more patient."""


class ServerSettings(Section):
    """The UI that `stock-assets dev` starts, on this machine only."""

    host: str = "127.0.0.1"
    port: int = Field(default=3000, ge=1, le=65535)
    reports_port: int = Field(default=3001, ge=1, le=65535)
    """Where the saved HTML reports are served, so that links in the UI open."""


class Settings(BaseSettings):
    """All settings. Build with `load_settings`, which names the culprit in its errors."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter="__", extra="ignore", frozen=True
    )

    lake: LakeSettings = LakeSettings()
    partitions: PartitionSettings = PartitionSettings()
    universe: tuple[Instrument, ...] = Field(min_length=1)
    sources: dict[str, SourceSettings] = Field(default_factory=dict)
    """By name. The built-in ones (moex, tinvest, cbr) need no entry: their defaults suffice."""
    forecast: ForecastSettings = ForecastSettings()
    drift: DriftSettings = DriftSettings()
    scores: ScoreSettings = ScoreSettings()
    server: ServerSettings = ServerSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the parent's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; no .env files, no secrets directory."""
        return env_settings, init_settings

    @field_validator("universe", mode="before")
    @classmethod
    def _one_entry_a_ticker(cls, value: Any) -> Any:
        """An entry may say `tickers = [...]` where many share everything else."""
        if not isinstance(value, list | tuple):
            return value
        entries: list[Any] = []
        for entry in value:
            if isinstance(entry, dict) and "tickers" in entry:
                if not isinstance(entry["tickers"], list | tuple) or not entry["tickers"]:
                    message = f"universe: tickers = {entry['tickers']!r} must be a list of names"
                    raise ValueError(message)
                rest = {key: val for key, val in entry.items() if key != "tickers"}
                entries += [{**rest, "ticker": ticker} for ticker in entry["tickers"]]
            else:
                entries.append(entry)
        return entries

    @field_validator("sources", mode="after")
    @classmethod
    def _with_built_in(cls, value: dict[str, SourceSettings]) -> dict[str, SourceSettings]:
        """The user's own entry of that name wins, whatever its kind."""
        return {**BUILT_IN_SOURCES, **value}

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        seen: set[str] = set()
        for instrument in self.universe:
            name = instrument.ticker
            if name in seen:
                raise ValueError(f"universe: ticker {name!r} is listed twice; keep one entry")
            seen.add(name)
            if instrument.source not in self.sources:
                message = (
                    f"universe: ticker {name!r} names the source {instrument.source!r}, which is "
                    f"not defined; add [sources.{instrument.source}] or use one of "
                    f"{sorted(self.sources)}"
                )
                raise ValueError(message)
        named = {item.source for item in self.universe}
        used = {
            name: source
            for name, source in self.sources.items()
            if name in named or source is not BUILT_IN_SOURCES.get(name)
        }
        object.__setattr__(self, "sources", used)
        # Tickers of one exchange stand together: one exchange is then one range of partitions.
        placed = [_placed(item, used[item.source]) for item in self.universe]
        ordered = tuple(sorted(placed, key=lambda item: (item.exchange, item.ticker)))
        object.__setattr__(self, "universe", ordered)
        return self

    @property
    def tickers(self) -> tuple[str, ...]:
        """All tickers, in the order of the partitions: by exchange, then by name."""
        return tuple(item.ticker for item in self.universe)

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The calendars of the universe, sorted."""
        return tuple(sorted({item.exchange for item in self.universe}))

    def instrument(self, ticker: str) -> Instrument:
        """The universe's entry of `ticker`."""
        return self.instruments[ticker]

    @property
    def instruments(self) -> dict[str, Instrument]:
        """The universe by ticker."""
        return {item.ticker: item for item in self.universe}

    # Where things live: one decision, taken here and nowhere else.

    @property
    def lake_dir(self) -> Path:
        """The Delta tables, one folder each."""
        return self.lake.path / "lake"

    @property
    def reports_dir(self) -> Path:
        """Saved HTML pages."""
        return self.lake_dir / "reports"

    @property
    def mlflow_dir(self) -> Path:
        """The model registry: its database and artifacts."""
        return self.lake.path / "mlflow"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME of the lake: runs and events."""
        return self.lake.path / "dagster"

    @property
    def fetched_dir(self) -> Path:
        """Answers of APIs on their way to the lake, and what is left of the hosts' limits."""
        return self.lake.path / "fetched"

    @property
    def raw_dir(self) -> Path:
        """Answers of APIs that are kept, where a source says so."""
        return self.lake.path / "raw"

    @property
    def inbox_dir(self) -> Path:
        """Where dropped files are picked up."""
        return self.lake.path / "inbox"


def _placed(instrument: Instrument, source: SourceSettings) -> Instrument:
    """The instrument with its source's exchange and currency, where it says none itself."""
    if source.kind not in OWN_CALENDARS:
        return instrument
    exchange, currency = OWN_CALENDARS[source.kind]
    said = instrument.model_fields_set
    return instrument.model_copy(
        update={
            "exchange": instrument.exchange if "exchange" in said else exchange,
            "currency": instrument.currency if "currency" in said else currency,
        }
    )


def load_settings(path: Path | None = None) -> Settings:
    """Settings from `path`, else the file named by STOCK_ASSETS_SETTINGS, else the sample market.

    Raises `SettingsError` naming the file, the key and the fix.
    """
    named = path or (Path(name) if (name := os.environ.get(SETTINGS_VARIABLE)) else None)
    file = (named or SAMPLE_SETTINGS).expanduser().resolve()
    # The packaged sample belongs to no folder of the user's: its lake is the project's data/.
    base = file.parent if named and file != SAMPLE_SETTINGS.resolve() else PROJECT_DIR
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"settings file {file} does not exist; copy {SAMPLE_SETTINGS} there and edit it"
        raise SettingsError(message) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings file {file} is not valid TOML: {error}") from None
    _refuse_unknown_sections(file, content)
    _refuse_unknown_variables()
    try:
        settings = Settings(**content)
    except ValidationError as error:
        raise SettingsError(_explain(file, error)) from None
    except SettingsError:
        raise
    except Exception as error:  # pydantic-settings wraps bad JSON in an environment variable
        if type(error).__name__ != "SettingsError":
            raise
        message = f"environment variable STOCK_ASSETS_...: {error}; complex values are JSON"
        raise SettingsError(message) from None
    return _anchored(settings, base)


def _refuse_unknown_sections(file: Path, content: dict[str, Any]) -> None:
    for key in content:
        if key not in Settings.model_fields:
            close = difflib.get_close_matches(key, Settings.model_fields, n=1)
            known = sorted(Settings.model_fields)
            hint = f"did you mean {close[0]!r}?" if close else f"use one of {known}"
            raise SettingsError(f"{file}: unknown section or key {key!r}; {hint}")


def _refuse_unknown_variables() -> None:
    """A section mistyped in the environment would be ignored silently otherwise."""
    for variable in sorted(os.environ):
        section, inner, _ = variable.removeprefix(_PREFIX).lower().partition("__")
        if not variable.startswith(_PREFIX) or not inner or section in Settings.model_fields:
            continue
        close = difflib.get_close_matches(section, Settings.model_fields, n=1)
        known = close or sorted(Settings.model_fields)
        message = (
            f"environment variable {variable}: there is no section {section!r} in the settings; "
            f"use {' or '.join(repr(name) for name in known)}"
        )
        raise SettingsError(message)


def _explain(file: Path, error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "settings"
        given = item.get("input")
        shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
        if item["type"] == "extra_forbidden" or "token" in key.lower():
            shown = ""  # it may be a secret that stands in the wrong place
        advice = {
            "missing": "is missing; add it",
            "extra_forbidden": "is not a setting; remove it or mend its spelling",
        }.get(item["type"], item["msg"].removeprefix("Value error, "))
        lines.append(f"{key}: {advice}{shown}")
    variables = [name for name in os.environ if name.startswith("STOCK_ASSETS_")]
    names = ", ".join(sorted(variables))
    note = f" (environment variables also read: {names})" if variables else ""
    return f"{file}: " + "; ".join(lines) + note


def _anchored(settings: Settings, base: Path) -> Settings:
    """Relative paths mean: relative to the settings file."""

    def absolute(path: Path) -> Path:
        return path if path.is_absolute() else (base / path.expanduser()).resolve()

    lake = settings.lake.model_copy(
        update={
            "path": absolute(settings.lake.path),
            "splits": absolute(settings.lake.splits) if settings.lake.splits else None,
            "dividends": absolute(settings.lake.dividends) if settings.lake.dividends else None,
        }
    )
    sources = {name: _anchored_source(item, absolute) for name, item in settings.sources.items()}
    return settings.model_copy(update={"lake": lake, "sources": sources})


def _anchored_source(source: SourceSettings, absolute: Callable[[Path], Path]) -> SourceSettings:
    if isinstance(source, FilesSettings):
        return source.model_copy(update={"path": absolute(source.path)})
    if isinstance(source, TInvestSettings) and source.ca_bundle is not None:
        return source.model_copy(update={"ca_bundle": absolute(source.ca_bundle)})
    return source
