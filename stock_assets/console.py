"""Drawing on a terminal: progress and messages on stderr, tables on stdout.

What the numbers are is decided in `overview.py` and the packages it asks.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import polars as pl
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stock_assets.drift.verdict import Verdict
    from stock_assets.forecasting.scoring import Summary
    from stock_assets.notices.notice import Notice
    from stock_assets.outlook import HorizonOutlook, Outlook
    from stock_assets.overview import StaleTicker, TableStatus
    from stock_assets.replay import Replayed
    from stock_assets.sources.checking import Configured
    from stock_assets.sources.inbox import Waiting

_WIDE = 136
"""Columns that a forecast table needs; a narrower terminal wraps lines, not cells."""

_TICKERS_SHOWN = 6

_RARE = 0.001
"""Probability below which a forecast's tail is not to be taken by its number."""

messages = Console(stderr=True, highlight=False)
results = Console(highlight=False)
results.width = max(_WIDE, results.width)


def say(text: str) -> None:
    """A message to the person; never part of a result."""
    messages.print(text, soft_wrap=True)


def warn(text: str) -> None:
    """What a person should know of, whatever characters it holds; the command went on."""
    messages.print(f"[yellow]warning:[/] {_escaped(text)}", soft_wrap=True)


class LogLines(logging.Handler):
    """The package's log as messages: retries and progress of sources, warnings of files."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record: a warning as such, news as they are."""
        # Within a run Dagster has put the run and the step before it.
        text = str(getattr(record, "dagster_meta", {}).get("orig_message", record.getMessage()))
        if record.levelno >= logging.WARNING:
            warn(text)
        else:
            say(_escaped(text))


def show_log() -> None:
    """From now on the package's own log goes to the person, from INFO on."""
    log = logging.getLogger("stock_assets")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, LogLines) for handler in log.handlers):
        log.addHandler(LogLines())
    log.propagate = False


def fail(text: str) -> None:
    """An error message, whatever characters it holds."""
    messages.print(f"[bold red]error:[/] {_escaped(text)}", soft_wrap=True)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


@contextmanager
def progress(title: str, steps: Sequence[str]) -> Iterator[Callable[[str, str], None]]:
    """A bar that moves with a run's `steps`; plain lines where stderr is no terminal."""
    if not messages.is_terminal:
        say(title)

        def lines(step: str, what: str) -> None:
            if step in steps and what != "succeeded":
                say(f"  {step} {what}")

        yield lines
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        console=messages,
    )
    with bar:
        task = bar.add_task(title, total=len(steps))

        def move(step: str, what: str) -> None:
            if step not in steps:
                return
            if what == "started":
                bar.update(task, description=f"{title}: {step}")
            else:
                bar.advance(task)
            if what == "failed":
                bar.console.print(f"[red]{step} failed[/]")

        yield move


