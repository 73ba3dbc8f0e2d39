{#
  Sums that do not depend on the order of their terms.

  A float sum depends on how DuckDB cuts its input into pieces, so a day computed alone and the same
  day computed within a year could differ in the last bit. Every sum over sessions or tickers
  therefore runs over integers: numbers at a scale of 2^45 (steps of 2.8e-14), products of two such
  numbers at 2^90. HUGEINT has 127 bits and raises an error rather than overflow: there is room for
  log returns up to 16 and log volumes up to 32 over windows of 100 sessions, and for markets of
  thousands of tickers.
#}

{# A number as an integer at the first-order scale. #}
{% macro fixed(expression) -%}
    cast(round(({{ expression }}) * power(2, 45)) as hugeint)
{%- endmacro %}

{# An integer at the first-order scale as the number it stands for. #}
{% macro unfixed(expression) -%}
    (cast({{ expression }} as double) / power(2, 45))
{%- endmacro %}

{# A square or product, computed as a float, as an integer at the scale of `fixed * fixed`. #}
{% macro fixed_product(expression) -%}
    cast(round(({{ expression }}) * power(2, 90)) as hugeint)
{%- endmacro %}

{# An integer at the scale of `fixed * fixed` as the number it stands for. #}
{% macro unfixed_product(expression) -%}
    (cast({{ expression }} as double) / power(2, 90))
{%- endmacro %}
