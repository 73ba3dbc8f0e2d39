"""dbt-duckdb's door to the lake: Delta tables as dbt sources, dbt models as Delta commits.

Only dbt imports this module (dbt/profiles.yml names it), in whichever process dbt runs. It moves
rows: what is computed from them is SQL in `dbt/models`, how they are stored is `store.py`, and
which slice it is about is `dbt_request.py`.

dbt-duckdb calls `load` whenever it compiles a node that names a source, and it compiles a node
when its turn has come. `features` therefore sees the bars that `bars` of the same invocation has
stored just before, and the lake's bars when `bars` was not selected; tests hold this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from dbt.adapters.duckdb.plugins import BasePlugin

from stock_assets.errors import LakeError
from stock_assets.lake.dbt_request import DbtRequest, read_request
from stock_assets.lake.schemas import TABLES
from stock_assets.lake.store import YEAR, Lake, dataset, dataset_filter

if TYPE_CHECKING:
    from dbt.adapters.duckdb.utils import SourceConfig, TargetConfig

_MARKET_COLUMNS = [
    *("day", "ticker", "exchange", "open", "high", "low", "close", "volume", "realised_variance"),
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
        match source_config.identifier:
            case "candles":
                return self._candles(lake, request)
            case "market_bars":
                return self._market_bars(lake, request)
            case "slice":
                return _slice(request).to_arrow()
            case "sessions":
                return _sessions(request).to_arrow()
            case "splits":
                return _splits(request).to_arrow()
            case other:
                raise LakeError(
                    f"the lake plugin has no source {other!r}; see dbt/models/sources.yml"
                )

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


def _sessions(request: DbtRequest) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (item.exchange, item.first_session + place, *known)
            for item in request.sessions
            for place, known in enumerate(
                zip(item.days, item.days_ahead_1, item.days_ahead_5, strict=True)
            )
        ],
        schema={
            "exchange": pl.String,
            "session": pl.Int32,
            "day": pl.Date,
            "days_ahead_1": pl.Int32,
            "days_ahead_5": pl.Int32,
        },
        orient="row",
    )


def _splits(request: DbtRequest) -> pl.DataFrame:
    return pl.DataFrame(
        [(item.ticker, item.day, item.factor) for item in request.splits],
        schema={"ticker": pl.String, "day": pl.Date, "factor": pl.Float64},
        orient="row",
    )
