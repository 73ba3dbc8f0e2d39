"""Where the saved drift pages are. How a page is drawn is in `reports.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from stock_assets.settings import Settings


def page_file(settings: Settings, day: dt.date) -> Path:
    """The Evidently page of `day`, whether it has been saved or not."""
    return settings.reports_dir / "drift" / f"{day.isoformat()}.html"
