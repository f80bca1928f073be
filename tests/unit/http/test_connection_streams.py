"""Bodies that are streamed to a resource, and responses that a producer makes."""

from __future__ import annotations

from twisted.python.failure import Failure

from influxrelay.core.replies import json_error
from influxrelay.http.overload import OVERHEAD, Activity
from influxrelay.http.request import Request
from testing.connection_case import FINE, ConnectionTestCase, Producer
from testing.scripted import in_chunks, request
from testing.transports import MemoryTransport


class _Receiver:
    """Notes what it is given of a body."""

    def __init__(self) -> None:
        self.body = b""
        self.end = ""

    def data_received(self, data: bytes) -> None:
        self.body += data

    def body_complete(self) -> None:
        self.end = "complete"

    def body_lost(self) -> None:
        self.end = "lost"


class StreamTests(ConnectionTestCase):
    """Responses and bodies in pieces."""

    def begun(self, *headers: tuple[bytes, bytes], data: bytes = b"") -> Request:
        """Ask, and have the response begin."""
        self.client.receive(data or request(b"/page", b"", method=b"GET"))
        found = self.page.requests[-1]
        found.begin(200, *headers)
        return found

    def test_chunked(self) -> None:
        """A response of unknown length travels in chunks, and the connection goes on."""
        found = self.begun((b"Content-Type", b"a/b"))
        for piece in (b"one", b"", b"three"):
            found.write(piece)
        found.finish()
        head, _, body = self.client.take().partition(b"\r\n\r\n")
        self.assertIn(b"\r\nTransfer-Encoding: chunked", head)
        self.assertEqual((body, found.sent), (b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n", 8))
        self.begun().finish()
        self.assertEqual(self.client.take().partition(b"\r\n\r\n")[2], b"0\r\n\r\n")

    def test_with_a_length(self) -> None:
        """One of known length travels as it is."""
        found = self.begun((b"Content-Length", b"3"))
        found.write(b"one")
        found.finish()
        self.assertTrue(self.client.take().endswith(b"\r\n\r\none"))
        self.assertFalse(self.client.closed)

    def test_to_http_1_0(self) -> None:
        """To HTTP/1.0 it ends with the connection, if its length is unknown."""
        data = request(b"/page", b"", b"Connection: keep-alive", version=b"HTTP/1.0")
        found = self.begun(data=data)
        found.write(b"one")
        found.finish()
        written = self.client.take()
        self.assertTrue(written.endswith(b"\r\nConnection: close\r\n\r\none"), written)
        self.assertTrue(self.client.closed)

    def test_to_head(self) -> None:
        """A HEAD gets no body, whatever is written."""
        found = self.begun(data=request(b"/page", b"", method=b"HEAD"))
        found.write(b"one")
        found.finish()
        self.assertTrue(self.client.take().endswith(b"\r\n\r\n"))
        self.assertFalse(self.client.closed)

    def test_aborted(self) -> None:
        """A response that cannot be completed ends in a reset, never as if it were complete."""
        for fail in (Request.abort, lambda found: found.fail(Failure(ZeroDivisionError()))):
            self.client = self.connect()
            found = self.begun()
            found.write(b"one")
            fail(found)
            self.assertTrue(self.client.aborted)
            self.assertFalse(self.client.take().endswith(b"0\r\n\r\n"))
            self.assertEqual(self.site.admission.in_flight, 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_back_pressure(self) -> None:
        """What makes a response is paused while the client does not read, and stopped when it goes."""
        found, producer = self.begun(), Producer()
        found.register_producer(producer)
        self.client.block()
        self.assertIs(self.connection.activity(), Activity.UNREAD)
        self.client.unblock()
        found.unregister_producer()
        self.client.block()
        found.register_producer(producer)
        self.assertEqual(producer.told, ["pause", "resume", "pause"])
        self.client.lose()
        self.assertEqual(producer.told[3:], ["stop"])
        late = Producer()
        found.register_producer(late)
        self.assertEqual(late.told, ["stop"])
        found.write(b"to nobody")
        found.finish()

    def test_unread_responses(self) -> None:
        """While a client does not read, none of its further requests is read."""
        self.page.on_request = lambda found: found.respond(FINE)
        self.client.receive(request(b"/page") * 3)
        self.client.block()
        self.turn()
        self.assertEqual((len(self.page.requests), self.client.reading), (1, False))
        self.client.unblock()
        self.turn()
        self.assertEqual((len(self.page.requests), self.client.reading), (3, True))

    def test_body(self) -> None:
        """A body goes to its receiver as it comes, and what is behind it waits."""
        for data in (request(b"/stream", b"x" * 60_000), in_chunks(b"/stream", b"x" * 30_000, b"x" * 30_000)):
            receiver = _Receiver()
            self.stream.on_request = lambda found, receiver=receiver: found.receive(receiver)
            self.client.receive(data[:40_000])
            self.turn()
            self.assertGreater(len(receiver.body), 30_000)
            self.assertIs(self.connection.activity(), Activity.BODY)
            self.client.receive(data[40_000:] + request(b"/page"))
            self.assertEqual((receiver.body, receiver.end), (b"x" * 60_000, "complete"))
            self.assertLess(self.site.admission.in_flight, 2 * OVERHEAD)
            self.stream.requests[-1].respond(FINE)
            self.turn()
            self.page.requests[-1].respond(FINE)
            self.assertEqual(self.statuses(), [200, 200])

    def test_paused_body(self) -> None:
        """Until there is a receiver, and while it is paused, the client cannot send on."""
        receiver = _Receiver()
        self.client.receive(request(b"/stream", b"x" * 10, length=30))
        (found,) = self.stream.requests
        self.assertFalse(self.client.reading)
        self.assertIs(self.connection.activity(), Activity.RESPONSE)
        found.receive(receiver)
        self.turn()
        self.assertEqual((receiver.body, self.client.reading), (b"x" * 10, True))
        found.pauseProducing()
        self.client.receive(b"x" * 10)
        self.assertEqual((receiver.body, self.client.reading), (b"x" * 10, False))
        found.resumeProducing()
        self.turn()
        self.client.receive(b"x" * 10)
        self.assertEqual((receiver.body, receiver.end), (b"x" * 30, "complete"))

    def test_empty_body(self) -> None:
        """A body without a byte is complete."""
        receiver = _Receiver()
        self.stream.on_request = lambda found: found.receive(receiver)
        self.client.receive(request(b"/stream", b""))
        self.assertEqual((receiver.body, receiver.end), (b"", "complete"))

    def test_lost_body(self) -> None:
        """A receiver is told if the rest will not come, whatever the reason."""
        for end in (
            MemoryTransport.lose,
            MemoryTransport.receive_end,
            lambda client: client.receive(b"zz\r\n"),
            lambda client: self.stream.requests[-1].refuse(json_error(400, "no")),
            lambda client: self.stream.requests[-1].stopProducing(),
        ):
            self.client, receiver = self.connect(), _Receiver()
            self.stream.on_request = lambda found, receiver=receiver: found.receive(receiver)
            self.client.receive(request(b"/stream", b"3\r\nabc\r\n", b"Transfer-Encoding: chunked", length=-1))
            self.turn()
            end(self.client)
            self.assertEqual((receiver.body, receiver.end), (b"abc", "lost"))
            self.assertEqual(self.site.admission.in_flight, 0)

    def test_answered_before_the_body(self) -> None:
        """A response before the end of the body is the last one; the rest of the body is dropped."""
        self.stream.on_request = lambda found: found.respond(FINE)
        self.client.receive(request(b"/stream", b"x" * 10, length=30))
        ((status, headers),) = self.heads()
        self.assertEqual((status, headers[b"connection"]), (200, b"close"))
        self.client.receive(b"x" * 20)
        self.assertTrue(self.client.closed)

    def test_collected_body_as_a_stream(self) -> None:
        """A receiver may ask for a body that is complete."""
        receiver = _Receiver()
        self.client.receive(request(b"/page", b"body"))
        self.page.requests[0].receive(receiver)
        self.assertEqual((receiver.body, receiver.end), (b"body", "complete"))
