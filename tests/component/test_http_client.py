"""What is made of a backend's answers and misbehaviour: the same for posts, and for whatever else it is asked."""

from __future__ import annotations

import socket

from influxrelay.core.write import Reply
from influxrelay.delivery.response_reader import MAX_ANSWER
from testing.backend_case import ClientSuite, PostCase, QuestionCase
from testing.resolver import install_resolver
from testing.scripted import (
    LINE,
    LOOPBACK,
    Action,
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

STATUS_LINE = b"HTTP/1.1 400 No\r\n"
HEAD_OF_MANY = STATUS_LINE + b"Content-Length: 1000000000\r\n\r\n"
CHUNKED = STATUS_LINE + b"Transfer-Encoding: chunked\r\n\r\n"
KIND = (b"Content-Type", b"a/b")


class MisbehaviourSuite(ClientSuite):
    """Answers, and all the ways in which there is none."""

    async def assert_believed(self, *actions: Action, within: float = 10.0) -> None:
        """Check that the status of an answer is believed, and that a message of ours stands for the rest."""
        for action in actions:
            backend = self.backend(action)
            reply = await self.send(self.transport(backend, timeout=within))
            self.assertEqual(reply.status, 400)
            self.assertIn(b"the backend answered 400, but the rest of its answer could not be read: ", reply.body)
            self.assertEqual(dict(reply.headers)[b"Content-Type"], b"application/json")
            self.assertEqual(len(backend.requests), 1)
            await self.gone(backend)

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
            await self.gone(backend)

    async def test_timeouts(self) -> None:
        """The timeout covers the whole exchange: a silent backend, a deaf one, a slow status line."""
        for action in (hang, drip(b"HTTP/1.1 204 " + b"x" * 9999), raw(b"HTTP/1.1 100 Continue\r\n\r\n")):
            backend = self.backend(action)
            self.assertEqual(await self.reason(self.transport(backend, timeout=0.2)), "timeout")
            await self.gone(backend)
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
        await self.gone(backend)
        connecting = self.send(transport)
        transport.abort()
        self.assertEqual((await self.problem(connecting)).reason, "stopped")
        self.assertFalse(transport.is_busy())

    async def test_nothing_to_interrupt(self) -> None:
        """Stopping with nothing under way does nothing."""
        self.transport(await self.refusing_backend()).abort()


class PostTests(PostCase, MisbehaviourSuite):
    """Posts."""

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
            await self.gone(backend)

    async def test_frozen_within_an_early_answer(self) -> None:
        """The status is believed of a backend that begins to answer, and then reads no more of a large write."""
        backend = self.backend()
        backend.early = freeze(HEAD_OF_MANY + b"x")
        self.assertEqual((await self.post(self.transport(backend, timeout=3.0), LINE * 500_000)).status, 400)


class QuestionTests(QuestionCase, MisbehaviourSuite):
    """Whatever else is asked."""

    async def test_gzip(self) -> None:
        """A compressed answer is unpacked."""
        reply = await self.send(self.transport(self.backend(gzipped(500, b"bad"))))
        self.assertEqual((reply.headers, reply.body), ((), b"bad"))
