"""Points that are compared one by one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.verification.differences import Ledger
from influxrelay.verification.points import Flaw, Points, Run, differing, read_points, runs
from influxrelay.verification.server import Series
from influxrelay.verification.statements import Measurement

A = (("host", "a"),)
LACKS_TWO = Flaw("missing", ("two",))


def series(times: range, value: object = 1) -> dict[int, dict[str, object]]:
    """Return points with one field."""
    return {time: {"f": value} for time in times}


class PointTests(SynchronousTestCase):
    """What differs."""

    def found(self, **servers: Points) -> list[Run]:
        """Return the ranges that differ."""
        return runs(differing(servers), servers)

    def test_read(self) -> None:
        """Pieces of a series are put together, and empty tags and fields without a value are none."""
        answer = [
            Series("m", {"host": "a", "x": ""}, ["time", "f", "g"], [[1, 2.5, None]]),
            Series("m", {"host": "a", "x": ""}, ["time", "f", "g"], [[2, None, "x"]]),
        ]
        self.assertEqual(read_points(answer), {A: {1: {"f": 2.5}, 2: {"g": "x"}}})

    def test_equal(self) -> None:
        """The same points are no difference, and a series without points is none."""
        self.assertEqual(self.found(one={A: series(range(9)), (): {}}, two={A: series(range(9))}), [])

    def test_runs(self) -> None:
        """A range has tight ends, and goes on until the series has a point that is the same."""
        one: Points = {A: series(range(0, 100, 10))}
        two: Points = {A: {time: fields for time, fields in one[A].items() if time not in (0, 30, 40, 70)}}
        self.assertEqual(
            self.found(one=one, two=two),
            [
                Run(LACKS_TWO, 0, 1, 1, begins=True, ends=False),
                Run(LACKS_TWO, 30, 41, 2, begins=False, ends=False),
                Run(LACKS_TWO, 70, 71, 1, begins=False, ends=False),
            ],
        )

    def test_overlapping(self) -> None:
        """A gap in several series is one range, with the points of all of them."""
        one: Points = {(("n", str(n)),): series(range(n, 100, 10)) for n in range(3)}
        two: Points = {tags: {t: f for t, f in points.items() if not 20 <= t < 60} for tags, points in one.items()}
        self.assertEqual(self.found(one=one, two=two), [Run(LACKS_TWO, 20, 53, 12, begins=False, ends=False)])

    def test_values(self) -> None:
        """Other values, also true in place of 1, and fields that either lacks are told of one point."""
        one: Points = {A: {1: {"f": 2**53, "g": 1, "b": 1}}}
        two: Points = {A: {1: {"f": 2**53 + 1, "h": 1, "b": 1}}}
        flaws = [each.flaw for each in self.found(one=one, two=two)]
        self.assertEqual(flaws, [Flaw("missing", ("one",)), LACKS_TWO, Flaw("value", ("one", "two"))])
        self.assertEqual(
            [each.flaw.kind for each in self.found(one={A: series(range(1))}, two={A: series(range(1), value=True)})],
            ["value"],
        )

    def test_three(self) -> None:
        """Of three servers the one that differs is named."""
        same: Points = {A: series(range(3))}
        found = self.found(one=same, two={}, three={A: series(range(3), value=2)})
        self.assertEqual([each.flaw for each in found], [LACKS_TWO, Flaw("value", ("one", "three"))])


class LedgerTests(SynchronousTestCase):
    """Ranges over several pieces."""

    def ranges(self, ledger: Ledger) -> list[tuple[int | None, int | None, int]]:
        """Return what differs."""
        found = ledger.differences(Measurement("d", "r", "m"))
        return [(each.since, each.until, each.points) for each in found]

    def test_joined(self) -> None:
        """A range that reaches the end of a piece goes on in the next, unless there are other points between."""
        ledger = Ledger()
        ledger.add([Run(LACKS_TWO, 5, 10, 5, begins=False, ends=True)])
        ledger.add([Run(LACKS_TWO, 10, 20, 10, begins=True, ends=True)])
        ledger.skip()
        ledger.add([Run(LACKS_TWO, 30, 35, 5, begins=True, ends=False)])
        ledger.add([Run(LACKS_TWO, 40, 45, 5, begins=True, ends=True)])
        self.assertEqual(self.ranges(ledger), [(5, 20, 15), (30, 35, 5), (40, 45, 5)])

    def test_shown(self) -> None:
        """A difference is shown with the backend that lacks it, or with both that differ."""
        ledger = Ledger()
        ledger.add([Run(LACKS_TWO, 0, 1, 1, begins=True, ends=True)])
        ledger.add([Run(Flaw("value", ("one", "two")), 10**9, 10**9 + 1, 1, begins=True, ends=True)])
        missing, value = (each.show() for each in ledger.differences(Measurement("d", "r", "m")))
        place = {"database": "d", "retention_policy": "r", "measurement": "m", "points": 1}
        times = {"since": "1970-01-01T00:00:00Z", "until": "1970-01-01T00:00:00.000000001Z"}
        self.assertEqual(missing, {**place, **times, "kind": "missing", "backend": "two"})
        times = {"since": "1970-01-01T00:00:01Z", "until": "1970-01-01T00:00:01.000000001Z"}
        self.assertEqual(value, {**place, **times, "kind": "value", "backends": ["one", "two"]})
