{{ config(materialized='external', plugin='lake') }}

-- One bar a session from its candles, in adjusted prices beside the raw ones.
--
-- Splits are applied forward: a day's factor is the product of all splits up to that day, so that a
-- later split never changes an earlier row. Adjusted volume counts in the shares of the beginning.

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
        coalesce(splits.factor, 1.0) as split_factor
    from days
    left join {{ ref('stg_realised') }} as realised
        on days.day = realised.day and days.ticker = realised.ticker
    asof left join {{ source('run', 'splits') }} as splits
        on days.ticker = splits.ticker and days.day >= splits.day
)

select
    day,
    ticker,
    exchange,
    currency,
    raw_open * split_factor as open,
    raw_high * split_factor as high,
    raw_low * split_factor as low,
    raw_close * split_factor as close,
    raw_volume / split_factor as volume,
    realised_variance,
    raw_open,
    raw_high,
    raw_low,
    raw_close,
    raw_volume,
    split_factor,
    interval,
    candles
from adjusted
order by day, ticker
