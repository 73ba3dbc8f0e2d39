"""One class a table: columns, types, keys, rules and descriptions.

Checks, Delta schemas, the column tables in the UI and the SQL docs derive from these classes; a
column is described here and nowhere else (dbt's own docs are tested to agree). How tables are
stored is in `store.py`; how rows are judged one by one (quarantine) is in `sources/rules.py`.

Conventions: `day` is the session's date and, with `ticker`, the cell a row belongs to. Returns are
natural-log returns, volatilities are daily standard deviations of log returns (not annualised).
Adjusted prices are raw prices times the cumulative factors of all splits and declared dividends up
to that day, so that a later one never changes an earlier row (docs/adr/0002, 0023).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import dataframely as dy
import polars as pl

QUANTILES: tuple[float, ...] = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
"""The quantiles of every forecast, in rising order."""

QUANTILE_NAMES: tuple[str, ...] = tuple(f"q{round(100 * q):02d}" for q in QUANTILES)
"""q05 ... q95: the suffixes of price_, return_ and baseline_return_ columns."""

PRICE_TOLERANCE = 1e-9
"""Relative slack in comparing prices of one candle: what rounding to a float costs."""


def _day(description: str) -> dy.Date:
    return dy.Date(primary_key=True, description=description)


def _ticker() -> dy.String:
    return dy.String(primary_key=True, description="The instrument's name in the universe.")


def _price(description: str, **kwargs: Any) -> dy.Float64:
    return dy.Float64(
        min_exclusive=0, allow_inf=False, allow_nan=False, description=description, **kwargs
    )


def _number(description: str, *, nullable: bool = True, **kwargs: Any) -> dy.Float64:
    return dy.Float64(
        nullable=nullable, allow_inf=False, allow_nan=False, description=description, **kwargs
    )


class Candles(dy.Schema):
    """One OHLCV candle as the source gave it, that keeps the candle rules."""

    day = _day("Session the candle belongs to, in the exchange's own time zone.")
    ticker = _ticker()
    interval = dy.String(primary_key=True, description="Length of the candle: 1m ... 1h, 1d.")
    start = dy.Datetime(
        primary_key=True,
        time_unit="us",
        time_zone="UTC",
        description="Start of the candle, UTC; for daily candles the day's label at 00:00.",
    )
    open = _price("First price.")
    high = _price("Highest price.")
    low = _price("Lowest price.")
    close = _price("Last price.")
    volume = _number("Traded volume; null where the source has none.", min=0)
    source = dy.String(nullable=False, description="Source that gave the candle.")

    @dy.rule()
    def high_is_highest(cls) -> pl.Expr:  # noqa: N805
        """No price of the candle is above its high."""
        slack = 1 + PRICE_TOLERANCE
        return pl.col("high") * slack >= pl.max_horizontal("open", "close", "low")

    @dy.rule()
    def low_is_lowest(cls) -> pl.Expr:  # noqa: N805
        """No price of the candle is below its low."""
        slack = 1 + PRICE_TOLERANCE
        return pl.col("low") <= pl.min_horizontal("open", "close", "high") * slack


class Quarantine(dy.Schema):
    """A row of a source that breaks a candle rule: kept whole, with the reason, out of `bars`."""

    day = _day("Cell the row was found in: its own day, else that of the row before it.")
    ticker = _ticker()
    source = dy.String(primary_key=True, description="Source that gave the row.")
    file = dy.String(primary_key=True, description="File within the source, or the request.")
    row = dy.Int64(primary_key=True, description="Row in the file, from 1, headers not counted.")
    reason = dy.String(nullable=False, description="Which rule it breaks, in words.")
    raw = dy.String(nullable=False, description="The row as it was read, as JSON.")


class Bars(dy.Schema):
    """The daily bar of a session, adjusted with the splits and dividends up to that day."""

    day = _day("The session.")
    ticker = _ticker()
    exchange = dy.String(nullable=False, description="Calendar that the ticker trades by.")
    currency = dy.String(nullable=False, description="Currency of the prices; may be empty.")
    open = _price("First price, adjusted.")
    high = _price("Highest price, adjusted.")
    low = _price("Lowest price, adjusted.")
    close = _price("Last price, adjusted.")
    volume = _number("Volume in adjusted shares; null where the source has none.", min=0)
    realised_variance = _number(
        "Sum of squared log returns within the session; null without intraday candles.", min=0
    )
    raw_open = _price("First price as traded.")
    raw_high = _price("Highest price as traded.")
    raw_low = _price("Lowest price as traded.")
    raw_close = _price("Last price as traded.")
    raw_volume = _number("Volume as traded.", min=0)
    split_factor = _price("What all splits up to this day make of a traded price.")
    dividend_factor = _price(
        "What reinvesting all declared dividends up to this day makes of it; null before any.",
        nullable=True,
    )
    suspected_split = _price(
        "New shares for an old one if its move is a split that nobody declared; else null.",
        nullable=True,
    )
    interval = dy.String(nullable=False, description="Interval of the candles it was made from.")
    candles = dy.Int64(nullable=False, min=1, description="Number of candles it was made from.")


class Features(dy.Schema):
    """What is known of a ticker at a session's close. The model sees these and nothing else.

    Windows count sessions of the ticker's exchange, this one included; a window of n sessions
    holds at most n bars. Null where fewer than half of a window's sessions have a value
    (dbt/macros/statistics.sql).
    """

    day = _day("The session at whose close all of this is known.")
    ticker = _ticker()
    exchange = dy.String(nullable=False, description="Calendar that the ticker trades by.")
    # Returns.
    ret_1d = _number("Log return since the previous bar (at most 30 sessions back).")
    ret_5d = _number("Sum of ret_1d over 5 sessions.")
    ret_21d = _number("Sum of ret_1d over 21 sessions.")
    ret_63d = _number("Sum of ret_1d over 63 sessions.")
    gap_1d = _number("Log of open / previous close.")
    intraday_1d = _number("Log of close / open.")
    range_1d = _number("Log of high / low.")
    # Volatility of the close, and from the range.
    vol_ewma = _number("RiskMetrics EWMA (0.94) of squared ret_1d over 100 sessions, as its root.")
    vol_close_5 = _number("Root mean square of ret_1d over 5 sessions.")
    vol_close_21 = _number("Root mean square of ret_1d over 21 sessions.")
    vol_close_63 = _number("Root mean square of ret_1d over 63 sessions.")
    vol_close_252 = _number("Root mean square of ret_1d over 252 sessions.")
    log_variance_1d = _number("Log of the session's variance: gap, and realised or Garman-Klass.")
    log_variance_5 = _number("Mean of log_variance_1d over 5 sessions.")
    log_variance_21 = _number("Mean of log_variance_1d over 21 sessions.")
    log_variance_63 = _number("Mean of log_variance_1d over 63 sessions.")
    log_variance_252 = _number("Mean of log_variance_1d over 252 sessions.")
    vol_parkinson_5 = _number("Parkinson (1980) volatility from high and low over 5 sessions.")
    vol_parkinson_21 = _number("Parkinson volatility over 21 sessions.")
    vol_parkinson_63 = _number("Parkinson volatility over 63 sessions.")
    vol_garman_klass_21 = _number("Garman-Klass (1980) volatility over 21 sessions.")
    vol_rogers_satchell_21 = _number("Rogers-Satchell (1991) volatility over 21 sessions.")
    vol_gap_21 = _number("Root mean square of gap_1d over 21 sessions.")
    range_std_21 = _number("Standard deviation of range_1d over 21 sessions.")
    # Shape and leverage.
    downside_share_21 = _number("Share of squared ret_1d over 21 sessions that fell.", min=0, max=1)
    worst_21 = _number("Lowest ret_1d of 21 sessions.")
    best_21 = _number("Highest ret_1d of 21 sessions.")
    # Volume.
    volume_z_63 = _number("Log volume against its mean of 63 sessions, in its deviations.")
    volume_ratio_5_63 = _number("Mean log volume of 5 sessions minus that of 63.")
    # Where the price stands.
    high_dist_63 = _number("Log of close / highest high of 63 sessions.", max=0)
    high_dist_252 = _number("Log of close / highest high of 252 sessions.", max=0)
    low_dist_252 = _number("Log of close / lowest low of 252 sessions.", min=0)
    # Calendar.
    days_since_bar = dy.Int32(
        nullable=True, min=1, description="Calendar days since the previous bar."
    )
    days_ahead_1 = dy.Int32(
        nullable=True,
        min=1,
        description="Calendar days to the next session, as planned that day.",
    )
    days_ahead_5 = dy.Int32(
        nullable=True, min=1, description="Calendar days to the fifth session ahead, as planned."
    )
    weekday = dy.Int32(nullable=False, min=1, max=7, description="ISO weekday, Monday is 1.")
    bars_252 = dy.Int32(
        nullable=False, min=1, max=252, description="Bars within the last 252 sessions."
    )
    # The market: all tickers of the same exchange that have a bar on this day.
    market_tickers = dy.Int32(
        nullable=False, min=1, description="Tickers that the market columns are made from."
    )
    market_ret_1d = _number("Mean ret_1d of the market.")
    market_ret_5d = _number("Mean ret_5d of the market.")
    market_vol_ewma = _number("Root mean square of vol_ewma over the market.")
    market_range_21 = _number("Root mean square of vol_parkinson_21 over the market.")
    market_log_variance_1d = _number("Mean log_variance_1d of the market.")
    market_log_variance_5 = _number("Mean log_variance_5 of the market.")
    market_log_variance_21 = _number("Mean log_variance_21 of the market.")
    market_log_variance_63 = _number("Mean log_variance_63 of the market.")
    market_volume_z_63 = _number("Mean volume_z_63 of the market.")
    market_dispersion = _number("Standard deviation of ret_1d across the market.", min=0)
    market_up_share = _number("Share of the market's tickers that rose.", min=0, max=1)
    # The ticker within the market.
    relative_ret_5d = _number("ret_5d minus the market's.")
    rank_ret_21d = _number("Rank of ret_21d in the market, 0 lowest, 1 highest.", min=0, max=1)
    rank_vol_ewma = _number("Rank of vol_ewma in the market, 0 to 1.", min=0, max=1)
    beta_63 = _number("Slope of ret_1d on market_ret_1d over 63 sessions.")


class Drift(dy.Schema):
    """How far each ticker's latest sessions have moved from those before, feature by feature.

    Thresholds and alarm levels come from the market's history before the latest sessions; what is
    compared with an alarm level is in `drift/verdict.py`.
    """

    day = _day("The session evaluated.")
    ticker = _ticker()
    kind = dy.String(
        nullable=False,
        description="data (what the model sees), target (what is forecast) or quality (prices).",
    )
    feature = dy.String(primary_key=True, description="Column of `features`, or what is at fault.")
    distance = _number(
        "data: Wasserstein distance of the samples over the reference's standard deviation. "
        "target: rise of the mean, a week against the three before. quality: see the feature.",
        min=0,
    )
    threshold = _number("Distance above which it has drifted; null before any history.")
    drifted = dy.Bool(nullable=False, description="Whether the distance is above the threshold.")
    reference_rows = dy.Int32(nullable=False, min=0, description="Reference sessions with a value.")
    current_rows = dy.Int32(nullable=False, min=0, description="Current sessions with a value.")
    ticker_alarm = _number("What the ticker's drifted share (target: rise) may reach.")
    sector_alarm = _number("By how much its sector's drifted share may exceed the market's.")
    market_alarm = _number("What the market's drifted share (target: mean rise) may reach.")
    market_tickers = dy.Int32(
        nullable=True, min=1, description="Tickers that its market had on a session lately: median."
    )
    sector_tickers = dy.Int32(nullable=True, min=1, description="The same of its sector.")


class Models(dy.Schema):
    """The decision of each day and ticker: which model is in force, and why."""

    day = _day("The session at whose close it was decided.")
    ticker = _ticker()
    model = dy.String(nullable=False, description="Model in force after it; 'baseline' if none.")
    decision = dy.String(
        nullable=False,
        description="trained, rejected, demoted, ordered, carried or baseline.",
    )
    reason = dy.String(nullable=False, description="Why, in words.")
    trained_day = dy.Date(nullable=True, description="Day the model in force was trained on.")
    attempted_day = dy.Date(
        nullable=True, description="Latest day a training was tried, or a model was ordered."
    )
    challenger = dy.String(nullable=True, description="Model trained on this day, if any.")
    drift_share = _number("Share of drifted pairs of the universe on this day.", min=0, max=1)
    challenger_loss = _number("Challenger's mean pinball loss on the later, purged days.")
    in_force_loss = _number("The same of the model in force before it.")
    baseline_loss = _number("The same of the baseline.")
    baseline_t = _number("Diebold-Mariano t, challenger against baseline; positive is better.")
    in_force_t = _number("The same, challenger against the model in force.")
    in_force_baseline_t = _number("The same, model in force against baseline.")
    validation_days = dy.Int32(nullable=True, min=1, description="Days the losses are means of.")
    leak_alarm = dy.String(
        nullable=True, description="Why the challenger is too good to be true, if it is."
    )
    model_version = dy.Int64(
        nullable=True,
        description="MLflow's version number of the model in force.",
        metadata={"lineage": True},
    )
    features_version = dy.Int64(
        nullable=True,
        description="Version of `features` the decision read.",
        metadata={"lineage": True},
    )


class Forecasts(dy.Schema):
    """The distribution of a ticker's price some sessions ahead, as known at a session's close."""

    day = _day("The session at whose close the forecast was made.")
    ticker = _ticker()
    horizon = dy.Int32(primary_key=True, min=1, max=5, description="Sessions ahead.")
    target_day = dy.Date(nullable=False, description="The session forecast, by its own calendar.")
    last_price = _price("Price as traded at the day's close (at that of held_from, if any).")
    currency = dy.String(nullable=False, description="Currency of the prices; may be empty.")
    model = dy.String(nullable=False, description="Model that made it, or 'baseline'.")
    held_from = dy.Date(
        nullable=True,
        description="Earlier session whose forecast stands, as the day's prices cannot be right.",
    )
    note = dy.String(nullable=True, description="Why an earlier forecast stands, in words.")
    sigma = _number("Standard deviation of the log return to the target.", nullable=False, min=0)
    price_q05 = _price("5 % quantile of the price as traded, in the day's shares.")
    price_q10 = _price("10 % quantile of the price.")
    price_q25 = _price("25 % quantile of the price.")
    price_q50 = _price("Median price.")
    price_q75 = _price("75 % quantile of the price.")
    price_q90 = _price("90 % quantile of the price.")
    price_q95 = _price("95 % quantile of the price.")
    return_q05 = _number("5 % quantile of the log return to the target.", nullable=False)
    return_q10 = _number("10 % quantile of the log return.", nullable=False)
    return_q25 = _number("25 % quantile of the log return.", nullable=False)
    return_q50 = _number("Median log return.", nullable=False)
    return_q75 = _number("75 % quantile of the log return.", nullable=False)
    return_q90 = _number("90 % quantile of the log return.", nullable=False)
    return_q95 = _number("95 % quantile of the log return.", nullable=False)
    baseline_sigma = _number("Sigma of the baseline.", nullable=False, min=0)
    baseline_return_q05 = _number("5 % quantile of the baseline's log return.", nullable=False)
    baseline_return_q10 = _number("10 % quantile of the baseline's.", nullable=False)
    baseline_return_q25 = _number("25 % quantile of the baseline's.", nullable=False)
    baseline_return_q50 = _number("Median of the baseline's.", nullable=False)
    baseline_return_q75 = _number("75 % quantile of the baseline's.", nullable=False)
    baseline_return_q90 = _number("90 % quantile of the baseline's.", nullable=False)
    baseline_return_q95 = _number("95 % quantile of the baseline's.", nullable=False)
    model_version = dy.Int64(
        nullable=True, description="MLflow's version of the model.", metadata={"lineage": True}
    )
    bars_version = dy.Int64(
        nullable=False, description="Version of `bars` read.", metadata={"lineage": True}
    )
    features_version = dy.Int64(
        nullable=False, description="Version of `features` read.", metadata={"lineage": True}
    )
    models_version = dy.Int64(
        nullable=True, description="Version of `models` read.", metadata={"lineage": True}
    )
    drift_version = dy.Int64(
        nullable=True,
        description="Version of `drift` that said which prices cannot be right.",
        metadata={"lineage": True},
    )

    @dy.rule()
    def quantiles_do_not_cross(cls) -> pl.Expr:  # noqa: N805
        """A higher probability never has a lower value."""
        return _rising("price_") & _rising("return_") & _rising("baseline_return_")


class Scores(dy.Schema):
    """What a forecast was worth once its target day's bar was there, beside the baseline."""

    day = _day("The target day, on which the forecast could be scored.")
    ticker = _ticker()
    horizon = dy.Int32(primary_key=True, min=1, max=5, description="Sessions ahead.")
    forecast_day = dy.Date(nullable=False, description="The day the forecast was made.")
    model = dy.String(nullable=False, description="Model that made the forecast, or 'baseline'.")
    actual_return = _number("Log return that came, dividends reinvested.", nullable=False)
    actual_price = _price("Price that came with that return, in the forecast day's shares.")
    pinball = _number("Mean pinball loss over the quantiles, log return.", nullable=False, min=0)
    baseline_pinball = _number("The baseline's.", nullable=False, min=0)
    interval_score_90 = _number("Winkler score of the 90 % interval.", nullable=False, min=0)
    baseline_interval_score_90 = _number("The baseline's.", nullable=False, min=0)
    in_50 = dy.Bool(nullable=False, description="Whether it fell within the 50 % interval.")
    in_80 = dy.Bool(nullable=False, description="Whether it fell within the 80 % interval.")
    in_90 = dy.Bool(nullable=False, description="Whether it fell within the 90 % interval.")
    baseline_in_80 = dy.Bool(nullable=False, description="The baseline's 80 % interval.")
    baseline_in_90 = dy.Bool(nullable=False, description="The baseline's 90 % interval.")
    qlike = _number("QLIKE of sigma squared against the squared returns to the target.")
    baseline_qlike = _number("The baseline's.")
    price_error = _number("Median price minus actual, over the last price.", nullable=False)
    random_walk_error = _number("Last price minus actual, over the last price.", nullable=False)


