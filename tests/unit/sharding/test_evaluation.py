"""Arithmetic as InfluxDB does it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.ast import Call, walk
from influxrelay.influxql.parser import parse
from influxrelay.sharding.evaluation import evaluate


class EvaluationTests(SynchronousTestCase):
    """Operators on the results of functions."""

    def test_operators(self) -> None:
        """Integers stay integers but for division, and wrap; a remainder has the sign of what is divided."""
        values: dict[str, Any] = {"i": -7, "j": 2, "f": 2.5, "z": 0, "big": 2**62, "n": None, "s": "x"}
        for text, expected in (
            ("max(i) + max(j) * 3", -1),
            ("max(i) / max(j)", -3.5),
            ("max(i) / max(z)", 0.0),
            ("max(i) * max(f)", -17.5),
            ("max(big) + max(big)", -(2**63)),
            ("max(i) % max(j)", -1),
            ("max(i) % max(z)", 0),
            ("max(f) % 2", 0.5),
            ("max(f) % 0", None),
            ("max(i) & 12", 8),
            ("max(j) | 5", 7),
            ("max(j) ^ 3", 1),
            ("max(f) & 1", None),
            ("2 - -max(i)", -5),
            ("(max(n) + 1) * 2", None),
            ("max(s) + 1", None),
        ):
            (statement,) = parse(f"SELECT {text} FROM m")
            assert statement.select is not None
            expression = statement.select.fields[0].expression
            calls = [each for each in walk(expression) if isinstance(each, Call)]
            found = evaluate(expression, {each: values[getattr(each.arguments[0], "name", "")] for each in calls})
            self.assertEqual((found, type(found)), (expected, type(expected)), text)
