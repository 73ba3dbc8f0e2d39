"""How large a compressed file is when it is unpacked, found out without unpacking it into memory.

What is refused here would fill memory or a disk for a few bytes of file: a bomb, or a mistake that
works like one.
"""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.errors import SourceError
from stock_assets.sources.tables import is_gzip, is_parquet

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 4 * 2**30
"""Bytes that a file may have when it is unpacked."""

_HARMLESS = 64 * 2**20
"""Up to so many bytes any ratio will do."""
_RATIO = 100
"""Candles as text shrink to a fifth or a tenth; gzip at its best shrinks zeros to a thousandth."""
_CHUNK = 2**20
_NUMBER = 8


def refuse_bomb(path: Path, label: str) -> None:
    """Raise `SourceError` for a file that unpacks to far more than it is.

    A gzip is unpacked piece by piece and no further than to the limit; of a Parquet the footer is
    asked. Another file is what it is.
    """
    try:
        if is_gzip(path):
            _refuse_gzip(path, label)
        elif is_parquet(path):
            _refuse_parquet(path, label)
    except (OSError, EOFError, zlib.error, pl.exceptions.PolarsError) as error:
        what = str(error).strip() or type(error).__name__
        message = f"{label} cannot be read: {what}; export it again or remove it"
        raise SourceError(message) from error


def _refuse_gzip(path: Path, label: str) -> None:
    packed, unpacked = path.stat().st_size, 0
    with gzip.open(path) as stream:
        while chunk := stream.read(_CHUNK):
            unpacked += len(chunk)
            if unpacked > LARGEST:
                raise _too_large(label, f"more than {LARGEST / 2**30:.0f} GB")
            if unpacked > max(_HARMLESS, _RATIO * packed):
                raise _too_large(label, f"more than {_RATIO} times its {packed:,} bytes")


def _refuse_parquet(path: Path, label: str) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        footer = pq.read_metadata(path)
    except pa.ArrowException as error:
        raise SourceError(
            f"{label} cannot be read: {error}; export it again or remove it"
        ) from None
    said = sum(footer.row_group(n).total_byte_size for n in range(footer.num_row_groups))
    # A column of one value takes a few bytes, whatever its rows: they are unpacked all the same.
    unpacked = max(said, footer.num_rows * footer.num_columns * _NUMBER)
    if unpacked > LARGEST:
        words = f"{unpacked / 2**30:,.0f} GB ({footer.num_rows:,} rows)"
        raise _too_large(label, words)


def _too_large(label: str, what: str) -> SourceError:
    return SourceError(f"{label} unpacks to {what}; cut it into smaller files, or remove it")
