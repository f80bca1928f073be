"""SELECTs as a shard has to be asked that has not seen every field and tag (``influxql``, ``RewriteFields``).

A reference to a field gets the type that one server with all the data would see, and wildcards and regular expressions
become the fields and tags that they stand for there.
"""

from __future__ import annotations

import attrs

from influxrelay.core.expressions import matches
from influxrelay.influxql.ast import (
    Binary,
    Call,
    Expression,
    Field,
    Literal,
    Measurement,
    Parentheses,
    Reference,
    Regex,
    Select,
    Wildcard,
    walk,
)
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.schema import Schema

_NUMBERS = frozenset(("float", "integer", "unsigned"))
_EXPANDED = {
    **dict.fromkeys(
        ("count", "first", "last", "distinct", "elapsed", "mode", "sample"), _NUMBERS | {"string", "boolean"}
    ),
    **dict.fromkeys(("min", "max"), _NUMBERS | {"boolean"}),
    **dict.fromkeys(("holt_winters", "holt_winters_with_fit"), _NUMBERS - {"unsigned"}),
}


def has_wildcards(select: Select) -> bool:
    """Tell whether it depends on all fields and tags what a SELECT shows."""
    expressions = (*(each.expression for each in select.fields), *select.dimensions)
    return any(isinstance(each, Wildcard | Regex) for expression in expressions for each in walk(expression))


def references(select: Select) -> set[str]:
    """Return the names that a SELECT gives to fields or tags."""
    expressions = (*(each.expression for each in select.fields), select.condition, *select.dimensions)
    found = {each.name for expression in expressions for each in walk(expression) if isinstance(each, Reference)}
    return {each for each in found if each.lower() != "time"}


def rewritten(select: Select, schema: Schema) -> Select:
    """Return a SELECT, which reads measurements alone, with types, and without wildcards.

    :raises Refused: a name is that of a field as well as of a tag.
    """
    if any(not isinstance(each, Measurement) for each in select.sources):
        raise Refused("it reads measurements as well as subqueries")
    dimension_wildcard = any(isinstance(each, Wildcard | Regex) for each in select.dimensions)
    grouped = {each.name for each in select.dimensions if isinstance(each, Reference)}
    columns = sorted(schema.fields.items())
    if columns and not dimension_wildcard:
        columns = sorted([*columns, *((name, "tag") for name in schema.tags - grouped)])
    fields: list[Field] = []
    for field in select.fields:
        fields += _expanded(field, columns)
    dimensions: list[Expression] = []
    for each in select.dimensions:
        if isinstance(each, Wildcard | Regex):
            dimensions += [Reference(name) for name in sorted(schema.tags) if _matches(each, name)]
        else:
            dimensions.append(each)
    return attrs.evolve(
        select,
        fields=tuple(Field(_typed(each.expression, schema), each.alias) for each in fields),
        condition=None if select.condition is None else _typed(select.condition, schema),
        dimensions=tuple(dimensions),
    )


def _matches(pattern: Expression, name: str) -> bool:
    return not isinstance(pattern, Regex) or matches(pattern.pattern, name)


def _expanded(field: Field, columns: list[tuple[str, str]]) -> list[Field]:
    expression = field.expression
    if isinstance(expression, Wildcard | Regex):
        wanted = expression.type if isinstance(expression, Wildcard) else ""
        return [
            Field(Reference(name, kind))
            for name, kind in columns
            if _matches(expression, name) and (not wanted or (wanted == "tag") == (kind == "tag"))
        ]
    if not isinstance(expression, Call):
        return [field]
    call = expression
    while call.arguments and isinstance(call.arguments[0], Call):
        call = call.arguments[0]
    pattern = call.arguments[0] if call.arguments else None
    if not isinstance(pattern, Wildcard | Regex):
        return [field]
    kinds = _EXPANDED.get(call.name, _NUMBERS)
    return [
        Field(_with_argument(expression, Reference(name, kind)), f"{field.alias or expression.name}_{name}")
        for name, kind in columns
        if kind in kinds and _matches(pattern, name)
    ]


def _with_argument(call: Call, reference: Reference) -> Call:
    first = call.arguments[0]
    replacement = _with_argument(first, reference) if isinstance(first, Call) else reference
    return attrs.evolve(call, arguments=(replacement, *call.arguments[1:]))


def _typed(expression: Expression, schema: Schema) -> Expression:
    if isinstance(expression, Reference):
        return _typed_reference(expression, schema)
    if isinstance(expression, Parentheses):
        return Parentheses(_typed(expression.inner, schema))
    if isinstance(expression, Binary):
        return Binary(expression.operator, _typed(expression.left, schema), _typed(expression.right, schema))
    if isinstance(expression, Call):
        return attrs.evolve(expression, arguments=tuple(_typed(each, schema) for each in expression.arguments))
    return expression


def _typed_reference(reference: Reference, schema: Schema) -> Reference:
    name, kind = reference.name, schema.fields.get(reference.name)
    if kind is None or reference.type not in ("", "field") or name.lower() == "time":
        return reference
    if name in schema.tags:
        raise Refused(f'"{name}" is a field as well as a tag: say which, as in "{name}"::tag')
    return Reference(name, kind)


def without_times(condition: Expression | None) -> Expression | None:
    """Return what a condition says of anything but the time (``influxql``, ``ConditionExpr``)."""
    if isinstance(condition, Parentheses):
        inner = without_times(condition.inner)
        return None if inner is None else Parentheses(inner)
    if not isinstance(condition, Binary):
        return condition
    if condition.operator in ("AND", "OR"):
        left, right = without_times(condition.left), without_times(condition.right)
        return right if left is None else left if right is None else Binary(condition.operator, left, right)
    sides = (condition.left, condition.right)
    is_time = any(isinstance(each, Reference) and each.name.lower() == "time" for each in sides)
    return None if is_time else condition


def between(select: Select, since: int, until: int) -> Select:
    """Return a SELECT with another range of time, in nanoseconds, both inclusive."""
    condition: Expression = Binary(
        "AND",
        Binary(">=", Reference("time"), Literal("integer", since)),
        Binary("<=", Reference("time"), Literal("integer", until)),
    )
    rest = without_times(select.condition)
    return attrs.evolve(select, condition=condition if rest is None else Binary("AND", Parentheses(rest), condition))


def with_upper_bound(select: Select, until: int) -> Select:
    """Return a SELECT whose range ends at a time, in nanoseconds."""
    bound = Binary("<=", Reference("time"), Literal("integer", until))
    if select.condition is None:
        return attrs.evolve(select, condition=bound)
    return attrs.evolve(select, condition=Binary("AND", select.condition, bound))
