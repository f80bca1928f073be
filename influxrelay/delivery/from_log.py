"""How the senders get what was accepted where relays share a log: in the log's order, whichever relay accepted it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from influxrelay.delivery.deliverer import Deliverer
from influxrelay.delivery.origin import Origin
from influxrelay.delivery.sender import Sender
from influxrelay.journal.shared_log import Follower, SharedLog


class FromLog(Origin):
    """Both sides of a relay that shares its log.

    They speak with each other only through the log, for each may be at another relay: as the origin of writes it
    appends them, collects what becomes of them at each backend, and answers clients; as the deliverer of a backend it
    gives the sender what the log hands out.

    :ivar follower: what the log is to tell.
    """

    def __init__(self, log: SharedLog, reactor: IReactorTime, *, clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(log, reactor, clock=clock)
        self._deliverer = Deliverer(log, reactor, self)
        self.follower: Follower = self._deliverer

    def reconfigure(self, name: str, senders: Sequence[Sender], *, refuse_unjournaled: bool) -> None:
        """Let other settings hold; new senders stand by, and those that are left out do so for good."""
        for sender in self.senders:
            if sender not in senders:
                self._deliverer.remove(sender)
        for sender in senders:
            if sender not in self.senders:
                self._deliverer.add(sender)
        super().reconfigure(name, senders, refuse_unjournaled=refuse_unjournaled)

    def close(self) -> None:
        """Wait for nothing any more."""
        super().close()
        self._deliverer.close()