def forecast_table(forecasts: pl.DataFrame, horizons: Sequence[int] = (1, 5)) -> Table:
    """Ticker, last price, and for each horizon the median with its 80 % interval."""
    last = forecasts["day"].max() if forecasts.height else "-"
    table = Table(title=f"Forecasts as of {last}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("ticker", no_wrap=True)
    table.add_column("last price", justify="right", no_wrap=True)
    for ahead in horizons:
        label = f"{ahead} session{'s' if ahead > 1 else ''} ahead"
        table.add_column(f"{label}\nmedian  (80 % interval)", justify="right", no_wrap=True)
    table.add_column("model", no_wrap=True)
    for (ticker,), group in forecasts.group_by("ticker", maintain_order=True):
        cells = []
        for ahead in horizons:
            found = group.filter(pl.col("horizon") == ahead)
            cells.append(_interval(found.row(0, named=True)) if found.height else "-")
        first = group.row(0, named=True)
        stale = "" if first["day"] == last else f" ({first['day']})"
        if first["held_from"] is not None:
            stale += f" (that of {first['held_from']} stands)"
        table.add_row(
            f"{ticker}{stale}",
            f"{_price(first['last_price'])} {first['currency']}".strip(),
            *cells,
            str(first["model"]),
        )
    return table


def _interval(row: dict[str, Any]) -> str:
    low, high = _price(row["price_q10"]), _price(row["price_q90"])
    return f"{_price(row['price_q50'])}  ({low} .. {high})"


def _price(value: float) -> str:
    """Five significant digits or two decimals, whichever says more."""
    decimals = max(2, 5 - len(str(int(abs(value))))) if value < 1000 else 2  # noqa: PLR2004
    return f"{value:,.{decimals}f}".replace(",", " ")


def outlook_parts(found: Outlook) -> list[Table | str]:
    """The forecast of one ticker: what it is, its table, and what one has to know."""
    source = found.model + (
        "" if found.model_version is None else f" (version {found.model_version})"
    )
    if found.model_since is not None:
        source += f", in force since {found.model_since} ({found.model_sessions} sessions)"
    parts: list[Table | str] = [
        f"{found.ticker}  {_price(found.last_price)} {found.currency}".rstrip()
        + f"  at the close of {found.held_from or found.day} ({found.exchange})",
        f"Forecast by {source}: {found.model_reason}",
        *(f"! {warning}" for warning in found.warnings),
        _outlook_table(found),
    ]
    if found.horizons[0].above or found.horizons[0].below:
        parts.append(
            "Ends: at that session's close. Touched: traded at the level by then, which is a rough "
            "figure (reflection principle)."
        )
    parts.append(f"Lately, {found.record}")
    return parts


def _outlook_table(found: Outlook) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("ahead", justify="right")
    table.add_column("session", no_wrap=True)
    table.add_column("median", justify="right", no_wrap=True)
    for level in ("50 %", "80 %", "90 %"):
        table.add_column(f"{level} range", justify="right", no_wrap=True)
    table.add_column("sigma", justify="right")
    first = found.horizons[0]
    for word, asked in (("above", first.above), ("below", first.below)):
        if asked is not None:
            label = f"{word} {_price(asked.price)}\nends  (touched)"
            table.add_column(label, justify="right", no_wrap=True, style="bold")
    for item in found.horizons:
        table.add_row(*_outlook_row(item))
    return table


def _outlook_row(item: HorizonOutlook) -> list[str]:
    cells = [str(item.horizon), f"{item.target_day:%a %Y-%m-%d}", _price(item.median)]
    for low, high in (item.range_50, item.range_80, item.range_90):
        cells.append(f"{_price(low)} .. {_price(high)}")
    cells.append(f"{100 * item.sigma:.1f} %")
    asked = (level for level in (item.above, item.below) if level is not None)
    cells += [f"{_chance(level.ends_beyond)}  (~{100 * level.touched:.0f} %)" for level in asked]
    return cells


def replay_parts(found: Replayed) -> list[Table | str]:
    """A forecast that was made again: what from, and whether it is the same."""
    number = "" if found.model_version is None else f" (version {found.model_version})"
    tables = {
        "bars": found.bars_version,
        "features": found.features_version,
        "models": found.models_version,
        "drift": found.drift_version,
    }
    read = ", ".join(f"{name} {version}" for name, version in tables.items() if version is not None)
    horizons = ", ".join(str(item) for item in found.horizons)
    outcome = "DIFFERENT" if found.differences else "equal to the last bit"
    about = f"forecast at the close of {found.day}, {horizons} session(s) ahead"
    parts: list[Table | str] = [
        f"{found.ticker}  {about}, by {found.model}{number}",
        f"Made again from the versions {read}: {outcome}",
    ]
    if found.differences:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("ahead", "column", "stored", "made again"):
            table.add_column(name, no_wrap=True)
        for item in found.differences:
            table.add_row(str(item.horizon), item.column, str(item.stored), str(item.again))
        parts.append(table)
    return parts


def _chance(probability: float) -> str:
    """In per cent. No more is claimed of the tails than that they are there."""
    if probability < _RARE:
        return "< 0.1 %"
    if probability > 1 - _RARE:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"


def verdict_lines(verdict: Verdict | None, page: str | None, index: str | None) -> list[str]:
    """The drift verdict in words, with its page and where all pages are."""
    if verdict is None:
        return ["Drift: nothing evaluated yet."]
    moved = verdict.drifted_tickers
    more = len(moved) - _TICKERS_SHOWN
    return [
        f"Drift: {verdict.sentence}",
        *(f"       {ticker.sentence}" for ticker in moved[:_TICKERS_SHOWN]),
        *([f"       and {more} more tickers that drifted"] if more > 0 else []),
        *(f"       {fault.sentence}" for fault in verdict.faults[:_TICKERS_SHOWN]),
        f"       report: {page or 'none saved for that day'}",
        *([f"       all days: {index}"] if index else []),
    ]


def score_lines(summary: Summary | None) -> list[str]:
    """How the forecasts did, in words and numbers."""
    if summary is None:
        return ["Scores: no forecast has reached its target day yet."]
    return [f"Scores: {summary.sentence}"]


def status_tables(tables: list[TableStatus], stale: list[StaleTicker]) -> list[Table]:
    """What the lake holds, and who is behind."""
    held = Table(title="Tables", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("table", "rows", "days", "from", "to", "tickers", "version", "files", "MB"):
        held.add_column(name, justify="left" if name == "table" else "right")
    for item in tables:
        held.add_row(
            item.table,
            f"{item.rows:,}",
            f"{item.days:,}",
            str(item.first_day or "-"),
            str(item.last_day or "-"),
            str(item.tickers),
            "-" if item.version is None else str(item.version),
            str(item.files),
            f"{item.bytes / 1e6:.2f}",
        )
    if not stale:
        return [held]
    behind = Table(title="Stale tickers", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("ticker", "exchange", "last bar", "last session", "sessions behind"):
        behind.add_column(name)
    for ticker in stale:
        behind.add_row(
            ticker.ticker,
            ticker.exchange,
            str(ticker.last_bar or "none"),
            str(ticker.last_session),
            "-" if ticker.sessions_behind is None else str(ticker.sessions_behind),
        )
    return [held, behind]


def sources_table(sources: Sequence[Configured]) -> Table:
    """The configured sources, one row each."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("source", "kind", "candles", "tickers", "requests/s", "where"):
        table.add_column(name, overflow="fold")
    for item in sources:
        shown = ", ".join(item.tickers[:_TICKERS_SHOWN])
        more = len(item.tickers) - _TICKERS_SHOWN
        table.add_row(
            item.name,
            item.kind,
            item.interval or "as the files",
            shown + (f" and {more} more" if more > 0 else "") or "none",
            "" if item.requests_per_second is None else f"{item.requests_per_second:g}",
            item.where,
        )
    return table


def inbox_table(waiting: list[Waiting]) -> Table:
    """What has been dropped in the inbox and is not filed yet."""
    table = Table(title="Inbox", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("file", "state", "why"):
        table.add_column(name)
    for item in waiting:
        table.add_row(Text(item.file), item.state, Text(item.why))
    return table


def notice_lines(notice: Notice, channels: dict[str, str]) -> list[str]:
    """A notice with what to do next, and what has become of it by channel."""
    lines = [f"{notice.when:%Y-%m-%d %H:%M}  {notice.level.upper()}  {notice.what}"]
    if notice.why:
        lines.append(f"    {notice.why}")
    lines += [f"    {place}. {step}" for place, step in enumerate(notice.next, 1)]
    lines += [f"       {line}" for line in (notice.command, notice.link) if line]
    told = "; ".join(f"{name}: {outcome}" for name, outcome in channels.items())
    lines.append(f"    {notice.kind}, {notice.id}" + (f"; {told}" if told else ""))
    return lines


def print_frame(frame: pl.DataFrame) -> None:
    """A query's result as a table on stdout, whole."""
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=-1,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        fmt_str_lengths=100,
    ):
        print(frame)  # noqa: T201 - the result of the command


def show(*parts: Table | str) -> None:
    """Results to stdout."""
    for part in parts:
        results.print(part, soft_wrap=isinstance(part, str), markup=False)
