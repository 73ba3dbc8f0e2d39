"""Dagster's real server on a small lake, and a real headless Chromium in front of it."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from stock_assets.calendars import get_calendar
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver.chrome.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

ARTIFACTS = Path(__file__).resolve().parents[2] / "artifacts"
"""Where the screenshots go; ignored by git."""

EXCHANGE = "XMOS"
TICKERS = ("BANK", "GRID", "METL")
PARTITIONS_BACK = 7
"""Sessions between the first partition day and the last closed session."""
REGIME_BACK = 17
"""Sessions between the change of the market and the first partition day: drift must be seen."""

_STARTS_IN, _ENDS_IN, _APPEARS_IN = 180, 150, 60
_FINAL = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}


@dataclass(frozen=True)
class Server:
    """A running `stock-assets dev`, and the lake behind it."""

    settings: Settings
    log: Path

    @property
    def url(self) -> str:
        return f"http://{self.settings.server.host}:{self.settings.server.port}"

    @property
    def reports_url(self) -> str:
        return f"http://{self.settings.server.host}:{self.settings.server.reports_port}"

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake_dir)

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of one GraphQL answer."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        return content["data"]

    def wait(self, what: str, done: Callable[[], Any], seconds: float) -> Any:
        """What `done` returns, as soon as that is true; else fails with the end of the log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if result := done():
                return result
            time.sleep(0.5)
        end = self.log.read_text(errors="replace")[-4000:]
        pytest.fail(f"{what} took more than {seconds} s; the server's last words:\n{end}")

    def loaded(self) -> bool:
        """Whether the code location is there; fails the test when it cannot be loaded."""
        try:
            answer = self.ask(
                """{ workspaceOrError { ... on Workspace { locationEntries {
                  loadStatus locationOrLoadError { __typename ... on PythonError { message } }
                } } } }"""
            )
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        entries = answer["workspaceOrError"]["locationEntries"]
        for entry in entries:
            error = entry["locationOrLoadError"] or {}
            assert error.get("__typename") != "PythonError", error["message"]
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)

    def stop_automation(self) -> None:
        """Switch schedules and sensors off: what they ask for is not what the test clicked."""
        found = self.ask(
            """{ repositoriesOrError { ... on RepositoryConnection { nodes {
              sensors { id } schedules { id }
            } } } }"""
        )
        (repository,) = found["repositoriesOrError"]["nodes"]
        for kind, mutation in (("sensors", "stopSensor"), ("schedules", "stopRunningSchedule")):
            for item in repository[kind]:
                stop = f"mutation($id: String!) {{ {mutation}(id: $id) {{ __typename }} }}"
                answer = self.ask(stop, id=item["id"])[mutation]["__typename"]
                assert not answer.endswith("Error"), f"{mutation}: {answer}"

    def finished_backfill(self) -> dict[str, Any] | None:
        """The one backfill of this server with its runs, once nothing more will happen to it."""
        answer = self.ask(
            """{ partitionBackfillsOrError { ... on PartitionBackfills { results { id status } } }
              runsOrError { ... on Runs { results { runId status } } } }"""
        )
        backfills = answer["partitionBackfillsOrError"]["results"]
        if len(backfills) != 1 or backfills[0]["status"] not in _FINAL:
            return None
        return {**backfills[0], "runs": answer["runsOrError"]["results"]}

    def materialized(self, asset: str) -> set[str]:
        """The partitions of which the event log holds a materialization."""
        answer = self.ask(
            """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) {
              ... on AssetNode { assetMaterializations(limit: 1000) { partition } } } }""",
            path=[asset],
        )
        events = answer["assetNodeOrError"]["assetMaterializations"]
        return {event["partition"] for event in events}


_IMPATIENT = """
import sys
if "dagster._daemon" in sys.orig_argv:
    import dagster._daemon.controller
    dagster._daemon.controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 2
"""
"""What each Python process of a server runs first: Dagster's daemon looks at backfills every 30
seconds, and tests of them would do little but wait for that."""


