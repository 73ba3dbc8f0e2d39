"""T-Invest's token stays out of what Dagster and the lake write down."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from tinvest_server import TOKEN, Listing, TInvestServer, made

from stock_assets.graph import build_definitions
from stock_assets.launch import open_instance, prepare_home, run_slice
from stock_assets.partitions import Grid
from stock_assets.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_the_token_is_in_no_event_of_dagster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINVEST_TOKEN", TOKEN)
    listing = Listing("SBER", "e6123145-9665-43e0-8413-cd61b8aa9b13")
    made(listing, "DAY", [dt.datetime(2024, 3, 4, 7, tzinfo=dt.UTC)])
    with TInvestServer([listing]) as server, mock.patch.dict(os.environ):
        run_twice(server, tmp_path)
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"[secret]" in written
    assert TOKEN.encode() not in written


def run_twice(server: TInvestServer, tmp_path: Path) -> None:
    """Once well, once refused by an API that repeats what it was sent."""
    file = tmp_path / "market.toml"
    file.write_text(
        '[lake]\npath = "lake"\n[partitions]\nfirst_day = 2024-03-04\n'
        f'[sources.tinvest]\nkind = "tinvest"\nbase_url = "{server.rest}"\nattempts = 1\n'
        '[[universe]]\nticker = "SBER"\nsource = "tinvest"\n',
        encoding="utf-8",
    )
    settings = load_settings(file)
    grid = Grid.of(settings)
    day = dt.date(2024, 3, 4)
    area = grid.slice(day, day, ("SBER",))
    server.echo = True
    prepare_home(settings, file)
    with open_instance() as instance:
        definitions = build_definitions(settings)
        done = run_slice(definitions, instance, grid, area, assets=("candles", "quarantine"))
        assert done.success
        server.refuse = (30061, 3, "odd")
        failed = run_slice(definitions, instance, grid, area, assets=("candles", "quarantine"))
        assert not failed.success
