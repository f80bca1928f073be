"""The bytes of responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from uuid import uuid1

from twisted.web.http import RESPONSES, datetimeToString

from influxrelay import __version__
from influxrelay.core.write import Reply
from influxrelay.http.cors import CrossOriginPolicy
from influxrelay.http.head import Head

VERSION = f"relay-{__version__}"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {code: b"HTTP/1.1 %d %s\r\n" % (code, text) for code, text in RESPONSES.items()}

Headers = Sequence[tuple[bytes, bytes]]


class ResponseFormatter:
    """Writes responses, each with the date, the version and the request's id.

    :param seconds: returns seconds; the date is written anew when they change.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._cors = CrossOriginPolicy(["*"])
        self._second = -1
        self._common = self._no_content = b""
        self._ids = count()
        self._id_prefix = str(uuid1())[:24].encode()

    def reconfigure(self, cors: CrossOriginPolicy) -> None:
        """Let another policy hold for the next response."""
        self._cors = cors

    def new_request_id(self) -> bytes:
        """Return an id in the form of a UUID, for a request that came without."""
        return b"%b%012x" % (self._id_prefix, next(self._ids))

    def whole(self, reply: Reply, head: Head | None, *, close: bool) -> bytes:
        """Return a complete response.

        :param head: the request's; None if that could not be read.
        """
        if int(self._seconds()) != self._second:
            self._renew()
        status = reply.status
        if status == 204 and not close and not reply.headers and head is not None and head.is_plain:
            number = b"%012x" % next(self._ids)
            return self._no_content % (number, number)
        parts = [self._start(status, head, reply.headers, close=close)]
        if status != 204:
            parts.append(b"Content-Length: %d\r\n" % len(reply.body))
        parts.append(b"\r\n")
        if head is None or head.method != b"HEAD":
            parts.append(reply.body)
        return b"".join(parts)

    def beginning(self, status: int, headers: Headers, head: Head, *, close: bool, chunked: bool) -> bytes:
        """Return the head of a response whose body follows in pieces."""
        if int(self._seconds()) != self._second:
            self._renew()
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        return b"%b%b\r\n" % (self._start(status, head, headers, close=close), framing)

    def _renew(self) -> None:
        self._second = int(self._seconds())
        self._common = b"Date: %b\r\nX-Influxdb-Version: %b\r\n" % (datetimeToString(), VERSION.encode())
        ids = b"Request-Id: %b%%b\r\nX-Request-Id: %b%%b\r\n\r\n" % (self._id_prefix, self._id_prefix)
        self._no_content = _STATUS_LINES[204] + self._common + ids

    def _start(self, status: int, head: Head | None, headers: Headers, *, close: bool) -> bytes:
        """Return the status line and all headers but those of the framing."""
        request_id = origin = b""
        if head is not None:
            request_id = head.header(b"x-request-id") or head.header(b"request-id")
            origin = head.header(b"origin")
        request_id = request_id or self.new_request_id()
        parts = [
            _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status,
            self._common,
            b"Request-Id: %b\r\nX-Request-Id: %b\r\n" % (request_id, request_id),
        ]
        if origin:
            parts.append(self._cors.headers(origin))
        parts += [b"%b: %b\r\n" % header for header in headers]
        if close:
            parts.append(b"Connection: close\r\n")
        elif head is not None and head.http_1_0:
            parts.append(b"Connection: keep-alive\r\n")
        return b"".join(parts)
