"""One HTTP request: its body is collected, and it gets one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, Request

from influxrelay import __version__
from influxrelay.core.errors import InvalidRequest
from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.lineprotocol.body import Collector

if TYPE_CHECKING:
    from influxrelay.http.connection import RelayChannel

VERSION = f"relay-{__version__}"
LINGER = 10.0  # seconds for which a client may go on sending a body that is refused already
TOO_MUCH = "too many bytes in flight"
RETRY = (b"Retry-After", b"1")
_STATUS_LINES = {code: b"HTTP/1.1 %d %s\r\n" % (code, text) for code, text in RESPONSES.items()}


class RelayRequest(Request):
    """A request whose body is collected within a limit and never read as a form; it gets one :class:`Reply`."""

    channel: RelayChannel
    path = b""
    query = b""
    body: Collector
    has_head = False
    complete = False
    came = 0
    counted = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        """Prepare for the body; the headers are complete."""
        self.site = self.channel.site
        self.has_head = True
        encodings = self.requestHeaders.getRawHeaders(b"Content-Encoding")
        self.body = Collector(self.site.max_body_size, encodings, max_decoded=self.site.max_decoded_size)
        try:
            self.body.expect(length)
        except InvalidRequest as error:
            self._refuse(error)

    def handleContentChunk(self, data: bytes) -> None:
        """Take a piece of the body."""
        if not self._refused:
            self.site.guard.uploads.add(self)
            self.take(data)

    def take(self, data: bytes) -> None:
        """Add to the body."""
        try:
            self.body.add(data)
        except InvalidRequest as error:
            self._refuse(error)
        else:
            if not self.count(len(data)):
                self.refuse_for_memory()

    def count(self, size: int) -> bool:
        """Note that so much more memory is used for this request, until it is answered; tell whether there is room."""
        guard = self.site.guard
        self.counted += size
        guard.held += size
        return guard.held <= guard.limits.in_flight or guard.make_room(self)

    def _let_go(self) -> None:
        guard = self.site.guard
        guard.uploads.discard(self)
        guard.held -= self.counted
        self.counted = 0

    def refuse_for_memory(self) -> None:
        """Answer 503 before the body is complete; the client may try again."""
        self._refuse(InvalidRequest(503, TOO_MUCH), RETRY)

    def refuse_for_time(self) -> None:
        """Answer 408: the body has not come in time."""
        self._refuse(InvalidRequest(408, "the body takes too long"))

    def _refuse(self, error: InvalidRequest, *headers: tuple[bytes, bytes]) -> None:
        """Answer before the body is complete.

        What is still coming is read and dropped for a while, so that the client gets to see the answer (RFC 9112, 9.6).
        """
        if self._refused:
            return
        self._refused = True
        self.body.clear()
        self._let_go()
        self.requestHeaders = self.requestHeaders.copy()
        self.requestHeaders.removeHeader(b"Expect")  # no "100 Continue" behind a final answer
        self.channel.linger(LINGER)
        self.site.refused[error.status] += 1
        self.path = self.channel._path.partition(b"?")[0]  # noqa: SLF001 (ours; the parser has not told us yet)
        self._send(json_error(error.status, error.message, *headers))

    def connectionLost(self, reason: Failure) -> None:
        """Let go of what was collected of an incomplete body; called by the channel.

        A complete request is executed all the same, and its bytes count until that is done.
        """
        if not self.complete:
            self._let_go()
        super().connectionLost(reason)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer the complete request; called by the channel."""
        self.complete = True
        self.site.guard.uploads.discard(self)
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, self.query = path.partition(b"?")
        if not path.startswith(b"/"):  # the absolute form of RFC 9112, 3.2.2
            self.path = b"/" + self.path.partition(b"://")[2].partition(b"/")[2]
        if self._refused:
            self.finish()
            return
        try:
            self.site.render(self)
        except InvalidRequest as error:
            self.refuse(json_error(error.status, error.message))
        except Exception:  # noqa: BLE001 (one request's trouble must not be the connection's)
            self.fail(Failure())

    def fail(self, failure: Failure) -> None:
        """Answer what only a mistake of ours can lead to."""
        self._log.failure("{method} {path}", failure, method=self.method, path=self.path)
        self.answer(json_error(500, "internal error"))

    def refuse(self, reply: Reply) -> None:
        """Answer a request about which no backend is asked."""
        self.site.refused[reply.status] += 1
        self.answer(reply)

    def answer(self, reply: Reply) -> None:
        """Send the one answer; a client that has gone away gets none."""
        self._let_go()
        if not self._disconnected:
            self._send(reply)
            self.finish()

    def _send(self, reply: Reply) -> None:
        channel, site, status = self.channel, self.site, reply.status
        headers = self.requestHeaders
        given = headers.getRawHeaders(b"X-Request-Id") or headers.getRawHeaders(b"Request-Id")
        parts = [
            _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status,
            site.common_headers(),
            b"Request-Id: %b\r\nX-Request-Id: %b\r\n" % ((given[0],) * 2 if given else (site.new_request_id(),) * 2),
        ]
        origin = headers.getRawHeaders(b"Origin")
        if origin:
            parts.append(site.cors.headers(origin[0]))
        parts += [b"%b: %b\r\n" % header for header in reply.headers]
        if site.closing:
            channel.persistent = 0
        if not channel.persistent:
            parts.append(b"Connection: close\r\n")
        if status != 204:
            parts.append(b"Content-Length: %d\r\n" % len(reply.body))
        parts.append(b"\r\n")
        if self.method != b"HEAD":
            parts.append(reply.body)
        self.code, self.sentLength, self.startedWriting = status, len(reply.body), 1
        if self.path == b"/write":
            site.answers[status] += 1
        channel.send(b"".join(parts))
