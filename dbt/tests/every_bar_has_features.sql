{{ config(meta={'dagster': {'ref': {'name': 'features'}}}) }}

-- Each bar of the slice that lies on a session has its features. The bars are the lake's, for
-- `bars` may not be part of this run.
select
    bars.day,
    bars.ticker
from {{ source('run', 'market_bars') }} as bars
inner join {{ source('run', 'slice') }} as slice
    on
        bars.ticker = slice.ticker
        and bars.exchange = slice.exchange
        and bars.day <= slice.last_date
        and (slice.first_date is null or bars.day >= slice.first_date)
inner join {{ source('run', 'sessions') }} as sessions
    on bars.exchange = sessions.exchange and bars.day = sessions.day
except
select
    day,
    ticker
from {{ ref('features') }}
