-- Candles of the slice, one interval a day and ticker: the coarsest. A source's daily candle knows
-- auctions and corrections that its intraday candles do not, and mixing both would count twice.

with candles as (
    select * from {{ source('lake', 'candles') }}
),

tickers as (
    select * from {{ source('run', 'slice') }}
)

select
    candles.day,
    candles.ticker,
    tickers.exchange,
    tickers.currency,
    candles.interval,
    candles.start,
    candles.open,
    candles.high,
    candles.low,
    candles.close,
    candles.volume
from candles
inner join tickers on candles.ticker = tickers.ticker
qualify
    {{ interval_minutes('candles.interval') }}
    = max({{ interval_minutes('candles.interval') }})
        over (partition by candles.day, candles.ticker)
