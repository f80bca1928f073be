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
)
from influxrelay.influxql.timerange import TimeRange
from influxrelay.influxql.unparsing import Writer
from influxrelay.sharding.columns import column_names, without_time
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.rewriting import between
from influxrelay.sharding.schema import Schema
from influxrelay.sharding.streams import STREAMS, inner_call, reads_before, stream_type, subtracts

SELECTORS = frozenset(("min", "max", "first", "last"))
MERGED = SELECTORS | {"count", "sum", "mean", "spread"}
_OF_NUMBERS = frozenset(("sum", "mean", "spread"))
_PARTS = {"mean": ("sum", "count"), "spread": ("max", "min")}
_WOULD_DO = (
    "group by the shard key within one epoch, fix it by WHERE, or use count, sum, min, max, mean, first, last or spread"
)

Part = tuple[str, Reference, bool]
"""What a shard is asked for: a function of a field, and whether one more window is needed before the range."""


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
    inner = inner_call(call)
    reference = inner.arguments[0]
    if not isinstance(reference, Reference):
        raise TypeError(call)
    return tuple((name, reference, reads_before(call)) for name in _PARTS.get(inner.name, (inner.name,)))


def aggregate(select: Select, schema: Schema, writer: Writer, range_of_time: TimeRange) -> Aggregate:
    """Return how a SELECT of functions is answered from those of shards.

    :param select: with types, and without wildcards.
    :param range_of_time: of its rows.
    :raises Refused: it is not known to be possible.
    """
    shown = without_time(select.fields)
    calls: dict[Call, str] = {}
    for field in shown:
        _check(field.expression)
        for each in _outer_calls(field.expression):
            calls[each] = stream_type(each, _type_of(inner_call(each), schema))
            _check_stream(each, calls[each])
    if any(reads_before(each) for each in calls) and not range_of_time.has_since:
        raise Refused("functions of windows over several shards need a lower bound of time")
    is_selector = len(calls) == 1 and next(iter(calls)).name in SELECTORS and not select.interval()
    known = [call for call, kind in calls.items() if kind]
    return Aggregate(
        select,
        column_names(select.fields),
        tuple(each.expression for each in shown),
        calls,
        is_selector,
        tuple(_questions(select, known, writer, range_of_time)),
    )


def _check_stream(call: Call, kind: str) -> None:
    """Refuse functions of windows that cannot be computed, or not well enough."""
    if call.name not in STREAMS:
        return
    if kind in ("string", "boolean"):
        raise Refused(f"{call.name}() of a {kind} cannot be computed")
    inner = inner_call(call)
    (reference,) = inner.arguments
    is_inexact = inner.name == "mean" or (
        inner.name == "sum" and isinstance(reference, Reference) and reference.type == "float"
    )
    if is_inexact and subtracts(call):
        raise Refused(
            f"{call.name}({inner.name}()) over several shards: the last digits of sums of floats, which may differ, "
            f"become the first ones of their differences: take max, min, first, last or count, or {_WOULD_DO}"
        )


def _outer_calls(expression: Expression) -> Iterable[Call]:
    """Yield the calls of an expression that stand within no other one."""
    if isinstance(expression, Call):
        yield expression
    elif isinstance(expression, Parentheses):
        yield from _outer_calls(expression.inner)
    elif isinstance(expression, Binary):
        yield from _outer_calls(expression.left)
        yield from _outer_calls(expression.right)


def _check(expression: Expression) -> None:
    """Refuse what is no arithmetic on functions of fields."""
    if isinstance(expression, Parentheses):
        _check(expression.inner)
    elif isinstance(expression, Binary):
        _check(expression.left)
        _check(expression.right)
    elif isinstance(expression, Call):
        expression = inner_call(expression)
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


def _questions(select: Select, calls: list[Call], writer: Writer, whole: TimeRange) -> Iterable[Question]:
    """Yield what each shard is asked."""
    interval = select.interval()
    parts = list(dict.fromkeys(part for call in calls for part in parts_of(call)))
    yield from _questions_of(select, [part for part in parts if not part[2]], writer)
    if select.descending:
        wider = between(select, whole.since, whole.until + interval)
    else:
        wider = between(select, whole.since - interval, whole.until)
    yield from _questions_of(wider, [part for part in parts if part[2]], writer)


def _questions_of(select: Select, parts: list[Part], writer: Writer) -> Iterable[Question]:
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
    for reference in dict.fromkeys(part[1] for part in apart):
        wanted = tuple(part for part in apart if part[1] == reference)
        yield Question(writer.select(attrs.evolve(raw, fields=(Field(reference),))), wanted, is_raw=True)


def _text(select: Select, parts: list[Part], writer: Writer) -> str:
    fields = [Field(Call(name, (reference,), (0, 0)), f"c{index}") for index, (name, reference, _) in enumerate(parts)]
    return writer.select(attrs.evolve(select, fields=tuple(fields)))
