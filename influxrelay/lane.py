"""The ordered, merging road to one backend.

A :class:`Road` leads to one backend. On it runs a :class:`Lane` for each destination: one request in flight, and what
waits behind it travels merged as the next one, in the order of arrival.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.answers import Verdict, excerpt, judge, retry_after
from influxrelay.errors import BackendFailure
from influxrelay.repeats import FailureLog, Throttle
from influxrelay.write import Destination, Reply, Write

PROBE_GAP = 0.1  # seconds that a backend in trouble is left alone at the least


class Backend(Protocol):
    """The transport to one backend: it sends, and knows nothing of order or retry."""

    name: str
    timeout: float

    def post(self, write: Write, body: bytes) -> Deferred[Reply]:
        """Send ``body`` to where ``write`` goes.

        The Deferred fires within :attr:`timeout` seconds with an answer of any final status, or fails with
        :class:`BackendFailure` where there was none.
        """

    def abort(self) -> None:
        """Fail what is in flight."""

    def close(self) -> Deferred[None]:
        """Close the connections that are idle."""


class Entry:
    """A write that is not answered yet, and who listens for the answer."""

    __slots__ = ("answer", "deadline", "write")

    def __init__(self, write: Write, deadline: float) -> None:
        self.write = write
        self.answer: Deferred[Reply] = Deferred()
        self.deadline = deadline


class Lane:
    """The queue in front of one backend for one destination; it lives as long as it has work."""

    __slots__ = ("alone", "destination", "in_flight", "waiting")

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.waiting: deque[Entry] = deque()
        self.in_flight = 0
        self.alone = 0  # so many at the head were refused as one merged request: each of them goes by itself

    def take(self, max_bytes: int) -> list[Entry]:
        """Remove from the head what travels as the next request: at least one write."""
        waiting = self.waiting
        taken = [waiting.popleft()]
        write = taken[0].write
        if self.alone:
            self.alone -= 1
            return taken
        if not write.mergeable:
            return taken
        query, size = write.query, len(write.body) + 1
        while waiting:
            write = waiting[0].write
            size += len(write.body) + 1
            if size > max_bytes or not write.mergeable or write.query != query:
                break
            taken.append(waiting.popleft())
        return taken

    def put_back(self, entries: list[Entry]) -> None:
        """Return the writes of a merged request to the head, to be sent one by one."""
        self.waiting.extendleft(reversed(entries))
        self.alone += len(entries)

    def expire(self, now: float) -> list[Entry]:
        """Remove what has waited for too long."""
        expired = []
        while self.waiting and self.waiting[0].deadline <= now:
            expired.append(self.waiting.popleft())
            self.alone = max(0, self.alone - 1)
        return expired


def join(entries: list[Entry]) -> bytes:
    """Return the bodies as one, in which each ends with exactly one newline of its own or ours."""
    bodies = [entry.write.body for entry in entries]
    return b"".join([body if body.endswith(b"\n") else body + b"\n" for body in bodies])


class Road:
    """All lanes to one backend, and what they share: its state and its bounds.

    After a failure that is the backend's own (no answer, 5xx, 408, 425, 429) the road is in *trouble*: one request at a
    time, from the lane that has waited longest, probes the backend, and none sooner than :data:`PROBE_GAP` after the
    last failure or than its ``Retry-After``. Any other answer opens all lanes again.

    Counters are plain attributes, read by whoever reports them.

    :param max_batch: bytes that a merged request may have; a single larger write travels alone.
    :param max_in_flight: requests under way per destination; more than one gives up the order.
    :param max_waiting: bytes that may wait in memory for this backend; a write beyond it fails for this backend.
    :param jitter: returns a number in [0, 1).
    :ivar failures: how many writes failed for this backend, by reason.
    """

    _log = Logger()

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
        self.name = backend.name
        self.requests = 0
        self.writes = 0
        self.failures: Counter[str] = Counter()
        self._relay = relay
        self._reactor = reactor
        self._max_batch = max_batch
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._jitter = jitter
        self._lanes: dict[Destination, Lane] = {}
        self._waiting_bytes = 0
        self._in_flight = 0
        self._trouble: BackendFailure | None = None
        self._not_before = 0.0
        self._wake: IDelayedCall | None = None
        self._expiry: IDelayedCall | None = None
        self._closed: BackendFailure | None = None
        self._drained: list[Deferred[None]] = []
        self._failure_log = FailureLog(relay, backend.name)
        self._refusals = Throttle(reactor)

    # -- for each write

    def submit(self, write: Write) -> Deferred[Reply]:
        """Take a write; the writes of one destination are sent in the order of these calls.

        :return: fires with the backend's 2xx or 4xx; fails with :class:`BackendFailure` for all else: a 5xx, no answer
            within the backend's timeout, too much waiting already, a closed road.
        """
        self.writes += 1
        entry = Entry(write, self._reactor.seconds() + self.backend.timeout)
        lane = self._lanes.get(write.destination)
        if self._trouble is None and (lane is None or (lane.in_flight < self._max_in_flight and not lane.waiting)):
            if self._closed is not None:
                self._fail([entry], self._closed)
            else:
                self._send(lane or self._new_lane(write.destination), [entry])
            return entry.answer
        problem = self._obstacle(entry)
        if problem is not None:
            self._fail([entry], problem)
            return entry.answer
        (lane or self._new_lane(write.destination)).waiting.append(entry)
        self._waiting_bytes += len(write.body)
        if self._expiry is None:
            self._expiry = self._reactor.callLater(self.backend.timeout, self._expire)
        if self._trouble is not None:
            self._probe()
        return entry.answer

    def _obstacle(self, entry: Entry) -> BackendFailure | None:
        """Tell why a write cannot even wait."""
        if self._closed is not None:
            return self._closed
        if self._waiting_bytes + len(entry.write.body) > self._max_waiting:
            problem = BackendFailure("overflow", f"{self._waiting_bytes} bytes are waiting for it already")
            self._failure_log.failed(problem.reason, problem.detail)
            return problem
        if self._trouble is not None and self._not_before > entry.deadline:
            return self._trouble  # its Retry-After is later than this write can wait
        return None

    def _new_lane(self, destination: Destination) -> Lane:
        lane = self._lanes[destination] = Lane(destination)
        return lane

    def _fail(self, entries: Iterable[Entry], problem: BackendFailure) -> None:
        for entry in entries:
            self.failures[problem.reason] += 1
            entry.answer.errback(Failure(problem))

    # -- for each request

    def _send(self, lane: Lane, entries: list[Entry]) -> None:
        lane.in_flight += 1
        self._in_flight += 1
        self.requests += 1
        write = entries[0].write
        body = write.body if len(entries) == 1 else join(entries)
        try:
            sent = self.backend.post(write, body)
        except Exception:  # noqa: BLE001 (whatever it is, it is this backend's)
            sent = fail()
        sent.addCallbacks(self._answered, self._unanswered, callbackArgs=(lane, entries), errbackArgs=(lane, entries))
        sent.addErrback(self._bug)
        sent.addCallback(self._tell_drained)

    def _answered(self, reply: Reply, lane: Lane, entries: list[Entry]) -> None:
        verdict = judge(reply)
        if verdict is Verdict.TAKEN:
            self._landed(lane)
            for entry in entries:
                entry.answer.callback(reply)
        elif verdict is Verdict.NOT_NOW:
            problem = BackendFailure(str(reply.status), f"answered {excerpt(reply)}", reply)
            self._broke(problem, lane, entries, retry_after(reply))
        elif len(entries) > 1:  # one bad write must not speak for the others
            if self._closed is not None:
                self._landed(lane)
                self._fail(entries, self._closed)
                return
            lane.put_back(entries)
            self._waiting_bytes += sum(len(entry.write.body) for entry in entries)
            if self._expiry is not None:
                self._expiry.cancel()
            self._expire()
            self._landed(lane)
        else:
            self._landed(lane)
            self._refused(reply, entries[0], shown_at_once=verdict is Verdict.REFUSED)

    def _unanswered(self, failure: Failure, lane: Lane, entries: list[Entry]) -> None:
        problem = failure.value
        if not isinstance(problem, BackendFailure):
            self._bug(failure)
            problem = BackendFailure("error", repr(problem))
        self._broke(problem, lane, entries, 0.0)

    def _bug(self, failure: Failure) -> None:
        self._log.failure("{relay}: backend {backend}", failure, relay=self._relay, backend=self.name)

    def _refused(self, reply: Reply, entry: Entry, *, shown_at_once: bool) -> None:
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
        if shown_at_once:
            self.failures[str(reply.status)] += 1
            entry.answer.callback(reply)
        else:
            self._fail([entry], BackendFailure(str(reply.status), f"answered {excerpt(reply)}", reply))

    def _landed(self, lane: Lane) -> None:
        """Note that the backend lives: send what waits, before any client is told."""
        lane.in_flight -= 1
        self._in_flight -= 1
        if self._trouble is None:
            self._send_waiting(lane)
            return
        self._trouble = None
        self._not_before = 0.0
        self._failure_log.recovered()
        for each in list(self._lanes.values()):
            self._send_waiting(each)

    def _broke(self, problem: BackendFailure, lane: Lane, entries: list[Entry], pause: float) -> None:
        lane.in_flight -= 1
        self._in_flight -= 1
        self._trouble = problem
        self._not_before = max(
            self._not_before, self._reactor.seconds() + max(pause, PROBE_GAP * (1 + self._jitter() / 2))
        )
        self._failure_log.failed(problem.reason, problem.detail)
        hasty = []
        for each in list(self._lanes.values()):
            gone = each.expire(math.nextafter(self._not_before, 0.0))  # cannot wait that long
            self._waiting_bytes -= sum(len(entry.write.body) for entry in gone)
            hasty.append((each, gone))
        self._fail(entries, problem)
        for each, gone in hasty:
            self._fail(gone, problem)
            self._forget_if_idle(each)
        self._forget_if_idle(lane)
        self._probe()

    def _send_waiting(self, lane: Lane) -> None:
        while lane.waiting and lane.in_flight < self._max_in_flight and self._trouble is None:
            entries = lane.take(self._max_batch)
            for entry in entries:
                self._waiting_bytes -= len(entry.write.body)
            self._send(lane, entries)
        self._forget_if_idle(lane)

    def _forget_if_idle(self, lane: Lane) -> None:
        if lane.waiting or lane.in_flight or self._lanes.get(lane.destination) is not lane:
            return
        del self._lanes[lane.destination]

    def _tell_drained(self, _: object = None) -> None:
        if not self._lanes:
            drained, self._drained = self._drained, []
            for waiter in drained:
                waiter.callback(None)

    # -- while there is trouble

    def _probe(self) -> None:
        """Send the one request that may find the backend well again, now or when it is time."""
        if self._in_flight or self._wake is not None or self._trouble is None:
            return
        lane = min(
            (lane for lane in self._lanes.values() if lane.waiting),
            key=lambda lane: lane.waiting[0].deadline,
            default=None,
        )
        if lane is None:
            return
        delay = self._not_before - self._reactor.seconds()
        if delay > 0:
            self._wake = self._reactor.callLater(delay, self._woken)
            return
        entries = lane.take(self._max_batch)
        for entry in entries:
            self._waiting_bytes -= len(entry.write.body)
        self._send(lane, entries)

    def _woken(self) -> None:
        self._wake = None
        self._probe()

    def _expire(self) -> None:
        """Fail what has waited for longer than the backend's timeout."""
        self._expiry = None
        now = self._reactor.seconds()
        expired = [(lane, entries) for lane in self._lanes.values() if (entries := lane.expire(now))]
        deadlines = [lane.waiting[0].deadline for lane in self._lanes.values() if lane.waiting]
        if deadlines:  # before any client is told, who may submit again
            self._expiry = self._reactor.callLater(max(0.0, min(deadlines) - now), self._expire)
        problem = BackendFailure("timeout", f"waited {self.backend.timeout:g} s behind other writes")
        self._waiting_bytes -= sum(len(entry.write.body) for _, entries in expired for entry in entries)
        for lane, entries in expired:
            self._failure_log.failed(problem.reason, problem.detail)
            self._fail(entries, problem)
            self._forget_if_idle(lane)
        self._tell_drained()

    # -- the end

    def drained(self) -> Deferred[None]:
        """Fire when nothing is in flight and nothing waits."""
        waiter: Deferred[None] = Deferred()
        if self._lanes:
            self._drained.append(waiter)
        else:
            waiter.callback(None)
        return waiter

    def close(self) -> None:
        """Take no more writes and fail what waits; what is in flight is the transport's to end."""
        self._closed = problem = BackendFailure("stopped", "the relay is shutting down")
        for call in (self._wake, self._expiry):
            if call is not None:
                call.cancel()
        self._wake = self._expiry = None
        for lane in list(self._lanes.values()):
            entries, lane.waiting = list(lane.waiting), deque()
            self._fail(entries, problem)
            self._forget_if_idle(lane)
        self._waiting_bytes = 0
        self._tell_drained()
