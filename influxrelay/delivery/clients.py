"""Who waits for a backend's answer, and for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import takewhile

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery.destination_queue import Entry


class Clients:
    """Tells the fates of a sender's writes what their clients are to know, each once.

    It holds the entries that are not in flight and whose clients wait, in the order of their deadlines. There is one
    timer, whatever waits; it may fire once for nothing.

    :param backend: the name of the backend.
    :param timeout: seconds that each of them waits, from when its write came.
    :param on_expiry: is called when the first deadline has passed.
    :ivar failures: how many writes failed for the backend while their clients waited, by reason.
    """

    def __init__(self, backend: str, timeout: float, reactor: IReactorTime, on_expiry: Callable[[], object]) -> None:
        self.failures: Counter[str] = Counter()
        self._reactor = reactor
        self._on_expiry = on_expiry
        self._waiting: dict[Entry, None] = {}
        self._timer: IDelayedCall | None = None
        self.reconfigure(backend, timeout)

    def reconfigure(self, backend: str, timeout: float) -> None:
        """Speak of the backend by another name, and wait for another time."""
        self._backend = backend
        self._timeout = timeout

    def __len__(self) -> int:
        return len(self._waiting)

    # -- what they are told

    def answer(self, entries: Iterable[Entry], reply: Reply) -> None:
        """Tell the clients of a request that the backend has taken their writes."""
        for entry in entries:
            if entry.waits:
                entry.waits = False
                entry.fate.answered(self._backend, reply)

    def refuse(self, entries: Iterable[Entry], reply: Reply) -> None:
        """Tell clients, as many as still wait, that the backend has refused their writes."""
        for entry in entries:
            if entry.waits:
                self.release(entry)
                self.failures[str(reply.status)] += 1
                entry.fate.answered(self._backend, reply)

    def fail(self, entries: Iterable[Entry], problem: BackendFailure) -> None:
        """Tell clients, as many as still wait, that the backend did not take their writes."""
        for entry in entries:
            if entry.waits:
                self.release(entry)
                self.failures[problem.reason] += 1
                entry.fate.failed(self._backend, problem)

    def release(self, entry: Entry) -> None:
        """Forget a client that need not be told."""
        entry.waits = False
        self._waiting.pop(entry, None)

    def forget(self) -> None:
        """Forget all of them: they need not be told."""
        self.stop()
        for entry in self._waiting:
            entry.waits = False
        self._waiting = {}

    # -- how long they wait

    def wait(self, entry: Entry) -> None:
        """Let a client wait whose write came after those of all others."""
        self._waiting[entry] = None
        if self._timer is None:
            self._set_timer(entry)

    def wait_again(self, entries: Iterable[Entry]) -> None:
        """Let clients wait again that waited before all others; the deadline of some may have passed."""
        self._waiting = {**dict.fromkeys(entry for entry in entries if entry.waits), **self._waiting}

    def sent(self, entries: Iterable[Entry]) -> None:
        """Let nobody look at the deadlines of writes that are in flight: the exchange has its own time-out."""
        for entry in entries:
            self._waiting.pop(entry, None)

    def expired(self, now: float) -> list[Entry]:
        """Remove and return those whose deadline is not after ``now``."""
        found = list(takewhile(lambda entry: entry.fate.submitted + self._timeout <= now, self._waiting))
        self.sent(found)
        return found

    def waiting(self) -> list[Entry]:
        """Return those that wait, the one that waits for longest first."""
        return list(self._waiting)

    def rearm(self) -> None:
        """Set the timer to the first deadline; before clients are told, who may submit again."""
        self.stop()
        first = next(iter(self._waiting), None)
        if first is not None:
            self._set_timer(first)

    def _set_timer(self, first: Entry) -> None:
        pause = first.fate.submitted + self._timeout - self._reactor.seconds()
        self._timer = self._reactor.callLater(max(0.0, pause), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._on_expiry()

    def stop(self) -> None:
        """Set no timer any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
