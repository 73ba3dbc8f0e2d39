"""A day's pages: what they state, that Evidently's verdicts on them are ours, what they link."""

from __future__ import annotations

import html
import re
import shutil
import subprocess

import polars as pl
import pytest

from stock_assets.drift import reports
from stock_assets.drift.distances import windows
from stock_assets.drift.evidently_page import drawn, snapshot
from stock_assets.drift.pages import page_file
from stock_assets.drift.reports import pooled_windows, write_pages, write_ticker_page
from stock_assets.drift.verdict import verdicts
from stock_assets.drift.watched import DRIFT_FEATURES
from stock_assets.errors import LakeError, StockAssetsError

from .drawn_market import CALM, DAY, RISEN, TICKERS, WIDE, Draws, features, market, measured


def text_of(path) -> str:
    """The header's text, tags taken out."""
    page = path.read_text(encoding="utf-8")
    header = page[page.index("<header>") : page.index("</header>")]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", header)))


def links_of(path) -> set[str]:
    return set(re.findall(r'<a href="([^"]+)"', path.read_text(encoding="utf-8")))


def test_there_is_a_page_of_the_universe_and_one_of_each_ticker_that_drifted(tmp_path):
    settings, draws = market(tmp_path), Draws()

    pages = write_pages(features(), measured(settings), settings, draws)

    first, *others = pages
    assert first == page_file(settings, DAY)
    assert set(others) == {page_file(settings, DAY, ticker) for ticker in (WIDE, RISEN)}
    assert all(page.exists() for page in pages)
    assert len(draws.asked) == 3
    assert [set(d.thresholds) for d in draws.asked] == [set(DRIFT_FEATURES) - {"volume_z_63"}] * 3


def test_the_universe_page_states_windows_sizes_verdicts_and_what_it_does_not_show(tmp_path):
    settings = market(tmp_path)
    drift = measured(settings)
    page = write_pages(features(), drift, settings, Draws())[0]
    said = text_of(page)
    verdict = verdicts(drift, settings)[-1]

    assert verdict.sentence in said
    for exchange, tickers in (("XMOS", 3), ("weekdays", 1)):
        reference, current = windows(DAY, exchange, settings.drift)
        assert f"{exchange} {tickers} {current[0]} to {DAY}, 10 sessions, {10 * tickers} rows" in (
            said
        )
        assert f"{reference[0]} to {reference[-1]}, 60 sessions, {60 * tickers} rows" in said
        (own,) = (item for item in verdict.markets if item.exchange == exchange)
        assert f"{own.share:.1%} (alarm above 20.0%)" in said
    assert "medians of the tickers' own" in said
    assert "log_variance_1d, the rise of the mean log variance, 5 sessions" in said
    assert "Left out, without values: volume_z_63" in said
    assert f"<title>Drift {DAY}</title>" in page.read_text(encoding="utf-8")


def test_a_pooled_columns_threshold_is_the_median_of_its_tickers(tmp_path):
    settings, draws = market(tmp_path), Draws()
    number = pl.col("ticker").replace_strict({WIDE: 0.5, RISEN: 1.5, CALM: 0.75, "GOLD": 2.0})

    write_pages(features(), measured(settings).with_columns(threshold=number), settings, draws)

    assert set(draws.asked[-1].thresholds.values()) == {(0.75 + 1.5) / 2}


def test_a_tickers_page_has_every_feature_with_its_threshold_and_rows(tmp_path):
    settings = market(tmp_path)
    drift = measured(settings)
    write_pages(features(), drift, settings, Draws())
    page = page_file(settings, DAY, RISEN)
    said = text_of(page)

    assert f"Drift of {RISEN} on {DAY}" in said
    assert "Volatility rose by 4." in said
    assert f"to {DAY}, 10 sessions. Reference: " in said
    own = drift.filter((pl.col("ticker") == RISEN) & pl.col("distance").is_not_null())
    for row in own.iter_rows(named=True):
        flag = "drifted " if row["drifted"] else ""
        what = "distance of the samples" if row["kind"] == "data" else "rise of the mean"
        words = f"{row['feature']} {flag}{what} {row['distance']:.3f} {row['threshold']:.3f}"
        assert f"{words} {row['current_rows']} {row['reference_rows']}" in said
    assert "<b>" not in said
    assert "S&P_1" not in page.read_text(encoding="utf-8"), "escaped"


def test_links_lead_to_pages_that_are_there(tmp_path):
    settings = market(tmp_path)
    pages = write_pages(features(), measured(settings), settings, Draws())

    assert links_of(pages[0]) == {"index.html", f"{DAY}_AAA.html", f"{DAY}_S%2526P_1.html"}
    assert links_of(pages[1]) == {"index.html", f"{DAY}.html"}
    assert page_file(settings, DAY, RISEN).name == f"{DAY}_S%26P_1.html"


def test_tickers_beyond_the_most_pages_of_a_day_are_listed_without_one(tmp_path):
    settings = market(tmp_path, ticker_pages=1)
    drift = measured(settings)

    pages = write_pages(features(), drift, settings, Draws())

    first = verdicts(drift, settings)[-1].drifted_tickers[0].ticker
    other = ({WIDE, RISEN} - {first}).pop()
    assert pages[1:] == [page_file(settings, DAY, first)]
    assert f"{other} (no page: more than 1)" in text_of(pages[0])


def test_only_drifted_features_are_drawn_where_some_have(tmp_path):
    settings, draws = market(tmp_path), Draws()
    drift = measured(settings).with_columns(
        drifted=pl.col("drifted") & (pl.col("feature") != "gap_1d")
    )

    write_ticker_page(features(), drift, settings, draws, WIDE)
    write_ticker_page(features(), drift, settings, draws, RISEN)

    assert set(draws.asked[0].thresholds) == set(DRIFT_FEATURES) - {"volume_z_63", "gap_1d"}
    assert set(draws.asked[1].thresholds) == set(DRIFT_FEATURES) - {"volume_z_63"}


