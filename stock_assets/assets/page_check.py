"""Pages are by-products: what keeps one from being drawn or saved costs no numbers, no decision.

The step that has written its rows goes on. The failure is in the run's log with its traceback, in
the materialization and in a check that fails with a warning. What is drawn is in `drift/`.
"""

import datetime as dt
import traceback
from collections.abc import Callable

import dagster as dg
import duckdb

from stock_assets.errors import StockAssetsError

PAGES_CHECK = "pages_are_drawn"

_NOT_OUR_MISTAKES = (
    StockAssetsError,
    OSError,
    MemoryError,
    duckdb.IOException,
    duckdb.OutOfMemoryException,
)
"""A full disk, a folder that is not ours, a process that the system killed, rows that are gone.

Anything else is a mistake in the code, and fails the step as it should.
"""


class PageCheck:
    """The attempts of one asset's steps to draw pages, and the check that says how they went."""

    def __init__(self, asset: str) -> None:
        self.asset = asset
        self._failed: dict[str, list[str]] = {}
        """By run: what could not be done, until its check has said so."""

    @property
    def spec(self) -> dg.AssetCheckSpec:
        """The check."""
        return dg.AssetCheckSpec(
            PAGES_CHECK,
            asset=self.asset,
            description=(
                "Warns when drift's pages or their index could not be drawn or saved. The rows are "
                "in the lake all the same, and what follows from them goes on."
            ),
        )

    def attempt(
        self, context: dg.AssetExecutionContext, failure: str, draw: Callable[[], object]
    ) -> bool:
        """Do `draw`; whether it could be done. `failure` says in a clause that it could not."""
        try:
            draw()
        except _NOT_OUR_MISTAKES as error:
            told = f"{failure}: {str(error) or type(error).__name__}"
            self._failed.setdefault(context.run.run_id, []).append(told)
            # As text: the event log, which the UI shows, keeps no exception beside a message.
            context.log.error("%s\n%s", told, traceback.format_exc())  # noqa: TRY400
            return False
        return True

    def told(self, context: dg.AssetExecutionContext, day: dt.date) -> str:
        """What this run could not draw of `day`, and what to do; nothing where it could."""
        failed = self._failed.get(context.run.run_id)
        if not failed:
            return ""
        again = (
            f"once that is mended, `stock-assets drift {day}` draws pages that are missing, and "
            "each run the index"
        )
        return "; ".join([*failed, again])

    def result(self, context: dg.AssetExecutionContext, day: dt.date) -> dg.AssetCheckResult:
        """The check of this run, whose last day is `day`."""
        told = self.told(context, day)
        self._failed.pop(context.run.run_id, None)
        return dg.AssetCheckResult(
            asset_key=self.asset,
            check_name=PAGES_CHECK,
            passed=not told,
            severity=dg.AssetCheckSeverity.WARN,
            description=told or "nothing kept this run from drawing its pages",
        )
