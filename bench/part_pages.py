"""The UI in a real browser on a log of many partitions: done by `ui.py`, printed here."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import measured, say
from product import clean_environment
from tables import markdown_table, section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from results import Found, Results
    from scales import Scale

_SCRIPT = Path(__file__).with_name("ui.py")
_NEEDED = ("chromium", "chromedriver")


def measure(scale: Scale, folder: Path, results: Results) -> None:
    """Run `ui.py` once (it repeats by itself), where there is a browser."""
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        say(f"pages: left out, no {' and '.join(missing)} on the PATH")
        return
    folder.mkdir(parents=True, exist_ok=True)
    results.of("pages", lambda: _pages(scale, folder))


def _pages(scale: Scale, folder: Path) -> dict[str, Any]:
    sizes = ["--days", str(scale.page_days), "--query-days", str(scale.query_days)]
    command = [sys.executable, str(_SCRIPT), *sizes, "--folder", str(folder / "lakes")]
    usage = measured(command, clean_environment(), folder, name="pages")
    found: dict[str, Any] = json.loads(usage.stdout)
    return found


def report(found: Found) -> str:
    """Seconds of each page and query: the first time, and afterwards."""
    if "pages" not in found:
        return ""
    content = found["pages"]
    rows = [
        (name, *[f"{times[when]:.2f}" if when in times else "" for when in ("cold", "warm")])
        for name, times in _timings(content)
    ]
    return section(
        f"Dagster's UI at {content['partitions']:,} partitions an asset, "
        f"{content['assets']} assets",
        markdown_table(["", "first time, s", "then, s"], rows),
        "Pages in a headless Chromium, until they show what they are opened for; `query` is the "
        "partition-status query alone, at so many partitions.",
    )


def _timings(content: Any, path: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """Every {cold, warm} of nested objects, with the names above it."""
    if not isinstance(content, dict):
        return
    if "cold" in content or "warm" in content:
        yield path, content
        return
    for name, inner in content.items():
        yield from _timings(inner, f"{path}, {name}" if path else name)
