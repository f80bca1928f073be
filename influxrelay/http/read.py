"""A question that one backend answers: the next one is asked as long as no byte of an answer has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.delivery.client import Response
from influxrelay.delivery.http_backend import HTTPBackend
from influxrelay.delivery.queries import Question
from influxrelay.delivery.response_reader import MAX_ANSWER
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.standing import standing, transport
from influxrelay.http.query_counters import QueryCounters
from influxrelay.http.recipient import Recipient

BACKEND = b"X-Influxrelay-Backend"
IN_SYNC = b"X-Influxrelay-In-Sync"
_WATCH = 1.0  # seconds between two looks at whether a backend that has not answered is down
_PATIENCE = 0.5  # seconds that a question waits for earlier writes
_STEP = 0.002  # seconds between two looks
_LEFT_OUT = frozenset(  # of each connection, or written by the relay itself
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"date", b"x-influxdb-version", b"request-id", b"x-request-id", b"x-influxrelay-backend"),
    )
)


@attrs.frozen
class Candidate:
    """A backend that may be asked.

    :ivar in_sync: whether it has every acknowledged write, but for what is in flight.
    """

    sender: Sender
    counters: QueryCounters
    in_sync: bool = True

    @property
    def backend(self) -> HTTPBackend:
        """The way there."""
        return transport(self.sender)

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What a response of this backend has beside its own headers."""
        named = (BACKEND, self.sender.name.encode("utf-8"))
        return (named,) if self.in_sync else (named, (IN_SYNC, b"false"))


class Read:
    """Has a question answered, and passes the response on while it comes.

    A backend in sync is asked when the writes before the question have reached it, so that clients read what they have
    written; nobody waits for long. A response is held back until the first byte of its body has come: InfluxDB sends
    its head before it has a result. Up to then the next backend is asked where one does not answer, goes down, or
    answers 429 or 5xx. After that the client's connection is broken if the rest does not come, so that nobody takes a
    part for the whole.

    :param candidates: the backends to ask, in order; read as far as is needed.
    :param timeout: seconds for everything; 0 is no limit.
    :param on_end: called once, with the name of the backend that has answered, or with an empty one.
    """

    def __init__(
        self,
        request: Recipient,
        question: Question,
        candidates: Iterator[Candidate],
        reactor: IReactorTime,
        *,
        own_credentials: bool,
        timeout: float,
        on_end: Callable[[str], object],
    ) -> None:
        self._request = request
        self._question = question
        self._candidates = candidates
        self._reactor = reactor
        self._own_credentials = own_credentials
        self._timeout = timeout
        self._deadline = reactor.seconds() + timeout
        self._on_end = on_end
        self._asking: Deferred[Any] | None = None
        self._watch: IDelayedCall | None = None
        self._response: Response | None = None
        self._candidate: Candidate | None = None
        self._asked_at = 0.0
        self._problems: list[str] = []
        self._refusal: tuple[Candidate, Reply] | None = None  # a 429 or 5xx
        self._over = False

    def begin(self) -> None:
        """Ask the first backend."""
        self._request.on_leave(self._leave)
        self._ask_next()

    def _ask_next(self) -> None:
        if self._over:
            return
        left = self._deadline - self._reactor.seconds() if self._timeout else None
        candidate = next(self._candidates, None) if left is None or left > 0 else None
        if candidate is None:
            self._give_up()
            return
        self._candidate, self._response, self._asked_at = candidate, None, self._reactor.seconds()
        if candidate.in_sync:
            self._ask_behind_writes(candidate, candidate.sender.barrier())
        else:
            self._ask(candidate)

    def _ask_behind_writes(self, candidate: Candidate, has_them: Callable[[], bool]) -> None:
        """Ask a backend as soon as it has the writes of until now; another one if it gets into trouble with them."""
        self._watch = None
        how = standing(candidate.sender)
        if has_them():
            self._ask(candidate)
        elif self._reactor.seconds() >= self._asked_at + _PATIENCE:
            self._candidate = candidate = attrs.evolve(candidate, in_sync=how.in_sync)
            self._ask(candidate)
        elif how.is_about_to_be:
            self._watch = self._reactor.callLater(_STEP, self._ask_behind_writes, candidate, has_them)
        else:
            self.unanswered(candidate, BackendFailure("behind", how.why_not))

    def _ask(self, candidate: Candidate) -> None:
        left = max(0.0, self._deadline - self._reactor.seconds()) if self._timeout else None
        if not candidate.sender.why_unavailable():
            self._watch = self._reactor.callLater(_WATCH, self._look, candidate)
        asking = candidate.backend.query(self._question, own_credentials=self._own_credentials, timeout=left)
        self._asking = asking.addCallback(self._take, candidate).addErrback(self._failed, candidate)

    def _take(self, response: Response, candidate: Candidate) -> None:
        self._asking, self._response = None, response
        if self._over:
            response.stopProducing()
        elif not response.is_intact:
            raise BackendFailure("garbage", f"it answered {response.code}, and the rest cannot be read")
        elif not response.is_framed:
            response.stopProducing()
            raise BackendFailure("garbage", "a response whose end cannot be told from a break")
        else:
            kind = _Refusal if _is_refusal(response.code) else _Body
            response.deliverBody(kind(self, candidate, response))

    def _failed(self, failure: Failure, candidate: Candidate) -> None:
        self._asking = None
        if not self._over:
            failure.trap(BackendFailure)
            self.unanswered(candidate, failure.value)

    def _look(self, candidate: Candidate) -> None:
        """Wait no longer for a backend that has gone down meanwhile."""
        reason = candidate.sender.why_unavailable()
        if not reason:
            self._watch = self._reactor.callLater(_WATCH, self._look, candidate)
            return
        self._watch = None
        if self._asking is not None:
            self._asking.cancel()
        elif self._response is not None:
            self._response.stopProducing()
            self.unanswered(candidate, BackendFailure("down", reason))

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    # -- called by the receivers of responses

    def unanswered(self, candidate: Candidate, problem: Any) -> None:
        """Ask the next backend: this one has not answered."""
        self._unwatch()
        self._count(candidate, "unanswered")
        self._problems.append(f"{candidate.sender.name}: {problem.reason}: {problem.detail}")
        self._ask_next()

    def refused(self, candidate: Candidate, reply: Reply) -> None:
        """Ask the next backend: this one has answered 429 or 5xx, which is shown if no other answers better."""
        self._unwatch()
        self._count(candidate, "unanswered")
        self._problems.append(f"{candidate.sender.name}: it answered {reply.status}")
        if self._refusal is None or (reply.status >= 500 > self._refusal[1].status):
            self._refusal = candidate, reply
        self._ask_next()

    def begun(self, candidate: Candidate, response: Response) -> None:
        """Begin the client's response."""
        self._unwatch()
        candidate.counters.first_byte.observe(self._reactor.seconds() - self._asked_at)
        request = self._request
        request.begin(response.code, *shown_headers(response), *candidate.headers)
        request.register_producer(response)
        self._reactor.callLater(0, request.flush)  # unless the end has come by then

    def write(self, candidate: Candidate, data: bytes) -> None:
        """Pass a piece of the body on."""
        candidate.counters.bytes += len(data)
        self._request.write(data)

    def finished(self, candidate: Candidate) -> None:
        """End the client's response: it is complete."""
        if not self._over:
            self._count(candidate, "answered")
            self._request.unregister_producer()
            self._end(candidate.sender.name)
            self._request.finish()

    def cut(self, candidate: Candidate) -> None:
        """Break the client's connection: the rest of the body does not come."""
        if not self._over:
            self._count(candidate, "cut")
            self._end("")
            self._request.abort()

    # -- the end

    def _give_up(self) -> None:
        """Answer where no backend has."""
        request = self._request
        self._end("")
        if self._refusal is not None:
            candidate, reply = self._refusal
            headers = [(name, value) for name, value in reply.headers if name.lower() != b"content-length"]
            request.respond(Reply(reply.status, (*headers, *candidate.headers), reply.body))
        elif self._timeout and self._reactor.seconds() >= self._deadline:
            request.respond(json_error(504, f"query-timeout of {self._timeout:g} s exceeded"))
        else:
            request.respond(json_error(503, f"no backend has answered: {'; '.join(self._problems)}"))

    def _leave(self) -> None:
        """Break off: the client has gone, or sends nothing more."""
        if self._over:
            return
        if self._candidate is not None:
            self._count(self._candidate, "left")
        self._end("")
        if self._asking is not None:
            self._asking.cancel()
        elif self._response is not None:
            self._response.stopProducing()
        self._request.abort()

    def _count(self, candidate: Candidate, outcome: str) -> None:
        candidate.counters.ended(outcome, self._reactor.seconds() - self._asked_at)

    def _end(self, answered_by: str) -> None:
        self._over = True
        self._unwatch()
        self._on_end(answered_by)


