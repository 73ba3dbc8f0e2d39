"""What the event log costs: a run of one asset that does nothing, over many cells.

    python bench/event_log.py stock|ours CELLS FOLDER

Prints a JSON object with the seconds of wall and CPU time and the bytes of the log. FOLDER becomes
the Dagster home and must not exist.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
import time
from pathlib import Path

TICKERS = 50


def main() -> None:
    """One run over CELLS cells (a multiple of 50: so many days of 50 tickers)."""
    storage, count, name = sys.argv[1:]
    cells, home = int(count), Path(name)
    home.mkdir(parents=True)
    configuration = "telemetry: {enabled: false}\n"
    if storage == "ours":
        configuration += (
            "event_log_storage:\n"
            "  module: stock_assets.instance.event_log\n"
            "  class: BatchedSqliteEventLogStorage\n"
            f"  config: {{base_dir: {home / 'history' / 'runs'}}}\n"
        )
    (home / "dagster.yaml").write_text(configuration, encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(home)

    import dagster as dg  # noqa: PLC0415 - after its home is known

    from stock_assets.instance.batching import enable_event_batching  # noqa: PLC0415

    if storage == "ours":
        enable_event_batching()
    days = [(dt.date(2020, 1, 1) + dt.timedelta(n)).isoformat() for n in range(cells // TICKERS)]
    tickers = [f"T{number:02d}" for number in range(TICKERS)]
    partitions = dg.MultiPartitionsDefinition(
        {
            "day": dg.StaticPartitionsDefinition(days),
            "ticker": dg.StaticPartitionsDefinition(tickers),
        }
    )

    @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
    def empty() -> None:
        """Nothing: what is left is Dagster's own."""

    tags = {
        "dagster/asset_partition_range_start": f"{days[0]}|{tickers[0]}",
        "dagster/asset_partition_range_end": f"{days[-1]}|{tickers[-1]}",
    }
    logging.disable(logging.INFO)
    definitions = dg.Definitions([empty], jobs=[dg.define_asset_job("job", [empty])])
    with dg.DagsterInstance.get() as instance:
        wall, cpu = time.perf_counter(), time.process_time()
        definitions.resolve_job_def("job").execute_in_process(instance=instance, tags=tags)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        made = len(instance.get_materialized_partitions(empty.key))
    if made != cells:
        raise RuntimeError(f"{made} of {cells} cells were materialized")
    written = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
    print(json.dumps({"wall": wall, "cpu": cpu, "bytes": written}))


if __name__ == "__main__":
    main()
