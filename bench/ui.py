"""How long Dagster's UI takes at 100,000 partitions an asset: `python bench/ui.py`.

    python bench/ui.py [--days 2000] [--query-days 1300] [--folder FOLDER] [--screenshots FOLDER]

Prints a JSON object: seconds until each page shows what it is opened for, in a real Chromium before
a real webserver, and seconds of the partition-status query that those pages wait for. `cold` is the
first time: a server that has just started, no partition status computed yet, an empty browser
profile; `warm` is the median of the next times. The query is asked with our event log storage and
with Dagster's own on the same files.

The log comes from `partitions_log.py`; a FOLDER that was filled before is used again. Needs
chromium and chromedriver on the PATH (Debian: chromium, chromium-driver).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from measuring import middle
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from stock_assets.assets.common import GROUPS
from stock_assets.calendars import get_calendar
from stock_assets.graph import asset_names
from stock_assets.launch import prepare_home
from stock_assets.settings import PROJECT_DIR, Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from selenium.webdriver.chrome.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

EXCHANGE = "XMOS"
TICKERS = 50
ASSET = "forecasts"
REPEATS = 3

STATUS_QUERY = """
query Status($asset: AssetKeyInput!) { assetNodeOrError(assetKey: $asset) { ... on AssetNode {
  partitionKeysByDimension { name type partitionKeys }
  assetPartitionStatuses {
    ... on MultiPartitionStatuses {
      primaryDimensionName
      ranges {
        primaryDimStartKey primaryDimEndKey primaryDimStartTime primaryDimEndTime
        secondaryDim {
          ... on DefaultPartitionStatuses {
            materializedPartitions materializingPartitions failedPartitions
          }
        }
      }
    }
  }
} } }
"""
"""What the partitions tab and the dialog ask (PartitionHealthQuery in the webserver's bundle)."""

_EXPANDED = "expanded=" + ",".join(
    f"global@global:{group}" for group in sorted(set(GROUPS.values()))
)
_HERE = Path(__file__).resolve().parent
_STARTS_IN, _ENDS_IN, _APPEARS_IN = 120, 10, 120
_POLL = 0.05


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How long Dagster's UI takes.")
    parser.add_argument("--days", type=int, default=2000, help=f"days x {TICKERS} tickers: pages")
    parser.add_argument("--query-days", type=int, default=1300, help="days of the other query")
    parser.add_argument("--folder", type=Path, help="work here and leave everything there")
    parser.add_argument("--screenshots", type=Path, help="save what was seen here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stock-assets-bench-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        found = measure(folder, options.days, options.query_days, options.screenshots)
    print(json.dumps(found, indent=2))


def measure(folder: Path, days: int, query_days: int, screenshots: Path | None) -> dict[str, Any]:
    """Seconds of the pages at `days`, and of the query at `query_days` and `days`."""
    large = filled_lake(folder / f"{days}-days", days, asset_names())
    small = filled_lake(folder / f"{query_days}-days", query_days, (ASSET,))
    return {
        "partitions": days * TICKERS,
        "assets": len(asset_names()),
        "pages": measure_pages(large, screenshots),
        "query": {
            str(count * TICKERS): {
                storage: measure_query(lake, storage) for storage in ("ours", "stock")
            }
            for count, lake in ((query_days, small), (days, large))
        },
    }


@dataclass(frozen=True)
class FilledLake:
    """A settings file whose Dagster home holds a full event log."""

    file: Path
    settings: Settings

    def forget_statuses(self) -> None:
        """As if nobody had looked yet: drop what Dagster keeps of the partitions' statuses."""
        with sqlite3.connect(self._index) as index:
            index.execute("UPDATE asset_keys SET cached_status_data = NULL")
        index.close()

    @property
    def _index(self) -> Path:
        return self.settings.dagster_home / "history" / "runs" / "index.db"


def filled_lake(folder: Path, days: int, assets: tuple[str, ...]) -> FilledLake:
    """The lake in `folder`, filled unless that has been done before."""
    file, done = folder / "settings.toml", folder / "filled.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write_settings(file, days)
        command = [sys.executable, str(_HERE / "partitions_log.py"), str(file), *assets]
        done.write_bytes(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)  # noqa: S603
    return FilledLake(file, load_settings(file))


def _write_settings(file: Path, days: int) -> None:
    """A universe of 50 tickers whose partitions are the last `days` closed sessions."""
    calendar = get_calendar(EXCHANGE)
    first = calendar.back(calendar.latest_closed(dt.datetime.now(tz=dt.UTC)), days - 1)
    names = ", ".join(f'"SIM{number:02d}"' for number in range(TICKERS))
    file.write_text(
        f"""
[lake]
path = "data"
[partitions]
first_day = {first}
[[universe]]
tickers = [{names}]
source = "sample"
exchange = "{EXCHANGE}"
currency = "RUB"
[sources.sample]
kind = "simulated"
begin = {first - dt.timedelta(days=100)}
interval = "1d"
""",
        encoding="utf-8",
    )


# The server.


@dataclass(frozen=True)
class Server:
    """A running webserver."""

    url: str
    process: int

    def cpu(self) -> float:
        """CPU seconds that the webserver's own process has used (on systems with /proc)."""
        stat = Path("/proc", str(self.process), "stat").read_text(encoding="utf-8")
        # Fields after the command's name, which may hold spaces: proc(5), from field 3 on.
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def ask(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:
        """The data of one GraphQL answer. Raises `RuntimeError` for an error in it."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables or {}}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_APPEARS_IN) as answer:  # noqa: S310
            content = json.load(answer)
        if "errors" in content:
            raise RuntimeError(str(content["errors"]))
        return content["data"]

    def ready(self) -> bool:
        """Whether the code location is loaded."""
        query = """{ workspaceOrError { ... on Workspace { locationEntries {
          loadStatus locationOrLoadError { __typename } } } } }"""
        try:
            entries = self.ask(query)["workspaceOrError"]["locationEntries"]
        except OSError:
            return False
        return bool(entries) and all(
            entry["locationOrLoadError"]
            and entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
            for entry in entries
        )


@contextmanager
def serving(lake: FilledLake, storage: str = "ours") -> Iterator[Server]:
    """A webserver that has just started on the lake; `storage` is ours, or stock for Dagster's.

    Without the daemon: nothing but the pages' own work is measured.
    """
    # Stock's would be taken for a person's, and left.
    (lake.settings.dagster_home / "dagster.yaml").unlink(missing_ok=True)
    home = prepare_home(lake.settings, lake.file)
    if storage == "stock":
        configuration = yaml.safe_load((home / "dagster.yaml").read_text(encoding="utf-8"))
        del configuration["event_log_storage"], configuration["scheduler"]
        (home / "dagster.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("dagster-webserver"))
    command = [program, "-w", str(PROJECT_DIR / "workspace.yaml"), "-h", "127.0.0.1", "-p"]
    with (lake.file.parent / "server.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [*command, str(port)], stdout=log, stderr=log, cwd=home, start_new_session=True
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", process.pid)
        _until("the server", server.ready, _STARTS_IN)
        yield server
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the server and its code server to end; end what outlives the asking."""
    os.killpg(process.pid, signal.SIGTERM)
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


def _until(what: str, done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took more than {seconds} s")
        time.sleep(0.2)


# The query.


def measure_query(lake: FilledLake, storage: str) -> dict[str, float]:
    """Seconds of the partition-status query over HTTP: the first time, and afterwards."""
    lake.forget_statuses()
    with serving(lake, storage) as server:
        times, cpu = [], []
        for _ in range(1 + REPEATS):
            began, used = time.perf_counter(), server.cpu()
            answer = server.ask(STATUS_QUERY, {"asset": {"path": [ASSET]}})
            times.append(time.perf_counter() - began)
            cpu.append(server.cpu() - used)
            if not answer["assetNodeOrError"]["assetPartitionStatuses"]["ranges"]:
                raise RuntimeError("the query shows no partition: the log is empty")
    return {
        "cold": times[0],
        "warm": middle(times[1:]),
        "cold cpu": cpu[0],
        "warm cpu": middle(cpu[1:]),
    }


# The pages.


@dataclass
class Page:
    """A browser's page, and the seconds until something is on it."""

    browser: WebDriver
    screenshots: Path | None
    times: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Note the seconds of what is done here under `name`, and keep a picture of its end."""
        began = time.perf_counter()
        yield
        self.times.setdefault(name, []).append(time.perf_counter() - began)
        if self.screenshots is not None:
            self.screenshots.mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(str(self.screenshots / f"{name}.png"))

    def see(self, path: str) -> WebElement:
        """The first visible element of an XPath, as soon as there is one."""

        def visible(browser: WebDriver) -> WebElement | None:
            found = browser.find_elements(By.XPATH, path)
            return next((element for element in found if element.is_displayed()), None)

        return self._wait(path, visible)

    def click(self, path: str) -> None:
        """Click what `see` sees, once it is enabled and nothing lies above it."""

        def clicked(_: WebDriver) -> bool:
            element = self.see(path)
            try:
                if element.is_enabled():
                    element.click()
                    return True
            except ElementClickInterceptedException:
                pass  # something lies above it: an animation that ends, a menu that closes
            return False

        self._wait(f"a click on {path}", clicked)

    def _wait(self, what: str, done: Callable[[WebDriver], Any]) -> Any:
        ignored = (NoSuchElementException, StaleElementReferenceException)
        waiting = WebDriverWait(self.browser, _APPEARS_IN, _POLL, ignored_exceptions=ignored)
        return waiting.until(done, f"{what} did not appear on {self.browser.current_url}")


def measure_pages(lake: FilledLake, screenshots: Path | None) -> dict[str, dict[str, float]]:
    """Seconds until each page shows what it is opened for: the first time, and afterwards."""
    filled = json.loads((lake.file.parent / "filled.json").read_text())
    walks = {
        "overview": _overview,
        "partitions": _partitions,
        "dialog": _dialog,
        "graph": _graph,
        "launch": _launch,
    }
    found: dict[str, dict[str, float]] = {}
    for name, walk in walks.items():
        # Each page is somebody's first: the server and the browser have done nothing before it.
        lake.forget_statuses()
        with serving(lake) as server, _chromium(screenshots) as page:
            for _ in range(1 + REPEATS):
                walk(page, server, filled)
            found |= {
                part: {"cold": times[0], "warm": middle(times[1:])}
                for part, times in page.times.items()
            }
        print(f"{name}: {found}", file=sys.stderr)
    return found


def _overview(page: Page, server: Server, _: Mapping[str, int]) -> None:
    """The asset's own page, with its status and its columns."""
    with page.timed("overview"):
        page.browser.get(f"{server.url}/assets/{ASSET}")
        page.see("//*[starts-with(text(), 'Failed in')]")
        page.see("//*[text() = 'target_day']")


def _partitions(page: Page, server: Server, filled: Mapping[str, int]) -> None:
    """The partitions tab with its counts, then one of them with what is known of it."""
    with page.timed("partitions tab"):
        page.browser.get(f"{server.url}/assets/{ASSET}?view=partitions")
        page.see(f"//*[text() = 'Materialized ({filled['materialized']})']")
        page.see(f"//*[text() = 'Failed ({filled['failed']})']")
    with page.timed("one partition"):
        page.click("//*[text() = 'SIM03']")
        page.see("//*[text() = 'dagster/partition_row_count']")


def _dialog(page: Page, server: Server, _: Mapping[str, int]) -> None:
    """The dialog of the asset's partitions, until all of them are chosen and can be launched."""
    page.browser.get(f"{server.url}/assets/{ASSET}")
    with page.timed("backfill dialog"):
        page.click("//button[contains(., 'Materialize')]")
        page.see("//input[starts-with(@placeholder, 'ex: ')]")
        page.see("//*[text() = 'Select a partition or create one']")
    with page.timed("all partitions chosen"):
        _choose_all(page)


def _graph(page: Page, server: Server, filled: Mapping[str, int]) -> None:
    """The lineage of all assets, until each says how much of it is filled."""
    share = 100 * filled["materialized"] // sum(filled.values())
    with page.timed("asset graph"):
        page.browser.get(f"{server.url}/asset-groups?{_EXPANDED}")
        for name in asset_names():
            link = f"//a[@href = '/assets/{name}?view=partitions']"
            page.see(f"{link}[starts-with(text(), '{share}% filled')]")


def _launch(page: Page, server: Server, _: Mapping[str, int]) -> None:
    """A backfill of everything, from the click on its button until the UI has it."""
    page.browser.get(f"{server.url}/asset-groups?{_EXPANDED}")
    with page.timed("backfill dialog of all assets"):
        page.click("//button[contains(., 'Materialize all')]")
        page.see("//input[starts-with(@placeholder, 'ex: ')]")
        page.see("//*[text() = 'Select a partition or create one']")
    _choose_all(page)
    with page.timed("launch of all assets"):
        page.click("//button[normalize-space() = 'Launch backfill']")
        page.see("//*[contains(text(), 'Created backfill')]")


def _choose_all(page: Page) -> None:
    """Choose every day and every ticker; while it is still loading, the dialog forgets them."""
    ready = "//button[normalize-space() = 'Launch backfill'][not(@disabled)]"
    while not page.browser.find_elements(By.XPATH, ready):
        for dimension in (1, 2):
            page.click(f"(//button[normalize-space() = 'All'])[{dimension}]")
        time.sleep(_POLL)


@contextmanager
def _chromium(screenshots: Path | None) -> Iterator[Page]:
    """An empty page of a Chromium with a profile of its own."""
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        raise RuntimeError("no chromium and chromedriver on the PATH")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(programs[0])
        for flag in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=Service(programs[1]))
        try:
            # Wide enough for the graph's nodes to show their details.
            size = {"width": 2800, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            yield Page(browser, screenshots)
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
