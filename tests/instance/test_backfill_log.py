"""What the daemon tells of a backfill is short, and says how many, from where to where."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution import asset_backfill
from dagster._daemon.daemon import BackfillDaemon

from stock_assets.instance.backfill_log import LOGGER, SHOWN, install_short_backfill_log, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2025-01-01")
CELLS = dg.MultiPartitionsDefinition(
    {"day": DAYS, "ticker": dg.StaticPartitionsDefinition(["AAA", "BBB"])}
)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger(LOGGER)
    before = list(found.filters)
    install_short_backfill_log()
    install_short_backfill_log()
    yield found
    found.filters[:] = before


def told_by_dagster(cells: int) -> str:
    """How the daemon tells of so many cells of one asset."""

    @dg.asset(partitions_def=CELLS)
    def bars() -> None: ...

    keys = CELLS.get_partition_keys()[:cells]
    subset = AssetGraphSubset({bars.key: CELLS.subset_with_partition_keys(keys)}, set())
    graph = dg.Definitions(assets=[bars]).resolve_asset_graph()
    return asset_backfill._asset_graph_subset_to_str(subset, graph)


def test_a_long_list_of_cells_is_told_by_its_ends(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger=LOGGER):
        logger.info(f"**Materialized assets:**\n{told_by_dagster(732)}\nNone")  # noqa: G004 - as Dagster does
        logger.info(f"To request:\n{told_by_dagster(SHOWN)}")  # noqa: G004
    long, short = caplog.messages
    assert long == (
        "**Materialized assets:**\n"
        "- bars: {732 partitions between 2024-01-01|AAA and 2024-12-31|BBB}\nNone"
    ), "Dagster changed how its daemon lists cells: see what a large backfill logs"
    assert short.count("|AAA") + short.count("|BBB") == SHOWN


def test_the_filter_is_on_the_logger_that_the_daemon_has(logger: logging.Logger) -> None:
    assert BackfillDaemon(settings={})._logger is logger
    assert len([one for one in logger.filters if type(one).__name__ == "ShortLists"]) == 1


def test_a_warning_names_every_cell(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger=LOGGER):
        logger.warning(f"Marking them as failed:\n{told_by_dagster(732)}")  # noqa: G004
    (message,) = caplog.messages
    assert message.count("|AAA") == 366


def test_what_cannot_be_formatted_is_left_to_logging(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.info("not a number: %d", "x")


def test_nothing_else_is_shortened() -> None:
    many = ", ".join(str(number) for number in range(100))
    for text in (f"{{{many}}}", f"error: {{{many}}} of it", f"- {many}", f"- a: {{{many}}} left"):
        assert shortened(text) == text
