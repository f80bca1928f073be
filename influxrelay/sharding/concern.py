"""Which shards a SELECT concerns: by the keys that its condition leaves, and by its range of time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import attrs

from influxrelay.influxql.ast import (
    Binary,
    Call,
    Expression,
    Literal,
    Measurement,
    Parentheses,
    Reference,
    Regex,
    Select,
    walk,
)
from influxrelay.influxql.timerange import EARLIEST, LATEST, TimeRange, time_range
from influxrelay.sharding.placement import ShardMap

_EXACT = re.compile(r"\^(?:\((?P<inner>[^()]*)\)|(?P<plain>[^()|]*))\$")
_TEXT = re.compile(r"(?:[^\\.+*?()|\[\]{}^$]|\\[^A-Za-z0-9])*")
_READS_BACK = frozenset(
    (
        *("derivative", "non_negative_derivative", "difference", "non_negative_difference", "moving_average"),
        "cumulative_sum",
        *("elapsed", "exponential_moving_average", "double_exponential_moving_average", "relative_strength_index"),
        *("triple_exponential_moving_average", "triple_exponential_derivative", "kaufmans_efficiency_ratio"),
        *("kaufmans_adaptive_moving_average", "chande_momentum_oscillator"),
    )
)


@attrs.frozen
class Leaf:
    """A SELECT that reads measurements.

    :ivar range: of time, with those of the SELECTs around it, and with what its functions read before it.
    """

    select: Select
    range: TimeRange


def leaves(select: Select, now: int, outer: TimeRange | None = None) -> Iterator[Leaf]:
    """Yield the SELECTs within a SELECT that read measurements (``query/compile.go``, ``subquery``).

    :raises ValueError: InfluxDB does not understand a condition on time either.
    """
    range_of_time = effective_range(select, now)
    if outer is not None:
        range_of_time = range_of_time.intersection(outer)
    if any(isinstance(each, Measurement) for each in select.sources):
        yield Leaf(select, range_of_time)
    for each in select.sources:
        if isinstance(each, Select):
            yield from leaves(each, now, range_of_time)


def bounded_range(select: Select, now: int) -> TimeRange:
    """Return the times of a SELECT's rows; with ``GROUP BY time()`` none is to come (``compile.go``, ``preprocess``).

    :raises ValueError: InfluxDB does not understand a condition on time either.
    """
    found = time_range(select.condition, now, select.zone)
    return found if found.has_until or not select.interval() else found._replace(until=now)


def effective_range(select: Select, now: int) -> TimeRange:
    """Return the times that a SELECT reads, with what its functions read beyond those of its rows.

    :raises ValueError: InfluxDB does not understand a condition on time either.
    """
    found = bounded_range(select, now)
    back = select.interval() * _windows_beyond(select)
    if back and select.descending:
        return found._replace(until=min(found.until + back, LATEST))
    return found._replace(since=max(found.since - back, EARLIEST))


def _windows_beyond(select: Select) -> int:
    """Return how many windows beyond its range the functions of a SELECT read at most."""
    most = 0
    for field in select.fields:
        for each in walk(field.expression):
            if isinstance(each, Call) and each.name in _READS_BACK:
                numbers = [int(e.value) for e in each.arguments if isinstance(e, Literal) and e.kind == "integer"]  # type: ignore[arg-type]
                most = max([most, 1, *numbers])
    return most


def keys_of(leaf: Leaf, shards: ShardMap) -> frozenset[bytes] | None:
    """Return the only keys that a SELECT can find; None if it may find any."""
    if shards.key.tag is None:
        return measured(leaf.select.sources)
    return fixed_values(leaf.select.condition, shards.key.tag.decode("utf-8", "surrogateescape"))


def measured(sources: Iterable[Measurement | Select]) -> frozenset[bytes] | None:
    """Return the names of measurements; None if there is an expression among them, or nothing at all."""
    measurements = [each for each in sources if isinstance(each, Measurement)]
    if not measurements or any(each.regex is not None for each in measurements):
        return None
    return frozenset(each.name.encode("utf-8", "surrogateescape") for each in measurements)


def fixed_values(condition: Expression | None, tag: str) -> frozenset[bytes] | None:  # noqa: PLR0911 (one for each kind)
    """Return the only values of a tag with which a condition can hold; None if it may with any."""
    if isinstance(condition, Parentheses):
        return fixed_values(condition.inner, tag)
    if not isinstance(condition, Binary):
        return None
    if condition.operator in ("AND", "OR"):
        left, right = fixed_values(condition.left, tag), fixed_values(condition.right, tag)
        if condition.operator == "OR":
            return None if left is None or right is None else left | right
        return right if left is None else left if right is None else left & right
    reference, value = condition.left, condition.right
    if not isinstance(reference, Reference) or reference.name != tag or reference.type not in ("", "tag"):
        return None
    if condition.operator == "=" and isinstance(value, Literal) and value.kind == "string":
        return frozenset((str(value.value).encode("utf-8", "surrogateescape"),))
    if condition.operator == "=~" and isinstance(value, Regex):
        return exact_matches(value.pattern)
    return None


def exact_matches(pattern: str) -> frozenset[bytes] | None:
    """Return the only texts that match, where the expression is a list of them, such as ``^(a|b)$``."""
    found = _EXACT.fullmatch(pattern)
    if found is None:
        return None
    texts = found["plain"] if found["inner"] is None else found["inner"].removeprefix("?:")
    choices = re.split(r"(?<!\\)\|", texts)
    if not all(_TEXT.fullmatch(each) for each in choices):
        return None
    return frozenset(re.sub(r"\\(.)", r"\1", each).encode("utf-8", "surrogateescape") for each in choices)


def _bounds(range_of_time: TimeRange) -> tuple[int | None, int | None]:
    since = range_of_time.since if range_of_time.since > EARLIEST else None
    until = range_of_time.until if range_of_time.until < LATEST else None
    if since is not None and until is not None:
        until = max(since, until)
    return since, until


def places(shards: ShardMap, keys: frozenset[bytes] | None, range_of_time: TimeRange) -> frozenset[str]:
    """Return the shards that may hold points with one of these keys in a range of time; there is at least one."""
    since, until = _bounds(range_of_time)
    found = set()
    if keys is not None:
        for epoch in shards.epochs_between(since, until):
            found |= {epoch.place(each) for each in keys if each}
        if b"" in keys and shards.default is not None:
            found.add(shards.default)
        return frozenset(found) or frozenset(shards.shards_between(since, until)[:1])
    return frozenset(shards.shards_between(since, until))


def is_one_epoch(shards: ShardMap, range_of_time: TimeRange) -> bool:
    """Tell whether each key has one place in a range of time."""
    epochs = shards.epochs_between(*_bounds(range_of_time))
    return all(each.has_places_of(epochs[0]) for each in epochs[1:])
