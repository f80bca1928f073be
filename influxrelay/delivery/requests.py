"""What is in flight to a backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from twisted.internet.defer import fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.histogram import LATENCIES, Histogram
from influxrelay.core.write import Reply
from influxrelay.delivery.answer_rules import Answer, AnswerRule, classify
from influxrelay.delivery.backend import Backend
from influxrelay.delivery.connection_pool import Gate
from influxrelay.delivery.destination_queue import DestinationQueue, Entry, body_parts
from influxrelay.delivery.responses import Verdict, retry_after


class Outcomes(Protocol):
    """Who is told what has become of a request, once its queue has been told that it has landed."""

    def taken(self, reply: Reply, queue: DestinationQueue, entries: list[Entry]) -> None:
        """Take a 2xx."""

    def answered(self, answer: Answer, queue: DestinationQueue, entries: list[Entry]) -> None:
        """Take another answer that shows that the backend is well."""

    def failed(
        self,
        problem: BackendFailure,
        pause: float,
        queue: DestinationQueue,
        entries: list[Entry],
        *,
        is_answer: bool = False,
    ) -> None:
        """Take a failure that is the backend's own.

        :param pause: seconds for which the backend wants to be left alone.
        :param is_answer: whether it settles the writes for their clients all the same, with its answer.
        """

    def landed(self) -> None:
        """Learn that all that comes of a request has been done."""


class Requests:
    """Sends requests, counts them, and finds out what their answers mean.

    :ivar backend: where the next request goes.
    :ivar count: how many were sent; ``in_flight`` of them have not come back.
    :ivar writes: how many writes travelled in them; one that is sent again counts again.
    :ivar merged: how many of those did not travel alone.
    :ivar latency: seconds from a request to its complete answer, whatever that says.
    :ivar failures: how many requests met with the backend's own failure, by reason.
    :ivar answers: how many were answered with anything but a 2xx, by what that means and by reason.
    """

    _log = Logger()

    def __init__(self, backend: Backend, outcomes: Outcomes) -> None:
        self.backend = backend
        self.count = self.in_flight = self.writes = self.merged = 0
        self.failures: Counter[str] = Counter()
        self.answers: Counter[tuple[str, str]] = Counter()
        self._rules: Sequence[AnswerRule] = ()
        self.latency = Histogram(LATENCIES)
        self._retired: list[Backend] = []  # that still have something in flight
        self._outcomes = outcomes
        self._gate: Gate | None = None

    @property
    def answered(self) -> int:
        """How many have come back, well or not."""
        return self.count - self.in_flight

    def send(self, queue: DestinationQueue, entries: list[Entry]) -> None:
        """Send these writes, which the queue counts as in flight, as one request."""
        count = len(entries)
        self.in_flight += 1
        self.count += 1
        self.writes += count
        write = entries[0].write
        parts: Sequence[bytes] = (write.body,)
        if count > 1:
            self.merged += count
            parts = body_parts(entries)
        began = perf_counter()
        try:
            sent = self.backend.post(write, parts)
        except Exception:  # noqa: BLE001 (whatever it is, it is this backend's)
            sent = fail()
        sent.addCallbacks(
            self._answered, self._unanswered, callbackArgs=(queue, entries, began), errbackArgs=(queue, entries)
        )

    def _answered(self, reply: Reply, queue: DestinationQueue, entries: list[Entry], began: float) -> None:
        try:
            self._take_answer(reply, queue, entries, began)
        except Exception:  # noqa: BLE001 (the next request must not suffer from it)
            self._bug(Failure())
        self._outcomes.landed()

    def _take_answer(self, reply: Reply, queue: DestinationQueue, entries: list[Entry], began: float) -> None:
        self.latency.observe(perf_counter() - began)
        if 200 <= reply.status < 300:
            self.in_flight -= 1
            queue.land(entries)
            self._outcomes.taken(reply, queue, entries)
            return
        answer = classify(reply, queue.destination.kind, self._rules)
        verdict = answer.verdict
        self.answers[answer.means, answer.reason] += 1
        if verdict is Verdict.NOT_NOW or verdict is Verdict.MISDIRECTED:
            is_answer = verdict is Verdict.MISDIRECTED
            self._failed(answer.failure(), retry_after(reply), queue, entries, is_answer=is_answer)
        else:
            self.in_flight -= 1
            queue.land(entries)
            self._outcomes.answered(answer, queue, entries)

    def _unanswered(self, failure: Failure, queue: DestinationQueue, entries: list[Entry]) -> None:
        problem = failure.value
        if not isinstance(problem, BackendFailure):
            self._bug(failure)
            problem = BackendFailure("error", repr(problem))
        try:
            self._failed(problem, 0.0, queue, entries)
        except Exception:  # noqa: BLE001 (as above)
            self._bug(Failure())
        self._outcomes.landed()

    def _failed(
        self,
        problem: BackendFailure,
        pause: float,
        queue: DestinationQueue,
        entries: list[Entry],
        *,
        is_answer: bool = False,
    ) -> None:
        self.in_flight -= 1
        queue.land(entries)
        self.failures[problem.reason] += 1
        self._outcomes.failed(problem, pause, queue, entries, is_answer=is_answer)

    def _bug(self, failure: Failure) -> None:
        self._log.failure("unexpected error in a request to a backend", failure)

    def classify_by(self, rules: Sequence[AnswerRule]) -> None:
        """Let the operator's rules say what answers mean, from the next one on."""
        self._rules = rules

    def go_by(self, backend: Backend) -> None:
        """Send the next request by another transport; what is in flight ends where it is."""
        if backend is not self.backend:
            self.backend.retire()
            self._retired = [each for each in (*self._retired, self.backend) if each.is_busy()]
            self.backend = backend
            if self._gate is not None:
                backend.guard(self._gate)

    def guard(self, gate: Gate) -> None:
        """Send no request if this says so directly before its bytes."""
        self._gate = gate
        self.backend.guard(gate)

    def abort_writes(self) -> None:
        """Fail the writes and changes in flight."""
        for backend in (self.backend, *self._retired):
            backend.abort_writes()

    def abort_changes(self) -> None:
        """Fail the changes in flight."""
        for backend in (self.backend, *self._retired):
            backend.abort_changes()

    def abort(self) -> None:
        """Fail what is in flight."""
        for backend in (self.backend, *self._retired):
            backend.abort()
