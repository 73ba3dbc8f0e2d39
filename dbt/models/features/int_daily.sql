-- What each bar says by itself and against the one before it, for every ticker of the market.
--
-- The previous bar is the last one within the 30 sessions before: a return over a longer halt is
-- not a return of this market any more. Bars off the calendar count nowhere.
--
-- A bar that looks like a split nobody declared has no previous bar to be compared with, and the
-- levels of prices and volumes begin anew with it: `level_sessions` is how many sessions back they
-- are in its shares.
--
-- The plugin reads `market_bars` from the lake when this model is compiled, which must be after
-- this run's bars were stored: depends_on: {{ ref('bars') }}

with bars as (
    select
        bars.day,
        bars.ticker,
        bars.exchange,
        bars.open,
        bars.high,
        bars.low,
        bars.close,
        bars.realised_variance,
        bars.suspected_split,
        sessions.session,
        -- A volume of zero has no logarithm; it is as unknown as none.
        case when bars.volume > 0 then ln(bars.volume) end as log_volume
    from {{ source('run', 'market_bars') }} as bars
    inner join {{ source('run', 'sessions') }} as sessions
        on bars.exchange = sessions.exchange and bars.day = sessions.day
),

following as (
    select
        *,
        case when suspected_split is null then last_value(close) over before end as previous_close,
        last_value(day) over before as previous_day,
        session - max(case when suspected_split is not null then session end) over all_before
            as sessions_since_split
    from bars
    window
        before as (
            partition by exchange, ticker order by session
            range between 30 preceding and 1 preceding
        ),
        all_before as (
            partition by exchange, ticker order by session
            range between 251 preceding and current row
        )
)

select
    day,
    ticker,
    exchange,
    session,
    high,
    low,
    close,
    log_volume,
    coalesce(sessions_since_split, 251) as level_sessions,
    ln(close / previous_close) as ret_1d,
    ln(open / previous_close) as gap_1d,
    ln(close / open) as intraday_1d,
    ln(high / low) as range_1d,
    -- Rogers-Satchell (1991) estimator of one day's variance, free of drift.
    ln(high / close) * ln(high / open) + ln(low / close) * ln(low / open) as rogers_satchell,
    ln({{ session_variance() }}) as log_variance_1d,
    cast(day - previous_day as integer) as days_since_bar
from following