class _Body(Protocol):
    """Passes a body on."""

    def __init__(self, read: Read, candidate: Candidate, response: Response) -> None:
        self._read = read
        self._candidate = candidate
        self._response = response
        self._begun = False

    def dataReceived(self, data: bytes) -> None:
        """Pass a piece on."""
        if not self._begun:
            self._begun = True
            self._read.begun(self._candidate, self._response)
        self._read.write(self._candidate, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the response, or break it off; without a single byte another backend is asked."""
        if reason.check(ResponseDone):
            if not self._begun:
                self._read.begun(self._candidate, self._response)
            self._read.finished(self._candidate)
        elif self._begun:
            self._read.cut(self._candidate)
        else:
            self._read.unanswered(self._candidate, reason.value)


class _Refusal(Protocol):
    """Collects the body of a 429 or 5xx."""

    def __init__(self, read: Read, candidate: Candidate, response: Response) -> None:
        self._read = read
        self._candidate = candidate
        self._response = response
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece, if the whole is not too large."""
        if len(self._body) <= MAX_ANSWER:
            self._body += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give what has come to the read."""
        response = self._response
        if reason.check(ResponseDone) and len(self._body) <= MAX_ANSWER:
            reply = Reply(response.code, tuple(shown_headers(response)), bytes(self._body))
            self._read.refused(self._candidate, reply)
        else:
            problem = BackendFailure("garbage", f"it answered {response.code}, and the rest cannot be read")
            self._read.unanswered(self._candidate, problem)


def shown_headers(response: Response) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response that a client gets."""
    return [
        (name, value)
        for name, values in response.headers.getAllRawHeaders()
        if name.lower() not in _LEFT_OUT and not name.lower().startswith(b"access-control-")
        for value in values
    ]


def _is_refusal(status: int) -> bool:
    return status == 429 or status >= 500
