"""Placeholder."""

from __future__ import annotations

from stock_assets.settings import MoexSettings
from stock_assets.sources.api import ApiSource


class MoexSource(ApiSource[MoexSettings]):
    """Placeholder."""
