"""Shards that are asked by HTTP, for a client's query."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.delivery.queries import Question, forwarded_headers
from influxrelay.http.query_request import Query
from influxrelay.http.query_resource import Readers
from influxrelay.http.read import BACKEND, IN_SYNC
from influxrelay.lineprotocol.query_string import without
from influxrelay.sharding.answers import read_chunk
from influxrelay.sharding.outcomes import ShardFailed
from influxrelay.sharding.results import Block

_FORMAT = (b"chunked", b"chunk_size", b"epoch", b"pretty", b"async")
_OURS = b"chunked=true&chunk_size=1000&epoch=ns"
_MAX_LINES = 8  # chunks that wait to be read; more are not taken from the backend
_MAX_REFUSAL = 64 * 1024  # bytes of an answer that is no result


@attrs.define
class Asked:
    """Whom the relay has asked for one query.

    :ivar backends: those that have answered.
    :ivar in_sync: whether all of them had every acknowledged write.
    """

    backends: dict[bytes, None] = attrs.field(factory=dict)
    in_sync: bool = True

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return what tells a client of it."""
        found = [(BACKEND, b", ".join(self.backends))] if self.backends else []
        return found if self.in_sync else [*found, (IN_SYNC, b"false")]


class HTTPShard:
    """A shard, as one client's query sees it.

    :param connection: the client's, which stays on one backend.
    """

    def __init__(self, name: str, readers: Readers, query: Query, connection: object | None, asked: Asked) -> None:
        self._name = name
        self._readers = readers
        self._query = query
        self._connection = connection
        self._asked = asked

    def ask(self, text: str) -> HTTPAnswer:
        """Ask a backend of the shard now."""
        answer = HTTPAnswer(self._name, self._connection, self._asked, self._readers.reactor)
        self._readers.answer(answer, self._question(text), "", text)
        return answer

    def _question(self, text: str) -> Question:
        question = self._query.ask(text)
        query = without(question.query, *_FORMAT)
        return attrs.evolve(
            question,
            query=query + b"&" + _OURS if query else _OURS,
            body=without(question.body, *_FORMAT) if question.body else b"",
            headers=forwarded_headers(question.headers, b"accept", b"accept-encoding"),
        )


class HTTPAnswer:
    """What a backend says: a recipient of its bytes, and an answer that can be read while they come."""

    def __init__(self, shard: str, connection: object | None, asked: Asked, reactor: Any) -> None:
        self.connection = connection
        self._reactor = reactor
        self._shard = shard
        self._asked = asked
        self._status = 0
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._rest = bytearray()
        self._lines: deque[bytes] = deque()
        self._results: Iterator[tuple[int, list[Block]]] = iter(())
        self._problem: ShardFailed | None = None
        self._complete = False
        self._closed = False
        self._waiting: Deferred[None] | None = None
        self._producer: IPushProducer | None = None
        self._paused = False
        self._leave: Callable[[], None] | None = None

    # -- as an answer

    def __aiter__(self) -> HTTPAnswer:
        return self

    async def __anext__(self) -> tuple[int, list[Block]]:
        """Return the next rows of a statement."""
        while True:
            for result in self._results:
                return result
            if self._lines:
                await deferLater(self._reactor, 0)  # a chunk in each turn, so that no other client waits
                self._results = self._read(self._lines.popleft())
                if self._paused and self._producer is not None and len(self._lines) < _MAX_LINES // 2:
                    self._paused = False
                    self._producer.resumeProducing()
            elif self._problem is not None:
                raise self._problem
            elif self._complete:
                raise StopAsyncIteration
            else:
                self._waiting = Deferred()
                await self._waiting

    def _read(self, line: bytes) -> Iterator[tuple[int, list[Block]]]:
        try:
            yield from read_chunk(line)
        except BackendFailure as problem:
            raise self._failure(f"{problem.detail}") from None

    def close(self) -> None:
        """Have no more use for it."""
        self._closed = True
        self._lines.clear()
        call, self._leave = self._leave, None
        if call is not None and not self._complete and self._problem is None:
            call()

    def _failure(self, message: str, status: int = 503) -> ShardFailed:
        return ShardFailed(json_error(status, f"shard {self._shard}: {message}"))

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    # -- as a recipient

    def on_leave(self, call: Callable[[], None]) -> None:
        """Call this if nobody wants the answer any more."""
        self._leave = call

    def respond(self, reply: Reply) -> None:
        """Take what there is instead of a result."""
        try:
            message = json.loads(reply.body)["error"]
        except (ValueError, TypeError, KeyError):
            self._problem = ShardFailed(reply)
        else:
            kept = [each for each in reply.headers if each[0].lower() in (b"www-authenticate", b"retry-after")]
            reply_of_all = json_error(
                reply.status, f"shard {self._shard}: {message}" if reply.status >= 500 else message
            )
            self._problem = ShardFailed(attrs.evolve(reply_of_all, headers=(*reply_of_all.headers, *kept)))
        self._wake()

    refuse = respond

    def begin(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        """Take the head."""
        self._status = status
        for name, value in headers:
            if name == BACKEND:
                self._asked.backends[value] = None
            elif name == IN_SYNC:
                self._asked.in_sync = False
        self._headers = headers

    def register_producer(self, producer: IPushProducer) -> None:
        """Know whom to pause."""
        self._producer = producer

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def unregister_producer(self) -> None:
        """Forget whom to pause."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """Take a piece, and no more for now if much waits."""
        self._rest += data
        if self._status != 200:
            del self._rest[_MAX_REFUSAL:]
            return
        if b"\n" in data:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            self._lines.extend(each for each in lines if each and not self._closed)
            self._wake()
        if len(self._lines) >= _MAX_LINES and not self._paused and self._producer is not None:
            self._paused = True
            self._producer.pauseProducing()

    def finish(self) -> None:
        """Know that the answer is complete."""
        if self._status != 200:
            self.respond(Reply(self._status, tuple(self._headers), bytes(self._rest)))
            return
        if self._rest.strip() and not self._closed:
            self._lines.append(bytes(self._rest))
        self._complete = True
        self._wake()

    def abort(self) -> None:
        """Know that the rest does not come."""
        if self._problem is None and not self._complete:
            self._problem = self._failure("the answer of a backend has broken off")
            self._wake()
