"""The sender to one backend: it takes writes, and tells how the backend is."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from weakref import WeakSet

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import REMOTE_WRITE, Reply, Write
from influxrelay.delivery.backend import Backend
from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.connection_pool import Gate
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.dispatcher import Dispatcher
from influxrelay.delivery.fate import Fate, ResentFate
from influxrelay.delivery.responses import NOT_READY, excerpt
from influxrelay.delivery.settings import SenderSettings
from influxrelay.delivery.status import BackendStatus
from influxrelay.journal.interface import Positions
from influxrelay.journal.shared_log import Elsewhere
from influxrelay.lineprotocol.filters import Filter
from influxrelay.remotewrite.headers import is_version_2

_TICK = 0.02  # seconds between two looks at a barrier
STATES = ("up", "trouble", "paused", "behind")


class Sender:
    """Sends the writes of each destination in order, one request at a time; what waits meanwhile travels as the next.

    :param jitter: returns a number in [0, 1).
    :ivar writes: how many were given to this sender.
    :ivar backlog: what becomes of the writes that the backend does not take.
    :ivar queues: what is in flight or waits, by destination.
    :ivar clients: who waits, and how many writes have failed.
    :ivar requests: how many were sent, and what became of them.
    :ivar status: what is wrong with the backend.
    """

    def __init__(
        self,
        backend: Backend,
        reactor: IReactorTime,
        settings: SenderSettings,
        backlog: Backlog | None = None,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.writes = 0
        self.backlog = Backlog() if backlog is None else backlog
        self._reactor = reactor
        self._dispatcher = dispatcher = Dispatcher(backend, reactor, settings, self.backlog, jitter)
        self.queues = dispatcher.queues
        self.clients = dispatcher.clients
        self.requests = dispatcher.requests
        self.status = BackendStatus(dispatcher.requests, dispatcher.back_off)
        self._gathered: dict[DestinationQueue, None] = {}
        self._resent: WeakSet[ResentFate] = WeakSet()
        self._look_elsewhere: Callable[[], Elsewhere] = Elsewhere

    @property
    def settings(self) -> SenderSettings:
        """How it works now."""
        return self._dispatcher.settings

    @property
    def name(self) -> str:
        """The backend's."""
        return self._dispatcher.settings.name

    @property
    def backend(self) -> Backend:
        """The transport by which the next request goes."""
        return self.requests.backend

    @property
    def filter(self) -> Filter | None:
        """What the backend takes; None for everything. Whoever submits writes applies it."""
        return self._dispatcher.settings.filter

    @property
    def keeps(self) -> bool:
        """Whether what the backend does not take is kept for it."""
        return self.backlog.keeps

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of writes that the backend takes; whoever submits writes sees to it."""
        return self._dispatcher.settings.kinds

    @property
    def refused(self) -> Counter[tuple[str, str]]:
        """How many acknowledged writes the backend has refused for good, by what that means and by reason."""
        return self._dispatcher.refused

    @property
    def change_outcomes(self) -> Counter[str]:
        """How often the backend has executed, refused or missed a change."""
        return self._dispatcher.order.outcomes

    @property
    def paused(self) -> bool:
        """Whether an operator wants nothing to be sent."""
        elsewhere = self.elsewhere
        return self._dispatcher.paused if elsewhere is None else elsewhere.paused

    # -- writes

    def submit(self, write: Write, fate: Fate) -> bool:
        """Take a write; the writes of one destination are sent in the order of these calls.

        Its fate is told the outcome once: the backend's 2xx or 4xx, or a failure: a 5xx, no answer within the backend's
        timeout, too much waiting already, a closed sender.

        :return: whether the write is on its way to the backend, or waits for that.
        """
        self.writes += 1
        entry = Entry(write, fate)
        queues, dispatcher = self.queues, self._dispatcher
        queue = queues.get(write.destination)
        fits = queues.memory.size + entry.size <= self.backlog.limit
        if queue is None:
            queue = queues.open(write.destination)
            fits = fits or not self.requests.in_flight  # a single write may have any size
        waits = not dispatcher.flows or queue.is_behind or queue.missing is not None or queues.changes is not None
        if waits or not fits:
            return self._wait(queue, entry)
        queue.last_number = fate.number or queue.last_number
        if not queue.waiting and len(queue.in_flight) < dispatcher.settings.max_in_flight:
            self.requests.send(queue, queue.send(entry))
        else:
            queue.add(entry)
            self.clients.wait(entry)
        return True

    def gather(self, write: Write, fate: Fate) -> None:
        """Take a write as :meth:`submit` does, and send it together with others, by :meth:`send_gathered`."""
        self.writes += 1
        entry, dispatcher = Entry(write, fate), self._dispatcher
        queue = self.queues.open(write.destination)
        fits = self.queues.memory.size + entry.size <= self.backlog.limit or not self.requests.in_flight
        waits = not dispatcher.flows or queue.is_behind or queue.missing is not None or self.queues.changes is not None
        if waits or not fits:
            self._wait(queue, entry)
            return
        queue.last_number = fate.number or queue.last_number
        queue.add(entry)
        self.clients.wait(entry)
        self._gathered[queue] = None

    def send_gathered(self) -> None:
        """Send what was gathered, as far as that may be."""
        gathered, self._gathered = self._gathered, {}
        for queue in gathered:
            self._dispatcher.send_waiting(queue)

    def resend(self, write: Write) -> Deferred[Reply]:
        """Send a write once more, in the order of its destination; it is kept nowhere if that fails.

        :return: fires with the backend's 2xx or 4xx; fails with :class:`BackendFailure`.
        """
        if write.destination.kind == REMOTE_WRITE and is_version_2(write.query):
            write = attrs.evolve(write, mergeable=False)
        fate = ResentFate(self._reactor.seconds())
        elsewhere = self.elsewhere
        if elsewhere is not None:
            fate.failed(self.name, BackendFailure("elsewhere", delivered_elsewhere(elsewhere)))
        elif self._dispatcher.order.first_for(write.destination.database) < math.inf:
            fate.failed(
                self.name, BackendFailure("behind", "a change waits for it; send it again when that is executed")
            )
        else:
            self._resent.add(fate)
            self.submit(write, fate)
        return fate.outcome

    def _wait(self, queue: DestinationQueue, entry: Entry) -> bool:
        """Let a write wait where it cannot just join its queue."""
        dispatcher = self._dispatcher
        problem = self._why_unavailable(entry) or self.backlog.place(queue, entry)
        if problem is not None:
            if problem.reason in ("overflow", "full"):
                dispatcher.failure_log.failed(problem.reason, problem.detail)
            self.clients.fail([entry], problem)
            dispatcher.tidy(queue)
            return False
        queue.last_number = entry.fate.number or queue.last_number
        if queue.is_changes:
            dispatcher.order.note(entry)
        missing, creates_databases = queue.missing, dispatcher.settings.create_databases
        if missing is not None and dispatcher.is_kept(entry) and (missing.refusals > 1 or not creates_databases):
            detail = f"answered {excerpt(missing.reply)}"  # the write waits with the others, its client need not
            self.clients.fail([entry], BackendFailure(NOT_READY, detail, missing.reply))
        elif entry.waits:
            self.clients.wait(entry)
        dispatcher.send_waiting(queue)
        dispatcher.probe()
        return True

    def _why_unavailable(self, entry: Entry) -> BackendFailure | None:
        """Tell why a write cannot wait, whatever the room."""
        dispatcher = self._dispatcher
        if dispatcher.closed is not None:
            self.backlog.stopped(entry)
            return dispatcher.closed
        trouble, deadline = self.status.trouble, entry.fate.submitted + self.backend.timeout
        if trouble is None or dispatcher.is_kept(entry) or dispatcher.back_off.not_before <= deadline:
            return None
        self.backlog.lost(entry, trouble.reason)
        return trouble  # its Retry-After is later than this write can wait

    def execute_changes(self) -> None:
        """Send the next change if it may be sent now: it is in the journal, or never will be."""
        if self.queues.changes is not None:
            self._dispatcher.go_on(self.queues.changes)

    # -- how the backend is

    def pinged(self, problem: BackendFailure | None) -> None:
        """Take what a ping has told; it counts until the next write comes back.

        A failure does not keep writes back: each tells better itself. A success ends a trouble of the connection, but
        with writes that wait it is a probe that decides; and any trouble after which nothing waits for long enough.
        """
        dispatcher, trouble = self._dispatcher, self.status.trouble
        self.status.note_ping(problem, dispatcher.settings.listener, self.name)
        if problem is not None and self.queues.changes is not None:
            self.requests.abort_changes()  # they have no limit of time
        if problem is not None or trouble is None or self.requests.in_flight:
            return
        if any(queue.waiting or queue.is_behind for queue in self.queues):
            if trouble.reply is None:
                dispatcher.back_off.hasten()
                dispatcher.probe()
        elif dispatcher.back_off.is_forgiven():
            dispatcher.recover()

    def why_unavailable(self) -> str:
        """Tell why a write would not be taken by the backend now; empty if it would, as far as is known."""
        if self._dispatcher.closed is not None:
            return self._dispatcher.closed.detail
        problem = self.status.problem
        if problem is not None:
            return f"down: {problem.reason}: {problem.detail.rstrip('.')}"
        return "paused by an operator" if self.paused else ""

    @property
    def state(self) -> str:
        """One of :data:`STATES`; what an operator has paused may be in trouble, too."""
        if self.paused:
            return "paused"
        if self.status.problem is not None:
            return "trouble"
        return "behind" if self.is_behind or self.has_a_change else "up"

    @property
    def is_behind(self) -> bool:
        """Whether something waits that is not just the next request."""
        elsewhere = self.elsewhere
        return self.queues.have_a_backlog() if elsewhere is None else elsewhere.is_behind

    @property
    def has_a_change(self) -> bool:
        """Whether a change waits, or is under way, of which a client was told that it is executed, or will be."""
        elsewhere = self.elsewhere
        return self.queues.have_a_change() if elsewhere is None else elsewhere.is_changing

    def barrier(self) -> Callable[[], bool]:
        """Return what tells whether the backend is done with all that was submitted until now."""
        targets = [(queue, queue.last_number) for queue in self.queues]
        began = self._reactor.seconds()

        def is_past() -> bool:
            elsewhere = self.elsewhere
            if elsewhere is not None:
                return elsewhere.age is None or elsewhere.age < self._reactor.seconds() - began
            while targets:
                queue, number = targets[-1]
                if self.queues.has(queue) and self.backlog.passed(queue) < number:
                    return False
                targets.pop()
            return True

        return is_past

    async def catches_up(self, seconds: float) -> bool:
        """Return whether, in this time, the backend gets done with all that was submitted until now."""
        is_past, deadline = self.barrier(), self._reactor.seconds() + seconds
        while not is_past():
            if self._dispatcher.closed is not None or self._reactor.seconds() >= deadline:
                return False
            await deferLater(self._reactor, _TICK)
        return True

    # -- where several processes deliver, one at a time

    @property
    def stands_by(self) -> bool:
        """Whether another process delivers to the backend, or will."""
        return self._dispatcher.stands_by

    def guard(self, gate: Gate) -> None:
        """Send no request if this says so directly before its bytes, and stand down then."""
        self._dispatcher.shares = True
        self.requests.guard(gate)

    def look_elsewhere(self, look: Callable[[], Elsewhere]) -> None:
        """Let this tell how the backend is while the sender stands by."""
        self._look_elsewhere = look

    @property
    def elsewhere(self) -> Elsewhere | None:
        """How the backend is that another process delivers to; None while this one does."""
        return self._look_elsewhere() if self._dispatcher.stands_by else None

    def stand_down(self) -> None:
        """Take nothing until :meth:`stand_up`; another process goes on with all that waits, but for what was resent."""
        for fate in list(self._resent):
            fate.failed(self.name, BackendFailure("elsewhere", "another relay is about to deliver to it"))
        self._dispatcher.stand_down()

    def stand_up(self, positions: Positions, last_number: int) -> None:
        """Deliver what waits at these positions up to a number, and then what is submitted."""
        self._dispatcher.stand_up(positions, last_number)

    def go_along_with(self, senders: Sequence[Sender]) -> None:
        """Let the others of these, which get the same writes, catch up if they are somewhat behind."""
        self._dispatcher.companions = [each for each in senders if each is not self]

    # -- the operator, and another configuration

    def pause(self) -> None:
        """Send nothing more, until :meth:`unpause`; what is kept waits."""
        self._dispatcher.set_paused(paused=True)

    def unpause(self) -> None:
        """Go on."""
        self._dispatcher.set_paused(paused=False)

    def give_up(self, upto: float = math.inf) -> None:
        """Forget what waits; what is in flight goes on.

        :param upto: the number of the last write to forget.
        """
        problem = BackendFailure("operator", "an operator has dropped the queue")
        for queue in self.queues:
            entries = queue.clear()
            for entry in entries:
                if entry.fate.number > upto:
                    queue.add(entry)
            gone = [entry for entry in entries if entry.fate.number <= upto]
            self.backlog.give_up(queue, gone, upto)
            self.clients.fail(gone, problem)
            self._dispatcher.tidy(queue)

    def reconfigure(self, backend: Backend, settings: SenderSettings) -> None:
        """Go on with other settings, and perhaps by another transport; one in trouble is asked at once: it may work."""
        self.requests.go_by(backend)
        self._dispatcher.reconfigure(settings)

    # -- the end

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nothing waits."""
        return len(self.queues) == 0

    def drained(self) -> Deferred[None]:
        """Fire when nothing is left that a stop should wait for: a journal can wait, memory cannot.

        Where other processes deliver, too, nothing more is sent, and only what is in flight is waited for.
        """
        if self._dispatcher.shares:
            self._dispatcher.leave()
        waiter = self._dispatcher.drain.wait()
        self._dispatcher.landed()
        return waiter

    def close(self) -> None:
        """Take no more writes and fail what waits; what is in flight is the transport's to end."""
        self._dispatcher.close()

    def abort(self) -> None:
        """Fail what is in flight."""
        self.requests.abort()


def delivered_elsewhere(elsewhere: Elsewhere) -> str:
    """Say who delivers to a backend to which this process does not."""
    if not elsewhere.deliverer:
        return "no relay delivers to it at the moment"
    return f"relay {elsewhere.deliverer} delivers to it"
