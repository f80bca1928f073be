"""The simulation of relays that deliver from one log runs, and it would notice."""

from __future__ import annotations

from typing import Any

from influxrelay.core.errors import BackendFailure
from influxrelay.delivery.deliverer import Deliverer
from influxrelay.delivery.origin import Origin
from influxrelay.delivery.sender import Sender
from influxrelay.journal.interface import Positions
from tests.simulation.case import SimulationCase
from tests.simulation.sharing import World

SCHEDULES = 40
gained = Deliverer.gained


class SharingTests(SimulationCase):
    """Acknowledged writes, through relays that come and go."""

    world = World
    enough = 60

    def test_contract(self) -> None:
        """Every server has what was acknowledged, and no older value lasts, whatever fails."""
        seen = dict.fromkeys((204, 500, 503), 0)
        for world in self.schedules(range(SCHEDULES)):
            for story in world.stories:
                if story.status in seen:
                    seen[story.status] += 1
        self.assertGreater(min(seen.values()), 20, seen)

    def test_nothing_read(self) -> None:
        """A deliverer that begins with what is handed out next is noticed."""

        def gain(self: Deliverer, key: Any, positions: Positions, last_number: int) -> None:
            gained(self, key, [], last_number)

        self.check(Deliverer, "gained", gain, "is missing")

    def test_no_gate(self) -> None:
        """A deliverer that does not look whether it still has the lease is noticed."""
        self.patch(Deliverer, "lost", lambda *_: None)
        self.check(Sender, "guard", lambda *_: None, "has overwritten", "is missing")

    def test_struck_without_word(self) -> None:
        """A write that is acknowledged, and struck, is noticed."""
        settled = Origin._settled

        def settle(self: Origin, fate: Any) -> None:
            number = fate.number
            settled(self, fate)
            self._journal.strike(number).addErrback(lambda failure: failure.trap(BackendFailure, Exception) and None)

        self.check(Origin, "_settled", settle, "is missing")