class Shadows(dy.Schema):
    """What a model that is not in force would have scored, beside the live forecast of that cell.

    After each change of model the replaced one goes on in shadow, after a rejected training the
    challenger does (settings: scores.shadow). What is live is as in `scores`.
    """

    day = _day("The target day, on which both forecasts could be scored.")
    ticker = _ticker()
    horizon = dy.Int32(primary_key=True, min=1, max=5, description="Sessions ahead.")
    attempt_day = dy.Date(
        primary_key=True, description="Day of the training or order that is asked what it is worth."
    )
    forecast_day = dy.Date(nullable=False, description="The day the live forecast was made.")
    decision = dy.String(
        nullable=False, description="What came of it: trained, rejected, demoted or ordered."
    )
    cause = dy.String(
        nullable=False,
        description="Why it was tried: no model, cadence, drift, performance, forced, order.",
    )
    model = dy.String(nullable=False, description="Model in force, that made the live forecast.")
    shadow_model = dy.String(
        nullable=False, description="The other one: replaced, or challenger that was rejected."
    )
    pinball = _number("Mean pinball loss of the live forecast.", nullable=False, min=0)
    shadow_pinball = _number("The shadow's.", nullable=False, min=0)


class Orders(dy.Schema):
    """What people ordered to be in force: from which day on, who, when and why. Only added to."""

    day = dy.Date(primary_key=True, description="First day whose forecasts obey it.")
    ordered_at = dy.Datetime(
        primary_key=True,
        time_unit="us",
        time_zone="UTC",
        description="When it was given; of several for one day, the latest counts.",
    )
    ordered_by = dy.String(primary_key=True, description="Who gave it.")
    why = dy.String(nullable=False, min_length=1, description="Why, in their words.")
    action = dy.String(
        nullable=False, regex="^(promote|rollback)$", description="promote or rollback."
    )
    model = dy.String(nullable=False, description="Model to be in force, or 'baseline'.")
    trained_day = dy.Date(nullable=True, description="Day that model was trained on.")
    model_version = dy.Int64(nullable=True, description="MLflow's version number of it.")


