"""A few schedules of each simulation, for ``make unit``."""

from __future__ import annotations

from tests.simulation import health, lease, queue, remote_write, settle, shared_log
from tests.simulation.case import SimulationCase
from tests.simulation.changes import ChangingWorld
from tests.simulation.filter import FilterWorld
from tests.simulation.reload import ReloadWorld


class QuickTests(SimulationCase):
    """The first schedules."""

    def test_settle(self) -> None:
        """Answers and order are what the contract says where nothing is kept."""
        self.check_contract(range(300), settle.World)

    def test_queue(self) -> None:
        """Nothing acknowledged is lost where writes are kept, through failures and crashes."""
        self.check_contract(range(40), queue.World)

    def test_changes(self) -> None:
        """Statements are executed in their place, and never again behind what came later."""
        self.check_contract(range(30), ChangingWorld)

    def test_reload(self) -> None:
        """Nor is it while the configuration changes."""
        self.check_contract(range(15), ReloadWorld)

    def test_filter(self) -> None:
        """Nor is it where backends take only some lines."""
        self.check_contract(range(10), FilterWorld)

    def test_remote_write(self) -> None:
        """Each acknowledged sample gets to a Prometheus that rolls back bodies for samples that it has."""
        self.check_contract(range(50), remote_write.World)

    def test_shared_journal(self) -> None:
        """No two relays have a backend's lease, and nothing in the log that they share is skipped or missing."""
        self.check_contract(range(15), lease.World)
        self.check_contract(range(8), shared_log.World)

    def test_health(self) -> None:
        """A backend that is said to be in sync has everything."""
        self.check_contract(range(20), health.World)
        self.check_contract(range(10), health.QueueWorld)
