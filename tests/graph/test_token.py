"""A token of an API stays in the environment, whatever a whole run leaves behind."""

from __future__ import annotations

import datetime as dt
import zipfile
from typing import TYPE_CHECKING

import pytest
from tinvest_server import TOKEN, Listing, TInvestServer, made

from stock_assets.calendars import get_calendar
from stock_assets.sources import tinvest

from .conftest import Market

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

DAY = dt.date(2024, 3, 15)
SESSIONS = get_calendar("XMOS").between(dt.date(2022, 9, 1), DAY)

SETTINGS = """
[lake]
path = "data"
[partitions]
first_day = {day}
[[universe]]
tickers = ["GAZP", "SBER"]
source = "tinvest"
exchange = "XMOS"
[sources.tinvest]
kind = "tinvest"
base_url = "{url}"
interval = "1d"
begin = {begin}
requests_per_second = 50
keep_raw = true
[forecast]
min_training_rows = 100
"""


def test_after_a_run_with_a_training_the_token_is_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINVEST_TOKEN", TOKEN)
    monkeypatch.setattr(tinvest, "_A_MINUTE", dict.fromkeys(tinvest._A_MINUTE, 60_000))
    listings = [
        Listing("SBER", "e6123145-9665-43e0-8413-cd61b8aa9b13"),
        Listing("GAZP", "962e2a95-02a9-4171-abd7-aa198dbe643a"),
    ]
    times = [dt.datetime.combine(day, dt.time(7), dt.UTC) for day in SESSIONS]
    for listing in listings:
        made(listing, "DAY", times)
    with TInvestServer(listings) as server:
        server.limits = dict.fromkeys(server.limits, 100_000)
        text = SETTINGS.format(day=DAY, url=server.rest, begin=SESSIONS[0])
        (tmp_path / "market.toml").write_text(text)
        market = Market(tmp_path)
        market.run(DAY, DAY)
    found = market.tables()
    assert found["forecasts"]["ticker"].n_unique() == 2
    assert found["models"]["challenger"].null_count() == 0, "it has been trained"
    folders = {file.relative_to(tmp_path).parts[1] for file in (tmp_path / "data").rglob("*")}
    assert folders >= {"lake", "mlflow", "raw"}, folders
    holding = [str(file) for file in tmp_path.rglob("*") if file.is_file() and holds_token(file)]
    assert not holding
    assert TOKEN not in "".join(capfd.readouterr())


def holds_token(file: Path) -> bool:
    """Whether it does, unpacked where it is packed."""
    found = file.read_bytes()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            found += b"".join(packed.read(name) for name in packed.namelist())
    return TOKEN.encode() in found
