"""The simulation of filters runs, and it would notice."""

from __future__ import annotations

from collections.abc import Sequence

from influxrelay.core.write import Destination
from influxrelay.delivery import parts
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.lineprotocol.filters import Filter
from influxrelay.lineprotocol.scanner import Steps
from tests.simulation.case import SimulationCase
from tests.simulation.filter import FilterWorld

SCHEDULES = 60
FOUND_BEFORE = (
    711,
    1330,
    1492,
    1512,
    3591,
)  # schedules that once broke a promise, or in which the simulation was wrong


class FilterSimulationTests(SimulationCase):
    """The contract, where backends take only some lines."""

    world = FilterWorld

    def test_contract(self) -> None:
        """What a filter leaves gets to its backend, in order, and nothing else does; filters change, too."""
        changed = nobody = passed = failed = 0
        for world in self.schedules((*range(SCHEDULES), *FOUND_BEFORE)):
            changed += world.reloads["filter"]
            nobody += sum(not story.parts for story in world.stories.values())
            passed += world.questions.passed
            failed += world.questions.failed
        self.assertGreater(min(changed, nobody, passed, failed), 20, (changed, nobody, passed, failed))

    def test_not_skipped(self) -> None:
        """A cursor that waits for what is not for its backend is noticed."""
        self.check(JournalBacklog, "skip", lambda *_: None, "has something left", "does not end")

    def test_skipped_too_early(self) -> None:
        """A cursor that passes what waits when it passes what is not for its backend is noticed."""

        def pass_all(self: JournalBacklog, destination: Destination, number: int) -> None:
            self._journal.advance(self, destination, number)

        self.check(JournalBacklog, "skip", pass_all, "is lost at", "has something left")

    def test_read_unfiltered(self) -> None:
        """A backlog that is read without the filter is noticed."""

        def divide_nothing(body: bytes, filters: Sequence[Filter]) -> Steps[tuple[list[bytes], int]]:
            yield 0
            return [body for _ in filters], 0

        self.check(parts, "divide_slowly", divide_nothing, "not one of")
