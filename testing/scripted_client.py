"""A client that sends what a test tells it, in the test's own reactor.

It is no HTTP library on purpose: it sends any bytes, whole or in pieces, and shows answers as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from testing.messages import LINE, Answer, parse_head, reactor, until


class Client(Protocol):
    """A connection to the relay.

    :ivar interim: the 1xx answers that came.
    :ivar closed: whether the relay, or :meth:`vanish`, has ended the connection.
    :ivar was_reset: whether it was broken then, instead of closed.
    """

    transport: Any

    def __init__(self) -> None:
        self.interim: list[Answer] = []
        self.closed = self.was_reset = False
        self._buffer = b""
        self._waiter: Deferred[None] | None = None

    def send(self, *pieces: bytes) -> None:
        """Send bytes at once."""
        self.transport.write(b"".join(pieces))

    async def send_in_pieces(self, data: bytes, size: int) -> None:
        """Send bytes in pieces that arrive one by one."""
        for start in range(0, len(data), size):
            self.transport.write(data[start : start + size])
            await deferLater(reactor, 0.001)

    def vanish(self) -> None:
        """Break the connection."""
        if not self.closed:
            self.transport.abortConnection()

    async def leave(self) -> None:
        """Break the connection, and return when it has ended."""
        self.vanish()
        await self.end()

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Return the next final answer; it must come before the end of the connection.

        :param to_head: the request was a HEAD, so that the answer has no body.
        """
        while True:
            found = self._parse(to_head=to_head)
            if found is None:
                if self.closed:
                    raise AssertionError(f"the connection has ended without a complete answer: {self._buffer[:300]!r}")
                self._waiter = Deferred()
                await self._waiter
            elif found.status < 200:
                self.interim.append(found)
            else:
                return found

    async def ask(self, *pieces: bytes) -> Answer:
        """Send a request and return the answer."""
        self.send(*pieces)
        return await self.answer()

    async def end(self) -> bytes:
        """Wait for the end of the connection, and return what came before it and was no answer."""
        await until(lambda: self.closed, "the end of the connection")
        return self._buffer

    @property
    def unread(self) -> bytes:
        """What has come and was not returned as an answer."""
        return self._buffer

    def _parse(self, *, to_head: bool) -> Answer | None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        (version, status, *reason), headers = parse_head(head)
        code = int(status)
        length = 0
        if code >= 200 and code not in (204, 304) and not to_head:
            announced = dict(headers).get(b"content-length")
            if announced is None and not self.closed:
                return None
            length = len(rest) if announced is None else int(announced)
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return Answer(headers, rest[:length], version, code, b"".join(reason))

    def dataReceived(self, data: bytes) -> None:
        """Keep it until it is asked for."""
        self._buffer += data
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end."""
        self.closed = True
        self.was_reset = reason.check(ConnectionLost) is not None
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)


def request(
    target: bytes = b"/write?db=db",
    body: bytes = LINE,
    *headers: bytes,
    method: bytes = b"POST",
    version: bytes = b"HTTP/1.1",
    length: int | None = None,
) -> bytes:
    """Return the bytes of a request.

    :param headers: whole lines, without their ends.
    :param length: another Content-Length than the true one; -1 for none.
    """
    lines = [b"%b %b %b" % (method, target, version), b"Host: relay", *headers]
    if length != -1:
        lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join([*lines, b"", body])


PING = request(b"/ping", b"", method=b"GET")


def in_chunks(target: bytes, *pieces: bytes, headers: Sequence[bytes] = ()) -> bytes:
    """Return the bytes of a chunked request."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return request(target, body, b"Transfer-Encoding: chunked", *headers, length=-1)
