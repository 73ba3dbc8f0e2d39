"""The folder of pages: names that find back to their day and ticker, and what is removed when."""

from __future__ import annotations

import datetime as dt
import os
import time

import pytest

from stock_assets.drift.pages import (
    index_file,
    page_file,
    remove_pages,
    save_whole,
    saved_pages,
    served_at,
)
from stock_assets.errors import LakeError
from stock_assets.settings import NoticeSettings, ServerSettings

from .drawn_market import DAY, market

STRANGERS = (
    "index.html", "notes.html", "2024-06-27.htm", "2024-13-01.html", "2024-01-01_A B.html",
    "evidently-0123456789abcdef.js", "2023-01-01.html.partial", "2023-01-01",
)  # fmt: skip


def save(settings, day, ticker=None, *, drawn=0):
    """A page of a day, drawn so many days ago."""
    path = page_file(settings, day, ticker)
    save_whole("page", path)
    when = time.time() - drawn * 86_400
    os.utime(path, (when, when))
    return path


def ago(days: int) -> dt.date:
    return DAY - dt.timedelta(days)


def test_pages_are_found_back_by_day_and_ticker_and_strangers_are_none(tmp_path):
    settings = market(tmp_path)
    cells = [(ago(1), ""), (DAY, ""), (DAY, "A"), (DAY, "S&P_1"), (DAY, "^GSPC"), (DAY, "a.b=C-1")]
    files = [save(settings, day, ticker or None) for day, ticker in cells]
    for name in STRANGERS:
        (files[0].parent / name).write_text("stranger")

    assert [(page.day, page.ticker) for page in saved_pages(settings)] == cells
    assert {page.path for page in saved_pages(settings)} == set(files)


def test_a_folder_that_is_not_there_yet_has_no_pages(tmp_path):
    assert saved_pages(market(tmp_path)) == []


def test_pages_are_kept_for_the_days_of_the_setting_before_the_newest(tmp_path):
    settings = market(tmp_path, keep_pages=30)
    kept = [save(settings, DAY), save(settings, ago(30)), save(settings, ago(30), "A")]
    old = [
        save(settings, day, ticker, drawn=31)
        for day, ticker in ((ago(31), None), (ago(31), "A"), (ago(400), None))
    ]
    strangers = [kept[0].parent / name for name in STRANGERS]
    for path in strangers:
        path.write_text("stranger")

    assert set(remove_pages(settings, DAY, kept[:1])) == set(old)

    assert not [path for path in old if path.exists()]
    assert all(path.exists() for path in [*kept, *strangers])


def test_a_page_of_an_old_day_is_kept_as_long_from_when_it_was_drawn(tmp_path):
    """Whoever asked for it finds it tomorrow; the days' own pages are kept whenever drawn."""
    settings = market(tmp_path, keep_pages=30)
    kept = [save(settings, DAY, drawn=60), save(settings, ago(30), drawn=60)]
    kept += [save(settings, ago(100), drawn=29), save(settings, ago(200), "A", drawn=0)]
    old = save(settings, ago(100), "A", drawn=31)

    assert remove_pages(settings, ago(5), []) == [old]
    assert all(path.exists() for path in kept)


def test_a_page_that_cannot_be_removed_is_named(tmp_path):
    settings = market(tmp_path)
    page = page_file(settings, DAY, "A")
    page.mkdir(parents=True)

    with pytest.raises(LakeError, match=rf"{page.name} cannot be removed .*lake\.path"):
        remove_pages(settings, DAY, [])


def test_pages_kept_for_ever_are_removed_by_nothing_but_their_own_day(tmp_path):
    settings = market(tmp_path, keep_pages="forever")
    old, new = save(settings, ago(4000), drawn=4000), save(settings, DAY)
    before = save(settings, DAY, "A")

    assert remove_pages(settings, DAY, [new]) == [before]
    assert old.exists()


@pytest.mark.parametrize("keep", [0, -1, "ever"])
def test_a_number_of_days_that_means_nothing_is_refused(tmp_path, keep):
    with pytest.raises(ValueError, match="keep_pages"):
        market(tmp_path, keep_pages=keep)


def test_a_failed_save_leaves_the_page_before_it_and_nothing_else(tmp_path):
    path = tmp_path / "page.html"
    save_whole("before", path)

    with pytest.raises(UnicodeEncodeError):
        save_whole("half of it" * 10_000 + "\ud800", path)

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("server", "notices", "address"),
    [
        ({}, {}, "http://127.0.0.1:3001"),
        ({"host": "192.0.2.7", "reports_port": 8081}, {}, "http://192.0.2.7:8081"),
        ({"host": "0.0.0.0"}, {}, "http://127.0.0.1:3001"),
        ({"host": "fd00::7"}, {}, "http://[fd00::7]:3001"),
        ({}, {"ui": "https://dagster.example.org:8443/x/"}, "http://dagster.example.org:3001"),
        ({"host": "0.0.0.0"}, {"ui": "http://[fd00::7]:3000"}, "http://[fd00::7]:3001"),
        (
            {},
            {"ui": "https://dagster.example.org", "reports": "https://example.org/pages/"},
            "https://example.org/pages",
        ),
    ],
)
def test_links_lead_to_where_people_reach_the_pages(tmp_path, server, notices, address):
    settings = market(tmp_path).model_copy(
        update={"server": ServerSettings(**server), "notices": NoticeSettings(**notices)}
    )

    assert served_at(settings, page_file(settings, DAY)) == f"{address}/drift/{DAY}.html"


@pytest.mark.parametrize("key", ["ui", "reports"])
@pytest.mark.parametrize("value", ["dagster.example.org", "//x", "https://", "file:///srv"])
def test_an_address_for_links_that_leads_nowhere_is_refused(key, value):
    with pytest.raises(ValueError, match=r"is no address; write https://"):
        NoticeSettings(**{key: value})


def test_the_served_address_is_that_of_the_reports_server(tmp_path):
    settings = market(tmp_path)

    assert served_at(settings, index_file(settings)) == "http://127.0.0.1:3001/drift/index.html"
    assert served_at(settings, page_file(settings, DAY, "S&P")) == (
        f"http://127.0.0.1:3001/drift/{DAY}_S%2526P.html"
    )
