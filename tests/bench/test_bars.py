"""The bars: what passes, what reaches the aim, and a small run that goes on where it stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from bars_report import AIM, MISSED, PASS, Measured, bars

from stock_assets.forecasting.claims import MedianSkill, verdict
from stock_assets.forecasting.protocol import Evaluation

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "bars.py"

GOOD: dict[str, Any] = {
    "qlike": 13.0,
    "qlike_t": 3.5,
    "pinball": 2.6,
    "years": 10,
    "year": 0.915,
    "storm": 0.925,
    "price_t": 1.0,
    "r2": 0.001,
}
"""What reaches every aim."""


def measured(**changed: Any) -> Measured:
    """A market on which the product did as `GOOD` says, but for what is changed."""
    own = {**GOOD, **changed}
    skill = {"qlike": own["qlike"], "pinball": own["pinball"]}
    comparisons = pl.DataFrame(
        [
            {
                "other": other,
                "measure": measure,
                "skill": skill[measure],
                "t": own["qlike_t"],
                "years": 10,
                "years_better": own["years"],
            }
            for other in ("ewma", "ewma-gaussian", "garch")
            for measure in skill
        ]
    )
    coverage = pl.DataFrame(
        [
            {"method": "product", "by": by, "group": group, "in_80": share - 0.1, "in_90": share}
            for by, group, share in (
                ("all", "all", 0.905),
                ("year", "2020", own["year"]),
                ("year", "2021", 0.9),
                ("volatility", "storm", own["storm"]),
            )
        ]
    )
    methods = pl.DataFrame(
        [
            {"method": name, "price_t": own["price_t"], "r2": own["r2"]}
            for name in ("product", "ewma", "ewma-gaussian", "garch")
        ]
    )
    empty = pl.DataFrame()
    said = verdict(MedianSkill(None, None, None), {}, {}, {})
    found = Evaluation(
        "product", 1, 0, methods, comparisons, coverage, empty, empty, empty, said
    )  # fmt: skip
    return Measured("a market", "file", None, None, 1, 1, found, {}, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "met"),
    [
        ({}, [AIM] * 6),
        ({"qlike": 9.0}, [PASS, PASS, AIM, AIM, AIM, AIM]),
        ({"qlike_t": 1.9}, [MISSED, MISSED, AIM, AIM, AIM, AIM]),
        ({"years": 9}, [PASS, PASS, PASS, AIM, AIM, AIM]),
        ({"years": 8}, [PASS, PASS, MISSED, AIM, AIM, AIM]),
        ({"year": 0.935}, [AIM, AIM, AIM, PASS, PASS, AIM]),
        ({"year": 0.85}, [AIM, AIM, AIM, MISSED, MISSED, AIM]),
        ({"storm": 0.95}, [AIM, AIM, AIM, PASS, PASS, AIM]),
        ({"r2": -0.001, "price_t": -1.0}, [AIM, AIM, AIM, AIM, AIM, PASS]),
        ({"r2": -0.001, "price_t": -1.7}, [AIM, AIM, AIM, AIM, AIM, MISSED]),
        ({"r2": 0.0, "price_t": None}, [AIM, AIM, AIM, AIM, AIM, PASS]),
    ],
)
def test_bars_are_judged_as_written(changed: dict[str, Any], met: list[str]) -> None:
    assert [bar.met for bar in bars(measured(**changed))] == met


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_small_run_writes_the_page_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, str(SCRIPT), "--quick", "--folder", str(tmp_path / "bars")]
    command += ["--out", str(page), "--models", "product,ewma,ewma-gaussian,garch"]

    def run(*more: str) -> str:
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    first = run()
    assert "lake of quick" in first
    assert "replay of quick garch" in first
    text = page.read_text(encoding="utf-8")
    for words in ("## The bars", "GARCH(1,1)", "Verdict: product:", "| storm |", "| random walk |"):
        assert words in text
    assert (tmp_path / "bars" / "quick.html").exists()
    again = run("--again", "ewma")
    assert "replay of quick ewma:" in again
    assert "lake of" not in again
    assert "replay of quick product" not in again
    tables = [part.split("Horizons and what")[0] for part in (text, page.read_text("utf-8"))]
    assert tables[0].split("## The bars")[1] == tables[1].split("## The bars")[1]
