"""Fixtures that more than one test package uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real candles; tests that need it skip on machines without them."""
    folder = Path(os.environ.get("STOCK_ASSETS_SHARED", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "moex_daily_dev_tqbr.parquet").exists():
        pytest.skip(f"real candles are not on this machine ({folder}); set STOCK_ASSETS_SHARED")
    return folder


@pytest.fixture(autouse=True)
def _no_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own STOCK_ASSETS_... variables must not change what a test sees."""
    for name in list(os.environ):
        if name.startswith("STOCK_ASSETS_") and name != "STOCK_ASSETS_SHARED":
            monkeypatch.delenv(name)
