"""Typed settings: the universe, its sources, where the lake is, and every threshold.

One TOML file, each key also an environment variable (`STOCK_ASSETS_LAKE__PATH`, a double
underscore for each level); the environment wins. Without a file the packaged `sample_market.toml`
is used, which is also the commented example to copy. Secrets come from the environment alone:
sources read theirs by themselves, and those of notices are refused in the file.
"""

from __future__ import annotations

import datetime as dt
import difflib
import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stock_assets.errors import SettingsError
from stock_assets.name_claims import without_strangers
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

_ADDRESS = r"[^@\s<>]+@[^@\s<>]+"
_THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})
_ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - nothing is bound here
"""What servers listen on that answer under every address of their machine: nobody's address."""

_SECRET_KEYS = frozenset({"notices.webhook", "notices.email.password"})
_AROUND_SECRETS = frozenset({"notices", "notices.email", *_SECRET_KEYS})
"""Keys whose value is, or may hold, a secret: it is never repeated."""

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
    """Days for which maintenance keeps the files of replaced rows, so that what was known then can
    be asked; None: for ever (docs/adr/0022 says what that costs)."""

    @property
    def keep(self) -> dt.timedelta | None:
        """`keep_days` as a duration."""
        return None if self.keep_days is None else dt.timedelta(self.keep_days)


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
    """When something counts as moved.

    Thresholds are calibrated on each market's own history so that a market which does not change
    alarms in `false_alarms` of months; docs/drift.md has what that came to.
    """

    reference: int = Field(default=250, ge=20)
    """Sessions to compare with."""
    current: int = Field(default=20, ge=5)
    """Latest sessions that are compared; the length of a block of history as well."""
    history: int = Field(default=1000, ge=0)
    """Sessions before the latest ones on which thresholds are calibrated, at most."""
    false_alarms: float = Field(default=0.05, gt=0, le=0.5)
    """Share of months in which an unchanged market, or one unchanged ticker, may alarm."""
    feature_threshold: float | None = Field(default=None, gt=0)
    """A distance above which every feature of every ticker has drifted, instead of its own."""
    universe_share: float | None = Field(default=None, gt=0, le=1)
    """A share of drifted pairs above which every market has moved, instead of its own."""
    ticker_pages: int = Field(default=10, ge=0)
    """Pages of tickers that are drawn for one day, at most: of those that drifted furthest."""
    keep_pages: Annotated[int, Field(ge=1)] | Literal["forever"] = 90
    """Days which the index lists and whose pages are kept, counted back from the newest. Pages of
    earlier days, drawn because somebody asked, are kept as long from when they were drawn."""


class ScoreSettings(Section):
    """When live forecasts have left their band, for each exchange by itself; and shadows.

    The defaults of the band, measured on simulated markets of calibrated forecasts (1 to 200
    tickers, the correlation of two tickers up to 0.6): a false alarm in about 5 % of months at
    most, asked every day. Intervals of half the width are found within 60 days (docs/adr/0016 has
    the figures).
    """

    window: int = Field(default=60, ge=20)
    """Latest target days that are looked at; on fewer than 20 nothing is said."""
    coverage_tolerance: float = Field(default=0.05, ge=0, lt=0.2)
    """Distance of a coverage from its nominal value that is never a failure."""
    significance: float = Field(default=0.005, gt=0, lt=0.5)
    """Chance from which on more than luck is needed: lower is more patient."""
    shadow: int = Field(default=63, ge=0)
    """Sessions for which a model that was replaced, or rejected, goes on forecasting in shadow, to
    tell what the training was worth; 0: not at all."""


class ServerSettings(Section):
    """The UI that `stock-assets dev` starts, on this machine only."""

    host: str = "127.0.0.1"
    port: int = Field(default=3000, ge=1, le=65535)
    reports_port: int = Field(default=3001, ge=1, le=65535)
    """Where the saved HTML reports are served, so that links in the UI open."""


