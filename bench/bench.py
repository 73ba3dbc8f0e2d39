"""What runs cost, measured: `make bench`, or `python bench/bench.py --quick` for a small one.

Prints Markdown to stdout, news to stderr. Everything is run as a user runs it, on lakes of its own
in a folder; targets are told beside the figures, and nothing fails when one is missed. A part is a
module with `measure(scale, folder, results)` and `report(found)`:

    imports    part_imports     what a process pays before it works
    event-log  part_event_log   Dagster's event log beside ours (the run: event_log.py)
    graph      part_chain       the chain from empty beside a plain script (plain.py)
    next-day   part_next_day    the next day behind histories of several lengths (history.py)
    backfill   part_backfill    a backfill from the UI, ours and stock (server.py)
    pages      part_pages       the UI's pages in a browser (ui.py), where that is there

`part_growth` fits exponents to the first two, `part_targets` says which targets are met. Each
measurement is kept as JSON in FOLDER/results as soon as it is there: with `--folder`, a bench that
was interrupted goes on where it stopped, and `--only` measures some parts and prints all there is.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import part_backfill
import part_chain
import part_event_log
import part_growth
import part_imports
import part_next_day
import part_pages
import part_targets
from results import Results
from scales import FULL, QUICK

PARTS = {
    "imports": part_imports,
    "event-log": part_event_log,
    "graph": part_chain,
    "next-day": part_next_day,
    "backfill": part_backfill,
    "pages": part_pages,
}


def main() -> None:
    """Measure the chosen parts, and print all that has been measured in the folder."""
    options = _options()
    # Asked to end, it ends as by Ctrl-C: its servers go with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scale = QUICK if options.quick else FULL
    if options.stock_to_the_end:
        scale = replace(scale, stock_runs=None)
    with tempfile.TemporaryDirectory(prefix="stock-assets-bench-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        began = _machine()
        found = {}
        for name, part in PARTS.items():
            results = Results(folder / "results", name, scale.name)
            if name in options.only:
                part.measure(scale, folder / name, results)
            found[name] = results.found
        for name, part in PARTS.items():
            if found[name]:
                print(part.report(found[name]), flush=True)
        print(part_growth.report(found["event-log"], found["graph"]))
        print(part_targets.report(found))
        print(f"{scale.name} bench; load when it began {began}; when it ended {_machine()}.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What runs cost, measured.")
    parser.add_argument("--quick", action="store_true", help="toy sizes: a test of the bench")
    parser.add_argument("--folder", type=Path, help="work here, keep everything, go on from there")
    parser.add_argument(
        "--only",
        type=_parts,
        default=list(PARTS),
        metavar="PART,PART",
        help=f"measure these alone: {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--stock-to-the-end",
        action="store_true",
        help="wait for all of stock's runs of the backfill (an hour), instead of projecting them",
    )
    return parser.parse_args()


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - set(PARTS)):
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; use {', '.join(PARTS)}")
    return names


def _machine() -> str:
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    moment = dt.datetime.now(tz=dt.UTC)
    return f"{loads} on {os.cpu_count()} processors, {moment:%Y-%m-%d %H:%M} UTC"


if __name__ == "__main__":
    main()
