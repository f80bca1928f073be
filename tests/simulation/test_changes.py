"""The simulation of changes runs, and it would notice."""

from __future__ import annotations

import math

from twisted.internet.defer import succeed

from influxrelay.delivery.change_order import ChangeOrder
from influxrelay.delivery.destination_queue import DestinationQueue
from influxrelay.delivery.journal_backlog import JournalBacklog
from tests.simulation.case import SimulationCase
from tests.simulation.changes import ChangingWorld

SCHEDULES = 120
FOUND_BEFORE = (204, 221, 235, 273, 315, 403, 442, 480, 491, 516)  # schedules that once broke a promise


class ChangeSimulationTests(SimulationCase):
    """The order of changes, through failures and crashes."""

    world = ChangingWorld

    def test_contract(self) -> None:
        """Order and what is kept hold in every schedule with changes, which are executed, refused and repeated."""
        executed = repeated = 0
        for world in self.schedules((*range(SCHEDULES), *FOUND_BEFORE)):
            for server in world.changing:
                executed += len(server.executed)
                repeated += len(server.executed) - len(set(server.executed))
        self.assertGreater(executed, 1000)
        self.assertGreater(repeated, 20)

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
