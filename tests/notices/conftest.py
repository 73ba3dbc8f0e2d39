"""Notices, journals and settings: what the tests of telling share."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from stock_assets.notices.journal import Journal
from stock_assets.notices.notice import Kind, Level, Notice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = dt.datetime(2026, 11, 20, 18, 30, tzinfo=dt.UTC)


@pytest.fixture
def now() -> dt.datetime:
    return NOW


@pytest.fixture
def make() -> Callable[..., Notice]:
    def make(key: str = "run failed: 1", **changed: object) -> Notice:
        values = {
            "kind": Kind.RUN_FAILED,
            "level": Level.ERROR,
            "when": NOW,
            "what": f"Run failed ({key})",
            "why": "source moex: it answered 503",
            "next": ("Open the run.", "Run it again."),
            "command": "stock-assets run --from 2026-11-20 --to 2026-11-20",
            "link": "http://127.0.0.1:3000/runs/1",
        }
        return Notice(key=key, **(values | changed))

    return make


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "notices").mkdir()
    return Journal(tmp_path / "notices")
