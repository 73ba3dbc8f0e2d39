-- Each bar of the slice that lies on a session has its features.
select
    bars.day,
    bars.ticker
from {{ ref('bars') }} as bars
inner join {{ source('run', 'sessions') }} as sessions
    on bars.exchange = sessions.exchange and bars.day = sessions.day
except
select
    day,
    ticker
from {{ ref('features') }}
