"""The simulation of leases runs, and it would notice."""

from __future__ import annotations

from influxrelay.journal.shared import lease
from influxrelay.journal.shared.lease import Lease
from influxrelay.journal.shared.state import BackendState
from testing.memory_store import Values
from tests.simulation.case import SimulationCase
from tests.simulation.lease import World

FIRST, SCHEDULES = 15, 150  # those before the first are in test_quick
FOUND_BEFORE = (2, 97, 126)  # schedules that once broke a promise, or the model's
observe, set_value = Lease.observe, Values.set  # as they are without a mistake


def believe_the_answer(self: Lease, state: BackendState, revision: int) -> None:
    """Count the whole time of a lease from the answer, which may have come late."""
    observe(self, state, revision)
    if self.is_ours:
        self._valid_until = self._now() + self._seconds


def set_any(self: Values, key: str, value: bytes | None, revision: int | None, call: object) -> int:
    """Set a value whatever its revision is."""
    return set_value(self, key, value, revision and None, call)


class LeaseSimulationTests(SimulationCase):
    """Leases under a hundred schedules."""

    world = World
    enough = 100

    def test_leases(self) -> None:
        """No two relays have a lease at the same moment, and somebody has it again soon."""
        self.check_contract(range(FIRST, SCHEDULES))

    def test_found_before(self) -> None:
        """The schedules in which that once was not so are well."""
        self.check_contract(FOUND_BEFORE)

    def test_too_long(self) -> None:
        """An owner that believes for longer than others wait is noticed."""
        self.check(lease, "MARGIN", -0.5, "have the lease of")

    def test_too_short(self) -> None:
        """A relay that does not wait for the whole time is noticed."""
        self.check(Lease, "due", property(lambda self: self._seen + self._seconds / 2), "have the lease of")

    def test_answer(self) -> None:
        """A lease that begins when the answer comes is noticed."""
        self.check(Lease, "observe", believe_the_answer, "have the lease of")

    def test_no_comparison(self) -> None:
        """Changes that do not compare the revision are noticed."""
        self.check(Values, "set", set_any, "have the lease of", "moves back")
