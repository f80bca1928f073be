"""Connections of HTTP clients: order of responses, closing, vanishing and too many writes."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure
from twisted.web.resource import Resource

from influxrelay.delivery.fate import Waiter
from influxrelay.http import head as head_module
from influxrelay.http.request import Request
from testing.http_case import HTTPTestCase
from testing.scripted import LINE, Hold, answer, in_chunks, request, until


class ConnectionTests(HTTPTestCase):
    """Versions of HTTP, keep-alive, pipelining, and Expect."""

    async def test_keep_alive(self) -> None:
        """Many requests of all kinds are answered on one connection."""
        await self.begin()
        for _ in range(3):
            self.assertEqual((await self.asked(request())).status, 204)
            self.assertEqual((await self.asked(request(b"/write"))).status, 400)
            self.assertEqual((await self.asked(request(b"/ping", b"", method=b"GET"))).status, 204)
            self.assertEqual((await self.asked(in_chunks(b"/write?db=db", LINE))).status, 204)
            self.assertIsNone((await self.asked(request(b"/nothing"))).header("Connection"))
        self.assertEqual(len(self.server.requests), 6)
        self.assertEqual(len(self.service.site.connections), 1)

    async def test_same_head_again(self) -> None:
        """Requests with the same head are told apart by their bodies, whole or in pieces."""
        await self.begin()
        bodies = [b"cpu value=%d 1\n" % number for number in range(10, 90)]
        for number, body in enumerate(bodies):
            data = request(body=body)
            if number % 3 == 0:
                await self.user.send_in_pieces(data, len(data) - 5)
            else:
                self.user.send(data)
            self.assertEqual((await self.user.answer()).status, 204)
        self.assertEqual([each.body for each in self.server.requests], bodies)

    async def test_same_head_with_credentials(self) -> None:
        """Requests that differ in one header only are never taken for each other."""
        await self.begin()
        for name in [b"a", b"b", b"a", b"c", b"b", b"a"]:
            await self.asked(request(b"/write?db=db", LINE, b"Authorization: Token " + name))
            self.assertEqual(self.server.requests[-1].header("Authorization"), b"Token " + name)

    async def test_blank_line_before_a_request(self) -> None:
        """Blank lines before a request are skipped, however they end and in how many pieces they come."""
        await self.begin()
        for blank in (b"\r\n", b"\n", b"\r\n\r\n", b"\n\n\r\n\n", b"\r\n" * 10_000):
            self.assertEqual((await self.asked(blank, request())).status, 204)
            await self.user.send_in_pieces(blank[:20] + request(), 7)
            self.assertEqual((await self.user.answer()).status, 204)
        self.assertEqual(len(self.server.requests), 10)

    async def test_many_heads(self) -> None:
        """The relay remembers no more than so many heads, and no long ones."""
        self.patch(head_module, "_CACHED_HEADS", 4)
        await self.begin()
        for number in range(20):
            self.assertEqual((await self.asked(request(b"/write?db=db", LINE, b"X-Number: %d" % number))).status, 204)
        self.assertLessEqual(len(self.service.site.heads), 4)
        await self.asked(request(b"/write?db=db", LINE, b"X-Long: " + b"x" * 3000))
        self.assertLess(max(map(len, self.service.site.heads._heads)), 3000)

    async def test_pipelining(self) -> None:
        """Requests sent without waiting are answered in their order."""
        hold = Hold(answer(400, b"first"))
        await self.begin(hold, answer(404, b"second"), answer(204))
        self.user.send(
            request(body=b"a v=1 1"),
            request(b"/write?db=other", b"b v=1 1"),
            request(b"/ping", b"", method=b"GET"),
            request(b"/write"),
            request(body=b""),
            request(b"/ping?verbose=1", b"", method=b"GET"),
            in_chunks(b"/write?db=db", b"c v=1 1"),
        )
        await until(lambda: self.server.requests)
        self.assertEqual(self.user.unread, b"")
        hold.release()
        statuses = [(await self.user.answer()).status for _ in range(7)]
        self.assertEqual(statuses, [400, 404, 204, 400, 204, 200, 204])
        self.assertEqual([each.body for each in self.server.requests], [b"a v=1 1", b"b v=1 1", b"c v=1 1"])

    async def test_deep_pipelining(self) -> None:
        """A client may send many thousand requests before it reads an answer."""
        await self.begin()
        count = 3000
        self.user.send(*[request(b"/write"), request(body=b"")] * count)
        statuses = [(await self.user.answer()).status for _ in range(count * 2)]
        self.assertEqual(statuses, [400, 204] * count)

    async def test_bare_newlines(self) -> None:
        """A head whose lines end in a bare newline, as small devices write it, is read as any other."""
        await self.begin()
        head = b"POST /write?db=db HTTP/1.1\nHost: x\nContent-Length: %d\n\n" % len(LINE)
        for ends in (head, head.replace(b"HTTP/1.1\n", b"HTTP/1.1\r\n"), head.replace(b"\n\n", b"\n\r\n")):
            self.assertEqual((await self.asked(ends, LINE)).status, 204)
            await self.user.send_in_pieces(ends + LINE, 3)
            self.assertEqual((await self.user.answer()).status, 204)
        self.assertEqual([each.body for each in self.server.requests], [LINE] * 6)

    async def test_half_close(self) -> None:
        """A client that closes its side behind its request, as "nc -N" does, gets the answer, and the end."""
        hold = Hold(answer(404, b"words"))
        await self.begin(hold)
        self.user.send(request())
        self.user.transport.loseWriteConnection()
        await until(lambda: self.server.requests)
        self.assertFalse(self.user.closed)
        hold.release()
        self.assertEqual((await self.user.answer()).body, b"words")
        self.assertEqual(await self.user.end(), b"")

    async def test_padded_chunks(self) -> None:
        """Blanks behind the size of a chunk are overlooked."""
        await self.begin()
        body = b"%x  \r\n%b\r\n0 \r\n\r\n" % (len(LINE), LINE)
        data = request(b"/write?db=db", body, b"Transfer-Encoding: chunked", length=-1)
        self.assertEqual((await self.asked(data)).status, 204)
        self.assertEqual(self.server.requests[0].body, LINE)

    async def test_http_1_0(self) -> None:
        """A client of HTTP/1.0 is answered, and its connection ends."""
        await self.begin(answer(204), answer(400, b"bad"))
        for status in (204, 400):
            user = await self.client(self.service)
            found = await user.ask(request(version=b"HTTP/1.0"))
            self.assertEqual((found.status, found.header("Connection")), (status, b"close"))
            self.assertEqual(await user.end(), b"")

    async def test_close(self) -> None:
        """With "Connection: close" the connection ends after the answer, in any spelling, again and again."""
        await self.begin()
        for header in (
            b"Connection: close",
            b"connection: Close",
            b"Connection: keep-alive, close",
            b"Connection: close, TE",
        ):
            for _ in range(2):
                user = await self.client(self.service)
                found = await user.ask(request(b"/write?db=db", LINE, header))
                self.assertEqual((found.status, found.header("Connection")), (204, b"close"), header)
                self.assertEqual(await user.end(), b"")

    async def test_expect(self) -> None:
        """A client that asks before it sends is told to go on, each time."""
        await self.begin()
        for number in range(3):
            self.user.send(request(b"/write?db=db", b"", b"Expect: 100-continue", length=len(LINE)))
            await until(lambda: b"\r\n\r\n" in self.user.unread)
            found = await self.asked(LINE)
            self.assertEqual((found.status, len(self.user.interim)), (204, number + 1))
            self.assertEqual(self.user.interim[-1].status, 100)
        self.assertEqual(self.server.requests[0].body, LINE)

    async def test_idle_connection(self) -> None:
        """A connection on which nothing comes after an answer is closed after a while."""
        await self.begin(idle_timeout=0.05)
        user = await self.client(self.service)
        self.assertEqual((await user.ask(request())).status, 204)
        self.assertEqual(await user.end(), b"")

    async def test_mistake_of_ours(self) -> None:
        """A mistake of ours is logged and answered 500, and the connection goes on."""

        class Broken(Resource):
            def render(self, request: Request) -> None:
                raise ZeroDivisionError

        await self.begin()
        self.service.root.putChild(b"broken", Broken())
        self.assert_error(await self.asked(request(b"/broken")), 500, "internal error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((await self.asked(request())).status, 204)

    async def test_late_mistake_of_ours(self) -> None:
        """A mistake while an answer is made ends in 500 as well."""
        await self.begin()

        def submit_for(waiter: Waiter, *_: object) -> None:
            waiter.errback(Failure(ZeroDivisionError()))

        resource: Any = self.service.root.children[b"write"]
        self.patch(resource._fan_out, "submit_for", submit_for)
        self.assert_error(await self.asked(request()), 500, "internal error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_reader_that_is_slow(self) -> None:
        """A large answer arrives whole at a client that reads slowly."""
        body = bytes(range(256)) * 3900
        await self.begin(answer(400, body))
        self.user.transport.pauseProducing()
        self.user.send(request() * 20)
        await until(lambda: len(self.server.requests) > 1)
        self.user.transport.resumeProducing()
        for _ in range(20):
            self.assertEqual((await self.user.answer()).body, body)


class RateLimitTests(HTTPTestCase):
    """``rate-limit`` and ``burst-limit``."""

    async def test_burst(self) -> None:
        """Beyond the burst writes are answered 429 with Retry-After, and reach no backend."""
        self.stop_rate_clock()
        await self.begin(rate_limit=1, burst_limit=2)
        answers = [await self.asked(request()) for _ in range(3)]
        self.assertEqual([each.status for each in answers], [204, 204, 429])
        self.assert_error(answers[2], 429, "rate limit exceeded")
        self.assertEqual(answers[2].header("Retry-After"), b"1")
        self.assertEqual(len(self.server.requests), 2)
        self.assertEqual((await self.asked(request(b"/ping", b"", method=b"GET"))).status, 204)

    async def test_refill(self) -> None:
        """Writes are admitted again when time has passed."""
        clock = self.stop_rate_clock()
        await self.begin(rate_limit=20)
        self.assertEqual([(await self.asked(request())).status for _ in range(2)], [204, 429])
        clock.advance(1 / 20)
        self.assertEqual([(await self.asked(request())).status for _ in range(2)], [204, 429])


class VanishingTests(HTTPTestCase):
    """Clients that do not wait."""

    async def test_before_the_answer(self) -> None:
        """A write whose client has gone still goes to every backend, and is answered to nobody."""
        hold = Hold(answer(204))
        backends = [self.backend(hold) for _ in range(3)]
        relay = self.relay(*backends)
        user = await self.client(relay)
        user.send(request())
        await until(lambda: all(each.requests for each in backends))
        user.vanish()
        await until(lambda: not relay.site.connections)
        hold.release()
        await until(lambda: all(sender.is_idle for sender in relay.senders))
        self.assertEqual([each.requests[0].body for each in backends], [LINE] * 3)

    async def test_right_after_sending(self) -> None:
        """A client that vanishes right after it has sent has written."""
        await self.begin()
        self.user.send(request())
        self.user.transport.loseConnection()
        await until(lambda: self.server.requests)
        self.assertEqual(self.server.requests[0].body, LINE)

    async def test_before_the_body_is_read(self) -> None:
        """A complete write of lines that take long to read is executed, whoever has closed the connection meanwhile."""
        for end in ("loseConnection", "abortConnection"):
            await self.begin()
            self.user.send(request(body=b"m,k=1 v=1   \n" * 1000))
            if end == "abortConnection":  # which throws away what is not sent yet, on both sides
                await until(
                    lambda: not all(each.is_idle() for each in self.service.site.connections) or self.server.requests
                )
            getattr(self.user.transport, end)()
            await until(lambda: self.server.requests)
            self.assertRegex(self.server.requests[0].body, rb"\A(m,k=1 v=1 \d{19}\n){1000}\Z")

    async def test_while_others_wait(self) -> None:
        """One client's vanishing does not touch the others' writes in the same lane."""
        hold = Hold(answer(204))
        await self.begin(hold)
        others = [await self.client(self.service) for _ in range(4)]
        self.user.send(request(body=b"a v=0 0"))
        await until(lambda: self.server.requests)
        for number, other in enumerate(others):
            other.send(request(body=b"a v=%d 1" % number))
        await until(lambda: self.service.senders[0].writes == 5)
        others[0].vanish()
        await until(lambda: len(self.service.site.connections) == 4)
        hold.release()
        for user in (self.user, *others[1:]):
            self.assertEqual((await user.answer()).status, 204)
        lines = b"".join(each.body + b"\n" for each in self.server.requests).split()
        self.assertEqual(sorted(lines[1::3]), [b"v=0", b"v=0", b"v=1", b"v=2", b"v=3"])

    async def test_within_the_head(self) -> None:
        """A client that vanishes within the head has written nothing."""
        await self.begin()
        self.user.send(request()[:30])
        await until(lambda: not all(each.is_idle() for each in self.service.site.connections))
        self.user.vanish()
        await until(lambda: not self.service.site.connections)
        self.assert_not_asked()

    async def test_within_pipelined_requests(self) -> None:
        """A client that vanishes does not keep the relay from others."""
        hold = Hold(answer(204))
        await self.begin(hold)
        self.user.send(request() * 5)
        await until(lambda: self.server.requests)
        self.user.vanish()
        await until(lambda: not self.service.site.connections)
        hold.release()
        self.assertEqual((await self.ask(self.service, request())).status, 204)
