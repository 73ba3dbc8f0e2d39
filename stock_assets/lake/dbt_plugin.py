"""dbt-duckdb's door to the lake: Delta tables as dbt sources, dbt models as Delta commits.

Only dbt imports this module (dbt/profiles.yml names it), in whichever process dbt runs. It moves
rows: what is computed from them is SQL in `dbt/models` (what befell the shares: `actions.py`), how
they are stored is `store.py`, and which slice it is about is `dbt_request.py`.

dbt-duckdb calls `load` whenever it compiles a node that names a source, and it compiles a node
when its turn has come. `features` therefore sees the bars that `bars` of the same invocation has
stored just before, and the lake's bars when `bars` was not selected; tests hold this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from dbt.adapters.duckdb.plugins import BasePlugin

from stock_assets.errors import LakeError
from stock_assets.lake.actions import (
    dividend_rows,
    prices_of,
    session_rows,
    split_rows,
    suspicion_rows,
)
from stock_assets.lake.dbt_request import DbtRequest, read_request
from stock_assets.lake.schemas import TABLES
from stock_assets.lake.store import YEAR, Lake, dataset, dataset_filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.adapters.duckdb.utils import SourceConfig, TargetConfig

_MARKET_COLUMNS = [
    *("day", "ticker", "exchange", "open", "high", "low", "close", "volume", "realised_variance"),
    "suspected_split",
]


class Plugin(BasePlugin):
    """Serves the sources of dbt/models/sources.yml and stores the models with `plugin='lake'`."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:  # noqa: ARG002
        """Start without versions read; the request is read when first needed.

        Parsing and compiling build the plugin too, and must work without a request.
        """
        self._read: dict[str, str] = {}

    def default_materialization(self) -> str:
        """Views: DuckDB scans what `load` returns without a copy of its own."""
        return "view"

    def load(self, source_config: SourceConfig) -> Any:
        """The relation of one source, as an Arrow table or dataset."""
        request = read_request()
        lake = Lake(request.lake)
        relations: dict[str, Callable[[], Any]] = {
            "candles": lambda: self._candles(lake, request),
            "market_bars": lambda: self._market_bars(lake, request),
            "slice": lambda: _slice(request).to_arrow(),
            "sessions": lambda: session_rows(request).to_arrow(),
            "splits": lambda: split_rows(request).to_arrow(),
            "dividends": lambda: dividend_rows(request, prices_of(lake)).to_arrow(),
            "suspicions": lambda: suspicion_rows(request, prices_of(lake)).to_arrow(),
        }
        name = source_config.identifier
        if name not in relations:
            raise LakeError(f"the lake plugin has no source {name!r}; see dbt/models/sources.yml")
        return relations[name]()

    def store(self, target_config: TargetConfig) -> None:
        """Commit the staged rows of one model to the table of its name."""
        request = read_request()
        table, staged = target_config.relation.identifier, target_config.location
        if table is None or staged is None:
            raise LakeError("the lake plugin stores models materialized as 'external' only")
        frame = pl.read_parquet(staged.path)
        # `external` stages an empty result as one row of nulls.
        rows = frame.filter(~pl.all_horizontal(pl.all().is_null()))
        note = {"run_id": request.run_id, **self._read}
        Lake(request.lake).write(table, rows, request.area, note=note)

    def _candles(self, lake: Lake, request: DbtRequest) -> Any:
        found = lake.open("candles")
        if found is None:
            return TABLES["candles"].create_empty().to_arrow()
        self._read["candles_version"] = str(found.version())
        return dataset("candles", found).filter(dataset_filter(request.area))

    def _market_bars(self, lake: Lake, request: DbtRequest) -> Any:
        import pyarrow.dataset as pds  # noqa: PLC0415

        found = lake.open("bars")
        if found is None:
            return TABLES["bars"].create_empty().select(_MARKET_COLUMNS).to_arrow()
        self._read["bars_version"] = str(found.version())
        wanted = (pds.field(YEAR) <= request.last_date.year) & (
            pds.field("day") <= request.last_date
        )
        if request.lookback_date is not None:
            wanted &= (pds.field(YEAR) >= request.lookback_date.year) & (
                pds.field("day") >= request.lookback_date
            )
        wanted &= pds.field("exchange").isin(list(request.exchanges))
        return dataset("bars", found).to_table(columns=_MARKET_COLUMNS, filter=wanted)


def _slice(request: DbtRequest) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (item.ticker, item.exchange, item.currency, request.first_date, request.last_date)
            for item in request.tickers
        ],
        schema={
            "ticker": pl.String,
            "exchange": pl.String,
            "currency": pl.String,
            "first_date": pl.Date,
            "last_date": pl.Date,
        },
        orient="row",
    )