class Splits(dy.Schema):
    """A split that a source declared, and when the lake heard of it. Only added to."""

    day = _day("The first session at the new price.")
    ticker = _ticker()
    known_at = dy.Datetime(
        primary_key=True,
        time_unit="us",
        time_zone="UTC",
        description="When it was heard; of several for one day and ticker, the latest counts.",
    )
    source = dy.String(nullable=False, description="Source that declared it.")
    before = _number("So many old shares ...", nullable=False, min_exclusive=0)
    after = _number("... became so many new ones.", nullable=False, min_exclusive=0)


def _rising(prefix: str) -> pl.Expr:
    columns = [pl.col(prefix + name) for name in QUANTILE_NAMES]
    return pl.all_horizontal([low <= high for low, high in pairwise(columns)])


TABLES: dict[str, type[dy.Schema]] = {
    "candles": Candles,
    "quarantine": Quarantine,
    "bars": Bars,
    "features": Features,
    "drift": Drift,
    "models": Models,
    "forecasts": Forecasts,
    "scores": Scores,
    "shadows": Shadows,
}
"""The tables that are written by slice, by their SQL names."""

LEDGERS: dict[str, type[dy.Schema]] = {"orders": Orders, "splits": Splits}
"""The tables that are only added to: their rows belong to no cell."""

ALL_TABLES = TABLES | LEDGERS
"""Every table of the lake by its SQL name."""


def describe(table: str) -> str:
    """What one row of the table is: the first line of its class's docstring."""
    return (ALL_TABLES[table].__doc__ or "").strip().splitlines()[0]


def lineage_columns(schema: type[dy.Schema]) -> tuple[str, ...]:
    """Columns that say which versions a row was made from.

    They tell where a value came from, not what it is: two ways of computing the same slice agree
    on all others.
    """
    return tuple(
        name for name, column in schema.columns().items() if (column.metadata or {}).get("lineage")
    )
