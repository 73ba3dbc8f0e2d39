-- Realised variance within a session: the sum of squared log returns from candle to candle, the
-- first from its own open. Of several intraday intervals the finest of five minutes or more, as
-- shorter ones measure the bid and the ask; fewer than ten candles are no measure.

with candles as (
    select
        candles.day,
        candles.ticker,
        candles.start,
        candles.open,
        candles.close,
        {{ interval_minutes('candles.interval') }} as minutes
    from {{ source('lake', 'candles') }} as candles
    inner join {{ source('run', 'slice') }} as slice on candles.ticker = slice.ticker
    where {{ interval_minutes('candles.interval') }} < 1440
),

finest as (
    select *
    from candles
    qualify
        minutes = coalesce(
            min(minutes) filter (where minutes >= 5) over (partition by day, ticker),
            max(minutes) over (partition by day, ticker)
        )
),

returns as (
    select
        day,
        ticker,
        ln(close / coalesce(
            lag(close) over (partition by day, ticker order by start), open
        )) as ret
    from finest
)

select
    day,
    ticker,
    {{ unfixed_product("sum(" ~ fixed_product("ret * ret") ~ ")") }} as realised_variance
from returns
group by day, ticker
having count(*) >= 10
