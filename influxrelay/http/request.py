"""One HTTP request, as resources see it: what was asked, and the response that they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from zope.interface import implementer

from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.http.body import Receiver, Upload
from influxrelay.http.error_forms import ErrorForm
from influxrelay.http.head import Head
from influxrelay.http.overload import AdmissionControl
from influxrelay.http.responses import ResponseFormatter

_SHORT = 16 * 1024  # bytes of a first piece that are sent together with what comes next


class Host(Protocol):
    """What requests need of the site that they belong to."""

    @property
    def admission(self) -> AdmissionControl:
        """What their memory is counted by."""

    @property
    def responses(self) -> ResponseFormatter:
        """What writes their responses."""

    def responded(self, request: Request, *, refused: bool) -> None:
        """Count a response, and note it in the access log."""


class Connection(Protocol):
    """The client's connection, as a request sees it."""

    @property
    def address(self) -> Any:
        """The client's address."""

    def is_last(self, request: Request) -> bool:
        """Tell whether the connection has to be closed behind the response."""

    def write(self, data: bytes) -> None:
        """Send something."""

    def end_request(self, *, close: bool) -> None:
        """Go on with the next request, or close the connection: the response is complete."""

    def cut(self) -> None:
        """Break the connection."""

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Pause a producer while the client does not read."""


@implementer(IPushProducer)
class Request:
    """A request, and the way to respond to it: in one piece with :meth:`respond`, or in pieces.

    In pieces means :meth:`begin`, any number of :meth:`write`, then :meth:`finish` or :meth:`abort`. The head and a
    short first piece are sent together with what comes next, or by :meth:`flush`. A producer of such pieces is paused
    while the client does not read. What is sent to a client that has gone goes nowhere, and that is no error: a
    complete request is executed all the same.

    A resource whose ``streams_body`` is true gets the request as soon as its head has come, and asks for the body with
    :meth:`receive`. To pause the request, as a producer, stops the client from sending. For all other resources
    :attr:`body` is complete.

    :ivar resource: what answers it; its ``error_form``, if it has one, puts errors into the form of its API.
    :ivar body: as it was sent.
    :ivar status: of the response; 0 as long as there is none.
    :ivar sent: bytes of the response's body.
    """

    _log = Logger()

    def __init__(
        self, host: Host, connection: Connection, head: Head, resource: Resource | None, body: bytes = b""
    ) -> None:
        self.head = head
        self.resource = resource
        self.body = body
        self.status = 0
        self.sent = 0
        self._host = host
        self._connection: Connection | None = connection
        self._upload: Upload | None = None
        self._held = b""  # the beginning of a response, to be sent with what comes next
        self._chunked = False
        self._close = False
        self._has_left = False
        self._left: Callable[[], None] | None = None

    @property
    def method(self) -> bytes:
        """The method, such as ``POST``."""
        return self.head.method

    @property
    def path(self) -> bytes:
        """The path as the client wrote it, without the query."""
        return self.head.path

    @property
    def query(self) -> bytes:
        """The query string as the client wrote it."""
        return self.head.query

    @property
    def client(self) -> Any:
        """The client's address; None if it has gone."""
        return self._connection.address if self._connection is not None else None

    @property
    def connection(self) -> object | None:
        """What the requests of one connection have in common; None if the client has gone."""
        return self._connection

    def take_body(self) -> bytes:
        """Return the body, and hold it no longer."""
        body, self.body = self.body, b""
        return body

    def reserve(self, size: int) -> bool:
        """Count more bytes of memory for this request until it is answered; tell whether there is room."""
        return self._host.admission.reserve(self, size)

    def on_leave(self, call: Callable[[], None]) -> None:
        """Call this once if the client closes its side, or the connection breaks, before the response is complete."""
        if self._has_left:
            call()
        else:
            self._left = call

    # -- called by the connection

    def stream(self, upload: Upload) -> None:
        """Take note of a body that will come in pieces."""
        self._upload = upload

    def client_left(self, *, for_good: bool) -> None:
        """Note that the client sends nothing more; if that is for good, nobody reads a response, either."""
        self._has_left = True
        if for_good:
            self._connection = None
        call, self._left = self._left, None
        if call is not None:
            call()

    # -- a response in one piece

    def respond(self, reply: Reply) -> None:
        """Send the response."""
        self._respond(reply)

    def refuse(self, reply: Reply) -> None:
        """Send the response to a request about which no backend is asked."""
        self._respond(reply, refused=True)

    def _respond(self, reply: Reply, *, refused: bool = False) -> None:
        host, connection = self._host, self._connection
        host.admission.release(self)
        if connection is None or self.status:
            return
        if reply.status >= 400:
            error_form: ErrorForm | None = getattr(self.resource, "error_form", None)
            reply = reply if error_form is None else error_form(reply)
        self.status, self.sent = reply.status, len(reply.body)
        close = connection.is_last(self)
        connection.write(host.responses.whole(reply, self.head, close=close))
        host.responded(self, refused=refused)
        self._connection = self._left = None
        connection.end_request(close=close)

    def fail(self, failure: Failure) -> None:
        """Respond to what only a mistake of ours can lead to."""
        self._log.failure("{method} {path}", failure, method=self.method, path=self.path)
        if self.status:
            self.abort()
        else:
            self.respond(json_error(500, "internal error"))

    # -- a response in pieces

    def begin(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        """Begin a response with its head. Without a ``Content-Length`` its body travels in chunks."""
        connection, head = self._connection, self.head
        self.status = status
        if connection is None:
            return
        sized = status in (204, 304) or any(name.lower() == b"content-length" for name, _ in headers)
        self._chunked = not sized and not head.http_1_0 and head.method != b"HEAD"
        self._close = connection.is_last(self) or (head.http_1_0 and not sized)
        self._held = self._host.responses.beginning(status, headers, head, close=self._close, chunked=self._chunked)

    def write(self, data: bytes) -> None:
        """Send a piece of the response's body."""
        is_first, self.sent = not self.sent, self.sent + len(data)
        if self._connection is not None and data and self.head.method != b"HEAD":
            piece = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
            if is_first and len(piece) <= _SHORT:
                self._held += piece
            else:
                self.flush()
                self._connection.write(piece)

    def flush(self) -> None:
        """Send what has been held back of the response."""
        held, self._held = self._held, b""
        if held and self._connection is not None:
            self._connection.write(held)

    def finish(self) -> None:
        """End the response."""
        host, connection = self._host, self._connection
        host.admission.release(self)
        if connection is not None:
            end = self._held + (b"0\r\n\r\n" if self._chunked else b"")
            if end:
                connection.write(end)
            host.responded(self, refused=False)
            self._connection = self._left = None
            connection.end_request(close=self._close or connection.is_last(self))

    def abort(self) -> None:
        """Break the connection, so that the client sees that the response is not complete."""
        connection = self._connection
        self._host.admission.release(self)
        self._connection = self._left = None
        if connection is not None:
            connection.cut()

    def register_producer(self, producer: IPushProducer) -> None:
        """Pause a producer of the response's pieces while the client does not read."""
        if self._connection is not None:
            self._connection.set_producer(producer)
        else:
            producer.stopProducing()

    def unregister_producer(self) -> None:
        """Forget the producer."""
        if self._connection is not None:
            self._connection.set_producer(None)

    # -- a body in pieces

    def receive(self, receiver: Receiver) -> None:
        """Deliver the body to a receiver."""
        if self._upload is not None:
            self._upload.attach(receiver)
        else:
            receiver.data_received(self.take_body())
            receiver.body_complete()

    def pauseProducing(self) -> None:
        """Deliver nothing more of the body for now."""
        if self._upload is not None:
            self._upload.pause()

    def resumeProducing(self) -> None:
        """Go on to deliver the body."""
        if self._upload is not None:
            self._upload.resume()

    def stopProducing(self) -> None:
        """Break the connection: nobody wants the rest of the body."""
        self.abort()
