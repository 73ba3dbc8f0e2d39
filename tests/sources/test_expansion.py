"""Bombs are refused without being unpacked; candles are not bombs."""

from __future__ import annotations

import datetime as dt
import gzip
import tracemalloc
from typing import TYPE_CHECKING

import polars as pl
import pytest

from stock_assets.errors import SourceError
from stock_assets.sources import expansion
from stock_assets.sources.expansion import refuse_bomb

if TYPE_CHECKING:
    from pathlib import Path

LINE = b"2026-06-01,1,2,0.5,1.5,7\n"


def bomb(path: Path, megabytes: int) -> Path:
    with gzip.open(path, "wb", 6) as stream:
        stream.write(b"date,open,high,low,close,volume\n")
        chunk = LINE * (2**20 // len(LINE))
        for _ in range(megabytes):
            stream.write(chunk)
    return path


def test_a_gzip_of_one_line_over_and_over_is_refused_within_little_memory(tmp_path: Path) -> None:
    file = bomb(tmp_path / "A.csv.gz", 80)
    assert file.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(SourceError, match=r"A\.csv\.gz.* unpacks to more than 100 times its"):
        refuse_bomb(file, str(file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_gzip_that_is_small_whatever_its_ratio_is_not(tmp_path: Path) -> None:
    refuse_bomb(bomb(tmp_path / "A.csv.gz", 20), "A")


def test_a_gzip_beyond_the_largest_is_refused_whatever_its_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expansion, "LARGEST", 2**20)
    monkeypatch.setattr(expansion, "_HARMLESS", 2**30)
    with pytest.raises(SourceError, match="unpacks to more than"):
        refuse_bomb(bomb(tmp_path / "A.csv.gz", 3), "A")


def test_a_parquet_of_a_billion_equal_rows_is_refused_by_its_footer(tmp_path: Path) -> None:
    file = tmp_path / "A.parquet"
    day = pl.select(pl.repeat(dt.date(2026, 6, 1), 40_000_000).alias("date"))
    day.with_columns(*(pl.lit(1.0).alias(name) for name in "ohlc")).lazy().sink_parquet(
        file, compression="zstd", row_group_size=10_000_000
    )
    assert file.stat().st_size < 2**20
    refuse_bomb(file, "A")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expansion, "LARGEST", 2**30)
        with pytest.raises(SourceError, match=r"40,000,000 rows"):
            refuse_bomb(file, "A")


@pytest.mark.parametrize("name", ["A.csv.gz", "A.parquet"])
def test_what_only_says_that_it_is_packed_is_unreadable(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is neither")
    with pytest.raises(SourceError, match=f"{name}.* cannot be read"):
        refuse_bomb(tmp_path / name, str(tmp_path / name))


def test_a_gzip_that_was_cut_off_is_unreadable(tmp_path: Path) -> None:
    file = bomb(tmp_path / "A.csv.gz", 2)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SourceError, match="cannot be read"):
        refuse_bomb(file, "A")
