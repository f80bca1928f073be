"""Simulated questions whether a backend is in sync."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.destination_queue import DestinationQueue
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.sender import Sender
from tests.simulation import health as health_simulation

SCHEDULES = 60
ENOUGH = 400  # schedules in which each mistake must be noticed


class SimulationTests(SynchronousTestCase):
    """Questions at any time in the simulations' schedules."""

    def test_promise(self) -> None:
        """Whoever is told to be in sync has all that was acknowledged before the question; at the end, all are."""
        for world in (health_simulation.World, health_simulation.QueueWorld):
            problems: list[str] = []
            passed, failed = health_simulation.run(
                world, range(SCHEDULES), lambda seed, problem: problems.append(f"seed {seed}: {problem}")
            )
            self.assertEqual(problems, [], "run `python -m tests.simulation.health`")
            self.assertGreater(passed, 3 * SCHEDULES)
            self.assertGreater(failed, 3 * SCHEDULES)

    def check(self, world: Any, owner: Any, name: str, mistake: Callable[..., Any], pattern: str) -> None:
        """Make a mistake, and check that a schedule breaks in these words."""
        self.patch(owner, name, mistake)
        seen: list[str] = []
        for seed in range(ENOUGH):
            health_simulation.run(world, [seed], lambda _, problem: seen.append(str(problem)))
            if seen and pattern in seen[-1]:
                return
        self.fail(f"{pattern!r} was not noticed, but {sorted(set(seen))[:5]}")

    def test_nothing_in_flight_counts(self) -> None:
        """A question that forgets what is under way is noticed."""

        def first_number(queue: DestinationQueue) -> int:
            return queue.first_waiting() if queue.waiting else 0

        words = "is said to be in sync, and does not have"
        self.check(health_simulation.World, DestinationQueue, "first_number", first_number, words)

    def test_nothing_on_disk_counts(self) -> None:
        """A question that forgets what waits on disk is noticed."""

        def barrier(sender: Sender) -> Callable[[], bool]:
            queues = list(sender.queues)
            return lambda: not any(queue.waiting or queue.in_flight for queue in queues)

        self.check(health_simulation.QueueWorld, Sender, "barrier", barrier, "is said to be in sync, and does not")

    def test_losses_forgotten(self) -> None:
        """Losses that nobody remembers are noticed: without a backlog, in memory, and in the journal."""
        words = "is said to be in sync, and does not have"
        self.check(health_simulation.World, Backlog, "losses", lambda _: [], words)
        for backlog in (Backlog, JournalBacklog):
            self.check(health_simulation.QueueWorld, backlog, "losses", lambda _: [], words)

    def test_never_in_sync(self) -> None:
        """A backend that is well and never told so is noticed."""
        self.check(health_simulation.QueueWorld, Sender, "why_unavailable", lambda _: "down", "at the end")