class EmailSettings(Section):
    """The mail server that notices go through, and whom they go to."""

    host: str = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "ssl", "none"] = "starttls"
    """starttls: encrypted after a greeting (port 587); ssl: from the first byte (port 465)."""
    sender: str = Field(alias="from", pattern=_ADDRESS)
    to: tuple[str, ...] = Field(min_length=1)
    user: str = ""
    """For servers that ask who one is."""
    password: SecretStr = SecretStr("")
    """A secret: only from the environment."""

    @field_validator("to")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            if not re.fullmatch(_ADDRESS, address):
                raise ValueError(f"{address!r} is not an address; write name@example.org")
        return value

    @model_validator(mode="after")
    def _keeps_the_password(self) -> EmailSettings:
        if self.password.get_secret_value() and not self.user:
            raise ValueError("there is a password but no user; add user")
        open_road = self.security == "none" and self.host not in _THIS_MACHINE
        if open_road and self.password.get_secret_value():
            message = 'security = "none" would send the password readable to all; use starttls'
            raise ValueError(message)
        return self


class NoticeSettings(Section):
    """Where people are told what needs them; the log under lake.path/notices is always written."""

    days: int = Field(default=7, ge=1)
    """Checks and decisions on days older than this are not told one by one: that is history."""
    stale_sessions: int = Field(default=3, ge=1)
    """Sessions without a candle from which a single ticker counts as stale; a whole exchange does
    from one."""
    ui: str = ""
    """Address of Dagster's UI in links; left out: http://<server.host>:<server.port>."""
    reports: str = ""
    """Address of the saved pages in links; left out: plain HTTP on server.reports_port, on the
    host of `ui` where that is set, else on <server.host>."""
    webhook: SecretStr | None = None
    """Takes Slack's JSON. A secret, for who knows it can post: only from the environment."""
    email: EmailSettings | None = None

    @field_validator("ui", "reports")
    @classmethod
    def _has_a_host(cls, value: str) -> str:
        if value and not (value.startswith(("http://", "https://")) and urlsplit(value).hostname):
            raise ValueError(f"{value!r} is no address; write https://dagster.example.org")
        return value

    @field_validator("webhook")
    @classmethod
    def _closed_road(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        try:
            parts = urlsplit(value.get_secret_value())
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError("is not an address") from None
        here = parts.scheme == "http" and host in _THIS_MACHINE
        if not host or not (parts.scheme == "https" or here):
            raise ValueError("is not an https address (http only to this machine)")
        return value


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
    notices: NoticeSettings = NoticeSettings()

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
        placed = [
            _placed(item, used[name])
            for name in used
            for item in without_strangers([own for own in self.universe if own.source == name])
        ]
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
    def replays_dir(self) -> Path:
        """Models that replays under other rules trained: a cache, to be deleted at any time."""
        return self.lake.path / "replays"

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
    def notices_dir(self) -> Path:
        """What was told, and what is still to be told."""
        return self.lake.path / "notices"

    @property
    def ui_address(self) -> str:
        """Where links into Dagster's UI lead, without a slash at the end."""
        own = _plain_address(self.server.host, self.server.port)
        return (self.notices.ui or own).rstrip("/")

    @property
    def reports_address(self) -> str:
        """Where links to saved pages lead, without a slash at the end."""
        # The pages are served beside the UI: who reaches one by a public name reaches both.
        host = urlsplit(self.notices.ui).hostname or self.server.host
        own = _plain_address(host, self.server.reports_port)
        return (self.notices.reports or own).rstrip("/")

    @property
    def inbox_dir(self) -> Path:
        """Where dropped files are picked up."""
        return self.lake.path / "inbox"


def _plain_address(host: str, port: int) -> str:
    """The address of a server that listens on `host`, as a browser takes it."""
    if host in _ANY_ADDRESS:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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


def command_line(file: Path | str | None, *words: str) -> str:
    """What to type at a prompt, for the lake of this settings file; None: the usual one."""
    options = ["--settings", str(file)] if file else []
    return shlex.join(["stock-assets", *words, *options])


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
    _refuse_secrets(file, content)
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


def _refuse_secrets(file: Path, content: dict[str, Any]) -> None:
    """Files are copied, shown and committed: secrets must not stand there."""
    for key in sorted(_SECRET_KEYS):
        found: Any = content
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if found:
            variable = _PREFIX + key.upper().replace(".", "__")
            message = (
                f"{file}: {key} is a secret and must not stand in a file: take it out and set the "
                f"environment variable {variable}"
            )
            raise SettingsError(message)


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
        around = key in _AROUND_SECRETS or "token" in key.lower()
        if item["type"] == "extra_forbidden" or around:
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
