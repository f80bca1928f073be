"""What a request to ``/query`` asks, read as InfluxDB reads it (``services/httpd/handler.go``, ``serveQuery``)."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import attrs

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.write import Reply
from influxrelay.delivery.queries import QUERY, Question, forwarded_headers
from influxrelay.http.request import Request
from influxrelay.influxql.ast import Statement
from influxrelay.influxql.parser import QueryError, parse
from influxrelay.influxql.rewriting import redacted
from influxrelay.influxql.tokens import NestingError
from influxrelay.lineprotocol.query_string import values_of, without

MAX_QUERY = 1024 * 1024  # characters of a query that is looked at: it takes about a second
_SHORT = 2048  # characters of a query whose statements are kept
_FORM = b"application/x-www-form-urlencoded"
_BOUNDARY = re.compile(rb'(?i);\s*boundary=(?:"([^"]+)"|([^\s;"]+))')
_NAME = re.compile(rb'(?i);\s*name=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_FILE = re.compile(rb"(?i);\s*filename\*?=")


@attrs.frozen
class Query:
    """A request, with what has to be known of it.

    :ivar text: the statements; empty if there are none.
    :ivar statements: None where the text cannot be parsed.
    :ivar values: the parameters, the first of each.
    :ivar backend: the one that is to answer; empty for any.
    :ivar question: what a backend is asked that is to answer it all.
    """

    text: str = attrs.field(repr=False)
    statements: tuple[Statement, ...] | None = attrs.field(repr=False)
    values: dict[bytes, bytes] = attrs.field(repr=False)
    backend: str
    question: Question

    @property
    def shown(self) -> str:
        """The text without passwords, for the log."""
        return redacted(self.text, self.statements)

    @property
    def database(self) -> str:
        """The database of statements that name none."""
        return self.values.get(b"db", b"").decode("utf-8", "replace")

    def answer(self, reply: Reply) -> Reply:
        """Return what the client gets of the results: with ``async`` nothing, as long as the relay has executed it."""
        if reply.status >= 300 or self.values.get(b"async") != b"true":
            return reply
        return attrs.evolve(reply, status=204, body=b"")

    def ask(self, text: str) -> Question:
        """Return what a backend is asked that is to execute this text instead."""
        question = self.question
        q = urlencode({"q": text}).encode()
        query, body, headers = without(question.query, b"q"), b"", question.headers
        if question.method == b"POST":
            rest = without(question.body, b"q") if self._is_form() else b""
            body = q + b"&" + rest if rest else q
            headers = (*(each for each in headers if each[0] != b"content-type"), (b"content-type", _FORM))
        else:
            query = q + b"&" + query if query else q
        return Question(question.method, query, headers, body)

    def _is_form(self) -> bool:
        return any(name == b"content-type" and _kind(value) == _FORM for name, value in self.question.headers)


def read_query(request: Request) -> Query:
    """Read a request to ``/query``.

    Parameters that servers read differently, by their version of Go, reach none of them.

    :raises InvalidRequest: its text is too long to be looked at, or nested too deeply.
    """
    head = request.head
    query, body, headers = without(head.query, b"backend"), request.take_body(), forwarded_headers(head.headers)
    in_url = values_of(head.query)
    backend = in_url.pop(b"backend", b"").decode("utf-8", "backslashreplace")
    values = dict(in_url)
    kind = head.header(b"content-type")
    if _kind(kind) == b"multipart/form-data":
        values = {**_multipart(body, kind), **in_url}
        body = urlencode({name: value for name, value in values.items() if name not in in_url}).encode()
        headers = (*forwarded_headers(headers, b"content-type"), (b"content-type", _FORM))
        method = b"POST"
    elif request.method == b"POST" and _kind(kind) == _FORM:
        body = without(body)
        values |= values_of(body)
        method = b"POST"
    else:  # whatever its body is, no server looks at it
        body, method = b"", request.method
    text = values.get(b"q", b"").decode("utf-8", "replace").lstrip("\ufeff")
    if len(text) > MAX_QUERY:
        raise InvalidRequest(413, f"the query has more than {MAX_QUERY} characters")
    statements = _statements(text, values.get(b"params", b""))
    return Query(text, statements, values, backend, Question(method, query, headers, body, QUERY))


def _statements(text: str, parameters: bytes) -> tuple[Statement, ...] | None:
    """Return the statements, which for short queries are kept: clients repeat themselves.

    :raises InvalidRequest: as :func:`_parsed`.
    """
    short = len(text) + len(parameters) <= _SHORT
    return _kept(text, parameters) if short else _parsed(text, parameters)


def _parsed(text: str, parameters: bytes) -> tuple[Statement, ...] | None:
    """Return the statements; None for what no server executes.

    :raises InvalidRequest: a server might execute it all the same.
    """
    try:
        bound: Any = None
        if parameters:  # Go's decoder reads one value, and looks at nothing behind it
            bound, _ = json.JSONDecoder().raw_decode(parameters.decode("utf-8", "replace").lstrip(" \t\r\n"))
        return parse(text, bound if isinstance(bound, dict) else None)
    except (NestingError, RecursionError):
        raise InvalidRequest(400, "the query is nested too deeply") from None
    except (QueryError, ValueError):
        return None


_kept = lru_cache(maxsize=512)(_parsed)


def _kind(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()


def _multipart(body: bytes, content_type: bytes) -> dict[bytes, bytes]:
    """Return the values of a multipart body, and its file named ``q`` if no value has that name."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return {}
    values: dict[bytes, bytes] = {}
    file: bytes | None = None
    for part in (b"\r\n" + body).split(b"\r\n--" + (boundary[1] or boundary[2]))[1:]:
        if part.startswith(b"--"):
            break
        head, _, content = part.partition(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            header, _, disposition = line.partition(b":")
            name = _NAME.search(disposition)
            if header.strip().lower() != b"content-disposition" or name is None:
                continue
            if not _FILE.search(disposition):
                values.setdefault(name[1] or name[2] or b"", content)
            elif (name[1] or name[2]) == b"q" and file is None:
                file = content
    return values if file is None else {b"q": file, **values}
