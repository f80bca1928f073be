"""Statements that change something: how they are kept, and what is read from the answers to them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import CHANGES, STATEMENT, Reply
from influxrelay.delivery.queries import Question
from influxrelay.delivery.responses import Verdict, judge
from influxrelay.delivery.statements import (
    Change,
    Refusal,
    Result,
    Scope,
    as_change,
    as_write,
    error_in,
    read_result,
    scope_of,
    shown_statement,
    was_executed_before,
)


def failed(error: str) -> Reply:
    """Return InfluxDB's answer to a statement with an error."""
    return Reply(200, (), b'{"results":[{"statement_id":0,"error":"%b"}]}\n' % error.encode())


class KeptTests(SynchronousTestCase):
    """What queues and journals have of a change."""

    def test_round_trip(self) -> None:
        """A change comes back as it was, whatever bytes its names have."""
        headers = ((b"authorization", b"Basic eDp5"), (b"x-odd", b"\xff\x00"))
        question = Question(b"POST", b"u=me&p=%20", headers, b"q=DROP+SERIES&x=\xfe")
        change = Change(question, Scope("DROP SERIES", frozenset((b"a&b=c", b"\xff \x00d"))), "shown", True)
        write = as_write(change)
        self.assertEqual(as_change(write), change)
        self.assertEqual((write.destination, write.destination.kind, write.mergeable), (CHANGES, STATEMENT, False))
        self.assertEqual(shown_statement(write), "shown")

    def test_scope(self) -> None:
        """The creation of a database waits for no writes, anything else does."""
        for kind, waits in (("CREATE DATABASE", False), ("DELETE", True), ("CREATE RETENTION POLICY", True)):
            write = as_write(Change(Question(b"GET", b"", ()), Scope(kind, frozenset((b"d",))), ""))
            scope = scope_of(write.query)
            self.assertEqual((scope.kind, scope.databases, scope.waits), (kind, frozenset((b"d",)), waits))


class AnswerTests(SynchronousTestCase):
    """What a backend's answer says."""

    def test_verdicts(self) -> None:
        """An error in a result is a refusal, unless it speaks of the server's state or of a missing database."""
        for error, verdict in (
            ("user already exists", Verdict.REFUSED),
            ("database not found: d", Verdict.NOT_READY),
            ("query interrupted", Verdict.NOT_NOW),
            ("engine is closed", Verdict.NOT_NOW),
            ("max-concurrent-queries limit exceeded(1, 1)", Verdict.NOT_NOW),
            ("measurement not found: timeout", Verdict.REFUSED),
        ):
            reply = read_result(failed(error), self)
            self.assertIs(judge(reply, STATEMENT), verdict, error)
            self.assertEqual(reply.body, failed(error).body)
        self.assertIsInstance(read_result(failed("x"), self), Refusal)
        self.assertEqual(read_result(Reply(403), self), Reply(403))
        result = read_result(Reply(200, (), b'{"results":[{"statement_id":0}]}\n'), self)
        assert isinstance(result, Result)
        self.assertIs(result.source, self)

    def test_error(self) -> None:
        """Errors are found in JSON; in other formats the word tells."""
        for body, error in (
            (b'{"error":"all of it"}', "all of it"),
            (b'{"results":[{"statement_id":0},{"error":"second"}]}', "second"),
            (b'{"results":[{"statement_id":0,"series":[{"name":"result"}]}]}', ""),
            (b"error,\n", "the statement has an error"),
            (b"", ""),
            (b"[1]", ""),
        ):
            self.assertEqual(error_in(body), error, body)

    def test_executed_before(self) -> None:
        """What was created exists, and what was dropped is not found; other errors tell nothing."""
        for kind, error, expected in (
            ("CREATE USER", "user already exists", True),
            ("CREATE SUBSCRIPTION", "subscription already exists", True),
            ("CREATE USER", "user not found", False),
            ("DROP USER", "user not found", True),
            ("DROP MEASUREMENT", "measurement not found: m", True),
            ("DROP RETENTION POLICY", "database not found: d", False),
            ("GRANT", "user not found", False),
            ("DELETE", "x already exists", False),
        ):
            reply = read_result(failed(error), self)
            self.assertIs(was_executed_before(Scope(kind, frozenset()), reply), expected, (kind, error))
