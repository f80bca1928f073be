"""``/query``: reads are answered by one backend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.replies import json_error
from influxrelay.core.text import shortened
from influxrelay.core.write import Reply
from influxrelay.delivery.changes import Changes
from influxrelay.delivery.queries import PROMETHEUS_READ, Question, forwarded_headers
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.standing import Outlook, outlook, standing, transport
from influxrelay.http.execution import Execution
from influxrelay.http.query_counters import QueryCounters
from influxrelay.http.query_request import Query, read_query
from influxrelay.http.read import Candidate, Read
from influxrelay.http.recipient import Recipient
from influxrelay.http.refusals import method_not_allowed
from influxrelay.http.request import Request
from influxrelay.influxql.ast import Class
from influxrelay.lineprotocol.query_string import values_of, without

_AT_ONCE = 16 * 1024  # bytes of a request that is read in one go
_LOGGED = 2000  # characters of a slow query


@attrs.frozen
class QuerySettings:
    """What holds for queries at one listener.

    :ivar when_behind: ``serve`` or ``refuse``.
    :ivar timeout: seconds for a read; 0 is no limit.
    :ivar own_credentials: whether backends are asked as the users of their outputs.
    :ivar limit: queries at a time.
    :ivar bodies: bytes of the bodies of all of them; one alone may be larger.
    :ivar slow: seconds from which on a query is logged; 0 logs none.
    :ivar read_only: whether changes are refused.
    """

    when_behind: str = "serve"
    timeout: float = 0.0
    own_credentials: bool = False
    limit: int = 100
    bodies: int = 8 * 1024 * 1024
    slow: float = 0.0
    read_only: bool = False


class Readers:
    """Chooses who answers reads, and counts them.

    :ivar counters: by backend.
    :ivar refused: how many queries were refused because there were too many at a time.
    """

    _log = Logger()

    def __init__(self, name: str, senders: Sequence[Sender], settings: QuerySettings, reactor: Any) -> None:
        self.counters: dict[str, QueryCounters] = {}
        self.refused = 0
        self.active = 0
        self._bodies = 0  # bytes
        self.reactor = reactor
        self._chosen: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # the backend of each connection
        self._turn = 0
        self.reconfigure(name, senders, settings)

    def reconfigure(self, name: str, senders: Sequence[Sender], settings: QuerySettings) -> None:
        """Let other settings hold for the next query."""
        self.name = name
        self.settings = settings
        self.senders = list(senders)
        self.counters = {each.name: self.counters.get(each.name) or QueryCounters() for each in senders}

    def outlook(self) -> Outlook:
        """Tell what would become of a read."""
        return outlook(self.senders, serves_old=self.settings.when_behind == "serve")

    def answer(self, request: Recipient, question: Question, backend: str, shown: str) -> None:
        """Have a backend answer.

        :param backend: the one that is to answer; empty for any.
        :param shown: what is asked, for the log.
        """
        if backend and backend not in self.counters:
            names = ", ".join(self.counters)
            request.refuse(json_error(400, f'no backend is named "{backend}"; there are: {names}'))
            return
        able = [
            each for each in self.senders if backend in ("", each.name) and transport(each).answers(question.endpoint)
        ]
        if not able:
            request.refuse(json_error(404, f"no backend answers {shown}: it is a matter of InfluxDB 1.x"))
            return
        if not self._has_room(request, question):
            return
        connection = request.connection
        candidates = self._candidates(
            able, self._chosen.get(connection, "") if connection is not None else "", serves_old=bool(backend)
        )
        if not candidates:
            why = "; ".join(f"{each.name}: {standing(each).why_not}" for each in able)
            request.respond(json_error(503, f"no backend is in sync: {why}"))
            return
        self._begun(question)
        read = Read(
            request,
            question,
            iter(candidates),
            self.reactor,
            own_credentials=self.settings.own_credentials,
            timeout=self.settings.timeout,
            on_end=partial(self._ended, connection, question, shown, self.reactor.seconds()),
        )
        read.begin()

    def execute(self, request: Request, execution: Execution, question: Question, shown: str) -> None:
        """Have statements executed one by one. A client that leaves changes nothing.

        :param question: the client's.
        :param shown: what is asked, for the log.
        """
        if not self._has_room(request, question):
            return
        self._begun(question)
        began = self.reactor.seconds()
        done = Deferred.fromCoroutine(execution.answer())
        done.addCallbacks(request.respond, request.fail)
        done.addBoth(lambda _: self._ended(None, question, shown, began, "every backend"))

    def _has_room(self, request: Recipient, question: Question) -> bool:
        settings = self.settings
        if self.active >= settings.limit:
            words = f"too many queries at a time, the limit is {settings.limit} (max-queries)"
        elif self.active and self._bodies + len(question.body) > settings.bodies:
            words = f"too many bytes of queries at a time, the limit is {settings.bodies}"
        else:
            return True
        self.refused += 1
        request.refuse(json_error(503, words, (b"Retry-After", b"1")))
        return False

    def _begun(self, question: Question) -> None:
        self.active += 1
        self._bodies += len(question.body)

    def _candidates(self, senders: Sequence[Sender], chosen: str, *, serves_old: bool) -> list[Candidate]:
        """Return the backends to ask, in order: those in sync, then the others by what they lack."""
        found = [(standing(each), each) for each in senders]
        good = [each for how, each in found if how.in_sync]
        good = good or [each for how, each in found if how.is_about_to_be]
        if good:
            first = next((index for index, each in enumerate(good) if each.name == chosen), self._turn % len(good))
            self._turn += chosen != good[first].name
            good = good[first:] + good[:first]
        candidates = [self._candidate(each, in_sync=True) for each in good]
        if self.settings.when_behind == "serve" or serves_old:
            rest = [(how, each) for how, each in found if each not in good]
            rest.sort(key=lambda pair: (bool(pair[0].why_unavailable), pair[0].missing))
            candidates += [self._candidate(each, in_sync=False) for _, each in rest]
        return candidates

    def _candidate(self, sender: Sender, *, in_sync: bool) -> Candidate:
        return Candidate(sender, self.counters[sender.name], in_sync)

    def _ended(self, connection: Any, question: Question, shown: str, began: float, answered_by: str) -> None:
        self.active -= 1
        self._bodies -= len(question.body)
        if answered_by and connection is not None:
            self._chosen[connection] = answered_by
        took = self.reactor.seconds() - began
        if self.settings.slow and took >= self.settings.slow:
            self._log.warn(
                "{relay}: a slow query took {took:.3f} s at {backend}: {text}",
                relay=self.name,
                took=took,
                backend=answered_by or "no backend",
                text=shortened(" ".join(shown.split()), _LOGGED),
            )


class QueryResource(Resource):
    """``/query``, and the fork's ``/admin``."""

    isLeaf = True

    def __init__(self, readers: Readers, changes: Changes) -> None:
        super().__init__()
        self._readers = readers
        self._changes = changes

    def render(self, request: Request) -> None:
        """Answer a request of any method."""
        if request.method in (b"GET", b"POST"):
            self._read(request)
        elif request.method == b"OPTIONS":
            request.respond(Reply(204, ((b"Allow", b"GET, POST"),)))
        else:
            request.refuse(method_not_allowed(b"GET, POST"))

    def _read(self, request: Request) -> None:
        """Read a request; a large one in a thread, so that no other client waits for it."""
        if len(request.body) + len(request.query) <= _AT_ONCE:
            try:
                query = read_query(request)
            except InvalidRequest as error:
                request.refuse(json_error(error.status, error.message))
            else:
                self._answer(query, request)
            return
        reactor = self._readers.reactor
        reading = deferToThreadPool(reactor, reactor.getThreadPool(), read_query, request)
        reading.addCallback(self._answer, request).addErrback(_not_answered, request)

    def refusal(self, query: Query) -> Reply | None:
        """Return the answer to what no backend is asked; None if one may be."""
        statements = query.statements or ()
        classes = {each.klass for each in statements}
        if classes - {Class.READ} and self._readers.settings.read_only:
            return json_error(403, "this listener is read-only (read-only)")
        if Class.ONE_SERVER in classes and not query.backend:
            kind = next(each.kind for each in statements if each.klass is Class.ONE_SERVER)
            return json_error(400, f"{kind} concerns one server: choose it with backend=NAME in the query string")
        if Class.CHANGE in classes and query.backend:
            message = "what changes something is for every backend: leave out backend=NAME, or ask that server itself"
            return json_error(400, message)
        return None

    def _answer(self, query: Query, request: Request) -> None:
        readers = self._readers
        refusal = self.refusal(query)
        if refusal is not None:
            request.refuse(refusal)
        elif all(each.klass is not Class.CHANGE for each in query.statements or ()):
            readers.answer(request, query.question, query.backend, query.shown)
        else:
            try:
                execution = Execution(query, self._changes, readers.senders, readers.reactor)
            except InvalidRequest as error:
                request.refuse(json_error(error.status, error.message))
            else:
                readers.execute(request, execution, query.question, query.shown)


def _not_answered(failure: Failure, request: Request) -> None:
    error = failure.value
    if isinstance(error, InvalidRequest):
        request.refuse(json_error(error.status, error.message))
    else:
        request.fail(failure)


class PrometheusReadResource(Resource):
    """``/api/v1/prom/read``: one backend answers."""

    isLeaf = True

    def __init__(self, readers: Readers) -> None:
        super().__init__()
        self._readers = readers

    def render(self, request: Request) -> None:
        """Answer a request of any method."""
        if request.method != b"POST":
            request.refuse(method_not_allowed(b"POST"))
            return
        head = request.head
        backend = values_of(head.query).get(b"backend", b"").decode("utf-8", "backslashreplace")
        headers = forwarded_headers(head.headers)
        question = Question(b"POST", without(head.query, b"backend"), headers, request.take_body(), PROMETHEUS_READ)
        self._readers.answer(request, question, backend, "a remote read of Prometheus")
