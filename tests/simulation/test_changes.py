"""The simulation of changes runs, and it would notice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.delivery.change_order import ChangeOrder
from influxrelay.delivery.destination_queue import DestinationQueue
from influxrelay.delivery.journal_backlog import JournalBacklog
from tests.simulation import queue as queue_simulation
from tests.simulation.changes import ChangingWorld
from tests.simulation.settle import Violation

SCHEDULES = 200
FOUND_BEFORE = (204, 221, 235, 273, 315, 403, 442, 480, 491, 516)  # schedules that once broke a promise
ENOUGH = 300  # schedules in which each mistake must be noticed


class ChangeSimulationTests(SynchronousTestCase):
    """The order of changes, through failures and crashes."""

    def test_contract(self) -> None:
        """Order and what is kept hold in every schedule with changes, which are executed, refused and repeated."""
        problems: list[str] = []
        executed = repeated = 0
        for seed in (*range(SCHEDULES), *FOUND_BEFORE):
            world = ChangingWorld(seed)
            try:
                world.run()
            except Violation as problem:
                problems.append(f"seed {seed}: {problem}")
            for server in world.changing:
                executed += len(server.executed)
                repeated += len(server.executed) - len(set(server.executed))
        self.assertEqual(problems, [], "run `python -m tests.simulation.changes SEED`")
        self.assertGreater(executed, 1000)
        self.assertGreater(repeated, 20)

    def check(self, owner: Any, name: str, mistake: Callable[..., Any], *patterns: str) -> None:
        """Make a mistake and check that it is noticed, in one of these words."""
        self.patch(owner, name, mistake)
        seen: list[str] = []
        for seed in range(ENOUGH):
            queue_simulation.run(seed, 1, lambda _, problem: seen.append(str(problem)), ChangingWorld)
            if seen and any(pattern in seen[-1] for pattern in patterns):
                return
        self.fail(f"{patterns} was not noticed, but {sorted(set(seen))[:5]}")

    def test_position_is_not_kept(self) -> None:
        """What goes on behind a change before its position is kept is noticed."""
        self.check(JournalBacklog, "keep_positions", lambda _: succeed(None), "behind the statement", "behind write")

    def test_nothing_is_held_back(self) -> None:
        """Writes that overtake a change are noticed."""
        self.check(ChangeOrder, "first_for", lambda *_: math.inf, "behind write", "is gone")

    def test_nothing_is_waited_for(self) -> None:
        """A change that overtakes writes is noticed."""
        self.check(JournalBacklog, "is_through", lambda *_: True, "has deleted")

    def test_merged_over_a_change(self) -> None:
        """Writes that travel with those before a change are noticed."""
        self.check(DestinationQueue, "bytes_before", lambda _, number, size: size, "behind write", "is gone")
