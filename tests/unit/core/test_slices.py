"""Long work, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core import slices
from influxrelay.core.slices import make_cooperator


class CooperatorTests(SynchronousTestCase):
    """:func:`make_cooperator`."""

    def setUp(self) -> None:
        """Have a cooperator that does one step in each turn of the reactor."""
        self.patch(slices, "SLICE", 0.0)
        self.turns: list[Callable[[], None]] = []
        self.cooperator = make_cooperator(self)
        self.done: list[str] = []

    def callLater(self, seconds: float, call: Callable[[], None]) -> None:
        """Be the reactor."""
        self.assertEqual(seconds, 0)
        self.turns.append(call)

    def work(self, name: str, steps: int) -> Iterator[int]:
        """Note each step; fail at step 3."""
        for step in range(1, steps + 1):
            self.done.append(f"{name}{step}")
            if step == 3:
                raise ZeroDivisionError
            yield 0

    def test_in_turns(self) -> None:
        """Each turn of the reactor does a bit of one work, all have their turns, and one that fails stops no other."""
        works: list[Any] = [self.cooperator.coiterate(self.work(*each)) for each in (("a", 2), ("b", 9), ("c", 1))]
        turns = 0
        while self.turns:
            before = len(self.done)
            self.turns.pop(0)()
            turns += 1
            self.assertLessEqual(len(self.done), before + 1)
        self.assertEqual(self.done, ["a1", "b1", "c1", "a2", "b2", "b3"])
        self.failureResultOf(works[1], ZeroDivisionError)
        self.assertGreater(turns, 5)
