"""`stock-assets backtest` on a small lake: the table, the page, and errors that name the fix."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import pytest

from stock_assets import cli
from stock_assets.lake.store import Lake
from stock_assets.slices import Slice

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

SETTINGS = """
[lake]
path = "data"
[partitions]
first_day = 2024-06-03
[[universe]]
tickers = ["A", "B", "C", "D", "E", "F"]
source = "market"
[sources.market]
kind = "simulated"
[forecast]
min_training_rows = 500
cadence = 25
cooldown = 10
"""


@dataclass
class Shell:
    """The command line in this process, on a lake of its own."""

    folder: Path
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        file = str(self.folder / "settings.toml")
        argv = ["stock-assets", "backtest", *arguments, "--settings", file]
        self.patch.setattr(sys, "argv", argv)
        code = cli._run_app()
        captured = self.capture.readouterr()
        return code, captured.out, captured.err

    @property
    def lake(self) -> Lake:
        return Lake(self.folder / "data" / "lake")


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def full(shell: Shell, bars: pl.DataFrame, features: pl.DataFrame) -> Shell:
    """A lake that holds the bars and features of all days."""
    area = Slice(None, bars["day"].max(), tuple("ABCDEF"))
    shell.lake.write("bars", bars, area)
    shell.lake.write("features", features, area)
    return shell


def asked(sessions: list[dt.date], first: int = 330, last: int = 400) -> list[str]:
    return ["--from", str(sessions[first]), "--to", str(sessions[last])]


MODELS = ("--models", "product,ewma,ewma-gaussian,har")


@pytest.mark.slow
def test_the_table_the_verdict_and_the_page(full: Shell, sessions: list[dt.date]) -> None:
    page = full.folder / "pages" / "page.html"
    code, out, err = full(*asked(sessions), *MODELS, "--report", str(page))
    assert code == 0, err
    for word in ("product", "ewma-gaussian", "har", "random walk", "QLIKE", "Winkler"):
        assert word in out
    assert "Verdict: product: no skill on direction" in out
    assert "the 80 % interval held" in out
    assert "har ..." in err
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 6
    for title in ("Coverage by year", "PIT", "QLIKE over time", "Skill by horizon", "Models"):
        assert title in text
    # Opens without a network: nothing is fetched (the addresses in SVG only name its language).
    assert not re.search(r'(src|href)="?https?:', text.replace('xlink:href="#', ""))
    assert "<script" not in text
    assert not (full.folder / "data" / "mlflow").exists()
    assert sorted(item.name for item in (full.folder / "data" / "lake").iterdir()) == [
        "bars",
        "features",
    ]


@pytest.mark.slow
def test_json_says_the_same_and_the_page_is_in_the_reports_folder(
    full: Shell, sessions: list[dt.date]
) -> None:
    code, out, err = full(*asked(sessions), "--models", "ewma,har", "--tickers", "B,E", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["tickers"] == ["B", "E"]
    assert found["subject"] == "ewma"
    assert [row["method"] for row in found["methods"]] == ["ewma", "har"]
    assert found["compared"] == 71 * 2 * 5
    assert {row["group"] for row in found["coverage"] if row["by"] == "ticker"} == {"B", "E"}
    page = full.lake.root / "reports" / "backtests" / f"{sessions[330]}_{sessions[400]}.html"
    assert found["report"] == str(page)
    assert page.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--tickers", "A,ZZZ"], 2, "ticker(s) ZZZ are not in the universe; use A, B"),
        (["--models", "product,oracle"], 2, "unknown model(s) oracle; use some of product, ewma"),
        (["--from", "2024-06-03", "--to", "2024-06-14"], 2, "too few to test anything; ask for"),
        (["--from", "2024-06-14", "--to", "2024-06-03"], 2, "swap them"),
        (["--from", "2040-01-02"], 2, "is after the newest day of the lake"),
        (["--from", "yesterday"], 2, "'yesterday' is not a day"),
        (["--from", "2031-01-01", "--to", "2031-12-31"], 4, "holds no bars from 2031-01-01"),
    ],
)
def test_errors_name_the_culprit_and_the_fix(
    full: Shell, arguments: list[str], code: int, said: str
) -> None:
    found, out, err = full(*arguments)
    assert found == code
    assert said in err.replace("\n", " ")
    assert out == ""


def test_a_ticker_without_bars_says_so(shell: Shell, bars: pl.DataFrame) -> None:
    others = bars.filter(pl.col("ticker") != "F")
    shell.lake.write("bars", others, Slice(None, bars["day"].max(), tuple("ABCDE")))
    days = ("--from", "2023-06-01", "--to", "2024-06-03")
    code, _, err = shell(*days, "--tickers", "F", "--models", "ewma")
    assert code == 4
    assert "holds no bars from 2023-06-01 to 2024-06-03 of the tickers asked; run" in err


def test_an_empty_lake_says_what_to_run(shell: Shell) -> None:
    code, _, err = shell()
    assert code == 4
    assert "holds no features; run `stock-assets run` first" in err


@pytest.mark.slow
def test_the_same_backtest_makes_the_same_page(full: Shell, sessions: list[dt.date]) -> None:
    pages = [full.folder / name for name in ("one.html", "other.html")]
    for page in pages:
        full(*asked(sessions), "--models", "product,ewma", "--report", str(page))
    assert pages[0].read_bytes() == pages[1].read_bytes()
