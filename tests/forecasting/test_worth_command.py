"""`stock-assets model worth` on a small lake: lived and replayed, printed, as JSON, as a page."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from stock_assets import cli
from stock_assets.lake.schemas import Shadows
from stock_assets.lake.store import Lake
from stock_assets.slices import Slice

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable
    from pathlib import Path

    Shell = Callable[..., tuple[int, str, str]]

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
cadence = 30
cooldown = 10
window = 250
"""


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    (tmp_path / "settings.toml").write_text(SETTINGS)

    def shell(*arguments: str) -> tuple[int, str, str]:
        argv = ["stock-assets", "model", "worth", *arguments]
        argv += ["--settings", str(tmp_path / "settings.toml")]
        monkeypatch.setattr(sys, "argv", argv)
        code = cli._run_app()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return shell


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "data" / "lake")


@pytest.fixture
def lived(lake: Lake, sessions: list[dt.date]) -> Lake:
    """Two retrains: the first saved 1 % of the loss on every day but for noise."""
    rng = np.random.default_rng(1)
    rows = [
        {"day": sessions[begin + 1 + n], "ticker": ticker, "horizon": 1,
         "attempt_day": sessions[begin], "forecast_day": sessions[begin + n],
         "decision": "trained", "cause": cause, "model": f"m{begin}", "shadow_model": "old",
         "pinball": 0.01, "shadow_pinball": 0.01 * (1 + gain + 0.01 * rng.standard_normal())}
        for begin, cause, gain in ((0, "drift", 0.01), (60, "cadence", 0.0))
        for n in range(60)
        for ticker in "AB"
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema=Shadows.create_empty().schema)
    lake.write("shadows", frame, Slice(None, sessions[-1], tuple("ABCDEF")))
    return lake


def test_what_was_lived_is_told_printed_and_as_json(
    lived: Lake, shell: Shell, sessions: list[dt.date]
) -> None:
    code, out, err = shell()
    assert code == 0, err
    for word in (str(sessions[0]), "drift", "better", "may be luck", "all", "Verdict: 2 retrains"):
        assert word in out
    code, out, _ = shell("--json")
    found = json.loads(out)
    assert [item["words"] for item in found["attempts"]] == ["better", "may be luck"]
    assert found["by cause"]["drift"]["retrains"] == 1
    assert found["all retrains"]["days"] == 120
    assert found["policies"] == []
    assert not (lived.root.parent / "replays").exists()


def test_the_days_are_those_of_the_trainings(
    lived: Lake, shell: Shell, sessions: list[dt.date]
) -> None:
    assert lived.version("shadows") == 0
    later = json.loads(shell("--from", str(sessions[1]), "--json")[1])
    assert [item["day"] for item in later["attempts"]] == [str(sessions[60])]
    before = json.loads(shell("--to", str(sessions[59]), "--json")[1])
    assert [item["day"] for item in before["attempts"]] == [str(sessions[0])]


def test_the_page_says_the_same(lived: Lake, shell: Shell) -> None:
    page = lived.root.parent.parent / "pages" / "worth.html"
    code, out, err = shell("--html", str(page))
    assert code == 0, err
    assert f"Report: {page}" in out.replace("\n", "")
    text = page.read_text(encoding="utf-8")
    assert json.loads(shell("--json")[1])["sentence"] in text


def test_an_empty_lake_says_what_to_do(shell: Shell) -> None:
    code, out, _ = shell()
    assert code == 0
    assert "holds no shadow scores of those days yet" in out
    assert "`--policies`" in out
    assert "no model has replaced another yet" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "2024-06-14", "--to", "2024-06-03"], 2, "swap them"),
        (["--from", "yesterday"], 2, "'yesterday' is not a day"),
        (["--policies"], 4, "holds no features"),
    ],
)
def test_errors_name_the_culprit_and_the_fix(
    shell: Shell, arguments: list[str], code: int, said: str
) -> None:
    found, out, err = shell(*arguments)
    assert (found, out) == (code, "")
    assert said in err.replace("\n", " ")


@pytest.mark.slow
def test_other_rules_are_replayed_and_the_registry_is_left_alone(
    shell: Shell, lake: Lake, bars: pl.DataFrame, features: pl.DataFrame, sessions: list[dt.date],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("stock_assets.forecasting.gate.LEVEL", 0.5)
    area = Slice(None, bars["day"].max(), tuple("ABCDEF"))
    lake.write("bars", bars, area)
    lake.write("features", features, area)
    asked = ("--policies", "--from", str(sessions[340]), "--to", str(sessions[376]))
    code, out, err = shell(*asked, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [item["name"] for item in found["policies"]] == [
        "as set", "cadence alone", "every month", "never",
    ]  # fmt: skip
    assert found["policies"][-1]["trainings"] == 1
    assert {item["kind"] for item in found["attempts"]} >= {"first model", "retrain"}
    assert sorted(item.name for item in lake.root.parent.iterdir()) == ["lake", "replays"]
    assert sorted(item.name for item in lake.root.iterdir()) == ["bars", "features"]
