"""The names of a result's columns (``influxql``, ``ColumnNames``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from influxrelay.influxql.ast import Binary, Call, Expression, Field, Parentheses, Reference


def without_time(fields: Iterable[Field]) -> list[Field]:
    """Return the fields but the time, which each result has."""
    return [each for each in fields if not _is_time(each)]


def _is_time(field: Field) -> bool:
    return isinstance(field.expression, Reference) and field.expression.name == "time"


def column_names(fields: Sequence[Field]) -> tuple[str, ...]:
    """Return the names of a SELECT's columns, that of the time first."""
    aliases = [each.alias for each in fields if _is_time(each) and each.alias]
    shown = without_time(fields)
    names = [each.alias for each in shown]
    taken = {each.alias: 1 for each in shown if each.alias}
    for index, each in enumerate(shown):
        if not each.alias:
            names[index] = _new(_name(each.expression), taken)
    return (aliases[-1] if aliases else "time", *names)


def _new(name: str, taken: dict[str, int]) -> str:
    if name in taken:
        count = taken[name]
        while f"{name}_{count}" in taken:
            count += 1
        taken[name] = count + 1
        name = f"{name}_{count}"
    taken[name] = taken.get(name, 0) + 1
    return name


def _name(expression: Expression) -> str:
    if isinstance(expression, Parentheses):
        return _name(expression.inner)
    if isinstance(expression, Binary):
        return "_".join(_names(expression))
    return expression.name if isinstance(expression, Call | Reference) else ""


def _names(expression: Expression) -> list[str]:
    if isinstance(expression, Binary):
        return [*_names(expression.left), *_names(expression.right)]
    if isinstance(expression, Parentheses):
        return _names(expression.inner)
    return [expression.name] if isinstance(expression, Call | Reference) else []
