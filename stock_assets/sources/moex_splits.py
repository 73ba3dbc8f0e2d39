"""Splits as the Moscow Exchange declares them, and candles that it has rewritten for them.

ISS rewrites the candles before a split as if it had always been (docs/sources/moex.md says how we
know); its official daily history keeps what was traded. The lake wants what was traded, which no
later split changes (docs/adr/0002), so what ISS rewrote is brought back here. Applying splits to
bars is `lake/splits.py`'s and dbt's.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.lake.splits import Split
from stock_assets.sources.base import PRICES
from stock_assets.sources.iss import day_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.sources.iss import Table

COLUMNS = ("tradedate", "secid", "before", "after")

_DIGITS = 12
"""More than prices have, fewer than binary fractions get wrong."""
_EVENING = math.log(1.5)
"""No evening session moves a price as far."""
_NEAR = 0.01
"""Relative: how far outside a candle's prices its mean price may be, for rounding."""


def declared(table: Table) -> tuple[Split, ...]:
    """All splits in ISS's table, by its own names of securities, in order."""
    found = []
    for row in table.records():
        day = day_of(row["tradedate"])
        if day is None:
            raise ValueError(f"the split of {row['secid']} has no day")
        before, after = (Fraction(str(row[name])) for name in ("before", "after"))
        if before <= 0 or after <= 0:
            raise ValueError(f"the split of {row['secid']} on {day} is {before} to {after}")
        found.append(Split(str(row["secid"]), day, before, after))
    return tuple(sorted(found))


def is_rewritten(split: Split, *, candle: float, traded: float, later: Fraction) -> bool | None:
    """Whether ISS has rewritten its candles for `split`; None when it can be neither.

    `candle` and `traded` are the closes of one day before it by the candles and by the official
    history, `later` the product of before / after of the later splits that are rewritten. The two
    closes differ by the evening session even where nothing is rewritten.
    """
    step = math.log(split.before / split.after)
    seen = math.log(candle / traded / float(later))
    limit = min(abs(step) / 2, _EVENING)
    if abs(seen) < limit:
        return False
    return True if abs(seen - step) < limit else None


def as_table(splits: Sequence[Split]) -> dict[str, object]:
    """`splits` in the form of ISS's own table, to be kept beside answers."""
    rows = [
        [item.day.isoformat(), item.ticker, str(item.before), str(item.after)] for item in splits
    ]
    return {"columns": list(COLUMNS), "data": rows}


def as_traded(candles: pl.DataFrame, splits: Sequence[Split]) -> pl.DataFrame:
    """`candles` (day, prices, volume, value) without what ISS did to them for `splits`.

    The value in rubles is never rewritten: it tells whether the volume was.
    """
    factor = pl.lit(1.0)
    for split in splits:
        step = float(split.after / split.before)
        factor = pl.when(pl.col("day") < split.day).then(factor * step).otherwise(factor)
    mean = pl.col("value") / pl.col("volume")
    in_prices = mean.is_between((1 - _NEAR) * pl.col("low"), (1 + _NEAR) * pl.col("high"))
    touched = pl.col("factor") != 1.0
    return (
        candles.with_columns(factor.alias("factor"))
        .with_columns(
            pl.when(touched & in_prices)
            .then((pl.col("volume") / pl.col("factor")).round())
            .otherwise("volume")
            .alias("volume"),
            *(
                pl.when(touched)
                .then((pl.col(name) * pl.col("factor")).round_sig_figs(_DIGITS))
                .otherwise(name)
                .alias(name)
                for name in PRICES
            ),
        )
        .drop("factor")
    )
