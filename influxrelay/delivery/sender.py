"""The sender to one backend: its queues, its state, its bounds."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.histogram import Histogram
from influxrelay.core.log_throttle import FailureLog, Throttle
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.backlog import Fate
from influxrelay.delivery.destination_queue import DestinationQueue, Entry, Tally, body_parts
from influxrelay.delivery.responses import Verdict, excerpt, judge, retry_after
from influxrelay.journal.records import Drop, count_drop
from influxrelay.lineprotocol.filters import Filter

PROBE_GAP = 0.1  # seconds that a backend in trouble is left alone at the least
STATES = ("up", "trouble", "paused", "behind")
FORGIVENESS = 10.0  # seconds after which one that said 5xx or "not now", and answers pings, may be asked again


class Backend(Protocol):
    """The transport to one backend: it sends, and knows nothing of order or retry."""

    name: str
    timeout: float

    @property
    def latency(self) -> Histogram:
        """Seconds from a write's request to its complete answer, whatever that says."""

    def post(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        """Send a body to where ``write`` goes: the parts, one behind the other.

        The Deferred fires within :attr:`timeout` seconds with an answer of any final status, or fails with
        :class:`BackendFailure` where there was none.
        """

    def create_database(self, write: Write) -> Deferred[Reply]:
        """Create the database that ``write`` goes to; fires and fails as :meth:`post` does."""

    def ping(self) -> Deferred[Reply]:
        """Ask whether the server lives; fires and fails as :meth:`post` does, within a time of its own."""

    def abort(self) -> None:
        """Fail what is in flight."""

    def close(self) -> Deferred[None]:
        """Close the connections that are idle."""

    def does_the_same(self, other: Backend) -> bool:
        """Tell whether another transport sends the same in the same way, whatever its name."""

    def retire(self) -> None:
        """Close each connection as soon as it is idle: there will be no more requests."""

    def is_busy(self) -> bool:
        """Tell whether a request is under way."""


class Sender:
    """All queues to one backend, and what they share: its state and its bounds.

    After a failure that is the backend's own (no answer, 5xx, 408, 425, 429) the sender is in *trouble*: one request at
    a time, from the queue that has waited longest, probes the backend, and none sooner than :data:`PROBE_GAP` after the
    last failure or than its ``Retry-After``. Any other answer opens all queues again.

    A write that fails is gone for this backend; :class:`influxrelay.delivery.buffered_sender.BufferedSender` keeps it.

    Counters are plain attributes, read by whoever reports them (:mod:`influxrelay.operations.metrics`).

    :param max_batch: bytes that a merged request may have; a single larger write travels alone.
    :param max_in_flight: requests under way per destination; more than one gives up the order.
    :param max_waiting: bytes that may wait in memory for this backend; a write beyond it fails for this backend.
    :param jitter: returns a number in [0, 1).
    :ivar writes: how many were given to this sender.
    :ivar failures: how many of them failed for this backend while their clients waited, by reason.
    :ivar requests: how many were sent.
    :ivar sent: how many writes travelled in them; one that is sent again counts again.
    :ivar merged: how many of those did not travel alone.
    :ivar failed_requests: how many requests met with the backend's own failure, by reason.
    :ivar filter: what the backend takes; None for everything. It is applied by whoever submits writes, and to what is
        read from the journal when it is read.
    """

    _log = Logger()
    filter: Filter | None = None

    def __init__(
        self,
        backend: Backend,
        reactor: IReactorTime,
        *,
        relay: str,
        max_batch: int = 512 * 1024,
        max_in_flight: int = 1,
        max_waiting: int = 32 * 1024 * 1024,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.backend = backend
        self._retired: list[Backend] = []  # that still have something in flight
        self.name = backend.name
        self.requests = 0
        self.sent = 0
        self.merged = 0
        self.writes = 0
        self.failures: Counter[str] = Counter()
        self.failed_requests: Counter[str] = Counter()
        self.trouble: BackendFailure | None = None
        self._relay = relay
        self._reactor = reactor
        self._max_batch = max_batch
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._jitter = jitter
        self._queues: dict[Destination, DestinationQueue] = {}
        self._tally = Tally()
        self._in_flight = 0
        self._refused_size = 0  # of the last write that had to wait, if there was no room for it
        self._not_before = 0.0
        self._ping_problem: BackendFailure | None = None
        self._pinged_at = -1
        self._drops: dict[str, Drop] = {}
        self._wake: IDelayedCall | None = None
        self._expiry: IDelayedCall | None = None
        self._closed: BackendFailure | None = None
        self._drained: list[Deferred[None]] = []
        self._failure_log = FailureLog(relay, backend.name)
        self._refusals = Throttle(reactor)

    # -- for each write

    def submit(self, write: Write, fate: Fate | None = None) -> Deferred[Reply]:  # noqa: ARG002 (for queues)
        """Take a write; the writes of one destination are sent in the order of these calls.

        :param fate: of a write that may be kept if this sender has a queue; its number is higher than those before it.
        :return: fires with the backend's 2xx or 4xx; fails with :class:`BackendFailure` for all else: a 5xx, no answer
            within the backend's timeout, too much waiting already, a closed sender.
        """
        return self._submit(Entry(write, self._reactor.seconds() + self.backend.timeout))

    def _submit(self, entry: Entry) -> Deferred[Reply]:
        self.writes += 1
        answer = entry.answer = Deferred()
        destination = entry.write.destination
        queue = self._queues.get(destination)
        if self._may_send_at_once(queue):
            if self._closed is not None:
                self._fail([entry], self._closed)
            else:
                queue = queue or self._new_queue(destination)
                queue.note(entry)
                self._send(queue, [entry])
            return answer
        problem = self._obstacle(entry)
        if problem is not None:
            self._fail([entry], problem)
        else:
            self._let_wait(queue or self._new_queue(destination), entry)
            if self._expiry is None:
                self._expiry = self._reactor.callLater(self.backend.timeout, self._expire)
            if self.trouble is not None:
                self._probe()
        return answer

    def _may_send_at_once(self, queue: DestinationQueue | None) -> bool:
        return self.trouble is None and (queue is None or (not queue.waiting and self._has_room(queue)))

    def _has_room(self, queue: DestinationQueue) -> bool:
        return self.trouble is None and len(queue.flying) < self._max_in_flight

    def _obstacle(self, entry: Entry) -> BackendFailure | None:
        """Tell why a write cannot even wait."""
        if self._closed is not None:
            return self._closed
        self._refused_size = 0
        if self._tally.bytes + len(entry.write.body) > self._max_waiting:
            self._refused_size = len(entry.write.body)
            problem = BackendFailure("overflow", f"{self._tally.bytes} bytes are waiting for it already")
            self._failure_log.failed(problem.reason, problem.detail)
            return problem
        if self.trouble is not None and self._not_before > entry.deadline:
            return self.trouble  # its Retry-After is later than this write can wait
        return None

    def _let_wait(self, queue: DestinationQueue, entry: Entry) -> None:
        queue.add(entry)

    def _new_queue(self, destination: Destination) -> DestinationQueue:
        queue = self._queues[destination] = DestinationQueue(destination, self._tally)
        return queue

    def _fail(self, entries: Iterable[Entry], problem: BackendFailure) -> None:
        """Tell the clients of these, so many as still wait."""
        for entry in entries:
            answer = self._release(entry)
            if answer is not None:
                self.failures[problem.reason] += 1
                answer.errback(Failure(problem))

    def _tell(self, entry: Entry, reply: Reply) -> None:
        answer = self._release(entry)
        if answer is not None:
            answer.callback(reply)

    def _release(self, entry: Entry) -> Deferred[Reply] | None:
        """Return who listens for the answer; nobody does so twice."""
        answer, entry.answer = entry.answer, None
        return answer

    # -- for each request

    def _send(self, queue: DestinationQueue, entries: list[Entry]) -> None:
        queue.flying.append(entries)
        self._in_flight += 1
        self.requests += 1
        write, count = entries[0].write, len(entries)
        self.sent += count
        if count == 1:
            parts: Sequence[bytes] = (write.body,)
        else:
            self.merged += count
            parts = body_parts(entries)
        try:
            sent = self.backend.post(write, parts)
        except Exception:  # noqa: BLE001 (whatever it is, it is this backend's)
            sent = fail()
        sent.addCallbacks(self._answered, self._unanswered, callbackArgs=(queue, entries), errbackArgs=(queue, entries))
        sent.addErrback(self._bug)
        sent.addCallback(self._tell_drained)

    def _answered(self, reply: Reply, queue: DestinationQueue, entries: list[Entry]) -> None:
        verdict = judge(reply)
        if verdict is Verdict.TAKEN:
            self._landed(queue, entries)
            for entry in entries:
                self._tell(entry, reply)
        elif verdict is Verdict.NOT_NOW:
            problem = BackendFailure(str(reply.status), f"answered {excerpt(reply)}", reply)
            self._broke(problem, queue, entries, retry_after(reply))
        elif len(entries) > 1:  # one bad write must not speak for the others
            self._unmerge(queue, entries)
        else:
            self._refused(reply, queue, entries, at_once=verdict is Verdict.REFUSED)

    def _unanswered(self, failure: Failure, queue: DestinationQueue, entries: list[Entry]) -> None:
        problem = failure.value
        if not isinstance(problem, BackendFailure):
            self._bug(failure)
            problem = BackendFailure("error", repr(problem))
        self._broke(problem, queue, entries, 0.0)

    def _bug(self, failure: Failure) -> None:
        self._log.failure("{relay}: backend {backend}", failure, relay=self._relay, backend=self.name)

    def _unmerge(self, queue: DestinationQueue, entries: list[Entry]) -> None:
        if self._closed is not None:
            self._landed(queue, entries)
            self._fail(entries, self._closed)
            return
        queue.put_back(entries, alone=True)
        self._fail_expired()
        self._landed(queue, entries)

    def _refused(self, reply: Reply, queue: DestinationQueue, entries: list[Entry], *, at_once: bool) -> None:
        """Tell the client of one write that the backend will never take it."""
        self._landed(queue, entries)
        count = self._refusals.admit()
        if count:
            self._log.warn(
                "{relay}: backend {backend} refused {count} write(s), the last with {reason}: {detail}",
                relay=self._relay,
                backend=self.name,
                count=count,
                reason=reply.status,
                detail=excerpt(reply),
            )
        if at_once:
            self.failures[str(reply.status)] += 1
            self._tell(entries[0], reply)
        else:
            self._fail(entries, BackendFailure(str(reply.status), f"answered {excerpt(reply)}", reply))

    def _landed(self, queue: DestinationQueue, entries: list[Entry]) -> None:
        """Note that the backend lives: send what waits, before any client is told."""
        self._take_off(queue, entries)
        if not self._recover():
            self._send_waiting(queue)

    def _take_off(self, queue: DestinationQueue, entries: list[Entry]) -> None:
        queue.flying.remove(entries)
        self._in_flight -= 1

    def _recover(self) -> bool:
        if self.trouble is None:
            return False
        self.trouble, self._not_before = None, 0.0
        self._failure_log.recovered()
        for queue in list(self._queues.values()):
            self._send_waiting(queue)
        return True

    def _send_waiting(self, queue: DestinationQueue) -> None:
        while queue.waiting and self._has_room(queue):
            self._send(queue, queue.take(self._max_batch))
        self._tidy(queue)

    def _tidy(self, queue: DestinationQueue) -> None:
        """Forget a queue without work."""
        if queue.idle and self._queues.get(queue.destination) is queue:
            del self._queues[queue.destination]

    # -- while there is trouble

    def _broke(self, problem: BackendFailure, queue: DestinationQueue, entries: list[Entry], pause: float) -> None:
        self._take_off(queue, entries)
        self.failed_requests[problem.reason] += 1
        self._enter_trouble(problem, pause)
        hasty = [*entries, *self._impatient()]
        for each in list(self._queues.values()):
            hasty += each.expire(math.nextafter(self._not_before, 0.0))  # they cannot wait for the next probe
        self._fail(hasty, problem)
        for each in list(self._queues.values()):
            self._tidy(each)
        self._probe()

    def _impatient(self) -> list[Entry]:
        """Return who else is told of a failure."""
        return []

    def _enter_trouble(self, problem: BackendFailure, pause: float) -> None:
        self.trouble = problem
        pause = max(pause, PROBE_GAP * (1 + self._jitter() / 2))
        self._not_before = max(self._not_before, self._reactor.seconds() + pause)
        self._failure_log.failed(problem.reason, problem.detail)

    def _longest_waiting(self) -> DestinationQueue | None:
        waiting = (queue for queue in self._queues.values() if queue.waiting)
        return min(waiting, key=lambda queue: queue.waiting[0].deadline, default=None)

    def _probe_time(self) -> float:
        """Return when the next probe may go, on the reactor's clock."""
        return self._not_before

    def _probe(self) -> None:
        """Send the one request that may find the backend well again, now or when it is time."""
        if self._in_flight or self.trouble is None or self._closed is not None:
            return
        queue = self._longest_waiting()
        if queue is None:
            return
        due = self._probe_time()
        if self._wake is not None:
            if self._wake.getTime() <= due:
                return
            self._wake.cancel()
            self._wake = None
        delay = due - self._reactor.seconds()
        if delay > 0:
            self._wake = self._reactor.callLater(delay, self._woken)
        else:
            self._send_probe(queue)

    def _send_probe(self, queue: DestinationQueue) -> None:
        self._send(queue, queue.take(self._max_batch))

    def _woken(self) -> None:
        self._wake = None
        self._probe()

    def _fail_expired(self) -> None:
        """Look again at who has waited for too long: what was in flight waits again."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expire()

    def _expire(self) -> None:
        """Fail what has waited for longer than the backend's timeout."""
        self._expiry = None
        now = self._reactor.seconds()
        expired = self._collect_expired(now)
        next_one = self._next_deadline()
        if next_one < math.inf:  # before any client is told, who may submit again
            self._expiry = self._reactor.callLater(max(0.0, next_one - now), self._expire)
        if expired:
            problem = BackendFailure("timeout", f"waited {self.backend.timeout:g} s behind other writes")
            self._failure_log.failed(problem.reason, problem.detail)
            self._fail(expired, problem)
            for queue in list(self._queues.values()):
                self._tidy(queue)
            self._tell_drained()

    def _collect_expired(self, now: float) -> list[Entry]:
        return [entry for queue in self._queues.values() for entry in queue.expire(now)]

    def _next_deadline(self) -> float:
        return min((queue.waiting[0].deadline for queue in self._queues.values() if queue.waiting), default=math.inf)

    # -- pings

    @property
    def answers(self) -> int:
        """How many requests have come back, well or not."""
        return self.requests - self._in_flight

    @property
    def problem(self) -> BackendFailure | None:
        """What is wrong with the backend: its trouble with writes, else what the last ping says if that is news."""
        return self.trouble or (self._ping_problem if self._pinged_at == self.answers else None)

    @property
    def is_known(self) -> bool:
        """Whether the backend has been heard of: an answer to a write or to a ping, or a failure."""
        return self._pinged_at >= 0 or self.answers > 0

    def pinged(self, problem: BackendFailure | None) -> None:
        """Take what a ping has told; it counts until the next write comes back.

        A failure does not keep writes back: each tells better itself. A success ends a trouble of the connection, but
        with writes that wait it is a probe that decides; and any trouble after which nothing waits for long enough.
        """
        self._log_ping(problem)
        self._ping_problem, self._pinged_at = problem, self.answers
        trouble = self.trouble
        if problem is not None or trouble is None or self._in_flight:
            return
        if any(queue.waiting or queue.behind for queue in self._queues.values()):
            if trouble.reply is None:
                self._hasten()
        elif trouble.reply is None or self._reactor.seconds() >= self._not_before + FORGIVENESS:
            self._recover()

    def _log_ping(self, problem: BackendFailure | None) -> None:
        """Say so when pings begin to fail, or fail for another reason, and when they succeed again."""
        before = self._ping_problem
        fields = {"relay": self._relay, "backend": self.name}
        if problem is None and before is not None:
            self._log.info("{relay}: no more trouble with the ping of backend {backend}", **fields)
        elif problem is not None and (before is None or before.reason != problem.reason):
            self._log.warn(
                "{relay}: the ping of backend {backend} failed: {reason}: {detail}",
                reason=problem.reason,
                detail=problem.detail,
                **fields,
            )

    def _hasten(self) -> None:
        """Probe as soon as that may be."""
        self._probe()

    # -- for who asks how the backend is

    def objection(self) -> str:
        """Tell why a write would not be taken by the backend now; empty if it would, as far as is known."""
        if self._closed is not None:
            return self._closed.detail
        problem = self.problem
        return "" if problem is None else f"down: {problem.reason}: {problem.detail.rstrip('.')}"

    def miss(self, write: Write, when: float) -> None:
        """Note that the backend will not get a write that another one has taken.

        :param when: it was accepted, in seconds since the epoch.
        """
        count_drop(self._drops, self.name, "unqueued", when, len(write.body))

    def miss_change(self, when: float, size: int) -> None:
        """Note that the backend has not executed a statement that another one has."""
        count_drop(self._drops, self.name, "change", when, size)

    def losses(self) -> list[Drop]:
        """Return what the backend will not get, although it was acknowledged."""
        return list(self._drops.values())

    def forget_losses(self) -> None:
        """Count them from zero."""
        self._drops.clear()

    @property
    def is_full(self) -> bool:
        """Whether there is still no room for the last write for which there was none."""
        return self._refused_size > 0 and self._tally.bytes + self._refused_size > self._max_waiting

    def barrier(self) -> Callable[[], bool]:
        """Return what tells whether the backend has answered, or failed, all that was submitted until now."""
        entries = [entry for queue in self._queues.values() for entry in queue.entries()]

        def is_past() -> bool:
            while entries and entries[-1].answer is None:
                entries.pop()
            return not entries

        return is_past

    def outstanding(self) -> tuple[int, int, float | None]:
        """Return how many writes are under way or wait in memory, their bytes, and when the oldest was accepted."""
        entries = [entry for queue in self._queues.values() for entry in queue.entries()]
        times = (entry.fate.time for entry in entries if entry.fate is not None)
        return len(entries), sum(len(entry.write.body) for entry in entries), min(times, default=None)

    # -- for who watches

    @property
    def state(self) -> str:
        """One of :data:`STATES`."""
        return "up" if self.problem is None else "trouble"

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return self._in_flight

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nothing waits."""
        return not self._queues

    def waiting(self) -> tuple[int, int]:
        """Return how many writes wait in memory, and their bytes."""
        return sum(len(queue.waiting) for queue in self._queues.values()), self._tally.bytes

    # -- another configuration

    def reconfigure(
        self, backend: Backend, *, relay: str, max_batch: int, max_in_flight: int, max_waiting: int
    ) -> None:
        """Go on with other settings, and perhaps by another transport.

        What waits stays in its order. What is in flight ends where it is, and until then nothing of its destination
        follows on another transport.
        """
        if backend is not self.backend:
            self.backend.retire()
            self._retired = [each for each in (*self._retired, self.backend) if each.is_busy()]
            self.backend = backend
        self.name, self._relay = backend.name, relay
        self._failure_log.rename(relay, backend.name)
        self._max_batch, self._max_in_flight, self._max_waiting = max_batch, max_in_flight, max_waiting
        self._look_again()

    def _look_again(self) -> None:
        """Ask at once a backend that was in trouble: what was wrong with it may be what has changed."""
        self._not_before = 0.0
        self._probe()
        for queue in list(self._queues.values()):
            self._send_waiting(queue)

    # -- the end

    def _is_settled(self) -> bool:
        return not self._queues

    def _tell_drained(self, _: object = None) -> None:
        if self._drained and self._is_settled():
            drained, self._drained = self._drained, []
            for waiter in drained:
                waiter.callback(None)

    def drained(self) -> Deferred[None]:
        """Fire when nothing is in flight and nothing waits."""
        waiter: Deferred[None] = Deferred()
        self._drained.append(waiter)
        self._tell_drained()
        return waiter

    def close(self) -> None:
        """Take no more writes and fail what waits; what is in flight is the transport's to end."""
        self._closed = problem = BackendFailure("stopped", "the relay is shutting down")
        for call in (self._wake, self._expiry):
            if call is not None:
                call.cancel()
        self._wake = self._expiry = None
        for queue in list(self._queues.values()):
            self._fail(queue.clear(), problem)
            self._tidy(queue)
        self._tell_drained()

    def abort(self) -> None:
        """Fail what is in flight."""
        for backend in (self.backend, *self._retired):
            backend.abort()
