"""The simulation of reloads runs, and it would notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.sender import Sender
from influxrelay.journal.registry import Registry
from influxrelay.journal.writer import JournalWriter
from influxrelay.listeners.relaying import Relaying
from tests.simulation import queue as queue_simulation
from tests.simulation.reload import ReloadWorld
from tests.simulation.settle import Violation

SCHEDULES = 150
FOUND_BEFORE = (60, 132, 201, 6258)  # schedules that once broke a promise
ENOUGH = 600  # schedules in which each mistake must be noticed
reconfigure = Sender.reconfigure


class ReloadSimulationTests(SynchronousTestCase):
    """The contract, while the configuration changes."""

    def test_contract(self) -> None:
        """Order and what is kept hold in every schedule with reloads, and all kinds of them happen."""
        problems: list[str] = []
        seen: dict[str, int] = {}
        for seed in (*range(SCHEDULES), *FOUND_BEFORE):
            world = ReloadWorld(seed)
            try:
                world.run()
            except Violation as problem:
                problems.append(f"seed {seed}: {problem}")
            for change, count in world.reloads.items():
                seen[change] = seen.get(change, 0) + count
        self.assertEqual(problems, [], "run `python -m tests.simulation.reload SEED`")
        self.assertGreater(min(seen.values()), 20, seen)

    def check(self, owner: Any, name: str, mistake: Callable[..., Any], *patterns: str) -> None:
        """Make a mistake and check that it is noticed, in one of these words."""
        self.patch(owner, name, mistake)
        seen: list[str] = []
        for seed in range(ENOUGH):
            queue_simulation.run(seed, 1, lambda _, problem: seen.append(str(problem)), ReloadWorld)
            self.flushLoggedErrors(Violation)  # raised within the journal, where it comes of the mistake
            if seen and any(pattern in seen[-1] for pattern in patterns):
                return
        self.fail(f"{patterns} was not noticed, but {sorted(set(seen))[:5]}")

    def test_not_found_again(self) -> None:
        """A backend that is renamed, moved or removed, and is not known again, is noticed."""
        self.check(Registry, "_find_again", lambda *_: {}, "has something left", "is lost at", "in the journal")

    def test_not_registered(self) -> None:
        """A journal that is not told of other backends is noticed."""
        self.check(JournalWriter, "register", lambda *_: None, "has something left", "is lost at", "in the journal")

    def test_undecided(self) -> None:
        """A backend that returns and gets what no client was told is taken is noticed."""
        self.check(
            FanOut, "decided", lambda self: self._journal.last_number, "after 503", "after 400", "was answered 400"
        )

    def test_not_resumed(self) -> None:
        """A backend that returns, and does not read on where it was, is noticed."""
        resume = JournalBacklog.resume

        def not_resumed(self: JournalBacklog, positions: Any, last_number: int, decided: int) -> None:
            resume(self, [(where, last_number) for where, _ in positions], last_number, decided)

        self.check(JournalBacklog, "resume", not_resumed, "has something left", "is lost at")

    def test_queues_forgotten(self) -> None:
        """Queues that do not live on are noticed."""

        def forget_queues(self: Sender, *arguments: Any) -> None:
            for queue in self.queues:
                self.queues.forget(queue)
            reconfigure(self, *arguments)

        words = ("has something left", "is lost at", "in flight", "got 0 answers")
        self.check(Sender, "reconfigure", forget_queues, *words)

    def test_left_in_the_journal(self) -> None:
        """A backend that is removed and holds back what others have passed is noticed."""
        self.check(
            Relaying, "forget", lambda self, sender: self.leaving.pop(sender), "has something left", "does not end"
        )
