"""A connection on a transport in memory: what clients do, and what resources and clients see of each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from zope.interface import implementer

from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.http.body import BRIEF_LINGER, LINGER, MAX_DROPPED
from influxrelay.http.overload import OVERHEAD, Activity, ClientLimits
from influxrelay.http.refusals import INCOMPLETE
from influxrelay.http.request import Request
from influxrelay.http.site import RelaySite
from testing.scripted import in_chunks, parse_head, request
from testing.transports import MemoryTransport

FINE = Reply(200, ((b"Content-Type", b"text/plain"),), b"fine")


class _Page(Resource):
    """Keeps the requests that it gets; answers none by itself."""

    def __init__(self, *, streams_body: bool = False) -> None:
        super().__init__()
        self.streams_body = streams_body
        self.requests: list[Request] = []
        self.on_request: Callable[[Request], None] | None = None

    def render(self, request: Request) -> None:
        self.requests.append(request)
        if self.on_request is not None:
            self.on_request(request)


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


@implementer(IPushProducer)
class _Producer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class _Case(SynchronousTestCase):
    """A site with a page that waits, one that streams, and a client."""

    def setUp(self) -> None:
        """Make all of them."""
        self.clock = Clock()
        self.page, self.stream = _Page(), _Page(streams_body=True)
        root = Resource()
        root.putChild(b"page", self.page)
        root.putChild(b"stream", self.stream)
        limits = ClientLimits(in_flight=100_000)
        self.site = RelaySite("test", root, self.clock, max_body_size=50_000, limits=limits)
        self.client = self.connect()

    def connect(self) -> MemoryTransport:
        """Connect a client."""
        return MemoryTransport(self.site.buildProtocol(None))

    @property
    def connection(self) -> Any:
        """The oldest connection."""
        return self.site.connections[0]

    def turn(self) -> None:
        """Let the reactor go on."""
        self.clock.advance(0)

    def heads(self) -> list[tuple[int, dict[bytes, bytes]]]:
        """Take what was written, as statuses and headers of responses without bodies."""
        found = []
        for each in re.findall(rb"HTTP/1.1 .*?(?=\r\n\r\n)", self.client.take(), re.DOTALL):
            (_, status, *_), headers = parse_head(each)
            found.append((int(status), dict(headers)))
        return found

    def statuses(self) -> list[int]:
        """Take what was written, as statuses."""
        return [status for status, _ in self.heads()]


class ReadingTests(_Case):
    """From bytes to requests."""

    def test_one_by_one(self) -> None:
        """Byte by byte a request becomes the same as in one piece."""
        for data in (
            request(b"/page?a=b", b"body", b"X-A: b"),
            in_chunks(b"/page?a=b", b"bo", b"dy", headers=[b"X-A: b"]),
            request(b"/page?a=b", b"body", b"X-A: b").replace(b"\r\n", b"\n"),
        ):
            for size in (1, 3, len(data)):
                for start in range(0, len(data), size):
                    self.client.receive(data[start : start + size])
                found = self.page.requests.pop()
                self.assertEqual((found.query, found.head.header(b"x-a"), found.take_body()), (b"a=b", b"b", b"body"))
                found.respond(Reply(204))
        self.assertEqual(self.statuses(), [204] * 9)
        self.assertEqual(self.site.admission.in_flight, 0)

    def test_pipelined(self) -> None:
        """What comes behind a request waits for the response, and nothing more is read meanwhile."""
        first, second = request(b"/page", b"one"), in_chunks(b"/page", b"two")
        self.client.receive(first + second)
        self.client.receive(request(b"/page", b"three")[:-2])
        self.assertFalse(self.client.reading)
        self.page.requests[0].respond(FINE)
        self.assertEqual(len(self.page.requests), 1)
        self.turn()
        self.assertEqual([each.body for each in self.page.requests], [b"one", b"two"])
        self.page.requests[1].respond(FINE)
        self.turn()
        self.assertTrue(self.client.reading)
        self.client.receive(b"ee")
        self.assertEqual(self.page.requests[2].body, b"three")

    def test_others_have_their_turn(self) -> None:
        """Of many requests that come at once one is read in each turn, also if it is answered at once."""
        self.patch(__import__("influxrelay.core.cooperation", fromlist=["x"]), "SLICE", 0.0)
        self.page.on_request = lambda found: found.respond(FINE)
        self.client.receive(request(b"/page", b"") * 5)
        self.assertEqual(len(self.page.requests), 1)
        self.turn()
        self.assertEqual(len(self.page.requests), 5)
        self.assertEqual(self.statuses(), [200] * 5)
        self.assertTrue(self.client.reading)

    def test_chunks_in_turns(self) -> None:
        """Chunks that take long to tell apart are read in turns, and reading pauses meanwhile."""
        data = in_chunks(b"/page", *[b"#"] * 20_000)
        self.client.receive(data)
        self.assertEqual((self.page.requests, self.client.reading), ([], False))
        self.assertIs(self.connection.activity(), Activity.RESPONSE)
        self.turn()
        self.assertEqual(self.page.requests[0].body, b"#" * 20_000)
        self.assertTrue(self.client.reading)

    def test_memory(self) -> None:
        """A body counts until its request is answered, and what else a request takes, too."""
        self.client.receive(request(b"/page", b"x" * 1000)[:-500])
        self.assertEqual(self.site.admission.in_flight, 500 + OVERHEAD)
        self.client.receive(b"x" * 500)
        self.assertEqual(self.site.admission.in_flight, 1000 + OVERHEAD)
        self.assertTrue(self.page.requests[0].reserve(5000))
        self.assertEqual(self.site.admission.in_flight, 6000 + OVERHEAD)
        self.page.requests[0].respond(FINE)
        self.assertEqual(self.site.admission.in_flight, 0)

    def test_executed_for_nobody(self) -> None:
        """A request whose client has gone counts until it is answered, and the response goes nowhere."""
        self.client.receive(request(b"/page", b"x" * 1000))
        self.client.lose()
        (found,) = self.page.requests
        self.assertEqual(self.site.admission.in_flight, 1000 + OVERHEAD)
        found.respond(FINE)
        self.assertEqual((self.site.admission.in_flight, self.client.take()), (0, b""))
        self.assertEqual(self.site.connections, [])

    def test_expect(self) -> None:
        """A client that asks is told to go on, unless its body is there already, or too large."""
        data = request(b"/page", b"body", b"Expect: 100-continue")
        self.client.receive(data[:-4])
        self.assertEqual(self.client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.client.receive(data[-4:])
        self.page.requests[0].respond(FINE)
        self.client.take()
        self.client.receive(data)
        self.page.requests[1].respond(FINE)
        self.assertEqual(self.statuses(), [200])
        self.client.receive(request(b"/page", b"", b"Expect: 100-continue", length=50_001))
        self.assertEqual(self.statuses(), [413])


class EndTests(_Case):
    """Clients that close, wholly or in part, and connections that have to be closed."""

    def test_half_closed(self) -> None:
        """A client that closes its side behind a request gets the response, and then the end."""
        for data in (request(b"/page"), request(b"/page") + request(b"/page")):
            self.client = self.connect()
            self.page.requests.clear()
            self.client.receive(data)
            self.client.receive_end()
            self.page.requests[0].respond(FINE)
            if data != request(b"/page"):
                self.assertFalse(self.client.closed)
                self.turn()
                self.page.requests[1].respond(FINE)
            self.assertTrue(self.client.closed)
            found = self.heads()
            self.assertEqual(len(found), len(self.page.requests))
            self.assertEqual(found[-1][1].get(b"connection"), b"close")

    def test_half_closed_early(self) -> None:
        """One that closes its side within a body is told so; without a request, or within a head, it gets the end."""
        self.client.receive(request(b"/page", b"body")[:-1])
        self.client.receive_end()
        self.assertIn(INCOMPLETE.body, self.client.take())
        for data in (b"", request(b"/page")[:20], request(b"/page", b"body")):
            client = self.connect()
            if data:
                client.receive(data)
            if self.page.requests:
                self.page.requests[0].respond(FINE)
                client.take()
            client.receive_end()
            self.assertEqual((client.take(), client.closed), (b"", True))

    def test_half_closed_while_it_does_not_read(self) -> None:
        """One that closes its side while it does not read gets all its responses."""
        self.page.on_request = lambda found: found.respond(FINE)
        self.client.block()
        self.client.unblock()
        self.client.receive(request(b"/page"))
        self.client.block()
        self.client.receive_end()
        self.client.unblock()
        self.assertEqual((self.statuses(), self.client.closed), ([200], True))

    def test_leaving(self) -> None:
        """Whoever asks is told once that a client has left, or has closed its side."""
        for leave in (MemoryTransport.receive_end, MemoryTransport.lose):
            client, left = self.connect(), Counter[str]()
            client.receive(request(b"/page"))
            self.page.requests[-1].on_leave(partial(left.update, ["left"]))
            leave(client)
            self.assertEqual(left, {"left": 1})
            client.lose()
            self.page.requests[-1].on_leave(partial(left.update, ["again"]))
            self.assertEqual(left, {"left": 1, "again": 1})
            self.page.requests[-1].respond(FINE)

    def test_not_leaving(self) -> None:
        """A client that closes behind its response has not left."""
        left: list[str] = []
        self.client.receive(request(b"/page"))
        self.page.requests[0].on_leave(lambda: left.append("left"))
        self.page.requests[0].respond(FINE)
        self.client.lose()
        self.assertEqual(left, [])

    def test_keep_alive(self) -> None:
        """The connection ends where the client or the site wants it; HTTP/1.0 is told if it does not."""
        for version, header, said in (
            (b"HTTP/1.1", b"X: y", None),
            (b"HTTP/1.1", b"Connection: close", b"close"),
            (b"HTTP/1.0", b"X: y", b"close"),
            (b"HTTP/1.0", b"Connection: keep-alive", b"keep-alive"),
        ):
            self.client = self.connect()
            self.client.receive(request(b"/page", b"", header, version=version))
            self.page.requests.pop().respond(FINE)
            ((_, headers),) = self.heads()
            self.assertEqual((headers.get(b"connection"), self.client.closed), (said, said == b"close"))

    def test_malformed(self) -> None:
        """What cannot be read is answered, what follows it dropped for a moment, and the connection closed."""
        for data in (b"nonsense\r\n", request(b"/page", b"zz\r\n", b"Transfer-Encoding: chunked", length=-1)):
            self.client = self.connect()
            self.client.receive(data)
            ((status, headers),) = self.heads()
            self.assertEqual((status, headers[b"connection"]), (400, b"close"))
            self.client.receive(request(b"/page"))
            self.assertFalse(self.client.closed)
            self.clock.advance(BRIEF_LINGER)
            self.assertTrue(self.client.closed)
        self.assertEqual((self.page.requests, self.site.refused[400]), ([], 2))
        self.assertEqual(self.site.admission.in_flight, 0)

    def test_refused_body(self) -> None:
        """The rest of a refused body is dropped up to its end, or for a while, and not without end."""
        head = request(b"/page", b"", length=60_000)
        self.client.receive(head + b"x" * 59_999)
        self.assertEqual(self.statuses(), [413])
        self.client.receive(b"x")
        self.assertTrue(self.client.closed)
        slow = self.connect()
        slow.receive(head)
        self.clock.advance(LINGER)
        self.assertTrue(slow.aborted)
        endless = self.connect()
        endless.receive(request(b"/page", b"", length=2 * MAX_DROPPED))
        while endless.reading:
            endless.receive(b"x" * 1_000_000)
        self.clock.advance(LINGER)
        self.assertTrue(endless.aborted)

    def test_times(self) -> None:
        """Each activity ends as it should when its time is over."""
        for data, activity, statuses, end in (
            (b"", Activity.HEAD, [], "aborted"),
            (b"GET", Activity.HEAD, [408], "closed"),
            (request(b"/page", b"x", length=2), Activity.BODY, [408], "aborted"),
        ):
            self.client = client = self.connect()
            if data:
                client.receive(data)
            connection: Any = self.site.connections[-1]
            self.assertIs(connection.activity(), activity)
            connection.expire(activity)
            self.assertEqual(self.statuses(), statuses)
            self.clock.advance(LINGER)
            self.assertTrue(getattr(client, end))


class StreamTests(_Case):
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
        found, producer = self.begun(), _Producer()
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
        late = _Producer()
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
