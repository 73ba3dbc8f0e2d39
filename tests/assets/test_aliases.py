"""MLflow's aliases follow a decision; they do not stand in its way."""

from __future__ import annotations

import datetime as dt
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from stock_assets.assets.modelling import _entitle
from stock_assets.forecasting.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_an_alias_that_cannot_be_moved_is_told_and_fails_no_decision(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context: Any = SimpleNamespace(log=logging.getLogger("run"))
    aliases = {"champion": "of-no-registry", "challenger": None}
    _entitle(context, Registry(tmp_path), aliases, dt.date(2026, 6, 30))
    (told,) = caplog.messages
    assert "alias 'champion': there is no model of-no-registry" in told
    assert told.endswith("the next run of `model` moves it")
