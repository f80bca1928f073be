"""Statements that change something, as they wait in the queues of backends and in journals."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from urllib.parse import parse_qsl, urlencode

import attrs

from influxrelay.core.write import CHANGES, Reply, Write
from influxrelay.delivery.queries import Question
from influxrelay.delivery.responses import is_not_ready

_MISSING = re.compile(r"database not found")
_DONE = {
    # What servers answer that have executed such a statement before (influxdb, services/meta/errors.go).
    "CREATE": re.compile("already exists|conflicts with an existing"),
    "DROP": re.compile("not found|does(?: not|n't) exist"),
}
_LATER = re.compile(
    # Of the server's state, not of the statement (influxdb, query/executor.go, tsdb/engine.go, tsdb/shard.go).
    "max-concurrent-queries limit exceeded|^query interrupted|^engine is closed|shard is (?:closed|disabled)|^timeout$"
)


@attrs.frozen
class Scope:
    """What has to be known of a change for its order.

    :ivar kind: the statement's first keywords, such as ``CREATE DATABASE``.
    :ivar databases: whose writes it must neither overtake nor be overtaken by.
    """

    kind: str
    databases: frozenset[bytes]

    @property
    def waits(self) -> bool:
        """Whether earlier writes to its databases have to be through: not where they may be waiting for it."""
        return self.kind != "CREATE DATABASE"


@attrs.frozen
class Change:
    """A statement for every backend.

    :ivar own_credentials: whether backends are asked as the users of their outputs.
    :ivar shown: the statement without passwords.
    """

    question: Question
    scope: Scope
    shown: str
    own_credentials: bool = False


@attrs.frozen
class Result(Reply):
    """The answer of a backend that has executed a statement.

    :ivar source: the transport that has brought it.
    """

    source: object = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class Refusal(Reply):
    """The answer 200 with a statement's error in it: for whoever settles the change its status is a 4xx."""


def as_write(change: Change) -> Write:
    """Return what the queues and the journal take: the scope is its query, all else its body."""
    question = change.question
    query = urlencode([("kind", change.scope.kind), *(("db", each) for each in sorted(change.scope.databases))])
    fields = {
        "method": question.method.decode("latin-1"),
        "query": question.query.decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in question.headers],
        "body": question.body.decode("latin-1"),
        "own_credentials": change.own_credentials,
        "shown": change.shown,
    }
    return Write(CHANGES, query.encode(), b"", json.dumps(fields).encode(), mergeable=False)


def as_change(write: Write) -> Change:
    """Return what :func:`as_write` was given."""
    fields = json.loads(write.body)
    headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in fields["headers"])
    method, query, body = (fields[each].encode("latin-1") for each in ("method", "query", "body"))
    question = Question(method, query, headers, body)
    return Change(question, scope_of(write.query), fields["shown"], fields["own_credentials"])


def shown_statement(write: Write) -> str:
    """Return a statement without passwords."""
    shown: str = json.loads(write.body)["shown"]
    return shown


@lru_cache(maxsize=1024)
def scope_of(query: bytes) -> Scope:
    """Return what the query of such a write says."""
    pairs = parse_qsl(query.decode("ascii"), encoding="latin-1")
    kind = next((value for name, value in pairs if name == "kind"), "")
    return Scope(kind, frozenset(value.encode("latin-1") for name, value in pairs if name == "db"))


def read_result(reply: Reply, source: object) -> Reply:
    """Tell by the answer of a backend whether it has executed a statement."""
    if reply.status >= 300:
        return reply
    error = error_in(reply.body)
    if not error:
        return Result(reply.status, reply.headers, reply.body, source=source)
    if _LATER.search(error):
        return Reply(503, reply.headers, reply.body)
    return Refusal(404 if _MISSING.search(error) else 400, reply.headers, reply.body)


def was_executed_before(scope: Scope, reply: Reply) -> bool:
    """Tell whether a refusal shows that the backend has executed the same statement before."""
    done = _DONE.get(scope.kind.partition(" ")[0])
    return done is not None and not is_not_ready(reply) and done.search(error_in(reply.body)) is not None


def error_in(body: bytes) -> str:
    """Return the error of a statement in a response that says 200; empty if there is none.

    In CSV and msgpack the word alone tells: the results of changes have no names in them.
    """
    try:
        found = json.loads(body)
        results = found.get("results", [])
        return str(found.get("error") or next((each["error"] for each in results if "error" in each), ""))
    except (ValueError, AttributeError, TypeError):
        return "the statement has an error" if b"error" in body else ""
