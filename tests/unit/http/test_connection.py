"""A connection on a transport in memory: what clients do, and what resources and clients see of each other."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from influxrelay.core.write import Reply
from influxrelay.http.body import BRIEF_LINGER, LINGER, MAX_DROPPED
from influxrelay.http.overload import OVERHEAD, Activity
from influxrelay.http.refusals import INCOMPLETE
from testing.connection_case import FINE, ConnectionTestCase
from testing.scripted import in_chunks, request
from testing.transports import MemoryTransport


class ReadingTests(ConnectionTestCase):
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


class EndTests(ConnectionTestCase):
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
