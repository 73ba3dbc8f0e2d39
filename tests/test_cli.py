"""The command line: what goes to stdout and stderr, exit codes, and errors that name the fix."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import dagster as dg
import polars as pl
import pytest

from stock_assets import cli
from stock_assets.lake.store import Lake
from stock_assets.lake.views import macros
from stock_assets.settings import load_settings
from stock_assets.slices import WHY_TAG, Slice

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = """
[lake]
path = "data"
[partitions]
first_day = 2026-06-01
[[universe]]
tickers = ["AAA", "BBB", "CCC"]
source = "files"
exchange = "XMOS"
[sources.files]
kind = "files"
path = "candles"
"""


@dataclass
class Shell:
    """The command line in this process, on a lake of its own."""

    folder: Path
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    @property
    def settings(self) -> Path:
        return self.folder / "settings.toml"

    @property
    def lake(self) -> Lake:
        return Lake(self.folder / "data" / "lake")

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        argv = ["stock-assets", *arguments, "--settings", str(self.settings)]
        self.patch.setattr(sys, "argv", argv)
        code = cli._run_app()
        captured = self.capture.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    # prepare_home sets these for the processes it starts; the next test must not see them.
    for name in (
        "DAGSTER_HOME",
        "STOCK_ASSETS_EVENT_LOG",
        "STOCK_ASSETS_SETTINGS",
        "STOCK_ASSETS_CELLS_PER_RUN",
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return Shell(tmp_path, monkeypatch, capsys)


def candle_rows() -> pl.DataFrame:
    days = [dt.date(2026, 6, 1), dt.date(2026, 6, 2)]
    return pl.DataFrame(
        [(day, name, "1d", 1.0, 2.0, 0.5, 1.5, 10.0, "files") for day in days for name in "AB"],
        schema=["day", "ticker", "interval", "open", "high", "low", "close", "volume", "source"],
        orient="row",
    ).with_columns(start=pl.col("day").cast(pl.Datetime("us", "UTC")))


def test_sql_prints_the_result_and_nothing_else_on_stdout(shell: Shell) -> None:
    shell.lake.write("candles", candle_rows(), Slice(None, dt.date(2026, 6, 2), ("A", "B")))
    code, out, err = shell("sql", "select count(*) as n from candles where ticker = 'A'", "--json")
    assert (code, json.loads(out), err) == (0, [{"n": 2}], "")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_sql_writes_files(shell: Shell, ending: str) -> None:
    shell.lake.write("candles", candle_rows(), Slice(None, dt.date(2026, 6, 2), ("A", "B")))
    file = shell.folder / f"rows.{ending}"
    code, out, err = shell("sql", "select ticker, close from candles", "--out", str(file))
    found = pl.read_csv(file) if ending == "csv" else pl.read_parquet(file)
    assert (code, out, found.height) == (0, "", 4)
    assert "4 rows" in err


def test_sql_on_an_empty_lake_has_every_table_and_no_rows(shell: Shell) -> None:
    query = "select (select count(*) from forecasts) + (select count(*) from quarantine) as n"
    code, out, _ = shell("sql", query, "--json")
    assert (code, json.loads(out)) == (0, [{"n": 0}])


def test_sql_knows_the_instruments_as_the_settings_have_them(shell: Shell) -> None:
    shell.settings.write_text(
        SETTINGS.replace(
            "[[universe]]",
            '[[universe]]\nticker = "DDD"\nsource = "files"\nsector = "metals"\n'
            'listed = 2020-01-03\nformerly = [{symbol = "OLD", until = 2021-01-01}]\n[[universe]]',
        )
    )
    code, out, err = shell(
        "sql", "select ticker, sector, listed, formerly, symbol from instruments", "--json"
    )
    assert code == 0, err
    assert json.loads(out)[-1] == {
        "ticker": "DDD",
        "sector": "metals",
        "listed": "2020-01-03",
        "formerly": ["OLD"],
        "symbol": "DDD",
    }


def test_sql_shows_columns_of_the_same_name_and_wide_rows_whole(shell: Shell) -> None:
    code, out, _ = shell("sql", "select 1 as a, 2 as a, 3 as a", "--json")
    assert (code, json.loads(out)) == (0, [{"a": 1, "a_2": 2, "a_3": 3}])
    _, out, _ = shell("sql", "select * from models")
    assert "features_version" in out


def test_sql_prints_the_macros_for_a_duckdb_of_ones_own(shell: Shell) -> None:
    code, out, _ = shell("sql", "--macros")
    assert (code, out) == (0, macros())
    query = "select count(probability_above(f, 300)) as n from forecasts f"
    assert shell("sql", query, "--json")[1].strip() == '[{"n":0}]'


def test_sql_as_of_a_moment_sees_what_was_there_then(shell: Shell) -> None:
    first = candle_rows()
    area = Slice(None, dt.date(2026, 6, 2), ("A", "B"))
    shell.lake.write("candles", first, area)
    time.sleep(0.002)  # commits count milliseconds
    then = dt.datetime.now(tz=dt.UTC)
    time.sleep(0.002)
    shell.lake.write("candles", first.with_columns(close=pl.lit(1.75)), area)
    query = (
        "select close, version, (select count(*) from bars) as bars from candles, lake_versions "
        "where table_name = 'candles' group by all"
    )
    now = json.loads(shell("sql", query, "--json")[1])
    assert now == [{"close": 1.75, "version": 1, "bars": 0}]
    # The same moment, in UTC and in another zone.
    zone = dt.timezone(dt.timedelta(hours=3))
    for text in (then.replace(tzinfo=None).isoformat(), then.astimezone(zone).isoformat()):
        _, out, _ = shell("sql", query, "--json", "--as-of", text)
        assert json.loads(out) == [{"close": 1.5, "version": 0, "bars": 0}]
    yesterday = f"{then - dt.timedelta(1):%Y-%m-%d}"
    _, out, err = shell("sql", "select count(*) as n from candles", "--json", "--as-of", yesterday)
    assert "nothing had been written into this lake by" in err
    assert json.loads(out) == [{"n": 0}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2999-01-01", "the end of that day is still to come"),
        ("today", "leave it out for what is known now"),
        ("2999-01-01T10:00+03:00", "that moment is still to come"),
        ("yesterday", "write 2026-05-04, or 2026-05-04T18:30 (UTC)"),
    ],
)
def test_an_as_of_that_is_no_past_moment_is_refused(shell: Shell, text: str, words: str) -> None:
    # Not at import: a suite may live through a midnight.
    text = f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}" if text == "today" else text
    code, out, err = shell("sql", "select 1", "--as-of", text)
    assert (code, out) == (2, "")
    assert words in " ".join(err.split())


def test_dev_hands_its_address_to_what_writes_links(shell: Shell) -> None:
    """Links in the UI, in e-mails and on Slack lead to where UI and pages are served."""
    served = []

    @contextmanager
    def serving(_: Path, host: str, port: int) -> Iterator[str]:
        served.append((host, port))
        yield f"http://{host}:{port}/"

    def dagster(command: list[str], env: dict[str, str], _: Path) -> int:
        assert command[-4:] == ["-h", "192.0.2.7", "-p", "4000"]
        with mock.patch.dict(os.environ, env, clear=True):
            settings = load_settings()
        assert settings.lake_dir == shell.lake.root, "the settings of `dev` are its own"
        assert settings.ui_address == "http://192.0.2.7:4000"
        assert settings.reports_address == "http://192.0.2.7:3005"
        return 0

    shell.settings.write_text(f"{SETTINGS}[server]\nport = 3004\nreports_port = 3005\n")
    shell.patch.setattr("stock_assets.launch.open_instance", nullcontext)
    shell.patch.setattr("stock_assets.reports_server.serving", serving)
    shell.patch.setattr("stock_assets.server_process.run_until_asked", dagster)

    code, _, said = shell("dev", "--host", "192.0.2.7", "--port", "4000")

    assert (code, served) == (0, [("192.0.2.7", 3005)])
    assert "UI on http://192.0.2.7:4000/" in said


def test_maintain_keeps_all_versions_unless_the_settings_say_for_how_long(shell: Shell) -> None:
    area = Slice(None, dt.date(2026, 6, 2), ("A", "B"))
    for close in (1.5, 1.75):
        shell.lake.write("candles", candle_rows().with_columns(close=pl.lit(close)), area)
    _age(shell.lake.root / "candles", 40)
    assert "0 old ones removed" in shell("maintain")[1]
    then = f"{dt.datetime.now(tz=dt.UTC) - dt.timedelta(39):%Y-%m-%d}"
    found = shell("sql", "select distinct close from candles", "--json", "--as-of", then)
    assert json.loads(found[1]) == [{"close": 1.75}]
    shell.settings.write_text(SETTINGS.replace('path = "data"', 'path = "data"\nkeep_days = 30'))
    assert "1 old ones removed" in shell("maintain")[1]
    assert json.loads(shell("sql", "select count(*) as n from candles", "--json")[1]) == [{"n": 4}]


def _age(table: Path, days: int) -> None:
    """Make a table, and all that its log says of time, so many days older."""
    earlier = days * 86_400_000
    for file in table.rglob("*.json"):
        actions = [json.loads(line) for line in file.read_text().splitlines()]
        for action in actions:
            for kind, name in (("commitInfo", "timestamp"), ("remove", "deletionTimestamp")):
                if kind in action:
                    action[kind][name] -= earlier
        file.write_text("\n".join(map(json.dumps, actions)) + "\n")
    for file in table.rglob("*"):
        moment = file.stat().st_mtime - earlier / 1000
        os.utime(file, (moment, moment))


def test_sql_errors_are_wrong_use(shell: Shell) -> None:
    code, out, err = shell("sql", "select nope from candles")
    assert (code, out) == (2, "")
    assert "nope" in err
    assert shell("sql", "select 1", "--out", "rows.xlsx")[0] == 2


def test_status_says_what_the_lake_holds_and_who_is_behind(shell: Shell) -> None:
    shell.lake.write("candles", candle_rows(), Slice(None, dt.date(2026, 6, 2), ("A", "B")))
    code, out, _ = shell("status", "--json")
    found = json.loads(out)
    tables = {item["table"]: item for item in found["tables"]}
    assert code == 0
    assert tables["candles"]["rows"] == 4
    assert tables["candles"]["last_day"] == "2026-06-02"
    assert tables["bars"]["version"] is None
    assert [item["ticker"] for item in found["stale"]] == ["AAA", "BBB", "CCC"]
    code, out, _ = shell("status")
    assert code == 0
    assert "Stale tickers" in out


def test_maintain_changes_no_row_and_leaves_few_files(shell: Shell) -> None:
    rows = candle_rows()
    days = [dt.date(2026, 6, 1) + dt.timedelta(n) for n in range(14)]
    for day in days:
        dated = rows.filter(pl.col("day") == dt.date(2026, 6, 1)).with_columns(
            day=pl.lit(day), start=pl.lit(day).cast(pl.Datetime("us", "UTC"))
        )
        shell.lake.write("candles", dated, Slice(day, day, ("A", "B")))
    before = shell.lake.read("candles")
    code, out, _ = shell("maintain")
    assert code == 0
    assert "14 files -> 1" in out
    assert shell.lake.read("candles").equals(before)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run", "--from", "yesterday"), 2, "write it as 2026-06-30"),
        (("run", "--tickers", "NOPE"), 2, "NOPE"),
        (("run", "--assets", "nope"), 2, "candles, quarantine, bars"),
        (("run", "--from", "2026-06-06", "--to", "2026-06-07"), 2, "no trading day"),
    ],
)
def test_wrong_use_names_the_culprit_and_the_fix(
    shell: Shell, arguments: tuple[str, ...], code: int, words: str
) -> None:
    found, out, err = shell(*arguments)
    assert (found, out) == (code, "")
    assert words in " ".join(err.split())


def test_a_bad_setting_names_file_key_and_fix(shell: Shell) -> None:
    shell.settings.write_text(SETTINGS.replace("first_day = 2026-06-01", "first_dya = 2026-06-01"))
    code, _, err = shell("status")
    assert code == 2
    assert all(word in err for word in ("settings.toml", "partitions.first_dya", "spelling"))


def test_a_lake_that_cannot_be_written_is_said_before_anything_runs(shell: Shell) -> None:
    (shell.folder / "data").write_text("a file where the lake should be")
    code, _, err = shell("run", "--from", "2026-06-01", "--to", "2026-06-02")
    assert code == 4
    assert "lake.path" in err


def test_rubbish_from_a_source_fails_the_run_and_leaves_the_lake(shell: Shell) -> None:
    folder = shell.folder / "candles"
    folder.mkdir()
    (folder / "AAA.csv").write_bytes(bytes(range(256)) * 40)
    code, _, err = shell("run", "--from", "2026-06-01", "--to", "2026-06-02")
    assert code == 3
    assert "AAA.csv" in err
    assert shell.lake.version("candles") is None


@pytest.mark.slow
def test_a_process_of_its_own_says_nothing_but_the_result(shell: Shell) -> None:
    program = Path(sys.executable).with_name("stock-assets")
    done = subprocess.run(
        [program, "sql", "select 1 as one", "--json", "--settings", shell.settings],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (json.loads(done.stdout), done.stderr) == ([{"one": 1}], "")


def test_the_program_tells_its_version(shell: Shell) -> None:
    shell.patch.setattr(sys, "argv", ["stock-assets", "--version"])
    assert cli._run_app() == 0
    assert shell.capture.readouterr().out == f"{version('stock-assets')}\n"


def test_an_interrupted_command_says_how_the_tables_are(shell: Shell) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    shell.patch.setattr(cli, "load", interrupted)
    code, out, err = shell("status")
    assert code == 130
    assert (out, "interrupted; every table is as before" in err) == ("", True)


@pytest.mark.slow
def test_tickers_apart_are_run_one_block_at_a_time(shell: Shell) -> None:
    folder = shell.folder / "candles"
    folder.mkdir()
    for name in ("AAA", "BBB", "CCC"):
        (folder / f"{name}.csv").write_text(
            "Date,Open,High,Low,Close,Volume\n2026-06-01,1,2,0.5,1.5,7\n2026-06-02,1,3,0.5,2,7\n"
        )
    # The step that makes candles makes quarantine too: naming one of them is enough.
    assets = ("--assets", "candles")
    code, out, err = shell("run", "--to", "2026-06-02", "--tickers", "AAA,CCC", *assets, "--json")
    assert code == 0, err
    assert "Warning" not in err
    assert len(json.loads(out)) == 2
    assert set(shell.lake.read("candles")["ticker"]) == {"AAA", "CCC"}
    assert not _whys()


@pytest.mark.slow
def test_runs_of_a_slice_too_large_for_one_say_which_part_they_are(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shell.folder / "candles"
    folder.mkdir()
    (folder / "AAA.csv").write_text(
        "Date,Open,High,Low,Close,Volume\n2026-06-01,1,2,0.5,1.5,7\n2026-06-02,1,3,0.5,2,7\n"
    )
    monkeypatch.setenv("STOCK_ASSETS_PARTITIONS__CELLS_PER_RUN", "1")
    run = ("run", "--to", "2026-06-02", "--tickers", "AAA", "--assets", "candles")
    code, _, err = shell(*run)
    assert code == 0, err
    assert _whys() == {
        "2026-06-01|AAA": "part 1 of 2 (partitions.cells_per_run)",
        "2026-06-02|AAA": "part 2 of 2 (partitions.cells_per_run)",
    }


def _whys() -> dict[str, str]:
    """What the runs on the last command's instance say why they are there, by first cell."""
    with dg.DagsterInstance.get() as instance:
        tags = [run.tags for run in instance.get_runs()]
    return {
        of_run["dagster/asset_partition_range_start"]: of_run[WHY_TAG]
        for of_run in tags
        if WHY_TAG in of_run
    }
