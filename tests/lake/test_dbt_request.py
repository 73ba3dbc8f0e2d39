"""What a dbt invocation is told, and that it is told completely."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from typing import TYPE_CHECKING

import pytest

from stock_assets import calendars
from stock_assets.calendars import get_calendar
from stock_assets.errors import LakeError
from stock_assets.lake.dbt_request import (
    LOOKBACK_SESSIONS,
    REQUEST_VARIABLE,
    build_request,
    read_request,
    requested,
)
from stock_assets.settings import Settings, load_settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from pathlib import Path

DAY = dt.date(2026, 6, 10)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "splits.csv").write_text(
        "ticker,date,before,after\nA,2020-01-02,1,2\nA,2030-01-02,1,2\nB,2020-01-02,1,3\n"
    )
    file = tmp_path / "settings.toml"
    file.write_text(
        """
        lake.splits = "splits.csv"
        partitions.first_day = 2026-01-05
        sources.made.kind = "simulated"
        universe = [
            {ticker = "A", source = "made", exchange = "XMOS", currency = "RUB"},
            {ticker = "B", source = "made", exchange = "XNYS"},
            {ticker = "C", source = "made", exchange = "XNYS"},
        ]
        """
    )
    return load_settings(file)


def test_sessions_reach_as_far_back_as_features_look(settings: Settings) -> None:
    request = build_request(settings, Slice(DAY, DAY, ("A", "B")))
    for part, exchange in zip(request.sessions, ("XMOS", "XNYS"), strict=True):
        calendar = get_calendar(exchange)
        assert part.exchange == exchange
        assert len(part.days) == LOOKBACK_SESSIONS + 1
        assert part.days[-1] == DAY
        assert part.days == calendar.between(part.days[0], part.days[-1])
        assert calendar.index(part.days[0]) == part.first_session
    assert request.lookback_date == min(part.days[0] for part in request.sessions)


@pytest.mark.parametrize(
    ("exchange", "first_closed"),
    [
        ("XMOS", dt.date(2022, 2, 28)),
        ("XNYS", dt.date(2001, 9, 11)),
        ("XNYS", dt.date(2012, 10, 29)),
    ],
)
def test_a_closure_that_nobody_foresaw_is_not_told_before(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, exchange: str, first_closed: dt.date
) -> None:
    """All that the days before are told is what a calendar without the closure tells."""
    ticker = "A" if exchange == "XMOS" else "B"
    area = Slice(None, first_closed - dt.timedelta(1), (ticker,))
    (known,) = build_request(settings, area).sessions
    real = get_calendar(exchange)
    closures = tuple(day for day in real.unforeseen if day >= first_closed)
    unbroken = dataclasses.replace(real, sessions=tuple(sorted({*real.sessions, *closures})))
    monkeypatch.setattr(calendars, "get_calendar", lambda _: unbroken)
    assert build_request(settings, area).sessions == (known,)
    # Afterwards they are history: the session before the closure was five or more days before.
    assert real.after(area.last_date, 1)[0] > unbroken.after(area.last_date, 1)[0]


def test_slice_with_history_looks_back_without_end(settings: Settings) -> None:
    request = build_request(settings, Slice(None, DAY, ("C",)))
    assert request.lookback_date is None
    assert request.exchanges == ("XNYS",)
    (part,) = request.sessions
    calendar = get_calendar("XNYS")
    assert part.first_session == 0
    assert part.days[0] == calendar.sessions[0]
    assert part.days[-1] == DAY


def test_only_the_slice_s_own_instruments_and_splits_are_told(settings: Settings) -> None:
    request = build_request(settings, Slice(DAY, DAY, ("A",)), run_id="r")
    assert [(item.ticker, item.currency) for item in request.tickers] == [("A", "RUB")]
    assert {(item.ticker, item.factor) for item in request.splits} == {("A", 2.0), ("A", 4.0)}
    assert (request.run_id, request.lake) == ("r", settings.lake_dir)
    assert request.area == Slice(DAY, DAY, ("A",))


def test_request_survives_the_environment(settings: Settings) -> None:
    request = build_request(settings, Slice(None, DAY, ("A", "B", "C")))
    with requested(request) as file:
        assert read_request() == request
    assert not file.exists()
    assert REQUEST_VARIABLE not in os.environ


def test_nested_requests_give_way_to_the_outer_one(settings: Settings) -> None:
    outer = build_request(settings, Slice(None, DAY, ("A",)))
    with requested(outer):
        with requested(build_request(settings, Slice(DAY, DAY, ("B",)))):
            assert read_request() != outer
        assert read_request() == outer


def test_no_request_and_rubbish_are_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(LakeError, match=f"{REQUEST_VARIABLE}.*stock-assets run"):
        read_request()
    file = tmp_path / "request.json"
    monkeypatch.setenv(REQUEST_VARIABLE, str(file))
    with pytest.raises(LakeError, match="is not a dbt request"):
        read_request()
    file.write_text('{"lake": 1}')
    with pytest.raises(LakeError, match="is not a dbt request"):
        read_request()
