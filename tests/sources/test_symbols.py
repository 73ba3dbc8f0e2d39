"""`stock-assets sources check` finds a mistyped symbol before an evening fails of it."""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from api_server import Fault
from cbr_server import CbrServer, Currency
from moex_server import Iss, Listing, daily, moex_settings
from tinvest_server import TOKEN, TInvestServer
from tinvest_server import Listing as Instrument

from stock_assets import cli
from stock_assets.calendars import get_calendar
from stock_assets.settings import Settings
from stock_assets.sources import tinvest
from stock_assets.sources.checking import check

if TYPE_CHECKING:
    from pathlib import Path

TODAY = dt.datetime.now(tz=dt.UTC).date()
LATELY = get_calendar("weekdays").between(TODAY - dt.timedelta(20), TODAY)


def moscow() -> Iss:
    """Three shares, a fund and the index."""
    candles = {24: daily(LATELY)}
    begins = str(LATELY[0])
    shares = {
        name: [Listing("TQBR", candles, is_primary=1, history_from=begins)]
        for name in ("SBER", "SBERP", "GAZP")
    }
    fund = Listing("TQTF", candles, is_primary=1, history_from=begins)
    index = Listing("SNDX", candles, market="index", is_primary=1, history_from=begins)
    return Iss({**shares, "TMOS": [fund], "IMOEX": [index]})


def instruments(*tickers: str, **own: Any) -> list[dict[str, Any]]:
    return [{"ticker": ticker, **own} for ticker in tickers]


def unknown(settings: Settings) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What the one source does not know: symbol and what is nearest, by ticker."""
    (name,) = settings.sources
    found = check(name, settings)
    assert found.answers, found.said
    return {item.ticker: (item.symbol, item.nearest) for item in found.unknown}


def test_moex_names_each_unknown_symbol_with_the_nearest_codes(tmp_path: Path) -> None:
    universe = instruments("SBER", "SBRE", "TMOS", "IMOEX", "XQ", source="moex")
    universe.append(
        {"ticker": "GAZP", "source": "moex",
         "formerly": [{"symbol": "GAZZ", "until": dt.date(2014, 1, 6)}]}
    )  # fmt: skip
    with moscow().serve() as server:
        assert unknown(moex_settings(tmp_path, server.url, universe)) == {
            "SBRE": ("SBRE", ("SBER", "SBERP")),
            "XQ": ("XQ", ()),
            "GAZP": ("GAZZ", ("GAZP",)),
        }
        cards = sorted(item.path for item in server.seen if item.path.startswith("/iss/securities"))
    asked = ("GAZZ", "IMOEX", "SBRE", "TMOS", "XQ")
    assert cards == [f"/iss/securities/{name}.json" for name in asked], "shares are known by a list"


def test_a_whole_universe_of_shares_costs_one_question(tmp_path: Path) -> None:
    settings = [
        moex_settings(tmp_path, "", instruments(*names, source="moex"))
        for names in (("SBER",), ("SBER", "SBERP", "GAZP"))
    ]
    asked = []
    for one in settings:
        with moscow().serve() as server:
            own = one.sources["moex"].model_copy(update={"base_url": f"{server.url}/iss"})
            assert unknown(one.model_copy(update={"sources": {"moex": own}})) == {}
            asked.append(len(server.seen))
    assert asked[0] == asked[1]


def test_tinvest_names_each_unknown_symbol_with_the_nearest_tickers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINVEST_TOKEN", TOKEN)
    monkeypatch.setattr(tinvest, "_A_MINUTE", dict.fromkeys(tinvest._A_MINUTE, 6000))
    listings = [Instrument(name, f"uid-{name}") for name in ("SBER", "SBERP", "GAZP")]
    listings.append(Instrument("TMOS", "uid-TMOS", class_code="TQTF", kind="etf"))
    # First of the universe, so that the probe is made with it.
    universe = instruments("AAAA", "GAZP", "SBRE", "TMOZ", source="tinvest")
    universe[1]["symbol"] = "GAZP_TQBR"
    with TInvestServer(listings) as server:
        settings = Settings(
            lake={"path": tmp_path},
            universe=universe,
            sources={"tinvest": {"kind": "tinvest", "base_url": server.rest, "first_wait": 0.01}},
        )
        assert unknown(settings) == {
            "AAAA": ("AAAA", ()),
            "SBRE": ("SBRE", ("SBER", "SBERP")),
            "TMOZ": ("TMOZ", ("TMOS_TQTF",)),
        }


def test_the_bank_of_russia_names_each_unknown_symbol_with_the_nearest_codes(
    tmp_path: Path,
) -> None:
    prices = dict.fromkeys(LATELY, 11000.0)
    currencies = {"USD": Currency("R01235", prices), "EUR": Currency("R01239", prices)}
    with CbrServer({"XAU": prices}, currencies) as server:
        settings = Settings(
            lake={"path": tmp_path},
            universe=instruments("XAU", "USD", "EURO", "GOLDD", "QQQ", source="cbr"),
            sources={"cbr": {"kind": "cbr", "base_url": server.url, "requests_per_second": 50}},
        )
        assert unknown(settings) == {
            "EURO": ("EURO", ("EUR",)), "GOLDD": ("GOLDD", ("GOLD",)), "QQQ": ("QQQ", ()),
        }  # fmt: skip


def test_a_look_up_that_fails_is_trouble_and_no_unknown_symbol(tmp_path: Path) -> None:
    with moscow().serve() as server:
        settings = moex_settings(
            tmp_path, server.url, instruments("TMOS", source="moex"), attempts=1
        )
        server.fail_path("/iss/securities/TMOS.json", Fault("status", 503))
        found = check("moex", settings)
    assert not found.answers
    assert not found.unknown
    assert "answered 503" in found.said


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_the_command_tells_them_and_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    with moscow().serve() as server:
        (tmp_path / "market.toml").write_text(
            '[lake]\npath = "data"\n'
            '[[universe]]\nticker = "OIL"\nsymbol = "SBRE"\nsource = "moex"\n'
            f'[sources.moex]\nkind = "moex"\nbase_url = "{server.url}/iss"\n'
            "requests_per_second = 50\n"
        )
        argv = ["stock-assets", "sources", "check", *arguments]
        monkeypatch.setattr(sys, "argv", [*argv, "--settings", str(tmp_path / "market.toml")])
        assert cli._run_app() == 3
    said = capsys.readouterr().out
    if arguments:
        (found,) = json.loads(said)
        assert found["answers"]
        (item,) = found["unknown"]
        assert (item["ticker"], item["symbol"]) == ("OIL", "SBRE")
        assert item["nearest"] == ["SBER", "SBERP"]
        assert "knows no security 'SBRE'" in item["why"]
    else:
        flat = " ".join(said.split())
        assert "moex answers" in flat
        assert "it does NOT know SBRE, the symbol of OIL; nearest: SBER, SBERP" in flat
    assert not (tmp_path / "data" / "lake").exists()
