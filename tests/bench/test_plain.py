"""The script that the chain is measured against still does the chain's work."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.lake.dbt_command import build
from stock_assets.lake.dbt_request import build_request
from stock_assets.settings import Instrument, SimulatedSettings
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice
from stock_assets.sources.simulated import SimulatedSource

if TYPE_CHECKING:
    from pathlib import Path

LAST = dt.date(2026, 6, 29)
BEGIN = dt.date(2025, 1, 6)
SPLIT, JUMP = dt.date(2025, 9, 15), dt.date(2026, 3, 16)
TICKERS = ("AAA", "BBB", "CCC")


@pytest.mark.slow
def test_the_plain_script_makes_the_features_that_the_graph_makes(tmp_path: Path) -> None:
    from market import Market, write_settings  # noqa: PLC0415
    from part_chain import _compile  # noqa: PLC0415
    from plain import Plain, ingest, transform  # noqa: PLC0415
    from product import Product  # noqa: PLC0415

    own = SimulatedSettings(kind="simulated", begin=BEGIN, interval="1d")
    instruments = [Instrument(ticker=name, source="market", exchange="XMOS") for name in TICKERS]
    found = SimulatedSource("market", own).fetch(instruments, Slice(None, LAST, TICKERS))
    numbers = ["open", "high", "low", "close", "volume"]
    candles = found.select("ticker", pl.col("start").alias("timestamp"), *numbers)
    # A split that is declared, one that is not, and dividends.
    for ticker, day, ratio in (("AAA", SPLIT, 10.0), ("BBB", JUMP, 100.0)):
        later = (pl.col("ticker") == ticker) & (pl.col("timestamp").dt.date() >= day)
        candles = candles.with_columns(
            pl.when(later).then(pl.col(name) / ratio).otherwise(name).alias(name)
            for name in numbers[:4]
        )
    splits, dividends = tmp_path / "splits.csv", tmp_path / "dividends.csv"
    splits.write_text(f"ticker,date,before,after\nAAA,{SPLIT},1,10\n")
    dividends.write_text(f"ticker,date,amount\nAAA,{JUMP},1.5\nCCC,{SPLIT},2\n")
    file = tmp_path / "candles.parquet"
    candles.write_parquet(file)
    market = Market("simulated", file, splits, candles)
    settings_file = write_settings(market, tmp_path, dt.date(2026, 6, 1))
    written = settings_file.read_text()
    settings_file.write_text(written.replace("[lake]\n", f'[lake]\ndividends = "{dividends}"\n'))
    product = Product(settings_file)
    (tmp_path / "plain").mkdir()
    _compile(product, tmp_path / "compiled", days=20)
    plain = Plain(product.settings, LAST, tmp_path / "plain")
    ingest(plain)
    transform(plain, tmp_path / "compiled" / "compiled" / "stock_assets" / "models")

    area = Slice(None, LAST, TICKERS)
    product.lake.write("candles", fetch_slice(product.settings, area).candles, area)
    outcome = build(build_request(product.settings, area, run_id="a-run"), ["bars", "features"])
    assert outcome.error is None
    for table in ("bars", "features"):
        graph = product.lake.read(table)
        assert_frame_equal(plain.read(table).select(graph.columns), graph, check_row_order=False)
        assert graph.height > 1_000
    bars = product.lake.read("bars")
    assert bars["dividend_factor"].count() > 100
    assert bars.filter(pl.col("suspected_split") == 100).select("day", "ticker").rows() == [
        (JUMP, "BBB")
    ]
