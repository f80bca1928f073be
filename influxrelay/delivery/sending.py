"""When what is sent to one backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import STATEMENT
from influxrelay.delivery.back_off import BackOff
from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.change_order import ChangeOrder
from influxrelay.delivery.clients import Clients
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.queues import Queues
from influxrelay.delivery.requests import Requests
from influxrelay.delivery.settings import SenderSettings
from influxrelay.delivery.timers import Drain, Timers

_LEAD = 2 * 1024 * 1024  # bytes by which a backend may be ahead of another one before its requests get smaller
_HOPELESS = 24 * 1024 * 1024  # bytes that wait for one that will not catch up for all that


class Companion(Protocol):
    """Who sends the same writes to another backend."""

    queues: Queues

    def why_unavailable(self) -> str:
        """Tell why a write would not be taken by the backend now; empty if it would, as far as is known."""


class Sending:
    """Sends what waits in the queues of one sender, as soon as that may be.

    :ivar companions: who may have to catch up, if requests here are smaller.
    :ivar flows: whether requests may be sent: there is no trouble, no pause and no end.
    :ivar closed: why nothing is sent any more; None while that is not so.
    :ivar paused: whether an operator wants nothing to be sent.
    :ivar shares: whether other processes deliver to the backend, too, one at a time.
    :ivar stands_by: whether another one does now.
    :ivar leaves: whether nothing more is to be sent, for another process goes on.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: SenderSettings,
        backlog: Backlog,
        requests: Requests,
        clients: Clients,
        *,
        jitter: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.backlog = backlog
        self.queues = Queues(keep=backlog.keeps)
        self.requests = requests
        self.clients = clients
        self.back_off = BackOff(reactor, jitter, settings.max_delay)
        self.timers = Timers(reactor)
        self.drain = Drain()
        self.order = ChangeOrder(self.queues, backlog, self.timers, self._go_on_behind_changes)
        self.order.rename(settings.listener, settings.name)
        self.companions: Sequence[Companion] = ()
        self.flows = True
        self.paused = self.shares = self.stands_by = self.leaves = False
        self.closed: BackendFailure | None = None
        self._is_looking = False  # soon, whether a change may be sent
        self._reactor = reactor
        self._wake: IDelayedCall | None = None

    @property
    def name(self) -> str:
        """The backend's."""
        return self.settings.name

    @property
    def is_closed(self) -> bool:
        """Whether nothing is sent any more."""
        return self.closed is not None

    def is_kept(self, entry: Entry) -> bool:
        """Tell whether a write that fails stays in its place."""
        return self.backlog.keeps and entry.fate.number > 0

    # -- sending

    def send_waiting(self, queue: DestinationQueue) -> None:
        """Send what waits in a queue, as far as that may be."""
        while True:
            self._skip_struck(queue)
            if not self.flows or not queue.waiting or queue.is_held:
                break
            if len(queue.in_flight) >= self.settings.max_in_flight:
                break
            room = self.settings.max_batch
            if queue.size > room and self._has_a_lead():
                room //= 2
            if self.queues.changes is not None:
                room = self.order.room(queue, room)
                if not room:
                    break
            self._send(queue, room)
        self.tidy(queue)

    def _has_a_lead(self) -> bool:
        """Tell whether another backend is somewhat behind, and not so much that there is no use in waiting.

        Clients write on as soon as one backend has answered. Where that keeps the relay, or the machine, busy, nothing
        but larger requests lets the others catch up.
        """
        own = self.queues.memory.size
        return any(
            own + _LEAD < each.queues.memory.size < _HOPELESS and not each.why_unavailable() for each in self.companions
        )

    def _skip_struck(self, queue: DestinationQueue) -> bool:
        struck = queue.skip_struck()
        for entry in struck:
            self.clients.release(entry)
        return bool(struck)

    def _send(self, queue: DestinationQueue, max_bytes: int) -> None:
        """Send what has waited longest in a queue."""
        taken, struck = queue.take(max_bytes)
        self.clients.sent(taken)
        for entry in struck:
            self.clients.release(entry)
        self.requests.send(queue, taken)

    def go_on(self, queue: DestinationQueue) -> None:
        """Send what has come into a queue."""
        if queue.is_changes:
            for entry in queue.waiting:
                self.order.note(entry)
        self.send_waiting(queue)
        self.probe()
        self.landed()

    def tidy(self, queue: DestinationQueue) -> None:
        """Do whatever the state of a queue asks for, and forget it if it has no work."""
        if self.queues.has(queue):  # else somebody speaks of one that has ended
            self.backlog.tidy(queue)
            if self.queues.changes is not None and self.closed is None:
                self._look_at_changes()
                if queue.is_changes and self.order.is_busy:
                    return  # it stays until it is kept that the last change is passed
            if queue.is_idle and self.queues.has(queue) and self.backlog.has_done(queue):
                self.queues.forget(queue)

    # -- changes

    def _look_at_changes(self) -> None:
        """Let go on what is behind a change that is passed, and in a moment the next change, if it may be sent now."""
        self.order.look()
        changes = self.queues.changes
        if changes is not None and changes.waiting and self.flows and not (changes.in_flight or self._is_looking):
            self._is_looking = True
            self.timers.call_later(0.0, self._send_change)

    def _send_change(self) -> None:
        changes = self.queues.changes
        if changes is not None:
            self.send_waiting(changes)
        self._is_looking = False

    def _go_on_behind_changes(self) -> None:
        for queue in self.queues:
            self.send_waiting(queue)
        self.probe()
        self.landed()

    def resumed(self, queue: DestinationQueue) -> None:
        """Send what another process has left in a queue."""
        if queue.is_changes:
            self.order.unsure = True
        self.tidy(queue)

    def lost(self, entry: Entry) -> None:
        """Note that the backend will not get this."""
        if entry.write.destination.kind == STATEMENT:
            self.order.lost(entry)

    # -- in trouble

    def probe(self) -> None:
        """Send the one request that may find the backend well again, now or when it is time."""
        if self.back_off.trouble is None or self._rests or self.closed is not None:
            return
        changes = self.queues.changes
        if self.requests.in_flight > (changes is not None and len(changes.in_flight)):  # a change may take hours
            return
        due = self.back_off.probe_time(clients_wait=not self.backlog.keeps or len(self.clients) > 0)
        if self._wake is not None:
            if self._wake.getTime() <= due:
                return
            self._wake.cancel()
            self._wake = None
        delay = due - self._reactor.seconds()
        if delay <= 0:
            self._send_probe()
        elif self.queues.sendable(self.order.may_send):
            self._wake = self._reactor.callLater(delay, self._woken)

    def _send_probe(self) -> None:
        for each in self.queues:
            if self._skip_struck(each):
                self.tidy(each)
        queues = self.queues.sendable(self.order.may_send)
        if queues:  # one write shows how the backend is; what is not kept cannot wait for that
            queue = min(queues, key=DestinationQueue.first_waiting)
            room = 0 if self.backlog.keeps else self.settings.max_batch
            self._send(queue, self.order.room(queue, room) if room else 0)

    def _woken(self) -> None:
        self._wake = None
        self.probe()

    def _look_whether_it_flows(self) -> None:
        self.flows = self.back_off.trouble is None and self.closed is None and not self._rests

    @property
    def _rests(self) -> bool:
        return self.paused or self.stands_by or self.leaves

    # -- the operator, and the end

    def set_paused(self, *, paused: bool) -> None:
        """Send nothing until further notice, or go on."""
        self.paused = paused
        self._look_whether_it_flows()
        if paused:
            for queue in self.queues:
                self.backlog.trim(queue)
        else:
            self._look_again()

    def _look_again(self) -> None:
        self.probe()
        for queue in self.queues:
            self.send_waiting(queue)

    def landed(self) -> None:
        """Tell who waits for the end if nothing is left that a stop should wait for: memory, but not a journal."""
        if self.drain:
            is_busy = self.requests.in_flight or self.clients if self.backlog.outlives else self.queues
            if not (self.requests.in_flight if self.leaves else is_busy):
                self.drain.fire()
