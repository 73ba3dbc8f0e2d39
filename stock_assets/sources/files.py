"""Candles in CSV and Parquet files: a file or a folder, one file a ticker or a ticker column.

What lies here is the meaning of rows: which ticker and day each belongs to, how long a candle is,
what could not be read. Opening files is in `tables.py`, finding columns in `columns.py`, reading
dates, numbers and intervals in `timestamps.py`, `numerals.py` and `intervals.py`; judging the rows
is in `rules.py`.

A file is read in two passes. The first reads only tickers and timestamps, of all rows, because what
a row means hangs on the others: the interval, whether stamps are days or moments, and the cell of a
row that does not say it. The second reads the rest of the rows that are asked for. So a cell is the
same whatever slice asks for it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.errors import SettingsError, SourceError
from stock_assets.slices import Slice
from stock_assets.sources.base import NUMBERS, RAW_SCHEMA, settles_with_session
from stock_assets.sources.columns import Columns, find_columns, recognised
from stock_assets.sources.inbox import Inbox, Place, reads_inbox
from stock_assets.sources.intervals import interval_of, usual_distance
from stock_assets.sources.names import NAME, OtherNames, is_said_of
from stock_assets.sources.numerals import Numerals, is_missing, numerals_of, read_number
from stock_assets.sources.rules import DAILY
from stock_assets.sources.tables import (
    ROW,
    SUFFIXES,
    SURPLUS,
    Table,
    has_suffix,
    open_table,
    quote_rows,
    stem,
)
from stock_assets.sources.timestamps import (
    WALL,
    AmbiguousDatesError,
    join_clock,
    read_stamps,
    to_utc,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from stock_assets.lake.splits import Split
    from stock_assets.settings import FilesSettings, Instrument, Settings

_log = logging.getLogger(__name__)

_NAMES_SHOWN = 10
_NUMERALS_SAMPLE = 1_000
_STRANGER = "__stranger__"


@dataclass(frozen=True)
class _File:
    """One file of the source, opened."""

    name: str
    table: Table
    columns: Columns
    ticker: str | None
    """The ticker, or another name of one, that its name says; None when a column says it."""


@dataclass(frozen=True)
class _Found:
    """What one file has for a slice."""

    rows: pl.DataFrame
    strangers: set[str]
    """Tickers found that are not of this source's universe."""
    is_known: bool
    """Whether anything in the file is of its universe."""


@dataclass(frozen=True)
class Touched:
    """The cells that the rows of one file belong to."""

    first: dt.date
    last: dt.date
    tickers: tuple[str, ...]
    """Those of the source, in the universe's order."""
    names: tuple[str, ...] | None
    """All that the ticker column holds; None where the file's name tells the ticker."""
    days: pl.DataFrame
    """Rows of each ticker and day."""


