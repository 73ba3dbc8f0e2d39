{{ config(meta={'dagster': {'ref': {'name': 'bars'}}}) }}

-- Each day and ticker of the slice that has candles has its bar.
select
    day,
    ticker
from {{ ref('stg_candles') }}
except
select
    day,
    ticker
from {{ ref('bars') }}
