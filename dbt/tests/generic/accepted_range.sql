{#- No value lies outside min_value to max_value; nulls do not count. -#}
{% test accepted_range(model, column_name, min_value, max_value) %}
select {{ column_name }}
from {{ model }}
where {{ column_name }} not between {{ min_value }} and {{ max_value }}
{% endtest %}
