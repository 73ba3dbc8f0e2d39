"""What one dbt invocation is asked to do, and how that reaches the plugin inside it.

dbt makes the plugin itself, here within the run's process (docs/adr/0010) or in a `dbt` command, so
that nothing can be passed to it. What differs between runs travels in one JSON file named by one
environment variable, and never as a dbt variable: those are part of what dbt parsed, and changing
one makes it parse the project anew. Everything that needs settings or calendars is worked out
here, so that the plugin needs neither.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from stock_assets.errors import LakeError
from stock_assets.lake.dividends import PREVIOUS_SESSIONS, read_dividends
from stock_assets.lake.splits import split_factors, splits_in_force
from stock_assets.lake.store import Lake
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stock_assets.lake.splits import Split
    from stock_assets.settings import Settings

REQUEST_VARIABLE = "STOCK_ASSETS_DBT_REQUEST"
"""Environment variable with the path of the request's JSON file."""

LOOKBACK_SESSIONS = 282
"""Sessions before a slice that its features can depend on.

The longest window has 252 sessions with the current one, and the return of its oldest bar may be
from 30 sessions before.
"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestedTicker(_Part):
    """A ticker of the slice."""

    ticker: str
    exchange: str
    currency: str


class RequestedSessions(_Part):
    """Sessions of one exchange, consecutive, up to the slice's last day.

    `tickers` are all of the universe that trade by it, of the slice or not. `first_session` is the
    calendar's running number of `days[0]`. `days_ahead_1` and `days_ahead_5` say of each how many
    days later the next and the fifth session was planned to be.
    """

    exchange: str
    tickers: tuple[str, ...]
    first_session: int
    days: tuple[dt.date, ...]
    days_ahead_1: tuple[int, ...]
    days_ahead_5: tuple[int, ...]


class RequestedFactor(_Part):
    """Split factor in force from `day` on."""

    ticker: str
    day: dt.date
    factor: float


class RequestedDividend(_Part):
    """What a share paid on its ex-date; `since` is the earliest day of the close before it."""

    ticker: str
    day: dt.date
    amount: float
    since: dt.date


class RequestedCell(_Part):
    """A day of a ticker."""

    ticker: str
    day: dt.date


class DbtRequest(_Part):
    """All that the plugin must know: the lake, the slice, and what its rows need from elsewhere.

    `lookback_date` is the day from which bars are read for the features, None when the slice
    carries all history.
    """

    lake: Path
    run_id: str
    first_date: dt.date | None
    last_date: dt.date
    lookback_date: dt.date | None
    tickers: tuple[RequestedTicker, ...]
    sessions: tuple[RequestedSessions, ...]
    splits: tuple[RequestedFactor, ...]
    dividends: tuple[RequestedDividend, ...]
    no_splits: tuple[RequestedCell, ...]
    """Days whose move is declared to be the market's: a split of one to one."""

    @property
    def area(self) -> Slice:
        """The slice to build."""
        return Slice(self.first_date, self.last_date, tuple(item.ticker for item in self.tickers))

    @property
    def exchanges(self) -> tuple[str, ...]:
        """Exchanges of the slice's tickers: their tickers are its market."""
        return tuple(item.exchange for item in self.sessions)


def build_request(
    settings: Settings,
    area: Slice,
    *,
    run_id: str = "",
    news: Mapping[str, Sequence[Split]] | None = None,
) -> DbtRequest:
    """The request to make bars and features of `area`, with `news` of splits (`splits.unheard`).

    Raises `SourceError` when the declared splits or dividends cannot be read.
    """
    # Imported here: the plugin reads requests and needs no calendars.
    from stock_assets.calendars import get_calendar  # noqa: PLC0415

    instruments = [settings.instrument(ticker) for ticker in area.tickers]
    sessions = []
    for exchange in sorted({item.exchange for item in instruments}):
        calendar = get_calendar(exchange)
        first = dt.date.min
        if area.first_date is not None:
            first = calendar.back(area.first_date, LOOKBACK_SESSIONS)
        days = calendar.between(first, area.last_date)
        sessions.append(
            RequestedSessions(
                exchange=exchange,
                tickers=tuple(
                    item.ticker for item in settings.universe if item.exchange == exchange
                ),
                first_session=calendar.index(first),
                days=days,
                days_ahead_1=tuple(calendar.days_ahead(day, 1) for day in days),
                days_ahead_5=tuple(calendar.days_ahead(day, 5) for day in days),
            )
        )
    exchanges = {item.ticker: item.exchange for item in instruments}
    known = splits_in_force(settings, Lake(settings.lake_dir), news)
    splits = [item for item in known if item.ticker in exchanges]
    return DbtRequest(
        lake=settings.lake_dir,
        run_id=run_id,
        first_date=area.first_date,
        last_date=area.last_date,
        lookback_date=_earliest(area, sessions),
        tickers=tuple(
            RequestedTicker(ticker=item.ticker, exchange=item.exchange, currency=item.currency)
            for item in instruments
        ),
        sessions=tuple(sessions),
        splits=tuple(
            RequestedFactor(ticker=item.ticker, day=item.day, factor=item.factor)
            for item in split_factors(tuple(splits))
        ),
        dividends=tuple(
            RequestedDividend(
                ticker=item.ticker,
                day=item.day,
                amount=item.amount,
                since=get_calendar(exchanges[item.ticker]).back(item.day, PREVIOUS_SESSIONS),
            )
            for item in read_dividends(settings.lake.dividends)
            if item.ticker in exchanges and item.day <= area.last_date
        ),
        no_splits=tuple(
            RequestedCell(ticker=item.ticker, day=item.day)
            for item in splits
            if item.before == item.after
        ),
    )


def _earliest(area: Slice, sessions: list[RequestedSessions]) -> dt.date | None:
    if area.first_date is None:
        return None
    return min((item.days[0] for item in sessions if item.days), default=area.first_date)


@contextlib.contextmanager
def requested(request: DbtRequest) -> Iterator[Path]:
    """Let dbt, in this process or in one started meanwhile, work on `request`; yields its file.

    The environment is the process's: threads must take turns (`dbt_command.py` sees to it).
    """
    with tempfile.TemporaryDirectory(prefix="stock-assets-dbt-") as folder:
        file = Path(folder) / "request.json"
        file.write_text(request.model_dump_json(), encoding="utf-8")
        before = os.environ.get(REQUEST_VARIABLE)
        os.environ[REQUEST_VARIABLE] = str(file)
        try:
            yield file
        finally:
            if before is None:
                del os.environ[REQUEST_VARIABLE]
            else:
                os.environ[REQUEST_VARIABLE] = before


def read_request() -> DbtRequest:
    """The request that the environment names. Raises `LakeError` when there is none."""
    name = os.environ.get(REQUEST_VARIABLE)
    if not name:
        message = (
            f"dbt runs without {REQUEST_VARIABLE}: which slice to build is not said; run it "
            "through `stock-assets run`, or within stock_assets.lake.dbt_request.requested"
        )
        raise LakeError(message)
    try:
        return DbtRequest.model_validate_json(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise LakeError(f"{REQUEST_VARIABLE}={name} is not a dbt request: {reason}") from error
