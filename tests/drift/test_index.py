"""The index: what each day said and caused, and links to pages that are there."""

from __future__ import annotations

import datetime as dt
import html
import re
import threading
from urllib.parse import quote

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.drift.index import write_index
from stock_assets.drift.pages import index_file, page_file, save_whole
from stock_assets.drift.quality import BLOCKING
from stock_assets.drift.verdict import outlines, verdicts
from stock_assets.errors import LakeError
from stock_assets.lake.schemas import Drift, Models
from stock_assets.lake.store import Lake
from stock_assets.settings import NoticeSettings
from stock_assets.slices import Slice

from .drawn_market import DAY, TICKERS, market

EARLIER = dt.date(2024, 6, 20)
LONG_AGO = dt.date(2023, 6, 20)


def row(day, ticker, feature, kind="data", *, distance=0.1, drifted=False, **alarms):
    return {
        "day": day, "ticker": ticker, "kind": kind, "feature": feature, "distance": distance,
        "threshold": 0.5, "drifted": drifted, "reference_rows": 60, "current_rows": 10,
        "ticker_alarm": 0.5, "sector_alarm": None, "market_alarm": 0.6,
        "market_tickers": None, "sector_tickers": None, **alarms,
    }  # fmt: skip


def frame(rows) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=Drift.create_empty().schema)


def one_day(day, drifted=()):
    """Rows of all tickers; those of `drifted` have moved in all they have."""
    return [
        row(day, ticker, feature, drifted=ticker in drifted, distance=0.9)
        for ticker in TICKERS
        for feature in ("ret_1d", "gap_1d")
    ]


def decision(day, ticker, reason, challenger=None):
    empty = dict.fromkeys(Models.column_names())
    return {
        **empty, "day": day, "ticker": ticker, "model": "m1", "decision": "trained",
        "reason": reason, "challenger": challenger, "validation_days": 9,
    }  # fmt: skip


@pytest.fixture
def lake_of(tmp_path):
    def lake_of(rows, decisions=(), **drift):
        own = market(tmp_path, **drift)
        lake = Lake(own.lake_dir)
        area = Slice(None, DAY, own.tickers)
        lake.write("drift", frame(rows), area)
        if decisions:
            types = Models.create_empty().schema
            lake.write("models", pl.DataFrame(list(decisions), schema=types), area)
        return lake, own

    return lake_of


def lines(path) -> list[list[str]]:
    """The cells of the days' table, tags taken out."""
    body = path.read_text(encoding="utf-8").partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        [html.unescape(re.sub(r"<[^>]+>", " ", cell)).strip() for cell in line.split("</td>")[:-1]]
        for line in body.split("</tr>")[:-1]
    ]


def links(path) -> list[str]:
    return re.findall(r'<a href="([^"]+)"', path.read_text(encoding="utf-8"))


def test_a_line_has_the_days_markets_tickers_faults_and_the_model_they_caused(lake_of):
    fault = row(DAY, "GOLD", "unchanged", "quality", distance=9, drifted=True)
    lake, own = lake_of(
        [*one_day(EARLIER, ["AAA"]), *one_day(DAY, ["AAA", "S&P_1", "CALM"]), fault],
        [
            *(decision(DAY, ticker, "drift, XMOS: all of it: better", "m2") for ticker in TICKERS),
            decision(EARLIER, "AAA", "cadence, 63 sessions since the last attempt: better", "m1"),
            decision(EARLIER, "CALM", "performance (XMOS, too narrow): better", "m0"),
        ],
    )

    path = write_index(lake, own, DAY)

    newest, older = lines(path)
    assert newest[0] == str(DAY)
    assert "XMOS has moved: 100% of pairs drifted (alarm above 60%)" in newest[1]
    assert "weekdays: 0% of pairs (alarm above 60%)" in newest[1]
    assert newest[2].split(", ") == ["AAA", "CALM", "S&P_1"]
    assert newest[3] == "GOLD: unchanged (blocks its forecast)"
    assert newest[4] == "trained m2 : drift, XMOS: all of it: better"
    assert older == [
        str(EARLIER),
        "XMOS: 33% of pairs (alarm above 60%) weekdays: 0% of pairs (alarm above 60%)",
        "AAA", "", "trained m0 : performance (XMOS, too narrow): better",
    ]  # fmt: skip
    assert not re.search(r"<(script|link|img)", path.read_text(encoding="utf-8"))


