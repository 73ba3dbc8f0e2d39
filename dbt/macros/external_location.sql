{#
  Where dbt-duckdb's `external` materialization stages a model's rows for the plugin: in the target
  folder of this invocation (the asset gives each its own), so that parallel runs never meet.
#}
{% macro external_location(relation, config) -%}
    {{ return((flags.TARGET_PATH or "target") ~ "/" ~ relation.identifier ~ ".parquet") }}
{%- endmacro %}
