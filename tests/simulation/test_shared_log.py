"""The simulation of a shared journal runs, and it would notice."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from influxrelay.journal.shared import lane
from influxrelay.journal.shared.leased_backend import LeasedBackend
from influxrelay.journal.shared.progress import Progress
from influxrelay.journal.shared.state import BackendState
from influxrelay.journal.shared.tail import Tail
from tests.simulation.case import SimulationCase
from tests.simulation.shared_log import World

FIRST, SHARING_ENTRIES, SCHEDULES = 8, 40, 60  # those before the first are in test_quick
FOUND_BEFORE = (0, 5, 6, 34, 1195)  # schedules that once broke a promise, or did not end
stored, written = Tail.stored, Progress.written  # as they are without a mistake


def pass_everything(self: Progress, state: BackendState) -> BackendState:
    """Write down that everything is passed."""
    self.waiting.clear()
    return written(self, state)


def do_not_wait(self: LeasedBackend, letter: Deferred[Any]) -> None:
    """Write positions down before a dead letter is stored."""
    letter.addErrback(lambda _: None)


class SharedLogSimulationTests(SimulationCase):
    """Sections 2, 3 and 12 of the contract under some schedules."""

    world = World
    enough = 60

    def test_contract(self) -> None:
        """Nothing is missing, skipped or counted twice."""
        self.check_contract(range(FIRST, SHARING_ENTRIES))

    def test_long_backlogs(self) -> None:
        """The same where even the messages of short backlogs share entries of the index."""
        self.patch(lane, "EXACT", 4)
        self.patch(lane, "MOST_MESSAGES", 5)
        self.check_contract(range(SHARING_ENTRIES, SCHEDULES))

    def test_found_before(self) -> None:
        """The schedules in which that once was not so are well."""
        self.check_contract(FOUND_BEFORE)

    def test_passed_too_much(self) -> None:
        """A cursor that is written down too far is noticed."""
        self.check(Progress, "written", pass_everything, "is missing at")

    def test_counted_twice(self) -> None:
        """Losses that are written down again are noticed."""
        self.check(LeasedBackend, "_note_losses", lambda *_: None, "are counted")

    def test_letters(self) -> None:
        """Positions that are written down before a dead letter is stored are noticed."""
        self.check(LeasedBackend, "bury", do_not_wait, "dead letters")
