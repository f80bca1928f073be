"""The simulation of relays with queues, with reloads in the middle of everything.

``python -m tests.simulation.reload SEED`` replays one schedule with a trace, ``--count N`` runs N without one. Beside
all that happens in :mod:`tests.simulation.queue` outputs are added, removed, renamed, put into another order, and get
other transports, while writes wait and are in flight. What a client was told holds for the backends that were
configured when it wrote, unless they are removed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from influxrelay.delivery.sender import Sender
from influxrelay.listeners.transaction import Transaction
from tests.simulation.queue import World
from tests.simulation.queue_process import Process, WatchedSender
from tests.simulation.queue_server import Server
from tests.simulation.schedule import main

GRACE = 2.0  # seconds that a backend that is removed has for the rest


class ReloadWorld(World):
    """One schedule with reloads.

    :ivar reloads: how many were done, by what they changed.
    """

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(seed, trace)
        self.reloads: dict[str, int] = dict.fromkeys(("add", "remove", "rename", "reorder", "transport"), 0)
        self._choices = random.Random(f"reload {seed}")
        self._busy = False

    def plan(self, length: float) -> None:
        """Let reloads happen."""
        for _ in range(self._choices.choice((1, 3, 10))):
            self.clock.callLater(self._choices.random() * (length + 1), self.reload)

    def reload(self) -> None:
        """Change something while the process works, if it is not busy with such a change."""
        process = self.process
        leaving = any(server.leaving for server in self.servers)
        if process is None or self.stopping or leaving or self._busy:
            return
        change = self._choices.choice(list(self.reloads))
        outputs = self.changed(self._choices, change)
        self.note(f"reload: {change}: { ({name: server.number for name, server in outputs.items()}) }")
        steps = Transaction()
        self._busy = True
        prepared = Deferred.fromCoroutine(process.listener.prepare(self.configuration(outputs), steps))
        prepared.addCallback(lambda _: self._take(process, change, outputs, steps))
        prepared.addErrback(self._refused)
        prepared.addBoth(self._done)

    def _refused(self, failure: object) -> None:
        """Try again, as an operator does."""
        self.note(f"the reload is refused: {failure}")
        self.clock.callLater(1.0, self.reload)

    def _done(self, _: object) -> None:
        self._busy = False

    def crash(self) -> None:
        """Kill the process."""
        super().crash()
        self._busy = False

    def _take(self, process: Process, change: str, outputs: dict[str, Server], steps: Transaction) -> None:
        if self.process is not process or self.stopping:
            return
        self.reloads[change] += 1
        before = self.outputs
        self.configure(outputs)
        for server in self.servers:
            server.not_before = 0.0  # the server may be another, so it is asked again
            server.leaving = server in before.values() and not server.configured
        steps.take()
        self.note("the reload is done")
        for sender in list(process.listener.leaving):
            timer = process.reactor.callLater(GRACE, self._leave, process, sender)
            sender.drained().addCallback(self._left, process, sender, timer)

    def _left(self, _: None, process: Process, sender: Sender, timer: IDelayedCall) -> None:
        if timer.active():
            timer.cancel()
            self._leave(process, sender)

    def _leave(self, process: Process, sender: Sender) -> None:
        """End a sender as the service does."""
        sender.close()
        sender.abort()
        process.listener.forget(sender)
        self.note(f"{sender.name} has left")
        assert isinstance(sender, WatchedSender)
        self.servers[sender.number].leaving = False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], ReloadWorld))
