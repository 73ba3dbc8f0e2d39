{{ config(materialized='external', plugin='lake') }}

-- One bar a session from its candles, in adjusted prices beside the raw ones.
--
-- Splits and dividends are applied forward: a day's factor is the product of all up to that day, so
-- that a later one never changes an earlier row. Adjusted volume counts in the shares of the
-- beginning. What looks like a split that nobody declared is marked and not adjusted.

with days as (
    select
        day,
        ticker,
        exchange,
        currency,
        arg_min(open, start) as raw_open,
        max(high) as raw_high,
        min(low) as raw_low,
        arg_max(close, start) as raw_close,
        {{ unfixed("sum(" ~ fixed("volume") ~ ")") }} as raw_volume,
        any_value(interval) as interval,
        count(*) as candles
    from {{ ref('stg_candles') }}
    group by day, ticker, exchange, currency
),

adjusted as (
    select
        days.*,
        realised.realised_variance,
        coalesce(splits.factor, 1.0) as split_factor,
        dividends.factor as dividend_factor,
        split_factor * coalesce(dividends.factor, 1.0) as factor,
        suspicions.suspected_split
    from days
    left join {{ ref('stg_realised') }} as realised
        on days.day = realised.day and days.ticker = realised.ticker
    left join {{ source('run', 'suspicions') }} as suspicions
        on days.day = suspicions.day and days.ticker = suspicions.ticker
    asof left join {{ source('run', 'splits') }} as splits
        on days.ticker = splits.ticker and days.day >= splits.day
    asof left join {{ source('run', 'dividends') }} as dividends
        on days.ticker = dividends.ticker and days.day >= dividends.day
)

select
    day,
    ticker,
    exchange,
    currency,
    raw_open * factor as open,
    raw_high * factor as high,
    raw_low * factor as low,
    raw_close * factor as close,
    raw_volume / split_factor as volume,
    realised_variance,
    raw_open,
    raw_high,
    raw_low,
    raw_close,
    raw_volume,
    split_factor,
    dividend_factor,
    suspected_split,
    interval,
    candles
from adjusted
order by day, ticker
