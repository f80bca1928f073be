"""The simulation of remote writes runs, and it would notice."""

from __future__ import annotations

from collections.abc import Sequence

from influxrelay.core.write import Reply
from influxrelay.delivery import destination_queue
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.remotewrite.division import divide
from tests.simulation.case import SimulationCase
from tests.simulation.remote_write import World

SCHEDULES = 150
put_back = DestinationQueue.put_back


def put_back_at_the_tail(self: DestinationQueue, entries: Sequence[Entry], **_: bool) -> None:
    """Let what comes back wait behind newer writes."""
    for entry in entries:
        self.add(entry)


class RemoteWriteTests(SimulationCase):
    """Acknowledged samples, before a Prometheus that rolls back."""

    world = World
    enough = 150

    def test_contract(self) -> None:
        """Each sample is there in the end, in order, whatever fails, is sent twice, or is rolled back."""
        seen = dict.fromkeys(("restarts", "lost answers", "refusals", "journals"), 0)
        for world in self.schedules(range(SCHEDULES)):
            seen["restarts"] += world.restarts
            seen["lost answers"] += world.lost_answers
            seen["refusals"] += world.backend.refusals
            seen["journals"] += world.journal is not None
        self.assertGreater(min(seen.values()), 50, seen)

    def test_rest_is_given_up(self) -> None:
        """Samples that are given up with a stale one are noticed."""

        def give_up(self: Entry, reply: Reply) -> list[Entry]:
            return []

        self.check(Entry, "divided", give_up, "and not all up to")

    def test_newer_half_first(self) -> None:
        """Parts that are sent in another order are noticed."""

        def backwards(message: bytes, pieces: int, *, from_oldest: bool) -> list[bytes]:
            return divide(message, pieces)[::-1]

        self.check(destination_queue, "divide", backwards, "and not all up to")

    def test_put_back_at_the_tail(self) -> None:
        """Writes that come back behind newer ones are noticed."""
        self.check(DestinationQueue, "put_back", put_back_at_the_tail, "")
