"""Placeholder."""

from __future__ import annotations

from stock_assets.settings import TInvestSettings
from stock_assets.sources.api import ApiSource


class TInvestSource(ApiSource[TInvestSettings]):
    """Placeholder."""
