"""A few schedules of each simulation, for ``make unit``."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation import changes as changes_simulation
from tests.simulation import filter as filter_simulation
from tests.simulation import health as health_simulation
from tests.simulation import queue as queue_simulation
from tests.simulation import reload as reload_simulation
from tests.simulation import remote_write as remote_write_simulation
from tests.simulation import settle as settle_simulation


class QuickTests(SynchronousTestCase):
    """The first schedules."""

    def check(self, world: Any, count: int) -> None:
        """Run schedules, each of which has to be well."""
        for seed in range(count):
            try:
                world(seed).run()
            except settle_simulation.Violation as problem:
                self.fail(f"seed {seed}: {problem}")

    def test_settle(self) -> None:
        """Answers and order are what the contract says where nothing is kept."""
        self.check(settle_simulation.World, 300)

    def test_queue(self) -> None:
        """Nothing acknowledged is lost where writes are kept, through failures and crashes."""
        self.check(queue_simulation.World, 40)

    def test_changes(self) -> None:
        """Statements are executed in their place, and never again behind what came later."""
        self.check(changes_simulation.ChangingWorld, 30)

    def test_reload(self) -> None:
        """Nor is it while the configuration changes."""
        self.check(reload_simulation.ReloadWorld, 15)

    def test_filter(self) -> None:
        """Nor is it where backends take only some lines."""
        self.check(filter_simulation.FilterWorld, 10)

    def test_remote_write(self) -> None:
        """Each acknowledged sample gets to a Prometheus that rolls back bodies for samples that it has."""
        for seed in range(50):
            try:
                remote_write_simulation.World(seed).run()
            except remote_write_simulation.Violation as problem:
                self.fail(f"seed {seed}: {problem}")

    def test_health(self) -> None:
        """A backend that is said to be in sync has everything."""
        self.check(health_simulation.World, 20)
        self.check(health_simulation.QueueWorld, 10)
