{{ config(materialized='external', plugin='lake') }}

-- What is known of a ticker at a session's close. The market's columns come from all bars that the
-- lake holds for the day, not only from this run's.

with tickers as (
    select
        windows.*,
        ewma.vol_ewma
    from {{ ref('int_windows') }} as windows
    left join {{ ref('int_ewma') }} as ewma using (exchange, ticker, session)
),

with_market as (
    select
        tickers.*,
        market.* exclude (exchange, day)
    from tickers
    inner join {{ ref('int_market') }} as market using (exchange, day)
),

compared as (
    select
        *,
        ret_5d - market_ret_5d as relative_ret_5d,
        {{ market_rank("ret_21d") }} as rank_ret_21d,
        {{ market_rank("vol_ewma") }} as rank_vol_ewma,
        {{ fixed("ret_1d") }} as ret_n,
        case when ret_1d is not null then {{ fixed("market_ret_1d") }} end as market_n
    from with_market
),

with_beta as (
    select
        *,
        -- Slope of least squares; null where the market did not move.
        {{ if_filled("ret_n", "last_63", 63,
            "cast(" ~ integer_covariance("ret_n", "market_n", "last_63") ~ " as double) / nullif("
            ~ integer_covariance("market_n", "market_n", "last_63") ~ ", 0)") }} as beta_63
    from compared
    window last_63 as (
        partition by exchange, ticker order by session
        range between 62 preceding and current row
    )
),

of_slice as (
    select
        with_beta.*,
        planned.days_ahead_1,
        planned.days_ahead_5
    from with_beta
    left join {{ source('run', 'sessions') }} as planned using (exchange, session)
    inner join {{ source('run', 'slice') }} as slice
        on
            with_beta.ticker = slice.ticker
            and with_beta.exchange = slice.exchange
            and with_beta.day <= slice.last_date
            and (slice.first_date is null or with_beta.day >= slice.first_date)
)

select
    day,
    ticker,
    exchange,
    ret_1d,
    ret_5d,
    ret_21d,
    ret_63d,
    gap_1d,
    intraday_1d,
    range_1d,
    vol_ewma,
    vol_close_5,
    vol_close_21,
    vol_close_63,
    vol_close_252,
    log_variance_1d,
    log_variance_5,
    log_variance_21,
    log_variance_63,
    log_variance_252,
    vol_parkinson_5,
    vol_parkinson_21,
    vol_parkinson_63,
    vol_garman_klass_21,
    vol_rogers_satchell_21,
    vol_gap_21,
    range_std_21,
    downside_share_21,
    worst_21,
    best_21,
    volume_z_63,
    volume_ratio_5_63,
    high_dist_63,
    high_dist_252,
    low_dist_252,
    days_since_bar,
    days_ahead_1,
    days_ahead_5,
    cast(isodow(day) as integer) as weekday,
    bars_252,
    market_tickers,
    market_ret_1d,
    market_ret_5d,
    market_vol_ewma,
    market_range_21,
    market_log_variance_1d,
    market_log_variance_5,
    market_log_variance_21,
    market_log_variance_63,
    market_volume_z_63,
    market_dispersion,
    market_up_share,
    relative_ret_5d,
    rank_ret_21d,
    rank_vol_ewma,
    beta_63
from of_slice
order by day, ticker
