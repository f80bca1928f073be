"""What is made of a backend's answers and misbehaviour: the same for posts, and for whatever else it is asked."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from influxrelay.core.write import Reply
from influxrelay.delivery.http_backend import HTTPBackend
from influxrelay.delivery.response_reader import MAX_ANSWER
from testing.backend_case import BackendCase
from testing.resolver import install_resolver
from testing.scripted import (
    LINE,
    LOOPBACK,
    Action,
    Hold,
    ScriptedBackend,
    answer,
    chunked,
    drip,
    endless,
    freeze,
    garbage,
    gzipped,
    hang,
    lengthless,
    raw,
    reactor,
    reset,
    together,
    until,
)

if TYPE_CHECKING:
    Suite = BackendCase
else:
    Suite = object  # for trial would run the tests of a suite as well

STATUS_LINE = b"HTTP/1.1 400 No\r\n"
HEAD_OF_MANY = STATUS_LINE + b"Content-Length: 1000000000\r\n\r\n"
CHUNKED = STATUS_LINE + b"Transfer-Encoding: chunked\r\n\r\n"
KIND = (b"Content-Type", b"a/b")


async def gone(backend: ScriptedBackend) -> None:
    """Wait until a backend has no connections."""
    await until(lambda: not backend.connections)


class MisbehaviourSuite(Suite):
    """Answers, and all the ways in which there is none."""

    def send(self, transport: HTTPBackend) -> Deferred[Reply]:
        """Ask the backend something."""
        raise NotImplementedError

    async def reason(self, transport: HTTPBackend) -> str:
        """Ask, which must fail; return the reason."""
        problem = await self.problem(self.send(transport))
        self.assertFalse(transport.is_busy())
        self.assertTrue(problem.detail)
        return problem.reason

    async def assert_believed(self, *actions: Action, within: float = 10.0) -> None:
        """Check that the status of an answer is believed, and that a message of ours stands for the rest."""
        for action in actions:
            backend = self.backend(action)
            reply = await self.send(self.transport(backend, timeout=within))
            self.assertEqual(reply.status, 400)
            self.assertIn(b"the backend answered 400, but the rest of its answer could not be read: ", reply.body)
            self.assertEqual(dict(reply.headers)[b"Content-Type"], b"application/json")
            self.assertEqual(len(backend.requests), 1)
            await gone(backend)

    # -- answers

    async def test_forms(self) -> None:
        """An answer is the same however its body is delimited, however slowly it comes, and whatever precedes it."""
        whole = b"HTTP/1.1 400 No\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nbad"
        for action in (
            answer(400, b"bad", KIND),
            answer(400, b"bad", KIND, close=True),
            chunked(400, b"b", b"ad", headers=[KIND]),
            lengthless(400, b"bad", KIND),
            drip(whole, 0.001),
            raw(b"HTTP/1.1 100 Continue\r\n\r\n" + whole),
            raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Wait\r\n\r\n" + whole),
            raw(b"HTTP/1.0 400 No\r\nContent-Type: a/b\r\n\r\nbad", end="close"),
            raw(whole.replace(b"HTTP/1.1", b"HTTP/1.0"), end="close"),
            raw(whole.replace(b" No", b"")),
            raw(whole.replace(b"\r\n", b"\n")),
            raw(whole.lower().replace(b"http", b"HTTP")),
            raw(b"\r\n" + whole),
        ):
            self.assertEqual(await self.send(self.transport(self.backend(action))), Reply(400, (KIND,), b"bad"))

    async def test_padded_chunks(self) -> None:
        """Blanks behind the size of a chunk, as some proxies write them, do no harm, and the connection is kept."""
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = b'{"error":"unable to parse \'cpu\': missing fields at byte"}\n'
        for size in (b"%x  ", b"%x\t", b"00%X "):
            padded = raw(head + size % len(body) + b"\r\n" + body + b"\r\n0  \r\n\r\n")
            backend = self.backend(padded)
            transport = self.transport(backend)
            for _ in range(2):
                self.assertEqual(await self.send(transport), Reply(400, (KIND,), body))
            self.assertEqual(backend.connection_count, 1)

    async def test_headers(self) -> None:
        """The headers that a client may see are kept, in canonical spelling, and no others; of a 2xx none are."""
        head = (
            b"content-type: a/b\r\nX-INFLUXDB-ERROR: bad\r\nretry-after: 7\r\nX-Other: 1\r\nContent-Length: 0\r\n\r\n"
        )
        headers = (KIND, (b"X-Influxdb-Error", b"bad"), (b"Retry-After", b"7"))
        reply = await self.send(self.transport(self.backend(raw(STATUS_LINE + head))))
        self.assertEqual(reply, Reply(400, headers))
        reply = await self.send(self.transport(self.backend(answer(200, b"fine", KIND))))
        self.assertEqual(reply, Reply(200, (), b"fine"))

    async def test_control_characters(self) -> None:
        """Control characters in a header do not travel on."""
        backend = self.backend(raw(STATUS_LINE + b"X-Influxdb-Error: a\x00b\x01c\r\nContent-Length: 0\r\n\r\n"))
        reply = await self.send(self.transport(backend))
        self.assertEqual(reply, Reply(400, ((b"X-Influxdb-Error", b"a b c"),)))

    async def test_other_statuses(self) -> None:
        """A redirection is not followed, and a switch to another protocol is an answer that says so."""
        elsewhere = answer(307, b"there", (b"Location", b"http://127.0.0.1:1/write"))
        self.assertEqual((await self.send(self.transport(self.backend(elsewhere)))).status, 307)
        switch = raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nsomething else")
        self.assertEqual((await self.send(self.transport(self.backend(switch)))).status, 101)

    async def test_largest(self) -> None:
        """An answer of just the limit is read, and the connection is used again."""
        backend = self.backend(answer(400, b"x" * MAX_ANSWER))
        transport = self.transport(backend)
        for _ in range(2):
            self.assertEqual(len((await self.send(transport)).body), MAX_ANSWER)
        self.assertEqual(backend.connection_count, 1)

    # -- answers of which only the status can be read

    async def test_too_large(self) -> None:
        """Of an answer beyond the limit, even one without end, the status is believed."""
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        lengthless_head = b"HTTP/1.1 400 No\r\nConnection: close\r\n\r\n"
        await self.assert_believed(
            endless(HEAD_OF_MANY, b"x" * 65536), endless(CHUNKED, chunk), endless(lengthless_head, b"x" * 65536)
        )

    async def test_endless_head(self) -> None:
        """Of a head without end, or with a line without end, the status is believed."""
        await self.assert_believed(
            endless(STATUS_LINE, b"X-More: and more\r\n" * 1000), endless(STATUS_LINE + b"X: ", b"x" * 65536)
        )

    async def test_unreadable(self) -> None:
        """A clear status line is believed, whatever follows it."""
        await self.assert_believed(
            raw(CHUNKED + b"garbage\r\n"),
            raw(CHUNKED + b"3\r\nabcdef"),
            raw(STATUS_LINE + b"no header at all\r\n\r\n"),
            raw(STATUS_LINE + b"Content-Length: many\r\n\r\n"),
            raw(STATUS_LINE + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
            raw(b"HTTP/1.1 100 Continue\r\n\r\n" + STATUS_LINE + b"\x00\x01\x02"),
        )

    async def test_cut_off(self) -> None:
        """The status is believed of an answer that breaks off: within its head, and within its body."""
        await self.assert_believed(
            raw(STATUS_LINE, end="close"),
            raw(STATUS_LINE, end="reset"),
            raw(STATUS_LINE + b"Content-Type: a/", end="close"),
            raw(HEAD_OF_MANY + b"x", end="close"),
            raw(HEAD_OF_MANY + b"x", end="reset"),
            raw(CHUNKED + b"3\r\nab", end="close"),
        )

    async def test_never_complete(self) -> None:
        """The status is believed of an answer that is not complete when its time is up."""
        actions = raw(STATUS_LINE), raw(HEAD_OF_MANY), drip(HEAD_OF_MANY + b"x" * 9999)
        await together(*(self.assert_believed(each, within=3.0) for each in actions))

    async def test_cut_off_success(self) -> None:
        """A success whose rest cannot be read is a success."""
        for action in (
            raw(b"HTTP/1.1 204 No Content\r\n", end="reset"),
            raw(b"HTTP/1.1 204 No Content\r\nno header\r\n\r\n"),
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfin", end="close"),
        ):
            self.assertLess((await self.send(self.transport(self.backend(action)))).status, 300)

    async def test_error_header(self) -> None:
        """What InfluxDB says in a header stands for a body that cannot be read, and ``Retry-After`` is kept."""
        headers = b'X-Influxdb-Error: database not found: "x"\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\n'
        head = b"HTTP/1.1 404 No\r\n" + headers
        reply = await self.send(self.transport(self.backend(raw(head, end="reset"))))
        self.assertEqual((reply.status, reply.body), (404, b'{"error":"database not found: \\"x\\""}\n'))
        self.assertEqual(dict(reply.headers)[b"Retry-After"], b"7")

    # -- no answer

    async def test_refused(self) -> None:
        """A closed port is "refused"."""
        self.assertEqual(await self.reason(self.transport(await self.refusing_backend())), "refused")

    async def test_reset(self) -> None:
        """A connection that ends before a status line has come is "reset"."""
        for action in (
            reset,
            raw(b"", end="close"),
            raw(b"HTTP/1.1 40", end="close"),
            raw(STATUS_LINE[:-1], end="reset"),
        ):
            backend = self.backend(action)
            self.assertEqual(await self.reason(self.transport(backend)), "reset")
            self.assertEqual(len(backend.requests), 1)

    async def test_garbage(self) -> None:
        """What is not HTTP is "garbage"."""
        for action in (
            garbage(),
            raw(b"HTTP/1.1 20 OK\r\n\r\n"),
            raw(b"HTTP/2 200 OK\r\n\r\n"),
            raw(b"HTTP/1.1 400x\r\n\r\n"),
            endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        ):
            backend = self.backend(action)
            self.assertEqual(await self.reason(self.transport(backend)), "garbage")
            await gone(backend)

    async def test_timeouts(self) -> None:
        """The timeout covers the whole exchange: a silent backend, a deaf one, a slow status line."""
        for action in (hang, drip(b"HTTP/1.1 204 " + b"x" * 9999), raw(b"HTTP/1.1 100 Continue\r\n\r\n")):
            backend = self.backend(action)
            self.assertEqual(await self.reason(self.transport(backend, timeout=0.2)), "timeout")
            await gone(backend)
        backend = self.backend()
        backend.deaf = True
        self.assertEqual(await self.reason(self.transport(backend, timeout=0.2)), "timeout")

    async def test_slow_connect(self) -> None:
        """A connection that does not come about is "timeout"."""
        listening = socket.socket()
        self.addCleanup(listening.close)
        listening.bind((LOOPBACK, 0))
        listening.listen(0)
        for _ in range(4):  # until its queue is full
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
            self.addCleanup(one.close)
        transport = self.transport(f"http://{LOOPBACK}:{listening.getsockname()[1]}/write", timeout=0.2)
        self.assertEqual(await self.reason(transport), "timeout")

    async def test_unresolved(self) -> None:
        """A name that nobody knows is "unresolved"."""
        install_resolver(self, reactor, {})
        self.assertEqual(await self.reason(self.transport("http://nowhere.invalid/write")), "unresolved")

    async def test_interrupted(self) -> None:
        """What is under way when the relay stops is "stopped", whether it has a connection or not."""
        backend = self.backend(hang)
        transport = self.transport(backend, max_connections=1)
        asked = [self.send(transport) for _ in range(2)]
        await until(lambda: backend.requests)
        transport.abort()
        for each in asked:
            self.assertEqual((await self.problem(each)).reason, "stopped")
        await gone(backend)
        connecting = self.send(transport)
        transport.abort()
        self.assertEqual((await self.problem(connecting)).reason, "stopped")
        self.assertFalse(transport.is_busy())

    async def test_nothing_to_interrupt(self) -> None:
        """Stopping with nothing under way does nothing."""
        self.transport(await self.refusing_backend()).abort()

    # -- connections

    async def test_used_again(self) -> None:
        """One connection carries one exchange after the other, whatever their answers."""
        backend = self.backend(answer(204), answer(400, b"bad"), answer(500), chunked(503, b"x"), gzipped(200, b"x"))
        transport = self.transport(backend)
        statuses = [(await self.send(transport)).status for _ in range(6)]
        self.assertEqual(statuses, [204, 400, 500, 503, 200, 200])
        self.assertEqual(backend.connection_count, 1)

    async def test_kept_by_http_1_0(self) -> None:
        """A server of HTTP/1.0 may keep a connection, if it says so."""
        backend = self.backend(raw(b"HTTP/1.0 204 No\r\nConnection: keep-alive\r\n\r\n"))
        transport = self.transport(backend)
        for _ in range(2):
            self.assertEqual((await self.send(transport)).status, 204)
        self.assertEqual(backend.connection_count, 1)

    async def test_not_used_again(self) -> None:
        """A connection that ends with an answer, or brings more than that, is not used again; nothing fails for it."""
        for action in (
            answer(204, b"", (b"Connection", b"close")),
            lengthless(200, b"x"),
            answer(204, close=True),
            raw(b"HTTP/1.0 204 No\r\n\r\n"),
            raw(b"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nbody"),
            raw(b"HTTP/1.1 204 No\r\n\r\nHTTP/1.1 408 Late\r\n\r\n"),
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nxyz", end="close"),
        ):
            backend = self.backend(action)
            transport = self.transport(backend)
            for _ in range(3):
                self.assertLess((await self.send(transport)).status, 300)
                await gone(backend)
            self.assertEqual([each.connection for each in backend.requests], [0, 1, 2])

    async def test_unasked(self) -> None:
        """A connection on which something comes that nobody has asked for is not used again."""
        backend = self.backend()
        transport = self.transport(backend)
        await self.send(transport)
        (connection,) = backend.connections
        connection.transport.write(b"HTTP/1.0 408 Request Time-out\r\n\r\n")
        await gone(backend)
        self.assertEqual((await self.send(transport)).status, 204)

    async def test_stale(self) -> None:
        """A request on a connection that proves stale is sent again, once, on a fresh one."""
        for ending in (reset, raw(b"", end="close")):
            backend = self.backend(answer(204), ending, answer(204))
            transport = self.transport(backend)
            for _ in range(2):
                self.assertEqual((await self.send(transport)).status, 204)
            self.assertEqual([each.connection for each in backend.requests], [0, 0, 1])
            self.assertEqual(len({each.body for each in backend.requests}), 1)

    async def test_only_once(self) -> None:
        """When the fresh connection breaks too, the request has failed."""
        backend = self.backend(answer(204), reset)
        transport = self.transport(backend)
        await self.send(transport)
        self.assertEqual(await self.reason(transport), "reset")
        self.assertEqual([each.connection for each in backend.requests], [0, 0, 1])

    async def test_only_once_with_other_stale_ones(self) -> None:
        """The second try is on a fresh connection, even if more are kept that may be stale."""
        hold = Hold(answer(204))
        backend = self.backend(hold)
        transport = self.transport(backend)
        asked = [self.send(transport) for _ in range(3)]
        await until(lambda: len(backend.requests) == 3)
        hold.release()
        for each in asked:
            await each
        backend.script.clear()
        backend.script.extend([reset, answer(204)])
        self.assertEqual((await self.send(transport)).status, 204)
        self.assertEqual(backend.requests[-1].connection, 3)
        await until(lambda: len(backend.connections) == 1)

    async def test_only_once_at_the_limit(self) -> None:
        """The second try has the place of the stale connection, before any request that waits for one."""
        hold = Hold(reset)
        backend = self.backend(answer(204), hold, answer(204))
        transport = self.transport(backend, max_connections=1)
        await self.send(transport)
        asked = [self.send(transport) for _ in range(3)]
        await until(lambda: len(backend.requests) == 2)
        hold.release()
        for each in asked:
            self.assertEqual((await each).status, 204)
        self.assertEqual([each.connection for each in backend.requests], [0, 0, 1, 1, 1])

    async def test_not_a_fresh_one(self) -> None:
        """A request on a fresh connection is not sent again when that breaks."""
        backend = self.backend(reset)
        self.assertEqual(await self.reason(self.transport(backend)), "reset")
        self.assertEqual(len(backend.requests), 1)

    async def test_not_after_an_answer_began(self) -> None:
        """A request whose answer had begun is not sent again."""
        backend = self.backend(answer(204), raw(b"HTTP/1.1 2", end="close"))
        transport = self.transport(backend)
        await self.send(transport)
        self.assertEqual(await self.reason(transport), "reset")
        self.assertEqual(len(backend.requests), 2)

    async def test_refused_the_second_time(self) -> None:
        """When the backend is gone altogether, the second try says so."""
        backend = self.backend(answer(204))
        transport = self.transport(backend)
        await self.send(transport)
        await backend.stop()
        self.assertEqual(await self.reason(transport), "refused")

    async def test_retry_within_the_timeout(self) -> None:
        """The second try has what is left of the timeout, not a new one."""
        hold = Hold(reset)
        backend = self.backend(answer(204), hold, hang)
        transport = self.transport(backend, timeout=2.0)
        await self.send(transport)
        asked = self.send(transport)
        timer = reactor.callLater(2.0, lambda: None)
        await until(lambda: len(backend.requests) == 2)
        hold.release()
        self.assertEqual((await self.problem(asked)).reason, "timeout")
        await until(lambda: not timer.active())
        self.assertEqual(len(backend.requests), 3)

    async def test_limit(self) -> None:
        """Requests beyond the limit wait for a free connection, and are served in the order of their arrival."""
        hold = Hold(answer(204))
        backend = self.backend(hold)
        transport = self.transport(backend, max_connections=2)
        done: list[int] = []

        async def send(number: int) -> None:
            await self.send(transport)
            done.append(number)

        asked = [Deferred.fromCoroutine(send(number)) for number in range(20)]
        await until(lambda: len(backend.requests) == 2)
        hold.release()
        for each in asked:
            await each
        self.assertEqual(backend.connection_count, 2)
        self.assertEqual(done[4:], sorted(done[4:]))
        self.assertEqual(len(backend.requests), 20)

    async def test_limit_with_connections_that_end(self) -> None:
        """Requests that wait get a new connection where one has ended, or could not be made."""
        backend = self.backend(answer(204, b"", (b"Connection", b"close")))
        transport = self.transport(backend, max_connections=1)
        for each in [self.send(transport) for _ in range(5)]:
            self.assertEqual((await each).status, 204)
        self.assertEqual([each.connection for each in backend.requests], [0, 1, 2, 3, 4])
        refused = self.transport(await self.refusing_backend(), max_connections=1)
        for each in [self.send(refused) for _ in range(5)]:
            self.assertEqual((await self.problem(each)).reason, "refused")

    async def test_limit_with_a_backend_that_hangs(self) -> None:
        """A backend that never answers gets no more connections than it may, and each request fails in its time."""
        backend = self.backend(lambda _: most.append(len(backend.connections)))
        most: list[int] = []
        transport = self.transport(backend, max_connections=2, timeout=0.3)
        for each in [self.send(transport) for _ in range(10)]:
            self.assertEqual((await self.problem(each)).reason, "timeout")
        self.assertEqual(max(most), 2)

    async def test_kept_to_the_end(self) -> None:
        """Idle connections are closed with the transport."""
        backend = self.backend()
        transport = self.transport(backend)
        await self.send(transport)
        await transport.close()
        await gone(backend)

    async def test_retired(self) -> None:
        """A transport that is no longer needed closes its connections, the busy ones after their answers."""
        hold = Hold(answer(204))
        backend = self.backend(answer(204), hold)
        transport = self.transport(backend)
        await self.send(transport)
        asked = self.send(transport)
        await until(lambda: len(backend.requests) == 2)
        transport.retire()
        self.assertTrue(transport.is_busy())
        hold.release()
        self.assertEqual((await asked).status, 204)
        await gone(backend)
        self.assertFalse(transport.is_busy())


class PostTests(MisbehaviourSuite, BackendCase):
    """Posts."""

    def send(self, transport: HTTPBackend) -> Deferred[Reply]:
        """Post a line."""
        return self.post(transport)

    async def test_gzip(self) -> None:
        """A compressed answer is not unpacked."""
        reply = await self.send(self.transport(self.backend(gzipped(500, b"bad"))))
        self.assertEqual(reply.headers, ((b"Content-Encoding", b"gzip"),))
        self.assertTrue(reply.body.startswith(b"\x1f\x8b"))

    async def test_deaf(self) -> None:
        """A backend that accepts a connection and reads nothing of a large write is "timeout"."""
        backend = self.backend()
        backend.deaf = True
        problem = await self.problem(self.post(self.transport(backend, timeout=0.2), LINE * 200_000))
        self.assertEqual(problem.reason, "timeout")

    async def test_early_answers(self) -> None:
        """An answer before a large write is sent is believed, whether the backend then closes or reads no more."""
        refusal = b"HTTP/1.1 413 Too Large\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nbig"
        for early in (raw(refusal, end="close"), raw(refusal)):
            backend = self.backend()
            backend.early = early
            reply = await self.post(self.transport(backend), LINE * 500_000)
            self.assertEqual(reply.status, 413)
            await gone(backend)

    async def test_early_answer_on_a_kept_connection(self) -> None:
        """A connection whose backend has answered before it has read a large write is not used again."""
        backend = self.backend()
        backend.early = freeze(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        transport = self.transport(backend)
        self.assertEqual((await self.post(transport, LINE * 500_000)).status, 413)
        backend.early = None
        self.assertEqual((await self.post(transport)).status, 204)
        self.assertEqual(backend.requests[-1].connection, 1)

    async def test_frozen_within_an_early_answer(self) -> None:
        """The status is believed of a backend that begins to answer, and then reads no more of a large write."""
        backend = self.backend()
        backend.early = freeze(HEAD_OF_MANY + b"x")
        self.assertEqual((await self.post(self.transport(backend, timeout=3.0), LINE * 500_000)).status, 400)

    async def test_large_after_large(self) -> None:
        """Large writes follow each other on one connection."""
        backend = self.backend()
        transport = self.transport(backend)
        for size in (100_000, 1, 200_000):
            self.assertEqual((await self.post(transport, LINE * size)).status, 204)
            self.assertEqual(len(backend.requests[-1].body), size * len(LINE))
        self.assertEqual(backend.connection_count, 1)

    async def test_pings_beside_writes(self) -> None:
        """Writes that occupy all their connections do not keep a ping from its answer."""
        backend = self.backend(hang)
        transport = self.transport(backend, max_connections=1)
        posted = self.post(transport)
        await until(lambda: backend.requests)
        self.assertEqual((await transport.ping()).status, 204)
        transport.abort()
        self.assertEqual((await self.problem(posted)).reason, "stopped")


class QuestionTests(MisbehaviourSuite, BackendCase):
    """Whatever else is asked."""

    def send(self, transport: HTTPBackend) -> Deferred[Reply]:
        """Ask something of no importance."""
        return transport.client.ask(b"POST", b"/query?q=x", Headers(), timeout=transport.timeout)

    async def test_gzip(self) -> None:
        """A compressed answer is unpacked."""
        reply = await self.send(self.transport(self.backend(gzipped(500, b"bad"))))
        self.assertEqual((reply.headers, reply.body), ((), b"bad"))
