"""What clients ask of backends, beside writes."""

from __future__ import annotations

import attrs

QUERY, PROMETHEUS_READ = "query", "prometheus read"
_OUR_OWN = frozenset(  # of each connection (RFC 9110, 7.6.1), or for web pages, which the relay answers itself
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"host", b"content-length", b"expect", b"origin"),
    )
)


@attrs.frozen
class Question:
    """A request for the query endpoint of a backend.

    :ivar query: the query string.
    :ivar headers: the client's.
    :ivar endpoint: :data:`QUERY` or :data:`PROMETHEUS_READ`.
    """

    method: bytes
    query: bytes = attrs.field(repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = attrs.field(repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    endpoint: str = QUERY


def forwarded_headers(headers: tuple[tuple[bytes, bytes], ...], *but: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of a request that a backend gets; names are in lower case."""
    return tuple((name, value) for name, value in headers if name not in _OUR_OWN and name not in but)
