"""Settings from TOML and the environment: what is read, and what bad ones are told."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from stock_assets.errors import SettingsError
from stock_assets.settings import (
    PROJECT_DIR,
    SAMPLE_SETTINGS,
    SETTINGS_VARIABLE,
    FilesSettings,
    load_settings,
)

GOOD = """
[lake]
path = "lake here"

[partitions]
first_day = 2024-01-09

[[universe]]
tickers = ["SBER", "GAZP"]
source = "mine"
exchange = "XMOS"
currency = "RUB"

[[universe]]
ticker = "AAPL"
source = "mine"
exchange = "XNYS"

[[universe]]
ticker = "GOLD"
source = "made"

[sources.mine]
kind = "files"
path = "candles"
timezone = "Europe/Moscow"
columns = { close = "last" }

[sources.made]
kind = "simulated"

[drift]
universe_share = 0.5
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "market.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    return str(caught.value)


def test_a_good_file_is_read_with_defaults_for_what_it_leaves_out(write):
    settings = load_settings(write(GOOD))

    assert settings.partitions.first_day == dt.date(2024, 1, 9)
    assert settings.drift.universe_share == 0.5
    assert settings.drift.current == 20
    assert settings.forecast.horizons == (1, 2, 3, 4, 5)
    assert settings.instrument("SBER").currency == "RUB"
    assert settings.instrument("GOLD").exchange == "weekdays"


def test_tickers_of_one_exchange_stand_together(write):
    settings = load_settings(write(GOOD))

    assert settings.tickers == ("GAZP", "SBER", "AAPL", "GOLD")
    exchanges = [item.exchange for item in settings.universe]
    assert sorted(set(exchanges)) == list(dict.fromkeys(exchanges)) == list(settings.exchanges)


def test_relative_paths_are_relative_to_the_file(write, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    settings = load_settings(write(GOOD))

    assert settings.lake.path == tmp_path / "lake here"
    assert settings.lake_dir == tmp_path / "lake here" / "lake"
    source = settings.sources["mine"]
    assert isinstance(source, FilesSettings)
    assert source.path == tmp_path / "candles"


def test_absolute_paths_stay(write, tmp_path):
    elsewhere = tmp_path.parent / "elsewhere"
    settings = load_settings(write(GOOD.replace("lake here", str(elsewhere))))

    assert settings.lake.path == elsewhere


def test_without_a_file_the_sample_market_is_used_and_lives_in_the_project():
    settings = load_settings()

    assert "GOLD" in settings.tickers
    assert settings.lake.path == PROJECT_DIR / "data"
    assert load_settings(SAMPLE_SETTINGS) == settings


def test_the_environment_names_the_file(write, monkeypatch):
    monkeypatch.setenv(SETTINGS_VARIABLE, str(write(GOOD)))

    assert load_settings().tickers == load_settings(write(GOOD)).tickers


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("STOCK_ASSETS_LAKE__PATH", "/srv/lake", lambda s: s.lake.path == Path("/srv/lake")),
        ("STOCK_ASSETS_DRIFT__CURRENT", "30", lambda s: s.drift.current == 30),
        ("STOCK_ASSETS_FORECAST__HORIZONS", "[1, 5]", lambda s: s.forecast.horizons == (1, 5)),
        (
            "STOCK_ASSETS_SOURCES__MADE__SEED",
            "11",
            lambda s: s.sources["made"].seed == 11 and s.sources["mine"].kind == "files",
        ),
        (
            "STOCK_ASSETS_PARTITIONS__FIRST_DAY",
            "2025-01-09",
            lambda s: s.partitions.first_day == dt.date(2025, 1, 9),
        ),
    ],
)
def test_the_environment_wins_over_the_file_key_by_key(write, monkeypatch, variable, value, read):
    monkeypatch.setenv(variable, value)
    settings = load_settings(write(GOOD))

    assert read(settings)
    assert settings.drift.universe_share == 0.5, "other keys of the file stay"


