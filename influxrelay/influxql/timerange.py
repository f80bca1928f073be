"""The range of time that a condition leaves (``influxdata/influxql``, ``ast.go``, ``ConditionExpr``)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from influxrelay.influxql.ast import Binary, Call, Expression, Literal, Parentheses, Reference

EARLIEST = -(2**63) + 2  # InfluxDB keeps two values for itself (influxql, MinTime)
LATEST = 2**63 - 2
_SECOND = 10**9
_TIME = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})"
    r"(?:(?P<separator>[ T])(?P<clock>\d{2}:\d{2}:\d{2})(?:\.(?P<fraction>\d+))?(?P<zone>Z|[+-]\d{2}:\d{2})?)?"
)
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}


class TimeRange(NamedTuple):
    """Nanoseconds since the epoch, both inclusive; it is empty where ``since`` is behind ``until``.

    :ivar has_since: whether a lower bound was given, and ``has_until``: an upper one.
    """

    since: int = EARLIEST
    until: int = LATEST
    has_since: bool = False
    has_until: bool = False

    def intersection(self, other: TimeRange) -> TimeRange:
        """Return what is in both."""
        return TimeRange(
            max(self.since, other.since),
            min(self.until, other.until),
            self.has_since or other.has_since,
            self.has_until or other.has_until,
        )


class _Value(NamedTuple):
    kind: str  # time, duration, integer or number
    value: int | float


def time_range(condition: Expression | None, now: int, zone: str = "") -> TimeRange:
    """Return the range of a WHERE. Times joined by OR are taken for joined by AND, as InfluxDB does.

    :param now: what ``now()`` stands for, nanoseconds since the epoch.
    :param zone: the name behind ``tz``, for times without a zone of their own.
    :raises ValueError: a time is compared in a way that InfluxDB does not know.
    """
    if isinstance(condition, Parentheses):
        return time_range(condition.inner, now, zone)
    if not isinstance(condition, Binary):
        return TimeRange()
    if condition.operator in ("AND", "OR"):
        return time_range(condition.left, now, zone).intersection(time_range(condition.right, now, zone))
    for reference, other, operator in (
        (condition.left, condition.right, condition.operator),
        (condition.right, condition.left, _MIRRORED.get(condition.operator, "")),
    ):
        if isinstance(reference, Reference) and reference.name.lower() == "time":
            return _compared(operator, _time_of(other, now, zone))
    return TimeRange()


def _compared(operator: str, when: int) -> TimeRange:
    if operator not in _MIRRORED:
        raise ValueError(f"invalid time comparison operator: {operator}")
    since = {">": when + 1, ">=": when, "=": when}.get(operator)
    until = {"<": when - 1, "<=": when, "=": when}.get(operator)
    return TimeRange(
        EARLIEST if since is None else since, LATEST if until is None else until, since is not None, until is not None
    )


def _time_of(expression: Expression, now: int, zone: str) -> int:
    value = _evaluated(expression, now, zone)
    when = int(value.value)
    if not EARLIEST <= when <= LATEST:
        raise ValueError(f"time {when} is out of range")
    return when


def _evaluated(expression: Expression, now: int, zone: str) -> _Value:
    if isinstance(expression, Parentheses):
        return _evaluated(expression.inner, now, zone)
    if isinstance(expression, Call) and expression.name == "now" and not expression.arguments:
        return _Value("time", now)
    if isinstance(expression, Literal):
        if expression.kind == "string":
            return _Value("time", parse_time(str(expression.value), zone))
        if expression.kind in ("integer", "number", "duration"):
            return _Value(expression.kind, expression.value)  # type: ignore[arg-type]
    if isinstance(expression, Binary) and expression.operator in ("+", "-", "*", "/"):
        left, right = _evaluated(expression.left, now, zone), _evaluated(expression.right, now, zone)
        return _Value(_kind(expression.operator, left.kind, right.kind), _result(expression.operator, left, right))
    raise ValueError("time is compared with what is no time")


def _kind(operator: str, left: str, right: str) -> str:
    """Return what the result is (``reduceBinaryExpr`` and its like)."""
    kinds = {left, right}
    if operator in ("*", "/"):
        if "time" in kinds or (kinds == {"duration"} and operator == "*"):
            raise ValueError(f"invalid operation on times: {operator}")
        return "duration" if "duration" in kinds else "integer" if kinds == {"integer"} else "number"
    if kinds == {"time"}:
        if operator == "+":
            raise ValueError("times cannot be added")
        return "duration"
    for kind in ("time", "duration", "number"):
        if kind in kinds:
            return kind
    return "integer"


def _result(operator: str, left: _Value, right: _Value) -> int | float:
    if operator == "+":
        return left.value + right.value
    if operator == "-":
        return left.value - right.value
    if operator == "*":
        return left.value * right.value
    if right.value == 0:
        return 0
    if isinstance(left.value, int) and isinstance(right.value, int):
        return abs(left.value) // abs(right.value) * (1 if (left.value < 0) == (right.value < 0) else -1)
    return left.value / right.value


def parse_time(text: str, zone: str = "") -> int:
    """Return the nanoseconds since the epoch of a time as InfluxQL writes it: a day, with a clock or without.

    :param zone: for a time without one.
    :raises ValueError: it is none.
    """
    found = _TIME.fullmatch(text)
    if found is None or (found["separator"] == "T") != (found["zone"] is not None):
        raise ValueError(f"invalid time {text}")
    plain = datetime.fromisoformat(f"{found['day']}T{found['clock'] or '00:00:00'}")
    fraction = int((found["fraction"] or "").ljust(9, "0")[:9])
    if found["zone"] is None:
        local = plain.replace(tzinfo=ZoneInfo(zone) if zone not in ("", "Local") else UTC)
        since = local.astimezone(UTC).replace(tzinfo=None) - datetime(1970, 1, 1)  # noqa: DTZ001 (both are UTC)
    else:
        since = plain - datetime(1970, 1, 1)  # noqa: DTZ001 (as above)
        if found["zone"] != "Z":
            hours, minutes = (int(each) for each in found["zone"][1:].split(":"))
            offset = timedelta(hours=hours, minutes=minutes)
            since = since - offset if found["zone"][0] == "+" else since + offset
    return (since.days * 86400 + since.seconds) * _SECOND + fraction
