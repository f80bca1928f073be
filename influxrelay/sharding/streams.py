"""Functions of the windows of other functions, such as ``derivative(mean(v), 1s)`` (``query/functions.go``)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from influxrelay.influxql.ast import Call, Literal
from influxrelay.sharding.evaluation import wrapped
from influxrelay.sharding.windows import NOTHING

_LOOK_BACK = frozenset(
    ("derivative", "non_negative_derivative", "difference", "non_negative_difference", "moving_average")
)
STREAMS = _LOOK_BACK | {"cumulative_sum"}

Point = tuple[int, Any]
"""The start of a window, and its value."""


def inner_call(call: Call) -> Call:
    """Return the function whose windows count: of another one, or this one itself."""
    first = call.arguments[0] if call.arguments else None
    return first if call.name in STREAMS and isinstance(first, Call) else call


def reads_before(call: Call) -> bool:
    """Tell whether a function reads one more window before its range (behind it, if it is descending)."""
    return call.name in _LOOK_BACK


def subtracts(call: Call) -> bool:
    """Tell whether a function's results are differences of windows."""
    return call.name in _LOOK_BACK and call.name != "moving_average"


def stream_type(call: Call, kind: str) -> str:
    """Return the type of the results of windows of a type."""
    return "float" if call.name in ("derivative", "non_negative_derivative", "moving_average") and kind else kind


def streamed(call: Call, points: Iterable[Point], interval: int, *, descending: bool) -> Iterator[Point]:
    """Yield the results of a function of windows; those without a value do not exist for it.

    :param interval: of the windows, nanoseconds.
    """
    there = (point for point in points if point[1] is not NOTHING)
    if call.name == "cumulative_sum":
        return _summed(there)
    if call.name == "moving_average":
        return _averaged(there, int(_second(call, 1)))
    if call.name in ("difference", "non_negative_difference"):
        return _differences(there, is_non_negative=call.name.startswith("non_negative"))
    return _derived(call, there, int(_second(call, interval)), descending=descending)


def _second(call: Call, default: int) -> Any:
    argument = call.arguments[1] if len(call.arguments) > 1 else None
    return argument.value if isinstance(argument, Literal) else default


def _minus(one: Any, other: Any) -> Any:
    difference = one - other
    return difference if isinstance(difference, float) else wrapped(difference)


def _differences(points: Iterator[Point], *, is_non_negative: bool) -> Iterator[Point]:
    previous = next(points, None)
    for point in points:
        if previous is not None:
            difference = _minus(point[1], previous[1])
            if difference >= 0 or not is_non_negative:
                yield point[0], difference
        previous = point


def _derived(call: Call, points: Iterator[Point], unit: int, *, descending: bool) -> Iterator[Point]:
    previous = next(points, None)
    for point in points:
        if previous is not None:
            difference = float(_minus(point[1], previous[1]))
            elapsed = previous[0] - point[0] if descending else point[0] - previous[0]
            if difference >= 0 or call.name == "derivative":
                yield point[0], difference / (float(elapsed) / float(unit))
        previous = point


def _averaged(points: Iterator[Point], count: int) -> Iterator[Point]:
    window: deque[Any] = deque()
    total: Any = 0
    for when, value in points:
        if len(window) == count:
            total = _minus(total, window.popleft())
        window.append(value)
        total = total + value if isinstance(value, float) else wrapped(total + value)
        if len(window) == count:
            yield when, float(total) / count


def _summed(points: Iterator[Point]) -> Iterator[Point]:
    total: Any = 0
    for when, value in points:
        total = total + value if isinstance(value, float) else wrapped(total + value)
        yield when, total
