"""What a person does in Dagster's UI: backfill by clicking, look at graph, check and forecasts.

One server and one browser for all of it; what was seen is in `artifacts/`.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from stock_assets.graph import asset_names
from stock_assets.lake.schemas import TABLES
from stock_assets.partitions import Grid, cell_key

from .conftest import TICKERS, Page, Server

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    # The first test waits for the server and the backfill as well.
    pytest.mark.timeout(420),
]

RUN_TICKERS = TICKERS[:2]
RUN_DAYS = 3
_BACKFILL_SECONDS = 240
_GRAPH_SIZE = (2000, 800)
"""Wide enough for the nodes to show their details when the whole graph is in view."""


@pytest.fixture(scope="module", autouse=True)
def _nobody_looks_on_when_the_server_ends(server: Server, page: Page) -> Iterator[None]:
    assert server
    yield
    page.leave()


@pytest.fixture(scope="module")
def days(server: Server) -> tuple[dt.date, ...]:
    """The first partition days: the rectangle that is clicked together."""
    return Grid.of(server.settings).days()[:RUN_DAYS]


@pytest.fixture(scope="module")
def backfill(page: Page, server: Server, days: tuple[dt.date, ...]) -> dict[str, Any]:
    """A rectangle of partitions of all assets, materialized from the UI's dialog."""
    page.open(f"{server.url}/asset-groups")
    page.click("//button[contains(., 'Materialize all')]")
    page.click("//input[starts-with(@placeholder, 'ex: ')]")
    page.type(f"[{days[0]}...{days[-1]}]")
    page.click("//*[text() = 'Select a partition or create one']")
    for ticker in RUN_TICKERS:
        page.click(f"[role='menuitem'] [data-tooltip='{ticker}']")
    # Beside the menu of tickers, to close it.
    page.click(f"//*[text() = 'Launch runs to materialize {len(asset_names())} assets']")
    page.see(f"//span[text() = '{RUN_DAYS * len(RUN_TICKERS)} partitions']")
    page.click("//button[normalize-space() = 'Launch backfill']")
    return server.wait("the backfill", server.finished_backfill, _BACKFILL_SECONDS)


def test_the_dialog_materializes_exactly_the_chosen_rectangle(
    backfill: dict[str, Any], server: Server, days: tuple[dt.date, ...]
) -> None:
    log = server.log.read_text(errors="replace")[-6000:]
    assert backfill["status"] == "COMPLETED_SUCCESS", log
    assert [run["status"] for run in backfill["runs"]] == ["SUCCESS"], log

    cells = set(product(days, RUN_TICKERS))
    keys = {cell_key(day, ticker) for day, ticker in cells}
    assert {name: server.materialized(name) for name in asset_names()} == dict.fromkeys(
        asset_names(), keys
    )

    tables = {name: server.lake.read(name) for name in TABLES}
    for name in ("drift", "models", "forecasts"):
        assert set(tables[name].select("day", "ticker").iter_rows()) == cells
    horizons = len(server.settings.forecast.horizons)
    assert tables["forecasts"].height == len(cells) * horizons
    # One run saw the whole of the rectangle: every ticker its market.
    assert set(tables["features"]["market_tickers"]) == {len(RUN_TICKERS)}
    # The first day's cells carry the history before them.
    for name in ("candles", "bars", "features"):
        assert set(tables[name]["ticker"]) == set(RUN_TICKERS)
        assert tables[name]["day"].max() == days[-1]
        assert tables[name].filter(pl.col("day") < days[0]).height > 500 * len(RUN_TICKERS)
    assert set(tables["scores"].select("day", "ticker").iter_rows()) == set(
        product(days[1:], RUN_TICKERS)
    )


def test_the_graph_shows_every_asset(page: Page, server: Server, backfill: dict[str, Any]) -> None:
    assert backfill
    page.resize(*_GRAPH_SIZE)
    try:
        page.open(f"{server.url}/asset-groups")
        # Room for the graph: the navigation and the list of assets shrink.
        page.click("//button[normalize-space() = 'Hide navigation']")
        page.click("//button[.//*[@aria-label = 'panel_show_right']][normalize-space() = '']")
        page.click("//button[.//*[@aria-label = 'settings']][normalize-space() = '']")
        page.click("//*[contains(text(), 'Expand all groups')]")
        page.press_escape()
        share = RUN_DAYS * len(RUN_TICKERS) / (len(Grid.of(server.settings).days()) * len(TICKERS))
        for name in asset_names():
            page.hold_still(f"[data-svg-viewport] [data-tooltip='{name}']")
            link = f"//*[@data-svg-viewport]//a[@href = '/assets/{name}?view=partitions']"
            page.see(f"{link}[text() = '{int(100 * share)}% filled']")
        moved = page.see("[data-svg-viewport] a[href='/assets/drift?view=checks']")
        assert moved.text.endswith("/ 6 Passed")
        page.save("graph.png")
    finally:
        page.resize(1600, 900)


def test_the_failed_drift_check_opens_its_evidently_page(
    page: Page, server: Server, backfill: dict[str, Any], days: tuple[dt.date, ...]
) -> None:
    assert backfill
    verdict = page.follow_failed_drift(server, days[-1])
    # Drawn by the scripts beside the page: a block and a picture a feature.
    page.see("//*[starts-with(text(), 'Data drift detected. Drift detection method: Wasserstein')]")
    page.see("//*[text() = \"Drift in column 'vol_close_5'\"]")
    page.see(".js-plotly-plot svg .trace")
    page.save("drift_report.png")

    # To the index and back to the same page, as a reader goes.
    page.click("//header//a[text() = 'All days']")
    assert page.see("main h1").text == "Drift"
    page.save("drift_index.png")
    page.click(f"//td/a[text() = '{days[-1]}']")
    assert page.see("header p.moved").text == verdict
    page.see(".js-plotly-plot svg .trace")
    asked = page.browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert asked
    assert all(name.startswith((server.reports_url, "data:")) for name in asked), asked
    severe = [
        entry["message"]
        for entry in page.browser.get_log("browser")
        if entry["level"] == "SEVERE" and server.reports_url in entry["message"]
        # Browsers ask every server for its icon.
        if "favicon.ico" not in entry["message"]
    ]
    assert not severe
    page.close_tab()


def test_the_forecasts_page_shows_the_fan(
    page: Page, server: Server, backfill: dict[str, Any], days: tuple[dt.date, ...]
) -> None:
    assert backfill
    # The overview shows the latest event, the partition's page that of the slice's last cell:
    # the run's summary is on both.
    page.open(f"{server.url}/assets/forecasts")
    page.see("//*[text() = '[Show Markdown]']")
    page.open(
        f"{server.url}/assets/forecasts?view=partitions&partition={days[-1]}%7C{RUN_TICKERS[-1]}"
    )
    page.click("//*[text() = '[Show Markdown]']")
    fan = page.see("img[src^='data:image/png;base64,']")
    page.wait("the picture", lambda: fan.get_property("naturalWidth"))
    assert fan.get_property("naturalWidth") >= 300
    page.hold_still("img[src^='data:image/png;base64,']")
    page.save("forecasts.png")
