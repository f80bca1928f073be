"""What the query strings of InfluxDB 2.x and 3.x say of a write, in the terms of 1.x."""

from __future__ import annotations

from urllib.parse import quote_plus

import attrs

from influxrelay.core.errors import InvalidRequest
from influxrelay.lineprotocol.credentials import basic, user_of
from influxrelay.lineprotocol.query_string import Target, parse, values_of

_V2_PRECISIONS = {b"": b"", b"ns": b"", b"us": b"u", b"ms": b"ms", b"s": b"s"}
_V3_PRECISIONS = {
    **dict.fromkeys((b"", b"auto", b"ns", b"n", b"nanosecond"), b""),
    **dict.fromkeys((b"us", b"u", b"microsecond"), b"u"),
    **dict.fromkeys((b"ms", b"millisecond"), b"ms"),
    **dict.fromkeys((b"s", b"second"), b"s"),
}


@attrs.frozen
class Addressed:
    """A write's target, and what else its request says.

    :ivar authorization: the header for the backends.
    :ivar guesses: whether each timestamp's precision is to be guessed by its size; then the target's is nanoseconds.
    """

    target: Target
    authorization: bytes = attrs.field(repr=False)
    guesses: bool = False


def read_v1(query: bytes, authorization: bytes, default_retention_policy: str = "") -> Addressed:
    """Read the query string of ``/write``; see :func:`influxrelay.lineprotocol.query_string.parse`."""
    return Addressed(parse(query, default_retention_policy), authorization)


def read_v2(query: bytes, authorization: bytes, default_retention_policy: str = "") -> Addressed:
    """Read the query string of ``/api/v2/write`` as 1.8 does (``services/httpd/handler.go``, ``serveWriteV2``).

    The bucket is ``db`` or ``db/rp``; the organization is ignored.

    :raises InvalidRequest: 404 without a bucket; 400.
    """
    values = values_of(query)
    bucket = values.get(b"bucket", b"")
    shown = bucket.decode("utf-8", "backslashreplace")
    if not bucket:
        raise InvalidRequest(
            404, f'bucket name "{shown}" is missing a slash; not in "database/retention-policy" format'
        )
    if bucket.startswith(b"/"):
        raise InvalidRequest(404, f'bucket name "{shown}" is in db/rp form but has an empty database')
    precision = values.get(b"precision", b"")
    if precision not in _V2_PRECISIONS:
        found = precision.decode("utf-8", "backslashreplace")
        raise InvalidRequest(400, f'invalid precision "{found}" (use ns, us, ms or s)')
    forwarded = _in_v1(bucket, _V2_PRECISIONS[precision], values)
    return Addressed(parse(forwarded, default_retention_policy), _for_1x(authorization))


def read_v3(query: bytes, authorization: bytes, default_retention_policy: str = "") -> Addressed:
    """Read the query string of ``/api/v3/write_lp``; ``no_sync`` counts for nothing here.

    The name of the database is ``db`` or ``db/rp``, as 3.x itself calls the retention policies of 1.x' clients.

    :raises InvalidRequest: 400.
    """
    values = values_of(query)
    database = values.get(b"db", b"")
    if not database:
        raise InvalidRequest(400, "missing query parameter 'db'")
    if database.startswith(b"/"):
        raise InvalidRequest(400, "the name of the database begins with a slash")
    precision = values.get(b"precision", b"").lower()
    if precision not in _V3_PRECISIONS:
        found = precision.decode("utf-8", "backslashreplace")
        allowed = "`auto`, `second`, `millisecond`, `microsecond`, `nanosecond`"
        raise InvalidRequest(400, f"invalid precision: unknown variant `{found}`, expected one of {allowed}")
    partial = values.get(b"accept_partial", b"") or b"true"
    if partial not in (b"true", b"false"):
        raise InvalidRequest(400, "invalid accept_partial: expected `true` or `false`")
    forwarded = _in_v1(database, _V3_PRECISIONS[precision], values)
    if partial == b"false":
        forwarded += b"&accept_partial=false"
    if not authorization and (token := values.get(b"p")):
        authorization = basic(values.get(b"u", b""), token)
    guesses = precision in (b"", b"auto")
    return Addressed(parse(forwarded, default_retention_policy), _for_1x(authorization), guesses)


def _in_v1(bucket: bytes, precision: bytes, values: dict[bytes, bytes]) -> bytes:
    """Return the same request's query string for 1.x."""
    database, _, policy = bucket.partition(b"/")
    pairs = [(b"db", database), (b"rp", policy), (b"precision", precision)]
    pairs.append((b"consistency", values.get(b"consistency", b"")))
    return b"&".join(name + b"=" + quote_plus(value).encode() for name, value in pairs if value)


def _for_1x(authorization: bytes) -> bytes:
    """Return the header in a form that 1.x understands, if it names a user and a password."""
    user = user_of(authorization)
    return authorization if user is None else basic(*user)
