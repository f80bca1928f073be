"""Asking a backend for a response that is collected as a whole."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery.client import Response
from influxrelay.delivery.response_reader import shown_headers

MAX_RESULT = 16 * 1024 * 1024  # bytes of a response that is collected


def collect_reply(response: Response) -> Deferred[Reply]:
    """Return a response as a whole; to cancel that breaks the connection.

    :raises BackendFailure: it has been cut off, or has no clear end.
    """
    if not response.is_intact or not response.is_framed:
        if response.is_intact:
            response.stopProducing()
        raise BackendFailure("garbage", f"it answered {response.code}, and the rest cannot be read")
    collected: Deferred[Reply] = Deferred(lambda _: response.stopProducing())
    response.deliverBody(_Collector(response, collected))
    return collected


class _Collector(Protocol):
    def __init__(self, response: Response, collected: Deferred[Reply]) -> None:
        self._response = response
        self._collected = collected
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece."""
        self._body += data
        if len(self._body) > MAX_RESULT:
            self._response.stopProducing()
            self._collected.errback(BackendFailure("garbage", f"a result of more than {MAX_RESULT} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Return the whole, or what has gone wrong."""
        if reason.check(ResponseDone):
            raw = [(name, value) for name, values in self._response.headers.getAllRawHeaders() for value in values]
            self._collected.callback(Reply(self._response.code, shown_headers(raw), bytes(self._body)))
        else:
            self._collected.errback(reason)
