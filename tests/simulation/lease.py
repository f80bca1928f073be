"""The leases of a shared journal under stopped processes, late and lost messages, and clocks that are not equally fast.

``python -m tests.simulation.lease --count N`` runs N schedules, ``python -m tests.simulation.lease SEED`` shows one. At
no moment two relays have the lease of a backend, also if one of them is stopped at that moment; cursors never move
back; and when all is well again there is a deliverer for each backend within the time of a lease and some messages.
"""

from __future__ import annotations

import sys

from testing.shared_journals import LEASE
from tests.simulation.group import BACKENDS, CALM, GroupWorld
from tests.simulation.schedule import main


class World(GroupWorld):
    """One schedule."""

    def is_done(self) -> bool:
        """Wait for a deliverer of each backend."""
        return all(self.delivered_by(key) for key in BACKENDS)

    def check_end(self) -> None:
        """Check that it has not taken too long, and that it stays so."""
        # A question that was lost is asked again after 2 s; one that was under way may take 10 s to fail.
        while self.clock.seconds() < CALM + LEASE + 15:
            self.step(0.05)
        deliverers = [self.delivered_by(key) for key in BACKENDS]
        if not all(deliverers):
            self.broken("nobody delivers for too long")
        for _ in range(200):
            self.step(0.05)
        if deliverers != [self.delivered_by(key) for key in BACKENDS]:
            self.broken("a lease was lost although all was well")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], World))
