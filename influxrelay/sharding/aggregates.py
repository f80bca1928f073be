"""SELECTs of functions whose results over all data follow from those of each shard."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from influxrelay.influxql.ast import (
    Binary,
    Bounds,
    Call,
    Expression,
    Field,
    Literal,
    Parentheses,
    Reference,
    Select,
    walk,
)
from influxrelay.influxql.unparsing import Writer
from influxrelay.sharding.columns import column_names, without_time
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.schema import Schema

SELECTORS = frozenset(("min", "max", "first", "last"))
MERGED = SELECTORS | {"count", "sum", "mean", "spread"}
_OF_NUMBERS = frozenset(("sum", "mean", "spread"))
_PARTS = {"mean": ("sum", "count"), "spread": ("max", "min")}
_WOULD_DO = (
    "group by the shard key within one epoch, fix it by WHERE, or use count, sum, min, max, mean, first, last or spread"
)

Part = tuple[str, Reference]
"""What a shard is asked for: a function of a field."""


@attrs.frozen
class Question:
    """A statement for each shard.

    :ivar parts: what its columns are.
    :ivar is_raw: whether its rows are points.
    """

    text: str
    parts: tuple[Part, ...]
    is_raw: bool = False


@attrs.frozen
class Aggregate:
    """How a SELECT is answered.

    :ivar select: with types, and without wildcards.
    :ivar columns: of the result.
    :ivar fields: of the result, but the time.
    :ivar calls: each with its field's type; empty for a field that nobody knows.
    :ivar is_selector: whether rows have the times of points.
    """

    select: Select
    columns: tuple[str, ...]
    fields: tuple[Expression, ...]
    calls: dict[Call, str]
    is_selector: bool
    questions: tuple[Question, ...]


def parts_of(call: Call) -> tuple[Part, ...]:
    """Return what a function's result follows from."""
    reference = call.arguments[0]
    if not isinstance(reference, Reference):
        raise TypeError(call)
    return tuple((name, reference) for name in _PARTS.get(call.name, (call.name,)))


def aggregate(select: Select, schema: Schema, writer: Writer) -> Aggregate:
    """Return how a SELECT of functions is answered from those of shards.

    :param select: with types, and without wildcards.
    :raises Refused: it is not known to be possible.
    """
    shown = without_time(select.fields)
    calls: dict[Call, str] = {}
    for field in shown:
        _check(field.expression)
        for each in walk(field.expression):
            if isinstance(each, Call):
                calls[each] = _type_of(each, schema)
    is_selector = len(calls) == 1 and next(iter(calls)).name in SELECTORS and not select.interval()
    known = [call for call, kind in calls.items() if kind]
    return Aggregate(
        select,
        column_names(select.fields),
        tuple(each.expression for each in shown),
        calls,
        is_selector,
        tuple(_questions(select, known, writer)),
    )


def _check(expression: Expression) -> None:
    """Refuse what is no arithmetic on functions of fields."""
    if isinstance(expression, Parentheses):
        _check(expression.inner)
    elif isinstance(expression, Binary):
        _check(expression.left)
        _check(expression.right)
    elif isinstance(expression, Call):
        if expression.name not in MERGED:
            raise Refused(f"{expression.name}() cannot be merged over shards: {_WOULD_DO}")
        if len(expression.arguments) != 1 or not isinstance(expression.arguments[0], Reference):
            raise Refused(f"{expression.name}() of anything but a field cannot be merged over shards: {_WOULD_DO}")
    elif not isinstance(expression, Literal) or expression.kind not in ("integer", "number"):
        raise Refused(f"functions beside fields and tags cannot be merged over shards: {_WOULD_DO}")


def _type_of(call: Call, schema: Schema) -> str:
    """Return the type of a function's result; empty if InfluxDB does not know it."""
    (reference,) = call.arguments
    if not isinstance(reference, Reference):
        raise TypeError(call)
    kind = schema.fields.get(reference.name, "")
    if not kind and reference.name in schema.tags:
        raise Refused(f'"{reference.name}" is a tag: {call.name}() over several shards takes fields')
    if kind and reference.type != kind:
        raise Refused(f'"{reference.name}" has the type {kind}, and is not merged over shards as another')
    if kind == "unsigned":
        raise Refused("unsigned integers are not merged over shards")
    if call.name in _OF_NUMBERS and kind in ("string", "boolean"):
        raise Refused(f"{call.name}() of a {kind} cannot be computed")
    if call.name in ("min", "max") and kind == "string":
        raise Refused(f"{call.name}() of a string cannot be computed")
    return {"count": "integer", "mean": "float"}.get(call.name, kind)


def _questions(select: Select, calls: Iterable[Call], writer: Writer) -> Iterable[Question]:
    """Yield what each shard is asked."""
    parts = list(dict.fromkeys(part for call in calls for part in parts_of(call)))
    interval = select.interval()
    apart = [part for part in parts if part[0] in ("first", "last")]
    together = [part for part in parts if part not in apart]
    plain = attrs.evolve(
        select, fill="none" if interval else "null", fill_value=None, bounds=Bounds(), clauses={}, descending=False
    )
    if together:
        yield Question(_text(plain, together, writer), tuple(together))
    if not interval:
        for part in apart:
            yield Question(_text(plain, [part], writer), (part,))
        return
    dimensions = tuple(each for each in select.dimensions if not isinstance(each, Call))
    raw = attrs.evolve(plain, dimensions=dimensions, fill="null")
    for reference in dict.fromkeys(reference for _, reference in apart):
        wanted = tuple(part for part in apart if part[1] == reference)
        yield Question(writer.select(attrs.evolve(raw, fields=(Field(reference),))), wanted, is_raw=True)


def _text(select: Select, parts: list[Part], writer: Writer) -> str:
    fields = [Field(Call(name, (reference,), (0, 0)), f"c{index}") for index, (name, reference) in enumerate(parts)]
    return writer.select(attrs.evolve(select, fields=tuple(fields)))
