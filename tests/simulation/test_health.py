"""Simulated questions whether a backend is in sync."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.destination_queue import DestinationQueue
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.sender import Sender
from tests.simulation.case import SimulationCase
from tests.simulation.health import QueueWorld, World

SCHEDULES = 60


class SimulationTests(SimulationCase):
    """Questions at any time in the simulations' schedules."""

    enough = 400

    def test_promise(self) -> None:
        """Whoever is told to be in sync has all that was acknowledged before the question; at the end, all are."""
        for world in (World, QueueWorld):
            passed = failed = 0
            for schedule in self.schedules(range(SCHEDULES), world):
                passed += schedule.questions.passed
                failed += schedule.questions.failed
            self.assertGreater(passed, 3 * SCHEDULES)
            self.assertGreater(failed, 3 * SCHEDULES)

    def check_in(self, world: Any, owner: Any, name: str, mistake: Callable[..., Any], pattern: str) -> None:
        """Make a mistake, and check that it is noticed in one of the two simulations."""
        self.patch(owner, name, mistake)
        self.assert_noticed(pattern, world=world)

    def test_nothing_in_flight_counts(self) -> None:
        """A question that forgets what is under way is noticed."""

        def first_number(queue: DestinationQueue) -> int:
            return queue.first_waiting() if queue.waiting else 0

        words = "is said to be in sync, and does not have"
        self.check_in(World, DestinationQueue, "first_number", first_number, words)

    def test_nothing_on_disk_counts(self) -> None:
        """A question that forgets what waits on disk is noticed."""

        def barrier(sender: Sender) -> Callable[[], bool]:
            queues = list(sender.queues)
            return lambda: not any(queue.waiting or queue.in_flight for queue in queues)

        self.check_in(QueueWorld, Sender, "barrier", barrier, "is said to be in sync, and does not")

    def test_losses_forgotten(self) -> None:
        """Losses that nobody remembers are noticed: without a backlog, in memory, and in the journal."""
        words = "is said to be in sync, and does not have"
        self.check_in(World, Backlog, "losses", lambda _: [], words)
        for backlog in (Backlog, JournalBacklog):
            self.check_in(QueueWorld, backlog, "losses", lambda _: [], words)

    def test_never_in_sync(self) -> None:
        """A backend that is well and never told so is noticed."""
        self.check_in(QueueWorld, Sender, "why_unavailable", lambda _: "down", "at the end")
