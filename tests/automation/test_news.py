"""What a look asks of an API fits into a tick, everyone has a turn, and who had none is told."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
import pytest
from api_server import ApiServer, Fault
from werkzeug.wrappers import Request, Response

from stock_assets.automation import news
from stock_assets.automation.gaps import Held
from stock_assets.automation.news import News, look_for_news, turn_of
from stock_assets.automation.schedules import LOOKS, look
from stock_assets.calendars import get_calendar
from stock_assets.errors import SourceError
from stock_assets.lake.store import Lake
from stock_assets.partitions import Grid
from stock_assets.settings import MoexSettings, Settings, load_settings
from stock_assets.slices import Slice
from stock_assets.sources import making
from stock_assets.sources.api import PARSED_SCHEMA, ApiSource
from stock_assets.sources.http import Client
from stock_assets.sources.rules import Judged

from .market import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stock_assets.sources.windows import Window

MOSCOW = get_calendar("XMOS")
DAY = dt.date(2026, 6, 10)
SESSIONS = MOSCOW.between(MOSCOW.back(DAY, 19), DAY)
NAMES = tuple(f"T{number:03d}" for number in range(200))


class PlainSource(ApiSource[MoexSettings]):
    """An API whose answer is lines of day and close."""

    window_days = {"1d": 3660, "1m": 7}  # noqa: RUF012 - a ClassVar in the parent

    def connect(self) -> Client:
        return Client(self.name, self.own, self.own.base_url, self.limits_dir)

    def beginning(self, client: Client, window: Window) -> dt.date | None:
        raise NotImplementedError

    def ask(self, client: Client, window: Window) -> list[bytes]:
        asked = {"first": str(window.first), "last": str(window.last)}
        return [client.send("GET", f"/{window.symbol}", lambda answer: answer.body, params=asked)]

    def rows(self, window: Window, bodies: Sequence[bytes]) -> pl.DataFrame:  # noqa: ARG002
        found = []
        for line in bodies[0].decode().split():
            day, close = dt.date.fromisoformat(line[:10]), float(line[11:])
            start = dt.datetime.combine(day, dt.time(0), tzinfo=dt.UTC)
            found.append((day, start, 1.0, 2.0, 0.5, close, 7.0, None, line))
        return pl.DataFrame(found, schema=PARSED_SCHEMA, orient="row")

    def file(self, window: Window) -> str:
        return window.symbol

    def probe(self, client: Client) -> str:
        raise NotImplementedError

    def look_up(self, client: Client, window: Window) -> None:
        raise NotImplementedError

    def nearest(self, client: Client, window: Window) -> list[str]:
        raise NotImplementedError


class Exchange:
    """What the API says, and the lake that has heard some of it."""

    def __init__(self, folder: Path, names: Sequence[str], url: str, **own: object) -> None:
        lines = "".join(f"\n{name} = {value}" for name, value in own.items())
        (folder / "settings.toml").write_text(
            f"""
