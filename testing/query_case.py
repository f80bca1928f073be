"""Queries in tests: requests, answers of backends, and who has answered."""

from __future__ import annotations

from urllib.parse import quote_plus

from testing.scripted import Action, Answer, RelayTestCase, answer, request

JSON = (b"Content-Type", b"application/json")
RESULT = b'{"results":[{"statement_id":0}]}\n'
ROWS = b'{"results":[{"statement_id":0,"series":[{"name":"m","columns":["time","v"],"values":[[1,2]]}]}]}\n'
FAILED = b'{"results":[{"statement_id":0,"error":"no such thing"}]}\n'


def result(body: bytes = RESULT, *headers: tuple[bytes, bytes]) -> Action:
    """Answer a query."""
    return answer(200, body, JSON, *headers)


def asking(q: str, *headers: bytes, method: bytes = b"GET", more: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    return request(b"/query?q=%b%b" % (quote_plus(q).encode(), more), b"", *headers, method=method)


class QueryTestCase(RelayTestCase):
    """Asks relays."""

    def named(self, found: Answer) -> bytes | None:
        """Return who has answered."""
        return found.header("X-Influxrelay-Backend")
