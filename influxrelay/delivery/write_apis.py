"""What a write becomes in the API of its backend's generation of InfluxDB."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import quote_plus

import attrs

from influxrelay.lineprotocol.credentials import basic, user_of
from influxrelay.lineprotocol.query_string import Target, accepts_partial, parse, values_of, without

_COARSE = {b"m": 60, b"h": 3600}
_V2_PRECISIONS = {b"": b"ns", b"n": b"ns", b"ns": b"ns", b"u": b"us", b"ms": b"ms", b"s": b"s", b"m": b"s", b"h": b"s"}
_V3_PRECISIONS = {b"ns": b"nanosecond", b"us": b"microsecond", b"ms": b"millisecond", b"s": b"second"}


@attrs.frozen
class WriteRequest:
    """Where and as whom a body is posted.

    :ivar factor: by which timestamps are multiplied, so that they are in a precision that the API has.
    """

    query: bytes = attrs.field(repr=False)
    authorization: bytes = attrs.field(repr=False)
    factor: int = 1


class WriteAPI(Protocol):
    """One generation's way to write."""

    def address(self, query: bytes, authorization: bytes) -> WriteRequest:
        """Translate the query string of a write, which is that of 1.x, and the client's credentials."""

    def locate(self, query: bytes) -> bytes:
        """Translate the parameters of a query, be they in its URL or in a form."""


@attrs.frozen
class V1:
    """``/write``: everything goes on as it came."""

    def address(self, query: bytes, authorization: bytes) -> WriteRequest:
        """Return both unchanged."""
        return WriteRequest(query, authorization)

    def locate(self, query: bytes) -> bytes:
        """Return them unchanged."""
        return query


@attrs.frozen
class V2:
    """``/api/v2/write``.

    :ivar organization: its name.
    :ivar buckets: those that are not named ``db/rp``, or ``db`` where there is no retention policy.
    """

    organization: str
    buckets: tuple[tuple[str, str], ...] = ()

    def address(self, query: bytes, authorization: bytes) -> WriteRequest:
        """Return organization, bucket and precision, and a user and a password as 2.x wants them: as a token."""
        target = parse(query)
        bucket = _find_bucket(target, self.buckets)
        precision = _V2_PRECISIONS[target.precision]
        pairs = [(b"org", self.organization.encode()), (b"bucket", bucket), (b"precision", precision)]
        user = user_of(authorization, target.username, target.password)
        token = authorization if user is None else b"Token " + b":".join(user)
        return WriteRequest(_encode(pairs), token, _COARSE.get(target.precision, 1))

    def locate(self, query: bytes) -> bytes:
        """Return them unchanged: the server has its own mappings of databases to buckets."""
        return query


@attrs.frozen
class V3:
    """``/api/v3/write_lp``, always with a precision: to guess it by the size of a number can go wrong.

    :ivar databases: those that are not named ``db/rp``, or ``db`` where there is no retention policy.
    """

    databases: tuple[tuple[str, str], ...] = ()

    def address(self, query: bytes, authorization: bytes) -> WriteRequest:
        """Return database, precision and whether a part of the lines may be stored."""
        target = parse(query)
        precision = _V3_PRECISIONS[_V2_PRECISIONS[target.precision]]
        pairs = [(b"db", _find_bucket(target, self.databases)), (b"precision", precision)]
        if not accepts_partial(query):
            pairs.append((b"accept_partial", b"false"))
        if target.username and target.password:
            authorization = basic(target.username, target.password)
        return WriteRequest(_encode(pairs), authorization, _COARSE.get(target.precision, 1))

    def locate(self, query: bytes) -> bytes:
        """Return them with a database that has another name there."""
        values = values_of(query)
        place = b"/".join(filter(None, (values.get(b"db", b""), values.get(b"rp", b""))))
        name = next((each for known, each in self.databases if known.encode() == place), "")
        return without(query, b"db", b"rp") + b"&db=" + quote_plus(name).encode() if name else query


def _find_bucket(target: Target, buckets: tuple[tuple[str, str], ...]) -> bytes:
    place = target.database + (b"/" + target.retention_policy if target.retention_policy else b"")
    return next((bucket.encode() for name, bucket in buckets if name.encode() == place), place)


def _encode(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return b"&".join(name + b"=" + quote_plus(value).encode() for name, value in pairs)