def test_any_measured_ticker_can_have_a_page_and_another_is_named(tmp_path):
    settings = market(tmp_path)
    drift = measured(settings)

    assert "CALM has not moved" in text_of(
        write_ticker_page(features(), drift, settings, Draws(), CALM)
    )
    with pytest.raises(StockAssetsError, match=f"'ZZZ' was measured on {DAY}"):
        write_ticker_page(features(), drift, settings, Draws(), "ZZZ")


def test_a_day_drawn_again_loses_pages_of_tickers_that_have_not_drifted_after_all(tmp_path):
    settings = market(tmp_path)
    drift = measured(settings)
    write_pages(features(), drift, settings, Draws())

    calmer = drift.with_columns(drifted=pl.lit(False))
    pages = write_pages(features(), calmer, settings, Draws())

    assert page_file(settings, DAY, RISEN) in pages, "its rise is above its alarm still"
    assert not page_file(settings, DAY, WIDE).exists()


def test_nothing_is_drawn_where_nothing_could_be_compared(tmp_path):
    settings, draws = market(tmp_path), Draws()
    drift = measured(settings).with_columns(distance=pl.lit(None, pl.Float64))

    assert write_pages(features(), drift, settings, draws) == []
    assert not draws.asked
    assert not settings.reports_dir.exists()


def test_a_ticker_that_has_left_the_universe_is_on_no_page(tmp_path):
    settings = market(tmp_path)
    drift = measured(settings)
    left = drift.filter(pl.col("ticker") == WIDE).with_columns(ticker=pl.lit("LEFT"))

    pages = write_pages(features(), pl.concat([drift, left]), settings, Draws())

    assert "LEFT" not in text_of(pages[0])


def test_the_page_pools_each_tickers_own_windows(tmp_path):
    settings = market(tmp_path)

    reference, current = pooled_windows(features(), list(TICKERS), DAY, settings)

    for ticker, exchange in TICKERS.items():
        for part, days in zip(
            (reference, current), windows(DAY, exchange, settings.drift), strict=True
        ):
            own = part.filter(pl.col("ticker") == ticker)["day"]
            assert own.sort().to_list() == list(days)


def test_a_page_that_cannot_be_saved_is_named_and_leaves_nothing(tmp_path):
    settings = market(tmp_path)
    settings.reports_dir.mkdir(parents=True)
    (settings.reports_dir / "drift").write_text("a file in place of the folder", encoding="utf-8")

    with pytest.raises(LakeError, match=r"drift page .*drift.* cannot be written.*lake\.path"):
        write_pages(features(), measured(settings), settings, Draws())

    assert [path.name for path in settings.reports_dir.iterdir()] == ["drift"]


@pytest.mark.slow
def test_evidently_finds_our_distances_and_says_drift_where_we_do(tmp_path):
    settings = market(tmp_path, feature_threshold=None)
    drift = measured(settings)
    seen = set()
    for ticker in TICKERS:
        own = drift.filter(
            (pl.col("ticker") == ticker)
            & (pl.col("kind") == "data")
            & pl.col("distance").is_not_null()
        )
        drawing = reports._drawing(features(), own, DAY, settings)
        found = snapshot(drawing)

        distances = dict(zip(drawing.thresholds, found.dict()["metrics"], strict=True))
        detected = dict(verdicts_of(found.get_html_str(as_iframe=False)))
        assert set(distances) == set(own["feature"])
        for name, distance, drifted in own.select("feature", "distance", "drifted").iter_rows():
            assert float(distances[name]["value"]) == pytest.approx(distance, rel=1e-9)
            assert detected[name] == drifted, (ticker, name)
            seen.add(drifted)
    assert seen == {True, False}


@pytest.mark.slow
def test_evidently_says_no_drift_exactly_at_a_threshold(tmp_path):
    settings = market(tmp_path)
    own = measured(settings).filter(
        (pl.col("ticker") == WIDE) & (pl.col("kind") == "data") & pl.col("distance").is_not_null()
    )
    drawing = reports._drawing(features(), own, DAY, settings)
    values = [float(item["value"]) for item in snapshot(drawing).dict()["metrics"]]
    at = dict(zip(drawing.thresholds, values, strict=True))

    page = drawn(type(drawing)(drawing.reference, drawing.current, at))

    assert verdicts_of(page) == [(name, False) for name in at]


def verdicts_of(page: str) -> list[tuple[str, bool]]:
    """Column and whether Evidently detected drift, as its page says."""
    said = r"\"Drift in column '(\w+)'\", \"label\": \"Data drift (not )?detected"
    return [(name, not negation) for name, negation in re.findall(said, page)]


@pytest.mark.slow
def test_the_pages_are_small_load_nothing_from_elsewhere_and_are_drawn_from_disk(tmp_path):
    settings = market(tmp_path)
    pages = write_pages(features(), measured(settings), settings, drawn)

    names = {path.name for path in pages[0].parent.iterdir()} - {page.name for page in pages}
    assert sorted(name.partition(".")[2] for name in names) == ["css", "js"]
    for page in pages:
        assert page.stat().st_size < 500_000
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:src|href)=\"(evidently-[^\"]+)\"", text)) == names
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']https?:", text)
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on this machine")
    shown = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--virtual-time-budget=15000", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}", page_file(settings, DAY, WIDE).as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    body = re.sub(r"<script.*?</script>", "", shown[shown.index("</header>") :], flags=re.DOTALL)
    for words in ("Data drift detected", "Wasserstein distance", "ret_1d", "vol_close_5"):
        assert words in body
