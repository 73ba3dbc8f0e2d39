"""What a dbt invocation is told, and that it is told completely."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

import pytest

from stock_assets.calendars import get_calendar
from stock_assets.errors import LakeError
from stock_assets.lake.dbt_request import (
    AHEAD_SESSIONS,
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


def test_sessions_reach_as_far_back_and_ahead_as_features_look(settings: Settings) -> None:
    request = build_request(settings, Slice(DAY, DAY, ("A", "B")))
    for part, exchange in zip(request.sessions, ("XMOS", "XNYS"), strict=True):
        calendar = get_calendar(exchange)
        assert part.exchange == exchange
        assert len(part.days) == LOOKBACK_SESSIONS + 1 + AHEAD_SESSIONS
        assert part.days[LOOKBACK_SESSIONS] == DAY
        assert part.days == calendar.between(part.days[0], part.days[-1])
        assert calendar.index(part.days[0]) == part.first_session
    assert request.lookback_date == min(part.days[0] for part in request.sessions)


def test_slice_with_history_looks_back_without_end(settings: Settings) -> None:
    request = build_request(settings, Slice(None, DAY, ("C",)))
    assert request.lookback_date is None
    assert request.exchanges == ("XNYS",)
    (part,) = request.sessions
    calendar = get_calendar("XNYS")
    assert part.first_session == 0
    assert part.days[0] == calendar.sessions[0]
    assert part.days[-AHEAD_SESSIONS - 1 :] == (DAY, *calendar.after(DAY, AHEAD_SESSIONS))


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
