"""Arithmetic on the results of functions (``influxql``, ``ValuerEval``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import and_, or_, xor
from typing import Any

from influxrelay.influxql.ast import Binary, Call, Expression, Literal, Parentheses

_BITS = {"&": and_, "|": or_, "^": xor}


def wrapped(number: int) -> int:
    """Return an integer as 64 bits hold it."""
    return (number + 2**63) % 2**64 - 2**63


def evaluate(expression: Expression, values: Mapping[Call, Any]) -> Any:
    """Return the value of an expression; None for null.

    :param values: those of its calls; of a call without one it is null.
    """
    if isinstance(expression, Call):
        return values.get(expression)
    if isinstance(expression, Parentheses):
        return evaluate(expression.inner, values)
    if isinstance(expression, Literal):
        return expression.value
    if isinstance(expression, Binary):
        return _operate(expression.operator, evaluate(expression.left, values), evaluate(expression.right, values))
    raise TypeError(expression)


def _operate(operator: str, left: Any, right: Any) -> Any:
    if not _is_number(left) or not _is_number(right):
        return None
    if operator == "/":
        return 0.0 if right == 0 else float(left) / float(right)
    if isinstance(left, float) or isinstance(right, float):
        return _of_floats(operator, float(left), float(right))
    if operator in _BITS:
        return wrapped(_BITS[operator](left, right))
    if operator == "%":
        return 0 if right == 0 else abs(left) % abs(right) * (-1 if left < 0 else 1)
    return wrapped(_of_numbers(operator, left, right))


def _of_floats(operator: str, left: float, right: float) -> float | None:
    if operator in _BITS:
        return None
    if operator == "%":
        return None if right == 0 else math.fmod(left, right)
    result = _of_numbers(operator, left, right)
    return None if math.isnan(result) else result


def _of_numbers(operator: str, left: Any, right: Any) -> Any:
    return left + right if operator == "+" else left - right if operator == "-" else left * right


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