@contextmanager
def running_server(settings_file: Path, *, automation: bool = False) -> Iterator[Server]:
    """`stock-assets dev` on the lake of these settings, by default with its automation off."""
    log = settings_file.with_name("server.log")
    program = str(Path(sys.executable).with_name("stock-assets"))
    patch = settings_file.with_name("patch")
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(_IMPATIENT)
    path = os.pathsep.join([str(patch), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "dev", "--settings", str(settings_file)],
            env={**clean_environment(), "PYTHONPATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        started = Server(load_settings(settings_file), log)
        started.wait("starting the server", started.loaded, _STARTS_IN)
        if not automation:
            started.stop_automation()
        yield started
    finally:
        _end_group(process)


def clean_environment() -> dict[str, str]:
    """Ours, without a developer's own settings and lake: they must not be what a server shows."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STOCK_ASSETS_", "DAGSTER_"))
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on an empty lake of three simulated tickers, a handful of days deep."""
    with running_server(_write_settings(tmp_path_factory.mktemp("ui"))) as started:
        yield started


class Page:
    """A browser's page, and waiting for what is on it instead of for time to pass."""

    def __init__(self, browser: WebDriver) -> None:
        self.browser = browser
        self.resize(1600, 900)

    def open(self, address: str) -> None:
        """Go to `address`."""
        self.browser.get(address)

    def resize(self, width: int, height: int) -> None:
        """Make the page (not the window with its borders) `width` x `height` pixels."""
        self._size = (width, height)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def wait(self, what: str, done: Callable[[], Any], seconds: float = _APPEARS_IN) -> Any:
        """What `done` returns, as soon as that is true and the page holds still for asking."""
        waiting = WebDriverWait(
            self.browser,
            seconds,
            poll_frequency=0.25,
            ignored_exceptions=[NoSuchElementException, StaleElementReferenceException],
        )
        try:
            return waiting.until(lambda _: done())
        except TimeoutException:
            self.save("failed.png")
            pytest.fail(f"no {what} on {self.browser.current_url}; see artifacts/failed.png")

    def see(self, selector: str) -> WebElement:
        """The last visible element of a CSS selector or, from `//` on, an XPath."""
        by = By.XPATH if selector.startswith("//") else By.CSS_SELECTOR
        return self.wait(
            selector,
            lambda: next(
                (e for e in reversed(self.browser.find_elements(by, selector)) if e.is_displayed()),
                None,
            ),
        )

    def click(self, selector: str) -> None:
        """Click what `see` sees, once nothing lies above it."""

        def clicked() -> bool:
            try:
                self.see(selector).click()
            except ElementClickInterceptedException:
                return False
            return True

        self.wait(f"clicking {selector}", clicked)

    def type(self, text: str) -> None:
        """Replace the content of the field in focus, and confirm it."""
        field = self.browser.switch_to.active_element
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.ENTER)

    def press_escape(self) -> None:
        """Close what is open: a menu, a dialog."""
        self.see("body").send_keys(Keys.ESCAPE)

    def hold_still(self, selector: str) -> None:
        """Wait until an animated element has come to rest."""
        before: list[dict[str, float]] = [{}]

        def unmoved() -> bool:
            last, before[0] = before[0], self.see(selector).rect
            return last == before[0]

        self.wait(f"{selector} coming to rest", unmoved)

    def follow(self, selector: str) -> None:
        """Click a link that opens a tab, and go on in that tab."""
        known = set(self.browser.window_handles)
        self.click(selector)
        opened = self.wait("a new tab", lambda: set(self.browser.window_handles) - known)
        self.browser.switch_to.window(opened.pop())
        self.resize(*self._size)

    def follow_failed_drift(self, server: Server, day: dt.date) -> str:
        """From the failed check of `day` to its report in a new tab; the verdict on both."""
        self.open(f"{server.url}/assets/drift")
        self.click("//*[@role = 'tab'][normalize-space() = 'Checks'] | //a[text() = 'Checks']")
        self.click("//*[text() = 'universe_has_not_moved']")
        self.see("//*[text() = 'Evaluation result']/following::*[text() = 'Failed']")
        verdict = self.see(f"//*[starts-with(text(), '{day}: {EXCHANGE} has moved')]").text
        address = f"{server.reports_url}/drift/{day}.html"
        link = f"//a[@href = '{address}'][text() = '{address}']"
        self.see(link)
        self.save("drift_check.png")
        self.follow(link)
        assert self.see("header h1").text == f"Drift of the universe on {day}"
        assert self.see("header p.moved").text == verdict
        return verdict

    def close_tab(self) -> None:
        """Back to the tab that was there first."""
        self.browser.close()
        self.browser.switch_to.window(self.browser.window_handles[0])

    def leave(self) -> None:
        """Show nothing: a server that is asked to end waits a minute for who looks at it."""
        self.open("about:blank")

    def save(self, name: str) -> None:
        """A screenshot in `artifacts/`."""
        ARTIFACTS.mkdir(exist_ok=True)
        self.browser.save_screenshot(str(ARTIFACTS / name))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """An empty page of a Chromium with a profile of its own."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver on the PATH (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Page(browser)
    finally:
        browser.quit()


def _write_settings(folder: Path) -> Path:
    """A market whose regime changed shortly before the partitions begin, whatever today is."""
    calendar = get_calendar(EXCHANGE)
    last = calendar.latest_closed(dt.datetime.now(tz=dt.UTC))
    first = calendar.back(last, PARTITIONS_BACK)
    port, reports_port = free_ports()
    file = folder / "ui.toml"
    file.write_text(
        f"""
[lake]
path = "data"
[partitions]
first_day = {first}
[[universe]]
tickers = {json.dumps(TICKERS)}
source = "sample"
exchange = "{EXCHANGE}"
currency = "RUB"
[sources.sample]
kind = "simulated"
begin = {first - dt.timedelta(days=1000)}
regime_change = {calendar.back(first, REGIME_BACK)}
interval = "1d"
[forecast]
min_training_rows = 500
[drift]
universe_share = 0.3
[server]
port = {port}
reports_port = {reports_port}
"""
    )
    return file


def free_ports() -> tuple[int, int]:
    """Two ports that nobody listens on."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the command to end, as `kill` does, and expect all that it started to end with it."""
    process.terminate()
    deadline = time.monotonic() + _ENDS_IN
    while time.monotonic() < deadline:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    pytest.fail(f"processes of the server live {_ENDS_IN} s after it was asked to end")
