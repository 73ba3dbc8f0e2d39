-- Exponentially weighted variance of ret_1d, RiskMetrics (1996): weight 0.94^age over the last 100
-- sessions. Ages count sessions, so a halt ages what came before it; the weights of the sessions
-- that have a return are scaled to one. Null while they are less than half of all weight, which is
-- the newest 12 sessions.

with daily as (
    select
        exchange,
        ticker,
        session,
        ret_1d * ret_1d as square
    from {{ ref('int_daily') }}
    where ret_1d is not null
),

weights as (
    select
        cast(age as integer) as age,
        power(0.94, age) as weight,
        sum({{ fixed("power(0.94, age)") }}) over () as total
    from range(100) as ages (age)
)

select
    newest.exchange,
    newest.ticker,
    newest.session,
    sqrt(
        {{ unfixed_product("sum(" ~ fixed_product("past.square * weights.weight") ~ ")") }}
        / {{ unfixed("sum(" ~ fixed("weights.weight") ~ ")") }}
    ) as vol_ewma
from {{ ref('int_daily') }} as newest
cross join weights
inner join daily as past
    on
        newest.exchange = past.exchange
        and newest.ticker = past.ticker
        and newest.session - weights.age = past.session
group by newest.exchange, newest.ticker, newest.session
having 2 * sum({{ fixed("weights.weight") }}) >= any_value(weights.total)
