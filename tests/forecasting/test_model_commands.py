"""`stock-assets model ...` where a model, or the registry, is not as it should be.

What orders do to forecasts is in tests/graph/test_orders.py.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import polars as pl
import pytest

from stock_assets import cli
from stock_assets.forecasting import registry as registry_module
from stock_assets.forecasting.gate import Verdict
from stock_assets.forecasting.model import fit, trainable
from stock_assets.forecasting.registry import Registry, TrainingRecord, _client, _places
from stock_assets.lake.schemas import Models
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings, load_settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Shell = Callable[..., tuple[int, str, str]]

SETTINGS = """
[lake]
path = "data"
[partitions]
first_day = 2025-06-02
[[universe]]
tickers = ["A", "B"]
source = "made"
[sources.made]
kind = "simulated"
"""
DAYS = (dt.date(2024, 1, 3), dt.date(2024, 2, 1))
FIRST, SECOND = (f"catboost-{day}-x" for day in DAYS)
NEXT = dt.date(2025, 6, 2)


@pytest.fixture(scope="module")
def two_models(
    tmp_path_factory: pytest.TempPathFactory,
    features: pl.DataFrame,
    labelled: pl.DataFrame,
    sessions: list[dt.date],
) -> Path:
    """A registry of two models."""
    folder = tmp_path_factory.mktemp("registry")
    first = sessions[250]
    model = fit(trainable(features, labelled).filter(pl.col("label_end") <= first), first)
    verdict = Verdict(True, "better", 0.9, None, 1.0, 250)
    for name, day in zip((FIRST, SECOND), DAYS, strict=True):
        Registry(folder).register(model, TrainingRecord(name, day, ("A", "B"), 10, verdict))
    return folder


@pytest.fixture
def settings(tmp_path: Path, two_models: Path) -> Settings:
    """A lake in which the second model followed the first."""
    (tmp_path / "settings.toml").write_text(SETTINGS)
    found = load_settings(tmp_path / "settings.toml")
    shutil.copytree(two_models, found.mlflow_dir)
    schema = Models.create_empty().schema
    rows = [
        {"day": day, "ticker": ticker, "model": name, "decision": "trained", "reason": "better",
         "trained_day": day, "attempted_day": day}
        for name, day in zip((FIRST, SECOND), DAYS, strict=True)
        for ticker in "AB"
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema=schema).sort(Models.primary_key())
    Lake(found.lake_dir).write("models", frame, Slice(None, DAYS[-1], ("A", "B")))
    return found


@pytest.fixture
def shell(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    file = str(settings.lake.path.parent / "settings.toml")

    def shell(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stock-assets", "model", *arguments, "--settings", file])
        code = cli._run_app()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return shell


def damage(settings: Settings, model_id: str, file: str = "training.json") -> None:
    (place,) = _places(settings.mlflow_dir.resolve(), model_id)
    (place.files / file).write_text("harmed")


@pytest.mark.slow
def test_a_damaged_model_is_listed_and_the_others_work(shell: Shell, settings: Settings) -> None:
    damage(settings, FIRST)
    code, out, err = shell("list")
    assert code == 0
    assert "damaged" in out
    assert SECOND in out
    assert f"warning: version 1 cannot serve: model {FIRST}: " in err
    code, out, err = shell("list", "--json")
    listed = json.loads(out)
    assert [item["condition"] for item in listed["models"]] == ["damaged", "sound"]
    assert [item["decision"] for item in listed["models"]] == [None, "trained"]
    assert "was changed or cut short" in listed["problems"][0]
    code, out, _ = shell("show", "2", "--json")
    assert (code, json.loads(out)["problem"]) == (0, None)
    code, _, err = shell("show", "1")
    assert code == 5
    assert "was changed or cut short" in err


def test_rolling_back_from_a_damaged_model_needs_only_the_one_before(
    shell: Shell, settings: Settings
) -> None:
    damage(settings, SECOND)
    code, out, err = shell("rollback", "--why", "it is damaged", "--by", "ann", "--json")
    assert code == 0, err
    assert json.loads(out)["model"] == FIRST
    code, out, _ = shell("list", "--json")
    assert json.loads(out)["models"][0]["in force"] == "all 2 tickers"


def test_models_of_an_older_version_are_listed_and_the_baseline_serves(
    shell: Shell, settings: Settings
) -> None:
    with closing(sqlite3.connect(settings.mlflow_dir / "mlflow.db")) as database, database:
        database.execute("delete from model_version_tags where key = 'sha256'")
    code, out, err = shell("list")
    assert code == 0
    assert "other code" in out
    assert "The baseline serves all 2 tickers." in out
    assert "another version of stock-assets registered version 1, 2, which cannot serve here" in err
    for arguments in (["show", "2"], ["promote", "2", "--why", "x"], ["rollback", "--why", "x"]):
        code, _, err = shell(*arguments)
        assert code == 5
        assert "was registered by an older version of stock-assets" in err
        assert "promote baseline" in err
    code, _, err = shell("promote", "baseline", "--why", "until another is trained", "--by", "ann")
    assert (code, err) == (0, "")


@pytest.mark.slow
def test_a_model_of_other_code_is_shown_and_cannot_be_ordered(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "CODE_VERSION", 99)
    code, out, err = shell("show", SECOND)
    assert code == 0
    assert "better" in out
    assert "warning: it cannot serve" in err
    assert "here 99" in err
    code, _, err = shell("promote", SECOND, "--why", "x")
    assert code == 5
    assert "here 99" in err


def test_an_order_is_told_though_the_alias_cannot_be_moved(
    shell: Shell, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    def locked(*_: object) -> None:
        raise MlflowException("database is locked")

    monkeypatch.setattr(type(_client(settings.mlflow_dir)), "set_registered_model_alias", locked)
    code, out, err = shell("promote", FIRST, "--why", "it was right", "--by", "ann")
    assert code == 0
    assert f"{FIRST} is in force from {NEXT} on, by order of ann" in " ".join(out.split())
    assert "the order stands, do not give it again" in err
    assert "database is locked" in err
    assert f"the run of `model` for {NEXT} moves it" in err
    assert Lake(settings.lake_dir).read("orders")["model"].to_list() == [FIRST]


@pytest.mark.parametrize("order", [("promote", "3"), ("rollback", "--to", "3")])
def test_a_model_whose_leak_alarm_rang_is_put_in_force_by_nobody(
    shell: Shell, settings: Settings, order: tuple[str, ...]
) -> None:
    registry = Registry(settings.mlflow_dir)
    alarm = "R2 of the median return is 30.0 %"
    verdict = Verdict(False, "too good", 0.5, None, 1.0, 250, leak_alarm=alarm)
    record = TrainingRecord("catboost-2026-03-02-leaky", DAYS[-1], ("A", "B"), 10, verdict)
    registry.register(registry.load(FIRST), record)
    before = Lake(settings.lake_dir).version("orders")
    code, _, err = shell(*order, "--why", "looks great")
    assert code == 5
    assert "catboost-2026-03-02-leaky cannot be put in force" in err
    assert alarm in err
    assert Lake(settings.lake_dir).version("orders") == before


@pytest.mark.slow
def test_who_promotes_what_the_gate_rejected_is_told_so(shell: Shell, settings: Settings) -> None:
    registry = Registry(settings.mlflow_dir)
    verdict = Verdict(False, "not better than the baseline", 1.0, None, 1.0, 250)
    record = TrainingRecord("catboost-2026-03-02-weak", DAYS[-1], ("A", "B"), 10, verdict)
    registry.register(registry.load(FIRST), record)
    code, _, err = shell("promote", "3", "--why", "a test")
    assert code == 0, err
    assert "the gate rejected catboost-2026-03-02-weak: not better than the baseline" in err
