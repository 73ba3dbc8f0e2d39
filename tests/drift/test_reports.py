"""The Evidently page: of the verdict's day and tickers, whole or not there, without a network."""

from __future__ import annotations

import datetime as dt
import html
import re
import shutil
import subprocess

import polars as pl
import pytest

from stock_assets.drift.distances import DRIFT_FEATURES, distances, windows
from stock_assets.drift.pages import page_file
from stock_assets.drift.reports import pooled_windows, write_report
from stock_assets.drift.verdict import universe_verdict
from stock_assets.errors import LakeError
from stock_assets.slices import Slice

DAY = dt.date(2024, 6, 27)


@pytest.fixture
def verdict_of(market):
    def verdict_of(features):
        found = distances(features, Slice(DAY, DAY, market.tickers), market)
        return universe_verdict(found, market)[0]

    return verdict_of


@pytest.fixture
def shifted(make_features):
    """Features that have left their past in the last sessions; volume has no values at all."""
    moved = pl.col("day") > dt.date(2024, 6, 10)
    return make_features(missing=0).with_columns(
        *(pl.when(moved).then(pl.col(name) + 1).otherwise(name) for name in DRIFT_FEATURES[:6]),
        volume_z_63=pl.lit(None, dtype=pl.Float64),
    )


def visible(page: str) -> str:
    """The header's text, which stands before Evidently's own scripts."""
    header = page[page.index("<header") : page.index("</header>")]
    return html.unescape(re.sub(r"<[^>]+>", " ", header))


def test_the_page_pools_each_tickers_own_windows(market, make_features, verdict_of):
    features = make_features(missing=0)

    reference, current = pooled_windows(features, verdict_of(features), market)

    for ticker in market.tickers:
        exchange = market.instrument(ticker).exchange
        for part, days in zip(
            (reference, current), windows(DAY, exchange, market.drift), strict=True
        ):
            own = part.filter(pl.col("ticker") == ticker)["day"]
            assert own.sort().to_list() == list(days)


@pytest.mark.slow
def test_the_page_says_what_it_compares_and_what_was_found(market, shifted, verdict_of, tmp_path):
    verdict = verdict_of(shifted)
    path = tmp_path / "reports" / "drift" / "page.html"

    assert write_report(shifted, verdict, market, path) == path

    page = path.read_text(encoding="utf-8")
    told = visible(page)
    assert verdict.moved
    assert verdict.sentence in told
    assert "<div>Tickers (3): AAA, GOLD, S&amp;P</div>" in page
    for words in ("2024-06-27", "Tickers (3)", "60 sessions", "10 sessions", "180 rows",
                  "30 rows", "distance of 1 ", "30%", "without values: volume_z_63"):  # fmt: skip
        assert words in told
    assert f"<title>Drift {DAY}</title>" in page
    assert [p.name for p in path.parent.iterdir()] == ["page.html"], "no half-written files"


@pytest.mark.slow
def test_the_page_loads_nothing_from_elsewhere_and_is_drawn_in_a_browser(
    market, shifted, verdict_of, tmp_path
):
    path = write_report(shifted, verdict_of(shifted), market, tmp_path / "page.html")
    page = path.read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']https?:", page)
    assert path.stat().st_size < 8_000_000

    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on this machine")
    drawn = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--virtual-time-budget=15000", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    body = drawn[drawn.index("</header>") :]
    for words in ("Dataset Drift", "Wasserstein distance", *DRIFT_FEATURES[:3]):
        assert words in re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)


@pytest.mark.slow
def test_a_page_takes_the_place_of_the_one_before(market, make_features, verdict_of, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old", encoding="utf-8")
    features = make_features(missing=0)

    write_report(features, verdict_of(features), market, path)

    assert "has not moved" in visible(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_page_that_cannot_be_saved_is_named_and_leaves_nothing(
    market, make_features, verdict_of, tmp_path
):
    (tmp_path / "drift").write_text("a file in place of the folder", encoding="utf-8")
    features = make_features(missing=0)

    with pytest.raises(LakeError, match=r"drift page .*page\.html.*lake\.path"):
        write_report(features, verdict_of(features), market, tmp_path / "drift" / "page.html")

    assert [p.name for p in tmp_path.iterdir()] == ["drift"]


def test_a_day_has_one_page_under_the_reports(market):
    assert page_file(market, DAY) == market.reports_dir / "drift" / "2024-06-27.html"