class FilesSource:
    """The candles in the files at one path."""

    def __init__(self, name: str, own: FilesSettings, settings: Settings) -> None:
        self.name = name
        self._own = own
        self._first_day = settings.partitions.first_day
        self._instruments = {item.ticker: item for item in settings.universe if item.source == name}
        self._names = pl.Enum(list(self._instruments))  # a byte or so for each row, not a text
        self._other_names = OtherNames.of(self._instruments.values())
        self._inbox = Inbox(settings.inbox_dir) if reads_inbox(settings, own) else None
        self._placed: dict[str, Place] = {}

    def fetch(self, instruments: Sequence[Instrument], area: Slice) -> pl.DataFrame:
        """Rows of `instruments` within `area`: files by name, rows in the order of their file.

        Logs one warning that names the tickers which are not of this source's universe. Raises
        `SourceError` for a path or file that cannot be read or has nothing to do with us.
        """
        wanted = [item.ticker for item in instruments]
        foreign: set[str] = set()
        known = self._inbox is not None  # there, who is a stranger is told when the file comes
        parts = []
        names = (*wanted, *self._other_names.of_tickers(wanted))
        for place in self._places(replace(area, tickers=names)):
            found = self._found(place, wanted, area)
            foreign |= found.strangers
            known = known or found.is_known
            parts.append(found.rows)
        if foreign and not known:
            raise SourceError(self._nothing_of_ours(foreign))
        if foreign:
            _log.warning(
                "source %s: ignored what is not in its universe: %s", self.name, _some(foreign)
            )
        return pl.concat([RAW_SCHEMA.to_frame(), *parts])

    def _found(self, place: Place, wanted: Sequence[str], area: Slice) -> _Found:
        """What one file has for a slice. Of the inbox: wherever the file is by now."""
        try:
            return self._read(place, wanted, area)
        except SourceError as error:
            if self._inbox is None:
                raise
            moved = self._by_label(place.label)
            if moved is not None and moved.path != place.path:
                return self._read(moved, wanted, area)
            if moved is not None and moved.is_known:
                raise
            # It was dropped a moment ago, or taken away: the sensor tells who put it there.
            _log.warning("%s", error)
            return _Found(RAW_SCHEMA.to_frame(), set(), is_known=True)

    def _read(self, place: Place, wanted: Sequence[str], area: Slice) -> _Found:
        file = self._open(place.path, place.label)
        nothing = RAW_SCHEMA.to_frame()
        if file.ticker is None and file.columns.ticker is None:
            return _Found(nothing, {stem(place.path)}, is_known=False)
        if file.ticker is not None and not self._owners(file.ticker).intersection(wanted):
            return _Found(nothing, set(), is_known=True)
        keys, strangers = self._keys(file)
        self._warn_of_the_future(place.path, keys)
        inside = (pl.col("day") <= area.last_date) & pl.col("ticker").is_in(wanted)
        if area.first_date is not None:
            inside &= pl.col("day") >= area.first_date
        chosen = keys.filter(inside)
        rows = nothing
        if chosen.height:
            rows = self._rows(file, chosen, everything=chosen.height == keys.height)
        return _Found(rows, strangers, is_known=not strangers or keys.height > 0)

    @property
    def later_files_revise(self) -> bool:
        """Whether a later file's candle replaces an earlier one's: so it is in the inbox."""
        return self._inbox is not None

    def rows_of(self, place: Place) -> pl.DataFrame:
        """All rows (`RAW_SCHEMA`) of one file. Raises `SourceError` like `fetch`."""
        wanted = tuple(self._instruments)
        return self._read(place, wanted, Slice(None, dt.date.max, wanted)).rows

    def _warn_of_the_future(self, path: Path, keys: pl.DataFrame) -> None:
        """Rows dated after today are in no slice yet: say so, for it is usually a mistake."""
        tomorrow = dt.datetime.now(tz=dt.UTC).date() + dt.timedelta(1)
        ahead = keys.filter(pl.col("day") > tomorrow)
        if ahead.height:
            _log.warning(
                "source %s: %s has %d rows dated after today, the first %s: they wait till then",
                self.name,
                path.name,
                ahead.height,
                ahead["day"].min(),
            )

    def splits(self, instruments: Sequence[Instrument]) -> Sequence[Split]:  # noqa: ARG002
        """None: files declare none."""
        return ()

    def settles_at(self, exchange: str, day: dt.date) -> dt.datetime:
        """With the session: what lies here is taken for final then."""
        return settles_with_session(exchange, day)

    def quote(self, rows: pl.DataFrame) -> pl.Series:
        """The rows as they stand in their files, as JSON: text of a CSV, values of Parquet."""
        quoted = []
        for (name,), group in rows.group_by("file", maintain_order=True):
            table = self._quotable(str(name))
            raw = quote_rows(table, group["row"].unique())
            quoted.append(raw.with_columns(pl.lit(name, pl.String).alias("file")))
        found = pl.concat(quoted)
        joined = rows.select("file", "row").join(
            found,
            left_on=["file", "row"],
            right_on=["file", ROW],
            how="left",
            maintain_order="left",
        )
        return joined["raw"]

    def _quotable(self, label: str) -> Table:
        """The file that `fetch` has called so, opened again."""
        if self._inbox is None:
            path = self._own.path if self._own.path.is_file() else self._own.path / label
            return self._open(path, label).table
        place = self._by_label(label)
        if place is None:
            message = f"source {self.name}: {label} was taken out of the inbox; run the slice again"
            raise SourceError(message)
        return self._open(place.path, label).table

    def touched(self, path: Path) -> Touched | None:
        """The cells that the rows of one file belong to; None without rows.

        Raises `SourceError` like `fetch`.
        """
        file = self._open(path, path.name)
        by_name = file.columns.ticker is None
        if file.ticker is None and by_name:
            raise SourceError(self._nothing_of_ours({stem(path)}))
        keys, strangers = self._keys(file)
        if keys.is_empty():
            if strangers:
                raise SourceError(self._nothing_of_ours(strangers))
            return None
        days = keys.group_by("ticker", "day").agg(pl.len().alias("rows"))
        first, last = days["day"].min(), days["day"].max()
        assert isinstance(first, dt.date)
        assert isinstance(last, dt.date)
        found = set(days["ticker"].unique())
        tickers = tuple(ticker for ticker in self._instruments if ticker in found)
        names = None if by_name else tuple(sorted(strangers.union(found)))
        return Touched(first, last, tickers, names, days.cast({"ticker": pl.String}))

    # Which files there are, and whose.

    def files(self) -> list[Path]:
        """The files that it reads, in their order. Raises `SourceError` when there are none."""
        return [place.path for place in self._all_places()]

    def _all_places(self) -> list[Place]:
        tickers = (*self._instruments, *self._other_names.of_tickers(self._instruments))
        return self._places(Slice(None, dt.date.max, tickers))

    def without_rows(self) -> tuple[str, ...]:
        """The tickers that no row of any file is called by, now or formerly.

        Raises `SourceError` for a file that cannot be read; the inbox has refused such a one, and
        says so where it lists what waits.
        """
        found: set[str] = set()
        for place in self._all_places():
            try:
                file = self._open(place.path, place.label)
                if file.ticker is not None or file.columns.ticker is not None:
                    own = file.table.scan().select(ROW, self._whose(file)[1].alias("ticker"))
                    found |= set(file.table.collect(own)["ticker"].cast(pl.String).unique())
            except SourceError:
                if self._inbox is None:
                    raise
        return tuple(ticker for ticker in self._instruments if ticker not in found)

    def _places(self, area: Slice) -> list[Place]:
        """The files that may touch a slice: by name; of the inbox, the later ones last."""
        if self._inbox is None:
            return [Place(path, path.name, is_known=True) for path in self._listed()]
        path = self._own.path.resolve()
        found = self._inbox.places(path, self.name, self.reading, area, self._ticker_of)
        self._placed = {place.label: place for place in found}
        if not found and not self._inbox.holds(path):
            raise SourceError(self._nothing_here())
        return found

    def _by_label(self, label: str) -> Place | None:
        """Where a file of the inbox is now; None when it is nowhere."""
        place = self._placed.get(label)
        if place is None or not place.path.exists():
            self.files()
        return self._placed.get(label)

    @property
    def reading(self) -> str:
        """Fingerprint of the settings by which rows get their cells."""
        said = self._own.model_dump_json(exclude={"path"})
        if self._other_names:
            said += repr(self._other_names)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def _nothing_here(self) -> str:
        return (
            f"source {self.name}: there is no candle file in {self._own.path}; put files named "
            f"{', '.join('*' + suffix for suffix in SUFFIXES)} there or mend "
            f"[sources.{self.name}] path"
        )

    def _listed(self) -> list[Path]:
        path = self._own.path
        if path.is_file():
            return [path]
        if not path.exists():
            message = (
                f"source {self.name}: {path} does not exist; put the candle files there or mend "
                f"[sources.{self.name}] path"
            )
            raise SourceError(message)
        try:
            found = [
                item
                for item in path.iterdir()
                if item.is_file() and has_suffix(item) and not item.name.startswith(".")
            ]
        except OSError as error:
            raise SourceError(f"source {self.name}: cannot list {path}: {error}") from error
        if not found:
            raise SourceError(self._nothing_here())
        return sorted(found, key=lambda item: item.name)

    def _ticker_of(self, path: Path) -> str | None:
        """The ticker that a file's name says; the name itself where it was several tickers'."""
        name = self._named(path)
        owners = self._owners(name) if name else set()
        return owners.pop() if len(owners) == 1 else name

    def _named(self, path: Path) -> str | None:
        """The ticker of this source, or the other name of one, that a file is called by.

        SBER.csv, sber.csv, sber_1d.csv; not BTC of BTC-EUR.csv, which is another instrument.
        """
        name = stem(path)
        names = [*self._instruments, *self._other_names.names]
        if name in names:
            return name
        low = name.casefold()
        for matches in (
            [item for item in names if low == item.casefold()],
            [item for item in names if is_said_of(name, item)],
            [item for item in names if is_said_of(name, item, in_any_case=True)],
        ):
            if len(matches) == 1:
                return matches[0]
        return None

    def _owners(self, name: str) -> set[str]:
        """The tickers to which rows under a name may belong."""
        return {*self._other_names.owners(name), *({name} & self._instruments.keys())}

    def _open(self, path: Path, name: str) -> _File:
        label = f"source {self.name}: file {path}"
        table = open_table(path, label, lambda names: recognised(names, self._own))
        columns = find_columns(table.columns, self._own, self.name, label)
        ticker = None if columns.ticker is not None else self._named(path)
        return _File(name, table, columns, ticker)

    def _nothing_of_ours(self, foreign: set[str]) -> str:
        return (
            f"source {self.name}: nothing in {self._own.path} belongs to a ticker of the universe; "
            f"found {_some(foreign)}, the universe has {_some(self._instruments)}. Name files "
            f"TICKER.csv, or name the column that holds tickers: [sources.{self.name}.columns] "
            f'ticker = "..."; or add the found tickers to the universe with source = "{self.name}"'
        )

    # What the rows are.

    def _keys(self, file: _File) -> tuple[pl.DataFrame, set[str]]:
        """Row, ticker, day, interval, start and fault of all rows that are ours, in file order.

        Also the tickers found that are not ours. Every row gets a cell (see `_filed`).
        """
        columns = file.columns
        name, ticker, stranger = self._whose(file)
        called = [name.alias(NAME)] if self._other_names else []
        own = (ticker.alias("ticker"), stranger, *called)
        scan = file.table.scan().select(ROW, *own, *columns.stamp)
        read = file.table.collect(scan)
        strangers = set(read[_STRANGER].drop_nulls().unique())
        if strangers:
            read = read.filter(pl.col(_STRANGER).is_null())
        named = read.select(ROW, NAME) if self._other_names else None
        read = read.drop(_STRANGER)
        if strangers and read["ticker"].null_count() == read.height:
            return self._no_keys(), strangers
        keys, written = read.select(ROW, "ticker"), _written_stamps(read, columns.stamp)
        del read  # of a large file the text alone is most of the memory
        keys = keys.with_columns(*self._stamps(file, written))
        del written
        keys, unplaced = self._with_days(file, keys)
        keys = keys.with_columns(pl.lit(None, pl.String).alias("fault"))
        faulty = keys.filter(pl.col("ticker").is_null() | pl.col("start").is_null())
        if faulty.height:
            again = file.table.scan().filter(pl.col(ROW).is_in(faulty[ROW].implode()))
            text = file.table.collect(again.select(ROW, *dict.fromkeys(columns.stamp)))
            said = _written_stamps(text, columns.stamp).cast(pl.String).alias("written")
            faults = faulty.join(text.select(ROW, said), on=ROW, how="left", maintain_order="left")
            fault = _key_fault(" and ".join(columns.stamp), unplaced).alias("fault")
            keys = keys.update(faults.select(ROW, fault), on=ROW)
        keys = self._filed(keys)
        if named is not None:
            keys = self._other_names.resolved(keys.join(named, on=ROW, maintain_order="left"))
        return keys, strangers

    def _whose(self, file: _File) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
        """What each row is called, its ticker, and the name again where it is none of ours."""
        if file.columns.ticker is None:
            assert file.ticker is not None
            name = pl.lit(file.ticker, pl.String)
        else:
            name = pl.col(file.columns.ticker).cast(pl.String).str.strip_chars()
        ticker = self._other_names.usual(name).cast(self._names, strict=False)
        is_strange = (name != "") & ticker.is_null()
        return name, ticker, pl.when(is_strange).then(name).alias(_STRANGER)

    def _no_keys(self) -> pl.DataFrame:
        names = ("day", "interval", "start", "fault")
        types = {name: RAW_SCHEMA[name] for name in names}
        return pl.DataFrame(schema={ROW: pl.Int64, "ticker": self._names, **types})

    def _stamps(self, file: _File, written: pl.Series) -> pl.DataFrame:
        try:
            return read_stamps(written)
        except AmbiguousDatesError as error:
            message = (
                f"{file.table.label}: dates such as {str(error)!r} could have the day or the month "
                "first; write them as YYYY-MM-DD"
            )
            raise SourceError(message) from None

    def _with_days(self, file: _File, keys: pl.DataFrame) -> tuple[pl.DataFrame, str]:
        """With interval, day and start: what each stamp means. And what is said of one without.

        Where most stamps are at 00:00 as written they are labels of days, and one that is not is
        at fault. Else they are moments, and the day is the one on the exchange's clock. A daily
        candle starts at 00:00 UTC of its day in either case.
        """
        wall = keys[WALL].drop_nulls()
        midnight = pl.col(WALL).dt.time() == dt.time(0)
        labels = 2 * int((wall.dt.time() == dt.time(0)).sum()) >= wall.len()
        if labels:
            start = pl.when(midnight).then(WALL).dt.replace_time_zone("UTC")
            keys = keys.with_columns(start.alias("start"), pl.col(WALL).dt.date().alias("day"))
            unplaced = "has a time of day, unlike the other rows"
        else:
            keys = keys.with_columns(to_utc(keys, self._own.timezone).alias("start"))
            keys = keys.with_columns(self._local_day().alias("day"))
            unplaced = f"is skipped by the clock of {self._own.timezone}"
        interval = self._interval(file, keys, labels=labels)
        if interval == DAILY and not labels:
            label = pl.col("day").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
            keys = keys.with_columns(label.alias("start"))
        return keys.with_columns(pl.lit(interval).alias("interval")), unplaced

    def _local_day(self) -> pl.Expr:
        """The date of `start` on the clock of each ticker's exchange."""
        zones: dict[str, list[str]] = {}
        for item in self._instruments.values():
            zones.setdefault(get_calendar(item.exchange).timezone, []).append(item.ticker)
        # A row without a ticker is filed with a neighbour anyway: any clock of ours will do.
        day = pl.col("start").dt.convert_time_zone(next(iter(zones))).dt.date()
        for zone, tickers in zones.items():
            local = pl.col("start").dt.convert_time_zone(zone).dt.date()
            day = pl.when(pl.col("ticker").is_in(tickers)).then(local).otherwise(day)
        return day

    def _interval(self, file: _File, keys: pl.DataFrame, *, labels: bool) -> str:
        given = self._own.interval
        if labels:
            if given not in (None, DAILY) and keys["start"].drop_nulls().len():
                message = (
                    f"{file.table.label}: rows are at 00:00 although interval is {given!r}; name "
                    f"the column with the time in [sources.{self.name}.columns], or set "
                    f"interval = {DAILY!r}"
                )
                raise SettingsError(message)
            return DAILY
        if given is not None:
            return given
        distance = usual_distance(keys.select("ticker", "start"))
        interval = interval_of(distance) if distance is not None else None
        if interval is None:
            found = f"rows are {distance} apart" if distance else "there are too few rows"
            message = (
                f"{file.table.label}: {found}, which tells no interval that we know; set "
                f'[sources.{self.name}] interval = "..."'
            )
            raise SourceError(message)
        return interval

    def _filed(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Every row in a cell: what it does not say itself it has from the row before it.

        Else from the row after it; else the source's first ticker and the partitions' first day.
        A row that says its ticker takes the day from rows of that ticker.
        """
        if keys["ticker"].null_count():
            ticker = pl.col("ticker").forward_fill().backward_fill()
            keys = keys.with_columns(ticker.fill_null(next(iter(self._instruments))))
        if keys["day"].null_count():
            day = pl.col("day").forward_fill().backward_fill().over("ticker")
            keys = keys.with_columns(day.fill_null(self._first_day))
        return keys.select(self._no_keys().columns)

    def _rows(self, file: _File, chosen: pl.DataFrame, *, everything: bool) -> pl.DataFrame:
        """The `chosen` keys with their numbers, as `RAW_SCHEMA`."""
        table, columns = file.table, file.columns
        scan = table.scan()
        schema = scan.collect_schema()
        numerals = self._numerals(file, schema)
        if not everything:
            scan = scan.filter(pl.col(ROW).is_in(chosen[ROW].implode()))
        theirs = {name: getattr(columns, name) for name in NUMBERS}
        numbers, faults = [pl.col(ROW)], []
        for ours, name in theirs.items():
            if name is None:
                numbers.append(pl.lit(None, pl.Float64).alias(ours))
                continue
            number = read_number(name, schema[name], numerals)
            numbers.append(number.alias(ours))
            missing = is_missing(name, schema[name])
            if ours in NUMBERS[:-1]:
                faults.append(pl.when(missing).then(pl.lit(f"{ours} is missing")))
            unreadable = number.is_null() & ~missing
            words = pl.format(f"{ours} '{{}}' is not a number", pl.col(name).cast(pl.String))
            faults.append(pl.when(unreadable).then(words))
        if table.is_text:
            words = pl.format(
                f"the row has more fields than the header's {len(table.columns)} (then '{{}}')",
                SURPLUS,
            )
            faults.append(pl.when(pl.col(SURPLUS).is_not_null()).then(words))
        values = table.collect(
            scan.select(
                *numbers, pl.concat_str(faults, separator="; ", ignore_nulls=True).alias("more")
            )
        )
        found = chosen.join(values, on=ROW, how="left", maintain_order="left")
        fault = pl.concat_str(
            "fault", pl.when(pl.col("more") != "").then("more"), separator="; ", ignore_nulls=True
        )
        return found.with_columns(
            pl.when(fault != "").then(fault).alias("fault"),
            pl.col("ticker").cast(pl.String),
            pl.lit(self.name).alias("source"),
            pl.lit(file.name).alias("file"),
            pl.col(ROW).alias("row"),
        ).select(RAW_SCHEMA.names())

    def _numerals(self, file: _File, schema: pl.Schema) -> Numerals:
        columns = file.columns
        names = dict.fromkeys(
            (columns.close, columns.open, columns.high, columns.low, columns.volume)
        )
        texts = [name for name in names if name is not None and schema[name] == pl.String]
        if not texts:
            return Numerals()
        sample = file.table.collect(file.table.scan().select(texts).head(_NUMERALS_SAMPLE))
        return numerals_of(sample, texts[0])


def _written_stamps(read: pl.DataFrame, stamp: tuple[str, ...]) -> pl.Series:
    if len(stamp) == 1:
        return read[stamp[0]]
    return join_clock(read[stamp[0]], read[stamp[1]])


def _key_fault(stamp: str, unplaced: str) -> pl.Expr:
    """What of a row's ticker and timestamp (the file's column `stamp`) could not be read."""

    def of_stamp(what: str) -> pl.Expr:
        return pl.concat_str(pl.lit(f"{stamp} '"), "written", pl.lit(f"' {what}"))

    reasons = [
        pl.when(pl.col("ticker").is_null()).then(pl.lit("ticker is missing")),
        pl.when(pl.col("written").is_null())
        .then(pl.lit(f"{stamp} is missing"))
        .when(pl.col(WALL).is_null())
        .then(of_stamp("is not a date or time"))
        .when(pl.col("start").is_null())
        .then(of_stamp(unplaced)),
    ]
    joined = pl.concat_str(reasons, separator="; ", ignore_nulls=True)
    return pl.when(joined != "").then(joined).alias("fault")


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _NAMES_SHOWN} more" if len(listed) > _NAMES_SHOWN else ""
    return ", ".join(repr(name) for name in listed[:_NAMES_SHOWN]) + more
