"""The body of a request, decoded."""

from __future__ import annotations

from influxrelay.core.errors import InvalidRequest
from influxrelay.lineprotocol.gzip_body import gunzip_slowly
from influxrelay.lineprotocol.scanner import Steps, run

_UNSUPPORTED = {b"deflate", b"br", b"zstd", b"compress", b"snappy"}


def decode(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Return a body decoded.

    Words of ``Content-Encoding`` that name no encoding, such as ``UTF-8``, are ignored, as InfluxDB does.

    :param limit: bytes of the decoded body; 0 for no limit.
    :raises InvalidRequest: 400 for broken gzip, 413 for too much in it, 415 for an encoding other than gzip.
    """
    return run(decode_slowly(body, encoding, limit))


def decode_slowly(body: bytes, encoding: bytes, limit: int) -> Steps[bytes]:
    """Do what :func:`decode` does, a millisecond or so at a time."""
    return (yield from gunzip_slowly(body, limit)) if is_gzip(encoding) else body


def is_gzip(encoding: bytes) -> bool:
    """Tell whether a body is compressed, from the value of ``Content-Encoding``.

    :raises InvalidRequest: 415 for another encoding.
    """
    words = [word.strip().lower() for word in encoding.split(b",")]
    encodings = [word for word in words if word == b"gzip" or word in _UNSUPPORTED]
    if encodings in ([], [b"gzip"]):
        return bool(encodings)
    shown = b", ".join(encodings).decode("ascii")
    raise InvalidRequest(415, f'unsupported Content-Encoding "{shown}" (use gzip or identity)')


def gunzip(data: bytes, limit: int) -> bytes:
    """Decode gzip into at most ``limit`` bytes; 0 for no limit.

    :raises InvalidRequest: 400 or 413.
    """
    return run(gunzip_slowly(data, limit))
