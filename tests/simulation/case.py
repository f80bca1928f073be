"""Tests of simulations: schedules in which the contract holds, and mistakes that have to be noticed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.schedule import Violation, main, run


class SimulationCase(SynchronousTestCase):
    """Runs schedules.

    :cvar world: makes a schedule of a seed.
    :cvar enough: the number of schedules in which each mistake has to be noticed.
    """

    world: Any
    enough = 300

    def schedules(self, seeds: Iterable[int], world: Any = None) -> Iterator[Any]:
        """Yield schedules that have happened, and check in the end that the contract held in all of them."""
        make = world or self.world
        problems: list[str] = []
        for seed in seeds:
            schedule = make(seed)
            try:
                schedule.run()
            except Violation as problem:
                problems.append(f"seed {seed}: {problem}")
            yield schedule
        self.assertEqual(problems, [], f"run `python -m {make.__module__} SEED`")

    def story(self, seed: int) -> object:
        """Return what has happened in a schedule."""
        schedule = self.world(seed)
        schedule.run()
        return [(each.sequence, each.submitted, each.write.body, each.answers) for each in schedule.stories.values()]

    def run_main(self, *arguments: str) -> tuple[int, str]:
        """Run the simulation's command in this process; return its status and what it has printed."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        return main(list(arguments), self.world), out.getvalue()

    def check_contract(self, seeds: Iterable[int], world: Any = None) -> None:
        """Check that the contract holds in schedules."""
        for _ in self.schedules(seeds, world):
            pass

    def check(self, owner: Any, name: str, mistake: Any, *patterns: str) -> None:
        """Make a mistake and check that it is noticed, in one of these words."""
        self.patch(owner, name, mistake)
        self.assert_noticed(*patterns)

    def assert_noticed(self, *patterns: str, world: Any = None, first: Iterable[int] = ()) -> None:
        """Check that a schedule breaks for one of the reasons that are expected.

        :param first: where it was noticed when this was written, if that is far from the beginning.
        """
        seen: list[str] = []
        for seed in (*first, *range(self.enough)):
            run(seed, 1, lambda _, problem: seen.append(str(problem)), world or self.world)
            self.flushLoggedErrors(Violation)  # of a violation that was raised within what logs errors
            if seen and any(pattern in seen[-1] for pattern in patterns):
                return
        self.fail(f"{patterns} was not noticed, but {sorted(set(seen))[:5]}")
