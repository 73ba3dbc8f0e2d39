"""What the tests of the sources share: settings of a files source over a temporary folder."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from stock_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def files_settings() -> Callable[..., Settings]:
    """Settings with one files source, `mine`, at a path."""

    def build(path: Path, *tickers: str, exchange: str = "weekdays", **source: Any) -> Settings:
        return Settings(
            partitions={"first_day": dt.date(2018, 1, 3)},
            universe=[{"tickers": list(tickers), "source": "mine", "exchange": exchange}],
            sources={"mine": {"kind": "files", "path": path, **source}},
        )

    return build
