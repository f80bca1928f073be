"""Long work in small steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.cooperation import SLICE, make_cooperator


class TurningClock(Clock):
    """A Clock in which what is called in a turn waits for the next one, as in a reactor."""

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002 (Clock's)
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        """Call it in the next turn at the earliest."""
        return super().callLater(max(delay, 0.001), callable, *args, **kw)


class CooperatorTests(SynchronousTestCase):
    """Several tasks, of which each step takes a third of a slice."""

    def setUp(self) -> None:
        """Make a cooperator."""
        self.reactor = TurningClock()
        self.now = 0.0
        self.done: list[str] = []
        self.spent = 0.0
        self.cooperator = make_cooperator(self.reactor, lambda: self.now, self.spend)

    def spend(self, seconds: float) -> None:
        """Add up what whole slices have taken."""
        self.spent += seconds

    def work(self, name: str, steps: int) -> Iterator[None]:
        """Do so many steps."""
        for _ in range(steps):
            self.now += SLICE / 3
            self.done.append(name)
            yield

    def turn(self) -> str:
        """Let the reactor turn once, and return what was done."""
        self.done.clear()
        self.reactor.advance(0.001)
        return "".join(self.done)

    def test_slices(self) -> None:
        """No turn takes much longer than a slice, and no task keeps the others from their steps."""
        for name, steps in (("a", 2), ("b", 5)):
            self.cooperator.coiterate(self.work(name, steps))
        turns = [self.turn() for _ in range(4)]
        self.assertLessEqual(max(map(len, turns)), 3)
        self.assertEqual("".join(turns).count("a"), 2)
        self.assertEqual("".join(turns).count("b"), 5)
        self.assertIn("b", turns[0])
        self.assertAlmostEqual(self.spent, 2 * SLICE)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_failure(self) -> None:
        """A task that fails says so to whoever waits for it, and the others go on."""

        def fail() -> Iterator[None]:
            yield
            raise ZeroDivisionError

        failed, other = self.cooperator.coiterate(fail()), self.cooperator.coiterate(self.work("a", 2))
        while self.reactor.getDelayedCalls():
            self.turn()
        self.failureResultOf(failed, ZeroDivisionError)
        self.assertIsNotNone(self.successResultOf(other))
