"""Requests that change something, executed statement by statement."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

import attrs

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.delivery.changes import Changes, Executed, ask_whole
from influxrelay.delivery.queries import Question, forwarded_headers
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.standing import standing
from influxrelay.delivery.statements import Change, Scope, error_in
from influxrelay.http.query_request import Query
from influxrelay.http.read import BACKEND
from influxrelay.http.result_writer import indented
from influxrelay.influxql.ast import Class, Statement
from influxrelay.influxql.rewriting import redacted, statement_text
from influxrelay.lineprotocol.query_string import read_consistency, without

_RESULTS = re.compile(rb'\s*\{"results":\[(.*)\]\}\s*', re.DOTALL)
_NUMBER = re.compile(rb'^\{"statement_id":\d+')
_ALONE = (b"async", b"chunked", b"chunk_size", b"pretty")  # which would make an answer of another kind


class Execution:
    """One request whose statements are executed in their order.

    :param senders: of all backends.
    :raises InvalidRequest: its ``consistency`` is none.
    """

    def __init__(self, query: Query, changes: Changes, senders: Sequence[Sender], reactor: Any) -> None:
        self._query = query
        self._changes = changes
        self._senders = senders
        self._reactor = reactor
        self._now = time.time_ns()
        self._consistency = read_consistency(query.values)
        if self._consistency == "any" and any(each.klass is Class.READ for each in query.statements or ()):
            self._consistency = "one"  # a read behind a change needs a backend that has executed it
        self._executed: tuple[Sender, ...] = ()  # the last change
        self._asked: dict[str, None] = {}

    async def answer(self) -> Reply:
        """Execute it, and return what the client gets."""
        return self._query.answer(await self.run())

    async def run(self) -> Reply:
        """Execute it, and return the results."""
        return self._named(await self._run())

    async def _run(self) -> Reply:
        statements = self._query.statements or ()
        if len(statements) == 1:
            return (await self._change(statements[0], b"async")).reply
        results: list[bytes] = []
        for number, statement in enumerate(statements):
            reply = await self._execute(statement)
            found = _RESULTS.fullmatch(reply.body) if reply.status == 200 else None
            if found is None and number == 0:
                return reply
            if found is None:
                results.append(_error(number, error_in(reply.body) or f"a backend answered {reply.status}"))
            else:
                results.append(_NUMBER.sub(b'{"statement_id":%d' % number, found[1]))
            if found is None or error_in(reply.body):
                results += [_error(each, "not executed") for each in range(number + 1, len(statements))]
                break
        return Reply(200, ((b"Content-Type", b"application/json"),), self._written(results))

    def _written(self, results: Sequence[bytes]) -> bytes:
        """Return results as the client wants them: in chunks of one each, if in chunks."""
        values = self._query.values
        chunked, pretty = (values.get(name) == b"true" for name in (b"chunked", b"pretty"))
        documents = [b'{"results":[%b]}\n' % each for each in (results if chunked else [b",".join(results)])]
        return b"".join(map(_indented, documents) if pretty else documents)

    def _named(self, reply: Reply) -> Reply:
        if not self._asked:
            return reply
        named = ", ".join(self._asked).encode()
        return attrs.evolve(reply, headers=(*reply.headers, (BACKEND, named)))

    async def _execute(self, statement: Statement) -> Reply:
        if statement.klass is Class.CHANGE:
            done = await self._change(statement, *_ALONE)
            return done.reply
        return await self._read(statement)

    async def _change(self, statement: Statement, *but: bytes) -> Executed:
        query = self._query
        databases = frozenset(each.encode() for each in statement.databases(query.database))
        change = Change(
            self._question(statement, *but),
            Scope(statement.kind, databases),
            redacted(query.text[slice(*statement.span)]),
        )
        done = await self._changes.execute(change, self._consistency)
        self._executed = done.backends
        self._asked |= dict.fromkeys(each.name for each in done.backends)
        return done

    def _question(self, statement: Statement, *but: bytes) -> Question:
        """Return what the backends are asked: one statement, with the time instead of ``now()``."""
        question = self._query.ask(statement_text(self._query.text, statement, self._now))
        headers = forwarded_headers(question.headers, b"accept-encoding", *([b"accept"] if len(but) > 1 else []))
        return attrs.evolve(
            question,
            query=without(question.query, b"consistency", *but),
            body=without(question.body, b"consistency", *but),
            headers=headers,
        )

    async def _read(self, statement: Statement) -> Reply:
        """Ask one backend; behind a change one that has executed it."""
        senders = self._executed or sorted(self._senders, key=lambda each: not standing(each).in_sync)
        question, problems = self._question(statement, *_ALONE), []
        for sender in senders:
            try:
                own = self._changes.own_credentials
                reply = await ask_whole(sender, question, self._reactor, own_credentials=own)
            except BackendFailure as problem:
                problems.append(f"{sender.name}: {problem.reason}: {problem.detail}")
            else:
                self._asked[sender.name] = None
                return reply
        return json_error(503, f"no backend has answered: {'; '.join(problems)}")


def _indented(document: bytes) -> bytes:
    return indented(json.loads(document)).encode("utf-8", "surrogatepass") + b"\n"


def _error(number: int, message: str) -> bytes:
    return json.dumps({"statement_id": number, "error": message}, separators=(",", ":")).encode()
