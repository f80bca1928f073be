"""Arithmetic on the results of functions (``influxql``, ``ValuerEval``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from influxrelay.influxql.ast import Binary, Call, Expression, Literal, Parentheses

ARITHMETIC = frozenset("+-*/")


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
        left, right = float(left), float(right)
    result = left + right if operator == "+" else left - right if operator == "-" else left * right
    if isinstance(result, float):
        return None if math.isnan(result) else result
    return wrapped(result)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
