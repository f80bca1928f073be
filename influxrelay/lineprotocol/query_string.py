"""What the query string of a write says, read as InfluxDB (Go's ``net/url``) reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote_from_bytes, quote_plus, unquote_to_bytes

import attrs

from influxrelay.core.errors import InvalidRequest
from influxrelay.lineprotocol.parser import PRECISIONS

CONSISTENCIES = ("any", "one", "quorum", "all")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NOT_IN_A_URI = re.compile(rb"[^\x21\x22\x24-\x7e]")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F))).replace("#", "")


@attrs.frozen
class Target:
    """Where a write wants to go.

    :ivar database: not empty.
    :ivar precision: as written by the client, one of :data:`influxrelay.lineprotocol.parser.PRECISIONS`.
    :ivar consistency: one of :data:`CONSISTENCIES`, or ``""`` when the client leaves it to the listener.
    :ivar forwarded: the query string for the backends: the client's own bytes, with ``rp`` filled in where it was
        empty and a default is set.
    """

    database: bytes
    retention_policy: bytes
    precision: bytes
    consistency: str
    username: bytes = attrs.field(repr=False)
    password: bytes = attrs.field(repr=False)
    forwarded: bytes = attrs.field(repr=False)


def _pairs(query: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield (raw pair, name, value); like Go's ``url.ParseQuery``, pairs with ``;`` or a broken escape do not count."""
    for raw in query.split(b"&"):
        if not raw or b";" in raw or _BROKEN_ESCAPE.search(raw):
            continue
        name, _, value = raw.replace(b"+", b" ").partition(b"=")
        yield raw, unquote_to_bytes(name), unquote_to_bytes(value)


def without(query: bytes, *names: bytes) -> bytes:
    """Return the query string less the parameters of these names; the others stay as they were written."""
    return b"&".join(raw for raw, name, _ in _pairs(query) if name not in names)


def read_consistency(values: Mapping[bytes, bytes]) -> str:
    """Return what parameters say of the consistency: one of :data:`CONSISTENCIES`, or nothing.

    :raises InvalidRequest: 400, it is another word.
    """
    consistency = values.get(b"consistency", b"").decode("utf-8", "backslashreplace").lower()
    if consistency and consistency not in CONSISTENCIES:
        raise InvalidRequest(400, f'invalid consistency level "{consistency}" (use any, one, quorum or all)')
    return consistency


def values_of(query: bytes) -> dict[bytes, bytes]:
    """Return the parameters of a query string; of one given twice the first, as with Go's ``url.Values.Get``."""
    values: dict[bytes, bytes] = {}
    for _, name, value in _pairs(query):
        values.setdefault(name, value)
    return values


def parse(query: bytes, default_retention_policy: str = "") -> Target:
    """Read the query string of ``POST /write`` (InfluxDB's ``services/httpd/handler.go``, ``serveWrite``).

    :raises InvalidRequest: 400, in InfluxDB's words.
    """
    values = values_of(query)
    database = values.get(b"db", b"")
    if not database:
        raise InvalidRequest(400, "database is required")
    precision = values.get(b"precision", b"")
    if precision not in PRECISIONS:
        shown = precision.decode("utf-8", "backslashreplace")
        raise InvalidRequest(400, f'invalid precision "{shown}" (use n, ns, u, ms, s, m or h)')
    consistency = read_consistency(values)
    retention_policy = values.get(b"rp", b"")
    if _NOT_IN_A_URI.search(query):
        query = quote_from_bytes(query, safe=_PRINTABLE).encode()
    forwarded = query
    if not retention_policy and default_retention_policy:
        retention_policy = default_retention_policy.encode()
        forwarded = without(query, b"rp") + b"&rp=" + quote_plus(default_retention_policy).encode()
    return Target(
        database,
        retention_policy,
        precision,
        consistency,
        values.get(b"u", b""),
        values.get(b"p", b""),
        forwarded,
    )


def accepts_partial(query: bytes) -> bool:
    """Tell whether a part of the lines may be stored if others cannot be: 3.x' ``accept_partial``, by default true."""
    return values_of(query).get(b"accept_partial") != b"false"


def destination_precision(target: Target) -> bytes:
    """Return the precision of a write's destination, and on another line whether all lines or none are to be stored."""
    precision = b"ns" if target.precision in (b"", b"n") else target.precision
    return precision if accepts_partial(target.forwarded) else precision + b"\naccept_partial: false"


def flag(query: bytes, name: bytes) -> bool:
    """Tell whether a parameter is set to something that InfluxDB takes for yes (``handler.go``, ``servePing``)."""
    first = next((value for _, each, value in _pairs(query) if each == name), b"")
    return first not in (b"", b"0", b"false")
