"""A client's connection: bytes become requests, one after the other, and responses become bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.http.body import BRIEF_LINGER, LINGER, ChunkedBody, ChunkError, Drain, SizedBody, Upload
from influxrelay.http.head import Head, HeadError
from influxrelay.http.interfaces import Site
from influxrelay.http.overload import OVERHEAD, Activity
from influxrelay.http.reader import RequestReader
from influxrelay.http.refusals import INCOMPLETE, TOO_LARGE, TOO_MUCH
from influxrelay.http.request import Request
from influxrelay.http.responses import CONTINUE

_EFFORT = 64  # of slices of a body, above which others have their turn first


@implementer(IHalfCloseableProtocol, IPushProducer)
class HTTPConnection(Protocol):
    """A connection, on any transport that has Twisted's interfaces.

    It is a :class:`influxrelay.http.overload.Client`. While a request is answered, what comes behind it is kept and the
    transport paused; so it is while the client does not read its responses. A complete request is executed even if its
    client leaves, and a client that closes its own side only gets its response.

    :ivar answered: how many responses the client got.
    """

    def __init__(self, site: Site) -> None:
        self.answered = self._drained = 0  # the latter is how often the client has read what was waiting for it
        self._site = site
        self._reader = RequestReader(site.heads)
        self._request: Request | None = None
        self._upload: Upload | None = None  # the body of the request, until it is complete
        self._producer: IPushProducer | None = None
        self._turn = False  # whether this connection waits for its turn among others
        self._unread = self._reading_paused = self._half_closed = self._closing = False
        self._drain: Drain | None = None  # of what follows the last response

    # -- called by the transport

    def connectionMade(self) -> None:
        """Join the site's connections."""
        transport: Any = self.transport  # which zope.interface hides
        self._transport = transport
        self.address = transport.getPeer()
        self.write = transport.write
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._site.admission.admit(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what has come: nearly always one request, all of it and nothing else."""
        if self._closing or self._drain is not None:
            self._drop(data)
            return
        is_free = self._request is None and not (self._turn or self._unread)
        if is_free and not self._reader.pending and self._take_request(data):
            return
        self._reader.feed(data)
        if is_free:
            self._read_head()
        elif self._upload is not None and not (self._turn or self._upload.paused):
            self._read_body(self._upload)
        else:
            self._adjust_reading()

    def readConnectionLost(self) -> None:
        """Answer what has come; nothing more will."""
        self._half_closed = True
        if self._turn or (self._unread and self._reader.pending):
            return
        if self._request is None:
            self.close()
        elif self._upload is None:
            self._request.client_left(for_good=False)
        elif not self._upload.paused:
            self._refuse(INCOMPLETE)

    def writeConnectionLost(self) -> None:
        """Do nothing: this end closes both directions at once."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 (the interface's)
        """Leave the site's connections. A complete request is executed all the same."""
        self._closing = True
        if self._drain is not None:
            self._drain.stop()
        self._reader.discard()
        self.stopProducing()
        self._lose_request()
        self._site.lost(self)

    def pauseProducing(self) -> None:
        """Make no more responses: the client does not read those that it has."""
        self._unread = True
        if self._producer is not None:
            self._producer.pauseProducing()
        self._adjust_reading()

    def resumeProducing(self) -> None:
        """Go on: the client reads again."""
        self._unread = False
        self._drained += 1
        if self._producer is not None:
            self._producer.resumeProducing()
        self._go_on()

    def stopProducing(self) -> None:
        """Stop what makes a response: the connection is lost."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    # -- reading

    def _read_head(self) -> None:
        try:
            found = self._reader.read_head()
        except HeadError as error:
            self._give_up(error.status, error.message)
        else:
            if found is not None:
                self._begin_request(*found)
            elif self._half_closed:
                self.close()

    def _take_request(self, data: bytes) -> bool:
        """Have a request answered that is just these bytes; return whether they are one that is this simple."""
        whole = self._reader.read_request(data)
        if whole is None:
            return False
        site, (head, body) = self._site, whole
        resource = site.find(head)
        if getattr(resource, "streams_body", False) or 0 < site.max_body_size < len(body):
            return False
        request = self._request = Request(site, self, head, resource, body)
        if site.admission.reserve(request, len(body) + OVERHEAD):
            site.render(request)
        else:
            self._refuse(TOO_MUCH)
        return True

    def _begin_request(self, head: Head, length: int) -> None:
        site, limit = self._site, self._site.max_body_size
        resource = site.find(head)
        request = self._request = Request(site, self, head, resource)
        streamed = getattr(resource, "streams_body", False)
        if not head.chunked and not streamed and (length <= limit or not limit):
            whole = self._reader.read_whole(length)
            if whole is not None:
                self._handle(request, whole, length + OVERHEAD)
                return
        framing = ChunkedBody() if head.chunked else SizedBody(length)
        upload = self._upload = Upload(framing, self._resume_upload if streamed else None)
        if 0 < limit < length and not streamed:
            self._refuse(TOO_LARGE)
            return
        if head.expects_continue and not self._reader.pending:
            self.write(CONTINUE)
        site.admission.reserve(request, OVERHEAD, None if streamed else self)
        if streamed:
            request.stream(upload)
            site.render(request)
        if self._upload is upload:
            self._read_body(upload)

    def _handle(self, request: Request, body: bytes, more: int) -> None:
        """Have a complete request answered, for which so many more bytes are needed."""
        request.body = body
        if self._half_closed:
            request.client_left(for_good=False)
        if self._site.admission.reserve(request, more):
            self._site.render(request)
        else:
            self._refuse(TOO_MUCH)

    def _read_body(self, upload: Upload) -> None:
        framing, reader, effort = upload.framing, self._reader, 0
        while reader.pending and not (upload.complete or upload.paused):
            try:
                piece = reader.read_piece(framing)
            except ChunkError:
                self._give_up(400, "malformed request")
                return
            upload.take(piece)
            if not upload.streamed:
                self._check(upload, len(piece))
            if self._upload is not upload:
                return
            effort += framing.effort
            if effort > _EFFORT and reader.pending:
                self._go_on()
                return
        if upload.complete and not upload.paused:
            self._end_body(upload)
        elif self._half_closed and not upload.paused:
            self._refuse(INCOMPLETE)
        self._adjust_reading()

    def _check(self, upload: Upload, size: int) -> None:
        """Refuse a body that is too large, or for which there is no memory."""
        if 0 < self._site.max_body_size < upload.size:
            self._refuse(TOO_LARGE)
        elif self._request is not None and not self._site.admission.reserve(self._request, size, self):
            self.refuse_body()

    def _end_body(self, upload: Upload) -> None:
        self._upload = None
        body, request = upload.finish(), self._request
        if not upload.streamed and request is not None:
            self._site.admission.complete(request)
            self._handle(request, body, 0)

    def _resume_upload(self) -> None:
        if self._upload is not None and self._upload.complete:
            self._end_body(self._upload)
        self._go_on()

    def _may_read(self) -> bool:
        """Tell whether what has come may be read on."""
        if self._unread or self._closing or self._drain is not None or not self._reader.pending:
            return False
        return self._request is None or (self._upload is not None and not self._upload.paused)

    def _go_on(self) -> None:
        """Read on, a bit in each turn of this connection among others, so that no client keeps others waiting."""
        if not self._turn and self._may_read():
            self._turn = True
            self._site.take_turns(self._take_turns(), self.cut)
        self._adjust_reading()

    def _take_turns(self) -> Iterator[None]:
        while self._may_read():
            before = self._reader.pending
            if self._upload is not None:
                self._read_body(self._upload)
            else:
                self._read_head()
            if self._reader.pending == before:  # the rest of it has not come
                break
            yield
        self._turn = False
        if self._half_closed:
            self.readConnectionLost()
        self._adjust_reading()

    def _adjust_reading(self) -> None:
        """Read from the transport, or do not, as is right now."""
        upload = self._upload
        busy = self._turn or (upload.paused if upload is not None else self._request is not None)
        too_much = self._drain is not None and self._drain.exhausted
        paused = self._unread or too_much or (busy and self._reader.pending > 0)
        if paused is not self._reading_paused and not self._closing:
            self._reading_paused = paused
            if paused:
                self._transport.pauseProducing()
            elif not self._half_closed:
                self._transport.resumeProducing()

    # -- called by the request

    def is_last(self, request: Request) -> bool:
        """Tell whether the connection has to be closed behind the response to a request."""
        return (
            not request.head.keep_alive
            or self._site.closing
            or self._upload is not None
            or (self._half_closed and not self._reader.pending)
        )

    def end_request(self, *, close: bool) -> None:
        """Go on with the next request, or close the connection: the response is complete."""
        self._request = self._producer = None
        self.answered += 1
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.lose()
            self._linger(LINGER, self.cut, upload.framing)
        elif close:
            self.close()
        elif self._reader.pending or self._reading_paused:
            self._go_on()

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Pause a producer of the response while the client does not read."""
        self._producer = producer
        if producer is not None and self._unread:
            producer.pauseProducing()

    # -- the end

    def _refuse(self, reply: Reply) -> None:
        """Answer before the body is complete.

        What is still coming is read and dropped for a while, so that the client sees the response (RFC 9112, 9.6).
        """
        if self._request is None or self._request.status:  # a response has begun, and cannot be completed
            self.cut()
        else:
            self._request.refuse(reply)

    def _give_up(self, status: int, message: str) -> None:
        """Answer what cannot be read; what follows it cannot be, either."""
        request = self._request
        if request is not None and request.status:
            self.cut()
            return
        head = request.head if request is not None else None
        self._lose_request()
        self.write(self._site.responses.whole(json_error(status, message), head, close=True))
        self._site.refused_unread(status)
        self.answered += 1
        self._linger(BRIEF_LINGER, self.close)

    def _lose_request(self) -> None:
        """Detach the request from this connection; one whose body is not complete ends so."""
        request, self._request = self._request, None
        upload, self._upload = self._upload, None
        if request is not None:
            request.client_left(for_good=True)
            if upload is not None:
                self._site.admission.release(request)
                upload.lose()

    def _linger(self, seconds: float, end: Callable[[], None], framing: SizedBody | ChunkedBody | None = None) -> None:
        """Read and drop what comes, up to the end of a body, or until it is time for the end."""
        self._drain = Drain(framing, self._site.call_later(seconds, end))
        self._drop(self._reader.discard())

    def _drop(self, data: bytes) -> None:
        if self._drain is not None and self._drain.drop(data):
            self.close()
        self._adjust_reading()

    def close(self) -> None:
        """Close the connection when what was written is sent."""
        if not self._closing:
            self._closing = True
            if self._drain is not None:
                self._drain.stop()
            self._transport.unregisterProducer()
            self._transport.loseConnection()

    def cut(self) -> None:
        """Break the connection."""
        self._closing = True
        self._transport.abortConnection()

    # -- for its limits

    @property
    def progress(self) -> int:
        """A number that grows with each response, and whenever the client has read what was waiting for it."""
        return self.answered + self._drained

    def activity(self) -> Activity:
        """Tell what the connection is waiting for."""
        upload = self._upload
        if self._closing or self._drain is not None:
            return Activity.CLOSING
        if self._unread:
            return Activity.UNREAD
        if self._turn or (upload.paused if upload is not None else self._request is not None):
            return Activity.RESPONSE
        if self._request is not None:
            return Activity.BODY
        return Activity.IDLE if self.is_idle() and self.answered else Activity.HEAD

    def is_idle(self) -> bool:
        """Tell whether no request has begun."""
        return self._request is None and not self._reader.pending

    def body_size(self) -> int:
        """Return how many bytes of a body have come."""
        return self._upload.size if self._upload is not None else 0

    def refuse_body(self) -> None:
        """Answer 503 to the request whose body is being received."""
        self._refuse(TOO_MUCH)

    def expire(self, activity: Activity) -> None:
        """End the connection, which has been waiting for too long; a client that has begun a request is told so."""
        if activity is Activity.IDLE:
            self.close()
        elif activity is Activity.BODY:
            self._refuse(json_error(408, "timed out waiting for the body"))
        elif activity is Activity.HEAD and self._reader.pending:
            self._give_up(408, "timed out waiting for the request")
        else:
            self.cut()
