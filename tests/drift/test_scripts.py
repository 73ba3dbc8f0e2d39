"""Scripts beside the pages: once for all pages, and the page as it was where they are not known."""

from __future__ import annotations

import re

import pytest

from stock_assets.drift.evidently_page import drawn
from stock_assets.drift.reports import _drawing
from stock_assets.drift.scripts import with_shared_scripts

from .drawn_market import DAY, WIDE, features, market, measured

SCRIPT, STYLE = "var a = '<div>';" * 100_000, "@font-face {}" * 10_000


def page(data: str) -> str:
    return (
        f"<html><head><style>{STYLE}</style><script>\n var metric_1 = '{data}';</script></head>"
        f"<body><script>{SCRIPT}</script><script>draw(metric_1)</script></body></html>"
    )


def whole(text: str, folder) -> str:
    """The page with the files that it refers to put back."""
    text = re.sub(
        r'<script src="([^"]+)"></script>',
        lambda found: f"<script>{(folder / found[1]).read_text(encoding='utf-8')}</script>",
        text,
    )
    return re.sub(
        r'<link rel="stylesheet" href="([^"]+)">',
        lambda found: f"<style>{(folder / found[1]).read_text(encoding='utf-8')}</style>",
        text,
    )


def test_large_parts_are_in_files_that_all_pages_share_and_data_stays(tmp_path):
    one = with_shared_scripts(page("one"), tmp_path)
    files = sorted(tmp_path.iterdir())
    stamps = [file.stat().st_mtime_ns for file in files]
    other = with_shared_scripts(page("other"), tmp_path)

    assert {file.suffix for file in files} == {".css", ".js"}
    assert len(files) == 2
    assert sorted(tmp_path.iterdir()) == files
    assert [file.stat().st_mtime_ns for file in files] == stamps, "written once"
    assert len(one) < 500
    assert (whole(one, tmp_path), whole(other, tmp_path)) == (page("one"), page("other"))


def test_another_version_of_a_script_is_another_file(tmp_path):
    with_shared_scripts(page("one"), tmp_path)
    with_shared_scripts(page("one").replace("<div>", "<span>"), tmp_path)

    assert len(list(tmp_path.glob("*.js"))) == 2
    assert len(list(tmp_path.glob("*.css"))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "<html><script>small()</script></html>",
        f'<html><script type="module">{SCRIPT}</script></html>',
        f"<html><script>{SCRIPT}",
    ],
)
def test_a_page_that_is_made_another_way_stays_whole(tmp_path, text):
    assert with_shared_scripts(text, tmp_path) == text
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_evidently_still_writes_pages_as_we_take_them_apart(tmp_path):
    """If this fails after an upgrade, pages are 4 MB each until `scripts.py` knows the new form."""
    settings = market(tmp_path)
    rows = measured(settings).filter(ticker=WIDE, kind="data").drop_nulls("distance")
    text = drawn(_drawing(features(), rows, DAY, settings))

    small = with_shared_scripts(text, tmp_path)

    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".css", ".js"]
    assert len(text) > 3_500_000
    assert len(small) < 400_000
    assert whole(small, tmp_path) == text
    # Where the header goes.
    assert small.count("</head>") == small.count("<body>") == 1