def test_links_are_there_where_pages_are(lake_of):
    lake, own = lake_of([*one_day(EARLIER, ["AAA"]), *one_day(DAY, ["AAA", "S&P_1"])])
    for day, ticker in ((DAY, None), (DAY, "S&P_1"), (EARLIER, "CALM"), (LONG_AGO, None)):
        save_whole("page", page_file(own, day, ticker))

    path = write_index(lake, own, DAY)

    assert links(path) == [
        f"{DAY}.html", f"{DAY}_S%2526P_1.html", f"{EARLIER}_CALM.html", f"{LONG_AGO}.html"
    ]  # fmt: skip
    assert lines(path)[1][2].startswith("AAA, ")
    assert "CALM" in lines(path)[1][2]
    assert "(has not drifted)" in lines(path)[1][2]


def test_a_model_is_a_link_to_its_decision_in_dagster(lake_of):
    """To the last of its cells, which has what describes the run; at the address that is told."""
    decisions = [decision(DAY, ticker, "drift, all of it: better", "m2") for ticker in TICKERS]
    lake, own = lake_of(one_day(DAY), decisions)
    own = own.model_copy(update={"notices": NoticeSettings(ui="https://dagster.example.org/")})

    (found,) = [link for link in links(write_index(lake, own, DAY)) if "/assets/" in link]

    last = quote(own.tickers[-1], safe="")
    assert html.unescape(found) == (
        f"https://dagster.example.org/assets/model?view=partitions&partition={DAY}%7C{last}"
    )


def test_days_before_those_whose_pages_are_kept_have_no_line(lake_of):
    lake, own = lake_of([*one_day(LONG_AGO), *one_day(EARLIER), *one_day(DAY)], keep_pages=7)

    assert [line[0] for line in lines(write_index(lake, own, DAY))] == [str(DAY), str(EARLIER)]


def test_a_backfill_of_old_days_does_not_hide_the_newest(lake_of):
    lake, own = lake_of([*one_day(EARLIER), *one_day(DAY)])
    save_whole("page", page_file(own, DAY))

    assert lines(write_index(lake, own, EARLIER))[0][0] == str(DAY)


def test_a_lake_without_drift_has_an_index_that_says_so(tmp_path):
    own = market(tmp_path)

    path = write_index(Lake(own.lake_dir), own, DAY)

    assert "No day has been evaluated yet." in path.read_text(encoding="utf-8")


def test_runs_that_end_together_leave_what_the_last_one_saw(lake_of):
    """Whoever writes last has read last: a page saved before any write is on the index."""
    lake, own = lake_of([*one_day(DAY, list(TICKERS))])

    def run(ticker):
        save_whole("page", page_file(own, DAY, ticker))
        write_index(lake, own, DAY)

    runs = [threading.Thread(target=run, args=(ticker,)) for ticker in TICKERS]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()

    assert len(links(index_file(own))) == len(TICKERS)


def test_an_index_that_cannot_be_written_is_named(lake_of):
    lake, own = lake_of(one_day(DAY))
    own.reports_dir.mkdir(parents=True)
    (own.reports_dir / "drift").write_text("a file in place of the folder")

    with pytest.raises(LakeError, match=r"index\.html cannot be written.*lake\.path"):
        write_index(lake, own, DAY)


numbers = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 2.0]))
cells = st.fixed_dictionaries(
    {
        "distance": numbers, "drifted": st.booleans(), "ticker_alarm": numbers,
        "market_alarm": numbers, "market_tickers": st.none() | st.integers(1, 4),
    }
)  # fmt: skip
FEATURES = [("ret_1d", "data"), ("gap_1d", "data"), ("log_variance_1d", "target"),
            ("late", "quality"), ("unchanged", "quality")]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.tuples(
            st.sampled_from([EARLIER, DAY]), st.sampled_from(sorted(TICKERS)),
            st.sampled_from(FEATURES),
        ),
        cells,
    )
)  # fmt: skip
def test_outlines_say_what_verdicts_say(tmp_path_factory, planted):
    own = market(tmp_path_factory.getbasetemp())
    drift = frame(
        [
            row(day, ticker, feature, kind, **values)
            for (day, ticker, (feature, kind)), values in planted.items()
        ]
    )

    short, long = outlines(drift, own), verdicts(drift, own)

    assert [item.day for item in short] == [item.day for item in long]
    for outline, verdict in zip(short, long, strict=True):
        said, meant = (
            [(m.exchange, m.come, m.usual, m.judged, m.share, m.alarm, m.causes) for m in markets]
            for markets in (outline.markets, verdict.markets)
        )
        assert said == meant
        assert outline.drifted_tickers == tuple(t.ticker for t in verdict.drifted_tickers)
        assert outline.faults == tuple(
            (f.ticker, f.fault, f.fault in BLOCKING) for f in verdict.faults
        )
