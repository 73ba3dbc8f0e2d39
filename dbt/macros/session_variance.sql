{#
  One session's variance, from the previous close on: the gap's square, and within the session the
  realised variance of intraday candles where there are any, else Garman and Klass's (1980) estimate
  in its practical form, a tenth of Parkinson's (1980) at least: a close at the far end of a wide
  range is no sign of calm. A price without a range has its return's square. One basis point squared
  at least: zero has no logarithm. Null without a previous bar.

  The same as `session_variance` of stock_assets/forecasting/volatility.py; a test compares them.
#}
{% macro session_variance() -%}
    case when previous_close is not null then greatest(
        1e-8,
        case
            when realised_variance is not null
                then power(ln(open / previous_close), 2) + realised_variance
            when high > low
                then power(ln(open / previous_close), 2) + greatest(
                    0.5 * power(ln(high / low), 2)
                    - (2 * ln(2) - 1) * power(ln(close / open), 2),
                    power(ln(high / low), 2) / (40 * ln(2))
                )
            else power(ln(close / previous_close), 2)
        end
    ) end
{%- endmacro %}
