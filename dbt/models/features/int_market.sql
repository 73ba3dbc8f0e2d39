-- The market of each session: every ticker of the exchange that has a bar on that day.

{% set variances = ["log_variance_1d", "log_variance_5", "log_variance_21", "log_variance_63"] -%}

with tickers as (
    select
        windows.exchange,
        windows.day,
        windows.ret_1d,
        {{ fixed("windows.ret_1d") }} as ret_n,
        {{ fixed("windows.ret_5d") }} as ret_5d_n,
        {{ fixed("ewma.vol_ewma") }} as vol_ewma_n,
        {{ fixed("windows.vol_parkinson_21") }} as vol_parkinson_n,
        {%- for name in variances %}
        {{ fixed("windows." ~ name) }} as {{ name }}_n,
        {%- endfor %}
        {{ fixed("windows.volume_z_63") }} as volume_z_n
    from {{ ref('int_windows') }} as windows
    left join {{ ref('int_ewma') }} as ewma using (exchange, ticker, session)
)

select
    exchange,
    day,
    cast(count(*) as integer) as market_tickers,
    {{ mean("ret_n") }} as market_ret_1d,
    {{ mean("ret_5d_n") }} as market_ret_5d,
    sqrt({{ mean_square("vol_ewma_n") }}) as market_vol_ewma,
    sqrt({{ mean_square("vol_parkinson_n") }}) as market_range_21,
    {%- for name in variances %}
    {{ mean(name ~ "_n") }} as market_{{ name }},
    {%- endfor %}
    {{ mean("volume_z_n") }} as market_volume_z_63,
    {{ deviation("ret_n") }} as market_dispersion,
    count(*) filter (where ret_1d > 0) / nullif(count(ret_1d), 0) as market_up_share
from tickers
group by exchange, day