[lake]
path = "data"
[partitions]
first_day = 2026-05-04
[[universe]]
tickers = {list(names)}
source = "plain"
exchange = "XMOS"
[sources.plain]
kind = "moex"
base_url = "{url}"{lines}
"""
        )
        self.settings: Settings = load_settings(folder / "settings.toml")
        self.lake = Lake(self.settings.lake_dir)

    def held(self, missing: Sequence[tuple[dt.date, str]] = ()) -> Held:
        """All sessions of all tickers, but for some."""
        everything = {(day, name) for day in SESSIONS for name in self.settings.tickers}
        empty: frozenset[dt.date] = frozenset()
        return Held(
            SESSIONS, DAY, frozenset(everything - set(missing)), frozenset(), frozenset(missing),
            empty, empty, empty,
        )  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Slice]:
    """The slices that sources are asked for; they have nothing."""
    slices: list[Slice] = []
    nothing = Judged(rows_of("candles", []), rows_of("quarantine", []), 0)

    def fetch(_: Settings, area: Slice, **__: object) -> Judged:
        slices.append(area)
        return nothing

    monkeypatch.setattr(news, "fetch_slice", fetch)
    return slices


def looked(exchange: Exchange, held: Held, turn: int = 0) -> News:
    now = MOSCOW.closes_at(DAY) + LOOKS[0]
    return look_for_news(exchange.settings, exchange.lake, held, now, turn)


def test_all_have_their_turn_within_as_many_looks_as_the_limit_needs(
    tmp_path: Path, asked: list[Slice]
) -> None:
    exchange = Exchange(tmp_path, NAMES, "http://127.0.0.1:9", requests_per_second=4)
    most = 4 * 25 // 2  # two requests a ticker, for 25 seconds
    seen: set[str] = set()
    for turn in range(7, 7 + len(NAMES) // most):
        asked.clear()
        found = looked(exchange, exchange.held(), turn)
        tickers = {name for area in asked for name in area.tickers}
        assert len(tickers) == most
        assert found.unasked == set(NAMES) - tickers
        assert not seen & tickers
        assert {area.first_date for area in asked} == {SESSIONS[-5]}
        seen |= tickers
    assert seen == set(NAMES)


def test_who_lacks_the_last_session_comes_first_then_who_lacks_another(
    tmp_path: Path, asked: list[Slice]
) -> None:
    exchange = Exchange(tmp_path, NAMES, "http://127.0.0.1:9", requests_per_second=4)
    urgent, lacking = NAMES[100:130], NAMES[150:160]
    missing = [(DAY, name) for name in urgent] + [(SESSIONS[0], name) for name in lacking]
    for turn in range(5):
        asked.clear()
        looked(exchange, exchange.held(missing), turn)
        tickers = {name for area in asked for name in area.tickers}
        assert tickers >= {*urgent, *lacking}
        assert len(tickers) == 50
    first = {name: area.first_date for area in asked for name in area.tickers}
    assert {first[name] for name in lacking} == {SESSIONS[0]}


def test_minutes_cost_more_than_days_and_someone_is_always_asked(
    tmp_path: Path, asked: list[Slice]
) -> None:
    exchange = Exchange(
        tmp_path, NAMES, "http://127.0.0.1:9", interval='"1m"', requests_per_second=0.1
    )
    turns = []
    for turn in range(3):
        asked.clear()
        looked(exchange, exchange.held(), turn)
        turns += [name for area in asked for name in area.tickers]
    assert turns == list(NAMES[:3])


def test_without_revisions_only_what_is_missing_is_asked_for(
    tmp_path: Path, asked: list[Slice]
) -> None:
    exchange = Exchange(tmp_path, NAMES, "http://127.0.0.1:9", revisions=0)
    assert looked(exchange, exchange.held()) == News(*[frozenset()] * 4)
    assert asked == []
    looked(exchange, exchange.held([(DAY, NAMES[3])]))
    assert asked == [Slice(DAY, DAY, (NAMES[3],))]


def test_looks_are_counted_one_by_one_through_weekends() -> None:
    opened = MOSCOW.closes_at(dt.date(2026, 6, 5))
    moments = [opened + dt.timedelta(days=day) + delay for day in range(4) for delay in LOOKS]
    turns = [turn_of(opened, moment, LOOKS) for moment in moments]
    assert turns == list(range(turns[0], turns[0] + len(moments)))


@pytest.fixture
def said() -> dict[str, str]:
    return {}


@pytest.fixture
def server(said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setitem(making._APIS, MoexSettings, PlainSource)

    def answer(request: Request) -> Response:
        first, last = request.args["first"], request.args["last"]
        lines = [item for item in said[request.path[1:]].split() if first <= item[:10] <= last]
        return Response("\n".join(lines))

    with ApiServer(answer) as serving:
        yield serving


def days(close: float = 1.5) -> list[str]:
    return [f"{day}={close}" for day in SESSIONS]


def test_an_api_s_correction_is_found_and_nothing_when_it_says_the_same(
    tmp_path: Path, server: ApiServer, said: dict[str, str]
) -> None:
    exchange = Exchange(tmp_path, "AB", server.url, requests_per_second=50)
    said.update({name: "\n".join(days()) for name in "AB"})
    said["B"] = said["B"].replace(f"{SESSIONS[-3]}=1.5", f"{SESSIONS[-3]}=9")  # breaks a rule
    area = Slice(None, DAY, ("A", "B"))
    now = MOSCOW.closes_at(DAY) + LOOKS[0]
    stored = news.fetch_slice(exchange.settings, Slice(SESSIONS[0], DAY, ("A", "B")), now=now)
    exchange.lake.write("candles", stored.candles, area)
    exchange.lake.write("quarantine", stored.quarantine, area)
    bad = (SESSIONS[-3], "B")
    held = exchange.held([bad])
    held = Held(**{**vars(held), "set_aside": frozenset([bad])})
    assert looked(exchange, held) == News(*[frozenset()] * 4)
    said["A"] = said["A"].replace(f"{DAY}=1.5", f"{DAY}=1.25")
    said["B"] = said["B"].replace("=9", "=1.75")
    found = looked(exchange, held)
    assert (found.revised, found.arrived) == ({(DAY, "A")}, {bad})


def test_a_host_that_hangs_fails_the_tick_in_time_and_names_itself(
    tmp_path: Path, server: ApiServer, said: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "FINISHED", dt.timedelta(seconds=1))
    exchange = Exchange(tmp_path, NAMES[:20], server.url, requests_per_second=50, timeout=30)
    said.update({name: "\n".join(days()) for name in NAMES})
    server.fail_at_random(1.0, Fault("slow", seconds=4))
    began = time.monotonic()
    with pytest.raises(SourceError, match="source plain: 20 of 20"):
        looked(exchange, exchange.held())
    assert time.monotonic() - began < 25
    server.fail_at_random(0)


@pytest.mark.usefixtures("asked")
def test_a_look_tells_whom_it_had_no_time_for(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path, NAMES[:60], "http://127.0.0.1:9", requests_per_second=4)
    settings, grid = exchange.settings, Grid.of(exchange.settings)
    area = grid.slice(grid.sessions[0], DAY, settings.tickers)
    cells = [(day, name) for day in MOSCOW.between(grid.sessions[0], DAY) for name in area.tickers]
    keys = [{"day": day, "ticker": name} for day, name in cells]
    start = [dt.datetime.combine(day, dt.time(0), tzinfo=dt.UTC) for day, _ in cells]
    candles = [
        {**key, "start": moment, "source": "plain"} for key, moment in zip(keys, start, strict=True)
    ]
    exchange.lake.write("candles", rows_of("candles", candles), area)
    exchange.lake.write("bars", rows_of("bars", keys), area)
    after = [{**key, "horizon": 1, "target_day": MOSCOW.after(key["day"], 1)[0]} for key in keys]
    exchange.lake.write("forecasts", rows_of("forecasts", after), area)
    scores = [{**key, "horizon": 1, "forecast_day": key["day"]} for key in keys]
    exchange.lake.write("scores", rows_of("scores", scores), area)
    now = MOSCOW.closes_at(DAY) + LOOKS[0]
    with dg.DagsterInstance.ephemeral() as instance:
        found = look("XMOS", settings, grid, instance, now=now, tick=now)
    assert isinstance(found, dg.SkipReason)
    message = str(found.skip_message)
    assert "10 tickers have their turn at later looks, as the limits of their sources" in message
