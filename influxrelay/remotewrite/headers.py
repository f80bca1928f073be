"""The headers of remote writes and of their answers (Prometheus' remote write specifications 1.0 and 2.0)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl, quote_plus

from influxrelay.core.write import REMOTE_WRITE, Reply
from influxrelay.remotewrite.bodies import Counts

VERSION_HEADER = b"X-Prometheus-Remote-Write-Version"
TENANTS = (b"X-Scope-OrgID", b"THANOS-TENANT")
"""By these Mimir, Cortex, Loki's kin and Thanos keep tenants apart."""

WRITTEN = tuple(b"X-Prometheus-Remote-Write-%b-Written" % each for each in (b"Samples", b"Histograms", b"Exemplars"))
CONTENT_TYPES = (
    b"application/x-protobuf;proto=prometheus.WriteRequest",
    b"application/x-protobuf;proto=io.prometheus.write.v2.Request",
)
_MEDIA_TYPE, _VERSION = b"content-type", b"remote-write-version"
OWN_PARAMETERS = (_MEDIA_TYPE, _VERSION)
"""Parameters of the query string that are ours."""

_VERSIONS = {b"": 1, b"prometheus.writerequest": 1, b"io.prometheus.write.v2.request": 2}

Headers = tuple[tuple[bytes, bytes], ...]


def version_of(content_type: bytes) -> int:
    """Return the version that a ``Content-Type`` stands for; 0 if that is none of remote write.

    None at all is 1.0, as in Prometheus (``storage/remote/write_handler.go``).
    """
    kind, *parameters = (part.strip().lower() for part in content_type.split(b";"))
    if kind not in (b"", b"application/x-protobuf"):
        return 0
    values = (part.partition(b"=") for part in parameters)
    schema = next((value.strip().strip(b'"') for name, _, value in values if name.strip() == b"proto"), b"")
    return _VERSIONS.get(schema, 0)


# -- what queues and journals keep of a request's head


def with_media_type(query: bytes, content_type: bytes, version: bytes) -> bytes:
    """Return the query string of a write that has these headers."""
    media_type = b"%b=%b" % (_MEDIA_TYPE, quote_plus(content_type).encode())
    return b"&".join((query, media_type, *([b"%b=%b" % (_VERSION, quote_plus(version).encode())] if version else ())))


def destination_precision(tenant: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return what stands for the precision in the destination of remote writes with these headers."""
    return b"\n".join((REMOTE_WRITE.encode(), *(b"%b: %b" % each for each in tenant)))


def request_headers(query: bytes, precision: bytes) -> Headers:
    """Return the headers that a write has, by its query string and its destination's precision."""
    kept = dict(parse_qsl(query))
    headers = [(b"Content-Type", kept.get(_MEDIA_TYPE, CONTENT_TYPES[0])), (b"Content-Encoding", b"snappy")]
    if _VERSION in kept:
        headers.append((VERSION_HEADER, kept[_VERSION]))
    for line in precision.split(b"\n")[1:]:
        name, _, value = line.partition(b": ")
        headers.append((name, value))
    return tuple(headers)


def is_version_2(query: bytes) -> bool:
    """Tell whether a write with this query string is of version 2.0."""
    return version_of(dict(parse_qsl(query)).get(_MEDIA_TYPE, b"")) == 2


def written(counts: Counts) -> Headers:
    """Return what tells a sender that so much was written."""
    return tuple(
        (name, b"%d" % number)
        for name, number in zip(WRITTEN, (counts.samples, counts.histograms, counts.exemplars), strict=True)
    )


def has_counts(reply: Reply) -> bool:
    """Tell whether an answer says what was written."""
    return any(name in WRITTEN for name, _ in reply.headers)


def only_counts(headers: Headers) -> Headers:
    """Return those headers of an answer that say what was written."""
    return tuple(each for each in headers if each[0] in WRITTEN)


def least(one: Headers, other: Headers) -> Headers:
    """Return the smaller number for each count that two answers have; one that says nothing has written nothing."""
    first, second = dict(one), dict(other)
    return tuple((name, min(_number(first.get(name)), _number(second.get(name)), key=int)) for name in WRITTEN)


def total(answers: Sequence[Headers]) -> Headers:
    """Return the sum for each count of several answers, each about another part of a write."""
    known = [dict(each) for each in answers]
    return tuple((name, b"%d" % sum(int(_number(each.get(name))) for each in known)) for name in WRITTEN)


def _number(value: bytes | None) -> bytes:
    return value if value is not None and value.isdigit() else b"0"
