"""The simulation of reloads runs, and it would notice."""

from __future__ import annotations

from typing import Any

from influxrelay.delivery.hand_out import BesideJournal
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.sender import Sender
from influxrelay.journal.registry import Registry
from influxrelay.journal.writer import JournalWriter
from influxrelay.listeners.relaying import Relaying
from tests.simulation.case import SimulationCase
from tests.simulation.reload import ReloadWorld

SCHEDULES = 150
FOUND_BEFORE = (60, 132, 201, 6258)  # schedules that once broke a promise
reconfigure = Sender.reconfigure


class ReloadSimulationTests(SimulationCase):
    """The contract, while the configuration changes."""

    world = ReloadWorld
    enough = 600

    def test_contract(self) -> None:
        """Order and what is kept hold in every schedule with reloads, and all kinds of them happen."""
        seen: dict[str, int] = {}
        for world in self.schedules((*range(SCHEDULES), *FOUND_BEFORE)):
            for change, count in world.reloads.items():
                seen[change] = seen.get(change, 0) + count
        self.assertGreater(min(seen.values()), 20, seen)

    def test_not_found_again(self) -> None:
        """A backend that is renamed, moved or removed, and is not known again, is noticed."""
        self.check(Registry, "_find_again", lambda *_: {}, "has something left", "is lost at", "in the journal")

    def test_not_registered(self) -> None:
        """A journal that is not told of other backends is noticed."""
        self.check(JournalWriter, "register", lambda *_: None, "has something left", "is lost at", "in the journal")

    def test_undecided(self) -> None:
        """A backend that returns and gets what no client was told is taken is noticed."""
        self.patch(BesideJournal, "decided", lambda self: self._journal.last_number)
        self.assert_noticed("after 503", "after 400", "was answered 400", first=[508])

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
