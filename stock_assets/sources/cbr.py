"""Placeholder."""

from __future__ import annotations

from stock_assets.settings import CbrSettings
from stock_assets.sources.api import ApiSource


class CbrSource(ApiSource[CbrSettings]):
    """Placeholder."""
