-- Exponentially weighted variance of ret_1d, RiskMetrics (1996): weight 0.94^age over the last 100
-- sessions. Ages count sessions, so a halt ages what came before it; the weights of the sessions
-- that have a return are scaled to one. Null while they are less than half of all weight: the
-- newest 12 sessions, or more where some are missing.

with daily as (
    select
        exchange,
        ticker,
        session,
        ret_1d
    from {{ ref('int_daily') }}
),

weights as (
    select
        cast(ages.age as integer) as age,
        {{ fixed("power(0.94, ages.age)") }} as weight_n
    from range(100) as ages (age)
),

-- Each return speaks for its own session and the 99 after it.
aged as (
    select
        daily.exchange,
        daily.ticker,
        daily.session + weights.age as session,
        daily.ret_1d,
        weights.weight_n
    from daily
    cross join weights
    where daily.ret_1d is not null
),

weighted as (
    select
        exchange,
        ticker,
        session,
        sum({{ fixed_product("ret_1d * ret_1d * " ~ unfixed("weight_n")) }}) as squares_n,
        sum(weight_n) as weight_n
    from aged
    group by exchange, ticker, session
)

select
    daily.exchange,
    daily.ticker,
    daily.session,
    sqrt({{ unfixed_product("weighted.squares_n") }} / {{ unfixed("weighted.weight_n") }})
        as vol_ewma
from daily
inner join weighted using (exchange, ticker, session)
where 2 * weighted.weight_n >= (select sum(weights.weight_n) from weights)
