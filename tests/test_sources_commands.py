"""`stock-assets sources`: what is configured, what answers, and a look at what it gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from stock_assets import cli

SETTINGS = """
[lake]
path = "data"
[partitions]
first_day = 2026-06-01
[[universe]]
tickers = ["AAA", "BBB"]
source = "mine"
[[universe]]
ticker = "SBER"
source = "moex"
[sources.mine]
kind = "files"
path = "candles"
"""
HEAD = "date,open,high,low,close,volume\n"


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "candles").mkdir()
    rows = "2026-06-01,1,2,1,2,10\n2026-06-02,2,3,2,3,20\n2026-06-03,3,2,4,3,20\n"
    (tmp_path / "candles" / "AAA.csv").write_text(HEAD + rows)
    (tmp_path / "candles" / "BBB.csv").write_text(HEAD + rows[:22])

    def run(*arguments: str) -> tuple[int, str, str]:
        argv = ["stock-assets", "sources", *arguments]
        monkeypatch.setattr(sys, "argv", [*argv, "--settings", str(tmp_path / "settings.toml")])
        code = cli._run_app()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_list_names_each_source_with_its_tickers_and_limit(shell) -> None:
    code, out, _ = shell("list", "--json")
    found = {item["name"]: item for item in json.loads(out)}
    assert code == 0
    assert found["mine"]["tickers"] == ["AAA", "BBB"]
    assert found["moex"]["where"] == "https://iss.moex.com/iss", "built in: no section needed"
    assert found["moex"]["requests_per_second"] == 4
    assert "AAA, BBB" in shell("list")[1]


def test_a_source_that_answers_is_told_from_one_that_does_not(shell, tmp_path: Path) -> None:
    code, out, _ = shell("check", "mine")
    assert code == 0
    assert "mine answers" in out
    assert "2 files" in out
    assert "no row" not in out
    (tmp_path / "candles" / "BBB.csv").unlink()
    code, out, _ = shell("check", "mine")
    assert code == 0, "its other tickers go on"
    assert "no row is of BBB" in out
    for file in (tmp_path / "candles").iterdir():
        file.unlink()
    code, out, _ = shell("check", "mine")
    assert code == 3
    assert "mine does NOT answer" in out
    assert "there is no candle file" in out


def test_a_fetch_shows_candles_and_what_would_be_set_aside_and_makes_no_lake(
    shell, tmp_path: Path
) -> None:
    code, out, err = shell("fetch", "mine", "--from", "2026-06-01", "--to", "2026-06-03", "--json")
    assert code == 0
    assert [(row["day"], row["ticker"]) for row in json.loads(out)] == [
        ("2026-06-01", "AAA"),
        ("2026-06-01", "BBB"),
        ("2026-06-02", "AAA"),
    ]
    assert "1 rows would be set aside" in err
    assert "high 2.0 is below" in err
    assert not (tmp_path / "data").exists()


def test_a_fetch_of_days_without_candles_says_which_they_were(shell) -> None:
    code, _, err = shell("fetch", "mine", "--from", "2026-05-04", "--to", "2026-05-08")
    assert code == 0
    assert "no candle from 2026-05-04 to 2026-05-08" in err


def test_a_fetch_into_a_file_keeps_types(shell, tmp_path: Path) -> None:
    out = tmp_path / "some.parquet"
    code, _, err = shell(
        *("fetch", "--from", "2026-06-01", "--to", "2026-06-02", "--tickers", "AAA"),
        *("--out", str(out)),
    )
    assert code == 0
    assert "2 candles in" in err
    assert pl.read_parquet(out).schema["day"] == pl.Date


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("check", "maex"), 2, "no source 'maex'"),
        (("fetch", "maex"), 2, "no source 'maex'"),
        (("fetch", "mine", "--tickers", "SBER"), 2, "source mine has AAA, BBB"),
        (("fetch", "--from", "2026-06-03", "--to", "2026-06-01"), 2, "swap them"),
        (("fetch", "--out", "x.xlsx"), 2, ".csv or .parquet"),
    ],
)
def test_wrong_use_is_told_as_such(shell, arguments, code: int, told: str) -> None:
    found, _, err = shell(*arguments)
    assert found == code
    assert told in err


def test_the_program_shows_what_sources_log(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "candles").mkdir()
    for name in ("AAA", "ZZZ"):
        (tmp_path / "candles" / f"{name}.csv").write_text(HEAD + "2026-06-01,1,2,1,2,10\n")
    program = str(Path(sys.executable).with_name("stock-assets"))
    done = subprocess.run(
        [program, "sources", "fetch", "mine", "--from", "2026-06-01", "--to", "2026-06-01",
         "--settings", str(tmp_path / "settings.toml")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "warning:" in done.stderr
    assert "ignored what is not in its universe: 'ZZZ'" in done.stderr
