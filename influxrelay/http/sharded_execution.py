"""One request to a listener with shards: its statements, planned and answered one after the other."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from zope.interface import implementer

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.delivery.changes import Changes
from influxrelay.delivery.statements import error_in
from influxrelay.http.execution import Execution
from influxrelay.http.query_request import Query
from influxrelay.http.query_resource import Readers
from influxrelay.http.request import Request
from influxrelay.http.result_writer import Format, Packer
from influxrelay.http.shard_answers import Asked, HTTPShard
from influxrelay.influxql.ast import Class, Statement
from influxrelay.influxql.rewriting import statement_text
from influxrelay.lineprotocol.query_string import without
from influxrelay.sharding.changes import check_change, combined
from influxrelay.sharding.outcomes import Refused, ShardFailed, StatementError, Unanswered
from influxrelay.sharding.placement import ShardMap
from influxrelay.sharding.queries import Alone, Planner, Together
from influxrelay.sharding.results import Block

_BOUNDS = ("limit", "offset")
_FORMS = (b"chunked", b"chunk_size", b"pretty", b"async")  # of which a result could not become one of several


@attrs.frozen
class ShardHandlers:
    """Who answers questions to one shard, and who has it changed."""

    readers: Readers
    changes: Changes


@implementer(IPushProducer)
class ShardedExecution:
    """Answers one request.

    :param shard_handlers: by the names of the shards.
    :param max_points: how many points may be read for one statement where windows are computed from points.
    :param timeout: seconds for what changes nothing; 0 is no limit.
    """

    def __init__(
        self,
        query: Query,
        request: Request,
        shards: ShardMap,
        shard_handlers: Mapping[str, ShardHandlers],
        reactor: Any,
        *,
        max_points: int,
        timeout: float,
    ) -> None:
        self._query = query
        self._request = request
        self._shards = shards
        self._shard_handlers = shard_handlers
        self._reactor = reactor
        self._timeout = timeout
        self._deadline = reactor.seconds() + timeout
        self._now = time.time_ns()
        self._asked = Asked()
        connection = request.connection
        ask = {
            name: HTTPShard(name, each.readers, query, connection, self._asked) for name, each in shard_handlers.items()
        }
        self._planner = Planner(shards, ask, self._now, max_points)
        head = request.head
        self._format = Format.read(query.values, head.header(b"accept"), head.header(b"accept-encoding"))
        self._packer = Packer(gzip=self._format.gzip)
        self._writer = self._format.writer()
        self._writable: Deferred[None] | None = None
        self._begun = False
        self._is_open = False  # whether the result of a statement has begun

    async def run(self) -> None:
        """Answer the request, whatever happens."""
        request = self._request
        try:
            await self._answer()
        except CancelledError:
            if self._timeout and not self._begun and self._reactor.seconds() >= self._deadline:
                request.respond(json_error(504, f"query-timeout of {self._timeout:g} s exceeded"))
            else:
                request.abort()
        except (Refused, InvalidRequest, ShardFailed) as problem:
            if self._begun:
                request.abort()
            elif isinstance(problem, ShardFailed):
                request.respond(attrs.evolve(problem.reply, headers=(*problem.reply.headers, *self._asked.headers())))
            else:
                request.refuse(json_error(400, str(problem)))

    async def _answer(self) -> None:
        statements = self._query.statements or ()
        changes = [each for each in statements if each.klass is Class.CHANGE]
        for each in changes:
            check_change(each, self._shards, self._now)
        if len(statements) == 1:
            await self._answer_one(statements[0])
            return
        planned: list[Alone | Together | StatementError | None] = [None] * len(statements)
        if not changes:  # nothing changes meanwhile: what cannot be answered is known before anything is sent
            planned = [await self._plan(each) for each in statements]
        for number, (statement, plan) in enumerate(zip(statements, planned, strict=True)):
            error = await self._answer_next(number, statement, plan)
            if error:
                for following in range(number + 1, len(statements)):
                    await self._send(self._writer.begin(following) + self._writer.end("not executed"))
                break
        await self._finish()

    async def _answer_one(self, statement: Statement) -> None:
        if statement.klass is Class.CHANGE:
            self._request.respond(self._query.answer(await self._change(self._query, statement)))
            return
        plan = await self._plan(statement)
        if isinstance(plan, Alone):
            question = self._query.ask(plan.text)
            self._shard_handlers[plan.shard].readers.answer(self._request, question, "", self._query.shown)
            return
        await self._answer_next(0, statement, plan)
        await self._finish()

    async def _plan(self, statement: Statement) -> Alone | Together | StatementError:
        text, now = self._query.text, self._now
        bare = statement_text(text, statement, now, _BOUNDS)
        try:
            return await self._planner.plan(statement, statement_text(text, statement, now), bare)
        except StatementError as error:
            return error

    async def _answer_next(
        self, number: int, statement: Statement, plan: Alone | Together | StatementError | None
    ) -> str:
        """Send the result of a statement; return its error."""
        self._is_open = False
        try:
            if statement.klass is Class.CHANGE:
                return await self._answer_change(number, statement)
            plan = plan or await self._plan(statement)
            if isinstance(plan, StatementError):
                raise plan
            await self._send_result(number, statement, plan)
        except Unanswered as problem:
            if not isinstance(problem, StatementError) and (self._is_open or not self._begun):
                raise  # nobody is to take a part for the whole
            beginning = b"" if self._is_open else self._writer.begin(number)
            await self._send(beginning + self._writer.end(str(problem)))
            return str(problem)
        return ""

    async def _send_result(self, number: int, statement: Statement, plan: Alone | Together) -> None:
        has_times = statement.kind == "SELECT"
        zone = statement.select.zone if statement.select is not None else ""
        blocks = plan.blocks() if isinstance(plan, Together) else self._planner.alone(plan)
        opening: bytes | None = None
        try:
            async for block in blocks:
                if opening is None:
                    opening, self._is_open = self._writer.begin(number, has_times=has_times, zone=zone), True
                await self._send(opening + self._writer.block(block))
                opening = b""
        finally:
            await blocks.aclose()
        if opening is None:
            opening = self._writer.begin(number)
        await self._send(opening + self._writer.end())

    # -- changes

    async def _answer_change(self, number: int, statement: Statement) -> str:
        """Make one of several changes, and send its result."""
        question = self._query.question
        plain = attrs.evolve(
            question,
            query=without(question.query, *_FORMS),
            body=without(question.body, *_FORMS) if question.body else b"",
            headers=tuple(each for each in question.headers if each[0] not in (b"accept", b"accept-encoding")),
        )
        reply = await self._change(attrs.evolve(self._query, question=plain), statement)
        error = error_in(reply.body) or (f"a backend answered {reply.status}" if reply.status >= 300 else "")
        if error and not self._begun and reply.status >= 300:
            raise ShardFailed(reply)
        pieces = self._writer.begin(number)
        for series in [] if error else json.loads(reply.body or b"{}").get("results", [{}])[0].get("series", ()):
            columns = tuple(series["columns"])
            pieces += self._writer.block(Block(series.get("name", ""), series.get("tags"), columns, series["values"]))
        await self._send(pieces + self._writer.end(error))
        return error

    async def _change(self, query: Query, statement: Statement) -> Reply:
        """Have every shard make a change."""
        alone = attrs.evolve(query, statements=(statement,))
        running = []
        for each in self._shard_handlers.values():
            execution = Execution(alone, each.changes, each.readers.senders, each.readers.reactor)
            running.append(Deferred.fromCoroutine(execution.run()))
        return combined(await gatherResults(running, consumeErrors=True))

    # -- the response

    async def _send(self, data: bytes) -> None:
        """Send a piece as soon as the client reads; begin the response with the first."""
        await deferLater(self._reactor, 0)  # so that no other client waits for a long result
        if self._writable is not None:
            await self._writable
        if not self._begun:
            self._begun = True
            self._request.begin(200, *self._format.headers, *self._asked.headers())
            self._request.register_producer(self)
        self._request.write(self._packer.pack(data))

    async def _finish(self) -> None:
        await self._send(self._writer.close())
        self._request.write(self._packer.end())
        self._request.unregister_producer()
        self._request.finish()

    def pauseProducing(self) -> None:
        """Send nothing for now: the client does not read."""
        self._writable = self._writable or Deferred()

    def resumeProducing(self) -> None:
        """Go on."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.called:
            writable.callback(None)

    def stopProducing(self) -> None:
        """Do nothing: who leaves is noticed by the request."""
