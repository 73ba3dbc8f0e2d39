"""What the lake says at a glance: the forecast table, the drift verdict, the scores, the status.

Numbers come from the one place that decides each of them; how they are drawn on a terminal is in
`console.py`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.drift.verdict import Verdict, verdicts
from stock_assets.forecasting.scoring import Summary, summarise
from stock_assets.lake.maintenance import table_sizes
from stock_assets.lake.schemas import ALL_TABLES, LEDGERS
from stock_assets.lake.views import connect, rows
from stock_assets.sources.settling import latest_settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from stock_assets.lake.store import Lake
    from stock_assets.settings import Settings


def latest_forecasts(
    connection: duckdb.DuckDBPyConnection, tickers: Sequence[str], last: dt.date | None = None
) -> pl.DataFrame:
    """The newest forecasts of each ticker (up to `last`), one row a horizon."""
    marks = ", ".join("?" * len(tickers))
    limit = "and day <= ?" if last else ""
    query = (
        f"select * from forecasts where ticker in ({marks}) {limit} "  # noqa: S608
        "qualify day = max(day) over (partition by ticker) order by ticker, horizon"
    )
    values: list[str | dt.date] = [*tickers, *([last] if last else [])]
    found = pl.from_arrow(connection.sql(query, params=values).to_arrow_table())
    assert isinstance(found, pl.DataFrame)
    return found


def latest_verdict(
    connection: duckdb.DuckDBPyConnection, settings: Settings, last: dt.date | None = None
) -> Verdict | None:
    """The universe's drift verdict on the newest day evaluated (up to `last`)."""
    day = latest_drift_day(connection, last)
    if day is None:
        return None
    found = verdicts(rows(connection, "drift", day, day), settings)
    return found[-1] if found else None


def latest_drift_day(
    connection: duckdb.DuckDBPyConnection, last: dt.date | None = None
) -> dt.date | None:
    """The newest day with drift's numbers (up to `last`)."""
    limit = "where day <= ?" if last else ""
    query = f"select max(day) from drift {limit}"  # noqa: S608
    ((day,),) = connection.execute(query, [last] if last else []).fetchall()
    assert day is None or isinstance(day, dt.date)
    return day


def score_summary(connection: duckdb.DuckDBPyConnection, last: dt.date) -> Summary | None:
    """How all forecasts up to `last` have scored; None while there is nothing to score."""
    scored = rows(connection, "scores", None, last)
    return None if scored.is_empty() else summarise(scored)


@dataclass(frozen=True)
class TableStatus:
    """What the lake holds of one table."""

    table: str
    rows: int
    first_day: dt.date | None
    last_day: dt.date | None
    days: int
    tickers: int
    version: int | None
    files: int
    bytes: int


@dataclass(frozen=True)
class StaleTicker:
    """A ticker whose last bar is older than the last session that is over."""

    ticker: str
    exchange: str
    last_bar: dt.date | None
    last_session: dt.date
    sessions_behind: int | None


def table_status(lake: Lake) -> list[TableStatus]:
    """One row a table."""
    found = []
    with connect(lake) as connection:
        for name in ALL_TABLES:
            tickers = "0" if name in LEDGERS else "count(distinct ticker)"
            counts = f"count(*), min(day), max(day), count(distinct day), {tickers}"
            query = f"select {counts} from {name}"  # noqa: S608
            (numbers,) = connection.sql(query).fetchall()
            sizes = table_sizes(lake, name)
            found.append(
                TableStatus(
                    name,
                    rows=numbers[0],
                    first_day=numbers[1],
                    last_day=numbers[2],
                    days=numbers[3],
                    tickers=numbers[4],
                    version=lake.version(name),
                    files=len(sizes),
                    bytes=sum(sizes),
                )
            )
    return found


def stale_tickers(lake: Lake, settings: Settings, now: dt.datetime) -> list[StaleTicker]:
    """Tickers whose bars do not reach the last session that has settled at `now`.

    Of a delisted ticker: the last session on which it was traded.
    """
    with connect(lake) as connection:
        last = dict(connection.sql("select ticker, max(day) from bars group by ticker").fetchall())
    behind = []
    for item in settings.universe:
        calendar = get_calendar(item.exchange)
        session = latest_settled(settings, item.exchange, now, source=item.source)
        if item.delisted is not None and item.delisted < session:
            session = calendar.between(calendar.sessions[0], item.delisted)[-1]
        bar = last.get(item.ticker)
        if bar is None or bar < session:
            missed = None if bar is None else calendar.index(session) - calendar.index(bar)
            behind.append(StaleTicker(item.ticker, item.exchange, bar, session, missed))
    return behind


def instruments(settings: Settings) -> pl.DataFrame:
    """The universe as a table, one row a ticker: what the settings say of it."""
    rows = [
        {
            **item.model_dump(exclude={"formerly"}),
            "symbol": item.source_symbol,
            "formerly": [former.symbol for former in item.formerly],
        }
        for item in settings.universe
    ]
    typed = {
        "lot": pl.Int64,
        "listed": pl.Date,
        "delisted": pl.Date,
        "formerly": pl.List(pl.String),
    }
    return pl.DataFrame(rows, schema_overrides=typed)


def plain(value: Any) -> Any:
    """A dataclass or a list of them as JSON-ready values."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {
        key: item.isoformat() if isinstance(item, dt.date) else item
        for key, item in asdict(value).items()
    }
