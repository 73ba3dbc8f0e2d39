"""What Dagster's daemon tells of a backfill, without the names of all its cells.

At each look at a backfill under way the daemon logs every cell that is asked for, in progress and
done, asset by asset: for one of 50 tickers x 1,305 days that is 129 MB on the terminal in front of
which `stock-assets dev` was typed. Longer lists are told as how many they are, the first and the
last; warnings, which name the cells that failed, are left whole. A filter on the daemon's own
logger; nothing of Dagster is replaced.
"""

from __future__ import annotations

import logging
import os
import re

LOGGER = "dagster.daemon.BackfillDaemon"
OFF_SWITCH = "STOCK_ASSETS_SHORT_BACKFILL_LOG"
"""Environment variable: 0 leaves Dagster's own lists."""

SHOWN = 20
"""So many cells are still told by name."""

_LIST = re.compile(r"^(- [^\n{]+: )\{([^{}\n]*)\}$", re.MULTILINE)


def shortened(text: str) -> str:
    """The text with each list of an asset's cells cut short."""
    return _LIST.sub(_short, text)


def _short(found: re.Match[str]) -> str:
    keys = found[2].split(", ")
    if len(keys) <= SHOWN:
        return found[0]
    return f"{found[1]}{{{len(keys):,} partitions between {min(keys)} and {max(keys)}}}"


class ShortLists(logging.Filter):
    """Cuts the lists in what is logged; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record's message in place."""
        if record.levelno < logging.WARNING and isinstance(record.msg, str) and not record.args:
            record.msg = shortened(record.msg)
        return True


def install_short_backfill_log() -> None:
    """Have this process log backfills with short lists, unless the off switch says no."""
    logger = logging.getLogger(LOGGER)
    installed = any(isinstance(one, ShortLists) for one in logger.filters)
    if not installed and os.environ.get(OFF_SWITCH) != "0":
        logger.addFilter(ShortLists())
