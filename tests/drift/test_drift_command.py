"""`stock-assets drift`: the verdict of any evaluated day, its page drawn where it is missing."""

from __future__ import annotations

import json

import pytest

from stock_assets import cli, console
from stock_assets.drift.drawing import Drawer
from stock_assets.drift.pages import index_file, page_file
from stock_assets.drift.verdict import verdicts
from stock_assets.lake.schemas import Drift
from stock_assets.lake.store import Lake
from stock_assets.settings import load_settings
from stock_assets.slices import Slice

from .drawn_market import CALM, DAY, RISEN, TICKERS, WIDE, Draws, market, measured, stored_features


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the command on a lake with one evaluated day; its exit code and what it printed."""
    universe = "\n".join(
        f'[[universe]]\nticker = "{ticker}"\nsource = "s"\nexchange = "{exchange}"'
        for ticker, exchange in TICKERS.items()
    )
    file = tmp_path / "market.toml"
    file.write_text(
        f'[lake]\npath = "data"\n[partitions]\nfirst_day = 2024-03-01\n{universe}\n'
        '[sources.s]\nkind = "simulated"\n'
        "[drift]\nreference = 60\ncurrent = 10\nfeature_threshold = 0.8\n"
    )
    settings = load_settings(file)
    lake = Lake(settings.lake_dir)
    area = Slice(None, DAY, settings.tickers)
    rows = measured(market(tmp_path))
    lake.write("drift", Drift.cast(rows), area)
    lake.write("features", stored_features(), area)
    draws = Draws()
    monkeypatch.setattr(Drawer, "start", lambda _: None)
    monkeypatch.setattr(Drawer, "draw", lambda _, drawing: draws(drawing))
    monkeypatch.setattr(console.results, "width", 300)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(cli.sys, "argv", ["stock-assets", *arguments, "--settings", str(file)])
        code = cli._run_app()
        said = capsys.readouterr()
        return code, said.out, said.err

    run.settings, run.draws, run.verdict = settings, draws, verdicts(rows, settings)[-1]
    return run


def test_it_draws_what_is_missing_once_and_says_where_it_is(command):
    page = page_file(command.settings, DAY)

    code, said, _ = command("drift")

    assert code == 0
    for words in (
        f"Drift: {command.verdict.sentence}",
        *(ticker.sentence for ticker in command.verdict.drifted_tickers),
        f"report: {page}",
        f"all days: {index_file(command.settings)}",
    ):
        assert words in said
    assert page.exists()
    assert page_file(command.settings, DAY, WIDE).exists()
    assert page.name in index_file(command.settings).read_text()
    drawn = len(command.draws.asked)
    assert command("drift", str(DAY)) == (code, said, "")
    assert len(command.draws.asked) == drawn


def test_it_draws_any_tickers_page_and_only_that(command):
    code, said, _ = command("drift", str(DAY), "--ticker", CALM, "--json")

    assert code == 0
    assert json.loads(said) == {
        "day": str(DAY),
        "moved": True,
        "sentence": command.verdict.sentence,
        "drifted_tickers": [item.ticker for item in command.verdict.drifted_tickers],
        "faults": [],
        "report": str(page_file(command.settings, DAY, CALM)),
        "index": str(index_file(command.settings)),
    }
    assert not page_file(command.settings, DAY).exists()
    assert set(json.loads(said)["drifted_tickers"]) == {WIDE, RISEN}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["2024-06-26"], "stock-assets run --from 2024-06-26 --to 2024-06-26 --assets drift --set"),
        (["2024-06-23"], "Sunday 2024-06-23 is not a session of"),
        (["yesterday"], "DAY 'yesterday' is not a day"),
        (["--ticker", "ZZZ"], "'ZZZ' is not in the universe"),
    ],
)
def test_what_cannot_be_drawn_is_named(command, arguments, told):
    code, said, message = command("drift", *arguments)

    assert (code, said) == (2, "")
    assert told in " ".join(message.split())


def test_status_tells_the_same_and_draws_nothing(command):
    code, said, _ = command("status")

    assert code == 0
    assert f"Drift: {command.verdict.sentence}" in said
    assert "report: none saved for that day" in said
    _, content, _ = command("status", "--json")
    assert json.loads(content)["drift"]["sentence"] == command.verdict.sentence
    assert not command.draws.asked
