{# Length of a candle from its interval's name: 5m, 1h, 1d. #}
{% macro interval_minutes(column) -%}
    cast({{ column }}[: -2] as integer)
    * case {{ column }}[-1] when 'm' then 1 when 'h' then 60 when 'd' then 1440 end
{%- endmacro %}
