{#
  Statistics over a window of sessions (`over` = the window's name) or over a group (`over` left out),
  of columns that `fixed` made. The window's number of sessions decides whether it is filled.
#}

{#
  The one rule for windows: null unless it holds values on at least half of its sessions.
  Half, because after a halt of a week a month's statistics still stand.
#}
{% macro if_filled(column, over, sessions, expression) -%}
    case when count({{ column }}) over {{ over }} >= {{ (sessions + 1) // 2 }}
        then {{ expression }}
    end
{%- endmacro %}

{% macro _over(over) -%}
    {%- if over %} over {{ over }}{% endif -%}
{%- endmacro %}

{% macro mean(column, over=none) -%}
    {{ unfixed("sum(" ~ column ~ ")" ~ _over(over)) }} / count({{ column }}){{ _over(over) }}
{%- endmacro %}

{% macro mean_square(column, over=none) -%}
    {{ unfixed_product("sum(" ~ column ~ " * " ~ column ~ ")" ~ _over(over)) }}
    / count({{ column }}){{ _over(over) }}
{%- endmacro %}

{#
  Count squared times the covariance, as an integer: exactly zero if one of them is constant.
  Both columns must be null on the same rows.
#}
{% macro integer_covariance(left, right, over=none) -%}
    (
        count({{ left }}){{ _over(over) }} * sum({{ left }} * {{ right }}){{ _over(over) }}
        - sum({{ left }}){{ _over(over) }} * sum({{ right }}){{ _over(over) }}
    )
{%- endmacro %}

{# The sample's standard deviation (divisor n - 1); null for fewer than two values. #}
{% macro deviation(column, over=none) -%}
    sqrt(
        {{ unfixed_product(integer_covariance(column, column, over)) }}
        / nullif(count({{ column }}){{ _over(over) }}, 0)
        / nullif(count({{ column }}){{ _over(over) }} - 1, 0)
    )
{%- endmacro %}

{#
  Where a value stands among its market's of the day: 0 lowest, 1 highest, equals share the middle
  of their places. Null for a ticker without the value, and for one alone.
#}
{% macro market_rank(column) -%}
    case when {{ column }} is not null
        then (
            rank() over (partition by exchange, day order by {{ column }} nulls last) - 1
            + (count(*) over (partition by exchange, day, {{ column }}) - 1) / 2
        ) / nullif(count({{ column }}) over (partition by exchange, day) - 1, 0)
    end
{%- endmacro %}
