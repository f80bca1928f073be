"""The simulation of filters runs, and it would notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import Destination
from influxrelay.delivery import parts
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.lineprotocol.filters import Filter
from influxrelay.lineprotocol.scanner import Steps
from tests.simulation import queue as queue_simulation
from tests.simulation.filter import FilterWorld
from tests.simulation.settle import Violation

SCHEDULES = 100
FOUND_BEFORE = (
    711,
    1330,
    1492,
    1512,
    3591,
)  # schedules that once broke a promise, or in which the simulation was wrong
ENOUGH = 300  # schedules in which each mistake must be noticed


class FilterSimulationTests(SynchronousTestCase):
    """The contract, where backends take only some lines."""

    def test_contract(self) -> None:
        """What a filter leaves gets to its backend, in order, and nothing else does; filters change, too."""
        problems: list[str] = []
        changed = nobody = passed = failed = 0
        for seed in (*range(SCHEDULES), *FOUND_BEFORE):
            world = FilterWorld(seed)
            try:
                world.run()
            except Violation as problem:
                problems.append(f"seed {seed}: {problem}")
            changed += world.reloads["filter"]
            nobody += sum(not story.parts for story in world.stories.values())
            passed += world.questions.passed
            failed += world.questions.failed
        self.assertEqual(problems, [], "run `python -m tests.simulation.filter SEED`")
        self.assertGreater(min(changed, nobody, passed, failed), 20, (changed, nobody, passed, failed))

    def check(self, owner: Any, name: str, mistake: Callable[..., Any], *patterns: str) -> None:
        """Make a mistake and check that it is noticed, in one of these words."""
        self.patch(owner, name, mistake)
        seen: list[str] = []
        for seed in range(ENOUGH):
            queue_simulation.run(seed, 1, lambda _, problem: seen.append(str(problem)), FilterWorld)
            self.flushLoggedErrors(Violation)  # raised within the journal, where it comes of the mistake
            if seen and any(pattern in seen[-1] for pattern in patterns):
                return
        self.fail(f"{patterns} was not noticed, but {sorted(set(seen))[:5]}")

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
