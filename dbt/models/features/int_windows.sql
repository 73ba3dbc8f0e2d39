-- What each ticker's own last sessions say, beside what the bar itself says.
--
-- A window of n sessions is a RANGE over the calendar's running number: never more than n sessions
-- back, whatever is missing, so that 282 sessions of lookback give every value its whole window,
-- and the oldest return in it the bar before it.
-- Levels of prices and volumes (not their changes) look back no further than the ticker's last
-- suspected split: what was before it is missing, in other shares.
-- Columns ending in _n are the integers that all sums run over (macros/exact.sql).

with daily as (
    select
        *,
        {{ fixed("ret_1d") }} as ret_n,
        {{ fixed("least(ret_1d, 0)") }} as fall_n,
        {{ fixed("gap_1d") }} as gap_n,
        {{ fixed("intraday_1d") }} as intraday_n,
        {{ fixed("range_1d") }} as range_n,
        {{ fixed("log_variance_1d") }} as log_variance_n,
        {{ fixed_product("rogers_satchell") }} as rogers_satchell_n,
        {{ fixed("log_volume") }} as volume_n,
        least(4, level_sessions) as level_back_4,
        least(62, level_sessions) as level_back_62
    from {{ ref('int_daily') }}
),

windows as (
    select
        day,
        ticker,
        exchange,
        session,
        ret_1d,
        gap_1d,
        intraday_1d,
        range_1d,
        log_variance_1d,
        days_since_bar,
        {%- for sessions in [5, 21, 63] %}
        {{ if_filled("ret_n", "last_%d" % sessions, sessions,
            unfixed("sum(ret_n) over last_%d" % sessions)) }} as ret_{{ sessions }}d,
        {{ if_filled("ret_n", "last_%d" % sessions, sessions,
            "sqrt(" ~ mean_square("ret_n", "last_%d" % sessions) ~ ")") }} as vol_close_{{ sessions }},
        -- Parkinson (1980): mean square of the range over 4 ln 2.
        {{ if_filled("range_n", "last_%d" % sessions, sessions,
            "sqrt((" ~ mean_square("range_n", "last_%d" % sessions) ~ ") / (4 * ln(2)))") }}
            as vol_parkinson_{{ sessions }},
        {%- endfor %}
        {%- for sessions in [5, 21, 63, 252] %}
        {{ if_filled("log_variance_n", "last_%d" % sessions, sessions,
            mean("log_variance_n", "last_%d" % sessions)) }} as log_variance_{{ sessions }},
        {%- endfor %}
        {{ if_filled("ret_n", "last_252", 252,
            "sqrt(" ~ mean_square("ret_n", "last_252") ~ ")") }} as vol_close_252,
        -- Garman-Klass (1980), the practical form: 1/2 range^2 - (2 ln 2 - 1) intraday^2. The
        -- candle rules let a close stand a hair above the high: never below zero for that.
        {{ if_filled("range_n", "last_21", 21, "sqrt(greatest(0, 0.5 * (" ~
            mean_square("range_n", "last_21") ~ ") - (2 * ln(2) - 1) * (" ~
            mean_square("intraday_n", "last_21") ~ ")))") }} as vol_garman_klass_21,
        {{ if_filled("rogers_satchell_n", "last_21", 21, "sqrt(greatest(0, " ~
            unfixed_product("sum(rogers_satchell_n) over last_21") ~
            " / count(rogers_satchell_n) over last_21))") }} as vol_rogers_satchell_21,
        {{ if_filled("gap_n", "last_21", 21,
            "sqrt(" ~ mean_square("gap_n", "last_21") ~ ")") }} as vol_gap_21,
        {{ if_filled("range_n", "last_21", 21, deviation("range_n", "last_21")) }} as range_std_21,
        -- Null where nothing moved.
        {{ if_filled("ret_n", "last_21", 21,
            "cast(sum(fall_n * fall_n) over last_21 as double)"
            ~ " / nullif(sum(ret_n * ret_n) over last_21, 0)") }} as downside_share_21,
        {{ if_filled("ret_1d", "last_21", 21, "min(ret_1d) over last_21") }} as worst_21,
        {{ if_filled("ret_1d", "last_21", 21, "max(ret_1d) over last_21") }} as best_21,
        -- Null where the volume never changed.
        {{ if_filled("volume_n", "level_63", 63,
            "(" ~ unfixed("volume_n") ~ " - " ~ mean("volume_n", "level_63") ~ ") / nullif("
            ~ deviation("volume_n", "level_63") ~ ", 0)") }} as volume_z_63,
        {{ if_filled("volume_n", "level_5", 5, mean("volume_n", "level_5")) }}
        - {{ if_filled("volume_n", "level_63", 63, mean("volume_n", "level_63")) }}
            as volume_ratio_5_63,
        {{ if_filled("close", "level_63", 63, "least(0, ln(close / max(high) over level_63))") }}
            as high_dist_63,
        {{ if_filled("close", "level_252", 252, "least(0, ln(close / max(high) over level_252))") }}
            as high_dist_252,
        {{ if_filled("close", "level_252", 252,
            "greatest(0, ln(close / min(low) over level_252))") }} as low_dist_252,
        cast(count(*) over last_252 as integer) as bars_252
    from daily
    window
        last_5 as (
            partition by exchange, ticker order by session
            range between 4 preceding and current row
        ),
        last_21 as (
            partition by exchange, ticker order by session
            range between 20 preceding and current row
        ),
        last_63 as (
            partition by exchange, ticker order by session
            range between 62 preceding and current row
        ),
        last_252 as (
            partition by exchange, ticker order by session
            range between 251 preceding and current row
        ),
        level_5 as (
            partition by exchange, ticker order by session
            range between level_back_4 preceding and current row
        ),
        level_63 as (
            partition by exchange, ticker order by session
            range between level_back_62 preceding and current row
        ),
        level_252 as (
            partition by exchange, ticker order by session
            range between level_sessions preceding and current row
        )
)

select * from windows