@pytest.mark.parametrize(
    ("replaced", "by", "told"),
    [
        ("[drift]", "[drfit]", ["drfit", "did you mean 'drift'"]),
        ("universe_share = 0.5", "univers_share = 0.5", ["drift.univers_share", "spelling"]),
        ("universe_share = 0.5", "universe_share = 2", ["drift.universe_share", "less than"]),
        ("universe_share = 0.5", 'universe_share = "x"', ["drift.universe_share", "'x'"]),
        ("first_day = 2024-01-09", "first_day = 7", ["partitions.first_day", "date"]),
        ('ticker = "GOLD"', 'ticker = "SBER"', ["'SBER'", "twice"]),
        ('ticker = "GOLD"', "ticker = \"a'; drop\"", ["a'; drop", "letters, digits"]),
        ('ticker = "GOLD"', 'ticker = "../x"', ["../x", "letters, digits"]),
        ('ticker = "GOLD"', 'ticker = ""', ["ticker", "letters, digits"]),
        ('source = "made"', 'source = "maid"', ["'GOLD'", "'maid'", "[sources.maid]"]),
        ('exchange = "XNYS"', 'exchange = "XNYZ"', ["unknown exchange 'XNYZ'", "weekdays"]),
        ("Europe/Moscow", "Europe/Mosco", ["sources.mine", "Europe/Mosco", "IANA"]),
        ("Europe/Moscow", "../../etc/passwd", ["unknown timezone", "IANA"]),
        ("close = ", "klose = ", ["klose", "ours are", "close"]),
        ('kind = "simulated"', 'kind = "similated"', ["sources.made", "simulated", "files"]),
        ("[drift]", "[forecast]\nhorizons = [5, 1]\n[drift]", ["forecast.horizons", "rising"]),
        ("[drift]", "[forecast]\nhorizons = [1, 6]\n[drift]", ["forecast.horizons", "rising"]),
        ("[drift]", "[forecast]\nhorizons = []\n[drift]", ["forecast.horizons", "rising"]),
        ("[drift]", "[drift", ["not valid TOML", "line"]),
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused_with_file_key_and_fix(write, replaced, by, told):
    assert replaced in GOOD
    path = write(GOOD.replace(replaced, by, 1))

    message = refused(path)

    assert str(path) in message
    for words in told:
        assert words in message


def test_every_wrong_key_is_named_at_once(write):
    message = refused(
        write(GOOD.replace("universe_share = 0.5", "universe_share = 7\ncurrent = 1"))
    )

    assert "drift.universe_share" in message
    assert "drift.current" in message


def test_a_file_that_is_not_there_is_told_what_to_copy(tmp_path):
    message = refused(tmp_path / "none.toml")

    assert "none.toml" in message
    assert str(SAMPLE_SETTINGS) in message


def test_a_folder_or_binary_rubbish_for_a_file_is_refused_by_name(tmp_path):
    rubbish = tmp_path / "rubbish.toml"
    rubbish.write_bytes(b"\xff\xfe\x00\x01")

    assert str(tmp_path) in refused(tmp_path)
    assert "rubbish.toml" in refused(rubbish)


def test_a_bad_environment_variable_is_named(write, monkeypatch):
    monkeypatch.setenv("STOCK_ASSETS_DRIFT__CURRENT", "many")

    message = refused(write(GOOD))

    assert "drift.current" in message
    assert "STOCK_ASSETS_DRIFT__CURRENT" in message


def test_bad_json_in_an_environment_variable_is_named(write, monkeypatch):
    monkeypatch.setenv("STOCK_ASSETS_FORECAST__HORIZONS", "[1, ")

    message = refused(write(GOOD))

    assert "forecast" in message.lower()
    assert "STOCK_ASSETS_" in message


def test_a_mistyped_variable_of_the_environment_is_refused(write, monkeypatch):
    monkeypatch.setenv("STOCK_ASSETS_DRIFT__CURENT", "30")

    assert "drift.curent" in refused(write(GOOD))


def test_settings_cannot_be_changed_after_loading(write):
    settings = load_settings(write(GOOD))

    with pytest.raises(Exception, match="frozen"):
        settings.drift.current = 3


def test_a_mistyped_section_of_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STOCK_ASSETS_LAK__PATH", "elsewhere")
    with pytest.raises(SettingsError, match=r"STOCK_ASSETS_LAK__PATH.*'lake'"):
        load_settings()


SECRET = "t.abcdefghijklmnop-SECRET"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f'token = "{SECRET}"', "token: is not a setting"),
        (f'token_variable = "{SECRET}"', "must be the name of an environment variable"),
    ],
)
def test_a_token_in_the_wrong_place_is_not_repeated(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "market.toml"
    file.write_text(f'[sources.tinvest]\nkind = "tinvest"\n{line}\n')
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert said in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_token_as_a_variable_of_the_settings_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCK_ASSETS_SOURCES__TINVEST__TOKEN", SECRET)
    file = tmp_path / "market.toml"
    file.write_text('[sources.tinvest]\nkind = "tinvest"\n')
    with pytest.raises(SettingsError, match="is not a setting") as caught:
        load_settings(file)
    assert "SECRET" not in str(caught.value)
