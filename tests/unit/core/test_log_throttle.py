"""Logging that stays readable."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.log_throttle import FailureLog, RefusalLog, Throttle
from testing.logs import watch_events


class RefusalLogTests(SynchronousTestCase):
    """The log of what backends refuse."""

    def test_line(self) -> None:
        """The line says what the backend has said, once."""
        events = watch_events(self)
        RefusalLog(Clock()).refused("relay", "db1", 400, '400: {"error":"partial write"}')
        line = 'relay: backend db1 refused 1 write, the last with 400: {"error":"partial write"}'
        self.assertEqual([(formatEvent(each), each["reason"]) for each in events], [(line, 400)])


class FailureLogTests(SynchronousTestCase):
    """The log of one backend's troubles."""

    def setUp(self) -> None:
        """Collect what is logged."""
        self.events = watch_events(self)
        self.log = FailureLog("relay", "db1")

    def lines(self) -> list[str]:
        """Return the lines since the last call."""
        lines = [formatEvent(event) for event in self.events]
        self.events.clear()
        return lines

    def test_first_four_then_doubling(self) -> None:
        """Of identical failures four are logged in full, then the count when it is 5, 10, 20, 40."""
        for number in range(1, 50):
            self.log.failed("refused", f"detail {number}")
        lines = self.lines()
        self.assertEqual(lines[:4], [f"relay: backend db1 failed: refused: detail {n}" for n in range(1, 5)])
        self.assertEqual(
            lines[4:],
            [f"relay: backend db1 failed {n} times in a row: refused: detail {n}" for n in (5, 10, 20, 40)],
        )

    def test_another_reason(self) -> None:
        """Another reason is another row, which begins with lines in full."""
        for _ in range(7):
            self.log.failed("refused", "x")
        self.lines()
        for _ in range(5):
            self.log.failed("timeout", "y")
        self.assertEqual(
            self.lines(),
            ["relay: backend db1 failed: timeout: y"] * 4 + ["relay: backend db1 failed 5 times in a row: timeout: y"],
        )

    def test_status(self) -> None:
        """The status of an answer is said once."""
        self.log.failed("404", '404: {"error":"database not found"}')
        self.assertEqual(self.lines(), ['relay: backend db1 failed: 404: {"error":"database not found"}'])

    def test_recovery(self) -> None:
        """The recovery is one line that counts all failures, and then the counting begins anew."""
        for reason in ("refused", "refused", "timeout"):
            self.log.failed(reason, "x")
        self.lines()
        self.log.recovered()
        self.assertEqual(self.events[0]["log_level"], LogLevel.info)
        self.assertEqual(self.lines(), ["relay: backend db1 is back after 3 failures, the last: timeout"])
        self.log.recovered()
        self.assertEqual(self.lines(), [])
        self.log.failed("timeout", "x")
        self.assertEqual(self.lines(), ["relay: backend db1 failed: timeout: x"])

    def test_nothing_to_recover_from(self) -> None:
        """A success without a failure before it is no news."""
        self.log.recovered()
        self.assertEqual(self.lines(), [])


class ThrottleTests(SynchronousTestCase):
    """One line in a while."""

    def test_counts_into_the_next(self) -> None:
        """The first event passes, those within the interval are counted into the next that passes."""
        clock = Clock()
        throttle = Throttle(clock, 10)
        self.assertEqual([throttle.admit() for _ in range(5)], [1, 0, 0, 0, 0])
        clock.advance(9.999)
        self.assertEqual(throttle.admit(), 0)
        clock.advance(0.001)
        self.assertEqual(throttle.admit(), 6)
        self.assertEqual(throttle.admit(), 0)
        clock.advance(100)
        self.assertEqual(throttle.admit(), 2)
        clock.advance(10)
        self.assertEqual(throttle.admit(), 1)

    def test_default_interval(self) -> None:
        """Without a word of ours a line passes every ten seconds."""
        clock = Clock()
        throttle = Throttle(clock)
        throttle.admit()
        clock.advance(9.99)
        self.assertEqual(throttle.admit(), 0)
        clock.advance(0.02)
        self.assertEqual(throttle.admit(), 2)

    def test_nothing_is_lost(self) -> None:
        """The lines that pass stand for all events but those since the last line."""
        clock = Clock()
        throttle = Throttle(clock, 1)
        passed = 0
        for _ in range(1000):
            passed += throttle.admit()
            clock.advance(0.0137)
        clock.advance(1)
        self.assertEqual(passed + throttle.admit(), 1001)
