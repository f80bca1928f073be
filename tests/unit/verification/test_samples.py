"""Samples of servers that know PromQL."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.verification.points import Points
from influxrelay.verification.prometheus import read_samples, selector
from influxrelay.verification.sample_repair import SampleMender
from influxrelay.verification.statements import Window

S = 10**9


def series(*values: list[Any], **labels: str) -> dict[str, Any]:
    """Return a series of an answer."""
    return {"metric": {"__name__": "m", **labels}, "values": values}


class AnswerTests(SynchronousTestCase):
    """What is read of an answer."""

    def test_samples(self) -> None:
        """Samples outside the window, those that are no number, and repeated ones are left out."""
        answer = [
            series([0.999, "1"], [1, "2"], [1, "2"], [1.5, "NaN"], [1.9990000001, "+Inf"], [2, "3"], a="x"),
            series([1.25, "2"], [1.25, "1"]),
            series([7, "1"], a="y"),
        ]
        self.assertEqual(
            read_samples(answer, Window(S, 2 * S)),
            {
                (("a", "x"),): {S: {"value": 2.0}, 1_999 * S // 1000: {"value": float("inf")}},
                (): {S * 5 // 4: {"value": (1.0, 2.0)}},
            },
        )

    def test_selector(self) -> None:
        """Whatever stands in a label is quoted as Go reads it."""
        self.assertEqual(selector("a:b", {"x": 'é"\\\n'}), '{__name__="a:b",x="é\\"\\\\\\n"}')


class MenderTests(SynchronousTestCase):
    """What is copied."""

    def test_batches(self) -> None:
        """Only missing samples are written, and those of several values are named instead."""
        source: Points = {
            (("a", "x"),): {n * S: {"value": float(n)} for n in range(12_000)},
            (): {S: {"value": (1.0, 2.0)}, 2 * S: {"value": 1.0}, 3 * S: {"value": 1.0}},
        }
        target: Points = {(("a", "x"),): {0: {"value": 0.0}}, (): {3 * S: {"value": 4.0}}}
        written: list[int] = []

        def write(_: bytes, number: int) -> str:
            written.append(number)
            return ""

        mender = SampleMender("a", "b", write)
        mender.mend("m", Window(0, 12_000 * S), {"a": source, "b": target})
        self.assertEqual((written, mender.copied, mender.differing), ([5000, 5000, 2000], 12_000, 1))
        ((points, message),) = [(each.points, each.message) for each in mender.uncopied]
        self.assertEqual((points, message), (1, "the other backend has several values of one time"))
