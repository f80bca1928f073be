"""The transport to one backend: what it sends, and what it says of each way in which an exchange can end."""

from __future__ import annotations

import gzip
import socket
from pathlib import Path
from typing import Any

from OpenSSL.SSL import Connection
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config.settings import HTTPOutputConfig
from influxrelay.core.errors import BackendFailure, ConfigError
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.http_client import MAX_ANSWER, HTTPBackend, _Body, _explain
from influxrelay.transport.tls import ClientTLS
from testing.certificates import Authority
from testing.resolver import install_resolver
from testing.scripted import (
    LINE,
    LOOPBACK,
    Hold,
    RelayTestCase,
    ScriptedBackend,
    answer,
    chunked,
    drip,
    endless,
    freeze,
    gzipped,
    hang,
    lengthless,
    raw,
    reactor,
    request,
    reset,
    until,
)

WRITE = Write(Destination(b"db", b"", b"ns", (b"", b"", b"")), b"db=db", b"", LINE)
HEAD_OF_MANY = b"HTTP/1.1 400 No\r\nContent-Length: 1000000000\r\n\r\n"


class _Case(RelayTestCase):
    def transport(self, backend: ScriptedBackend | str, **settings: Any) -> HTTPBackend:
        """Make the transport to a backend."""
        tls = {name: settings.pop(name) for name in ("verify", "ca_file", "client_certificate") if name in settings}
        url = backend if isinstance(backend, str) else backend.url
        made = HTTPBackend("one", url, reactor, ClientTLS(**tls), **{"timeout": 10.0, **settings})
        self.addCleanup(made.close)
        return made

    async def post(self, transport: HTTPBackend) -> Reply:
        """Post one line."""
        return await transport.post(WRITE, [WRITE.body])

    async def failure(self, transport: HTTPBackend) -> str:
        """Post one line, which must fail; return the reason."""
        try:
            reply = await self.post(transport)
        except BackendFailure as problem:
            self.assertIsNone(problem.reply)
            self.assertEqual(transport._under_way, set())
            return problem.reason
        raise AssertionError(f"answered {reply}")

    async def assert_timeout(self, transport: HTTPBackend, body: bytes = LINE) -> None:
        """Post, and check that it fails when its time is up, not later."""
        posted = transport.post(WRITE, [body])
        start = reactor.seconds()
        outcome: list[Any] = []
        posted.addBoth(outcome.append)
        await until(lambda: outcome or reactor.seconds() > start + transport.timeout + 1)
        self.assertTrue(outcome, "the exchange goes on beyond its timeout")
        self.assertEqual(outcome[0].value.reason, "timeout")


class AnswerTests(_Case):
    """Answers that come."""

    async def test_forms(self) -> None:
        """An answer is the same however its body is delimited, and however slowly it comes."""
        kind = (b"Content-Type", b"a/b")
        whole = b"HTTP/1.1 400 No\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nbad"
        for action in (
            answer(400, b"bad", kind),
            answer(400, b"bad", kind, close=True),
            chunked(400, b"b", b"ad", headers=[kind]),
            lengthless(400, b"bad", kind),
            drip(whole, 0.001),
            raw(b"HTTP/1.1 100 Continue\r\n\r\n" + whole),
            raw(whole.replace(b"HTTP/1.1", b"HTTP/1.0"), end="close"),
            raw(whole.replace(b" No", b"")),
        ):
            self.assertEqual(await self.post(self.transport(self.backend(action))), Reply(400, (kind,), b"bad"))

    async def test_gzip(self) -> None:
        """A compressed answer is not unpacked."""
        reply = await self.post(self.transport(self.backend(gzipped(500, b"bad"))))
        self.assertEqual(reply.headers, ((b"Content-Encoding", b"gzip"),))
        self.assertEqual(gzip.decompress(reply.body), b"bad")

    async def test_headers_of_success(self) -> None:
        """Of a 2xx no headers are kept."""
        reply = await self.post(self.transport(self.backend(answer(200, b"fine", (b"Content-Type", b"a/b")))))
        self.assertEqual(reply, Reply(200, (), b"fine"))

    async def test_largest(self) -> None:
        """An answer of just the limit is read, and the connection is used again."""
        backend = self.backend(answer(400, b"x" * MAX_ANSWER))
        transport = self.transport(backend)
        for _ in range(2):
            self.assertEqual(len((await self.post(transport)).body), MAX_ANSWER)
        self.assertEqual(backend.connection_count, 1)

    async def test_too_large(self) -> None:
        """An answer beyond the limit, even one without end, is garbage, and its connection is dropped."""
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for head, piece in (
            (HEAD_OF_MANY, b"x" * 65536),
            (b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n", chunk),
            (b"HTTP/1.1 400 No\r\nConnection: close\r\n\r\n", b"x" * 65536),
        ):
            backend = self.backend(endless(head, piece))
            self.assertEqual(await self.failure(self.transport(backend)), "garbage")
            await until(lambda backend=backend: not backend.connections)

    async def test_endless_head(self) -> None:
        """A head without end is given up, at the latest with the timeout, and its connection is dropped."""
        backend = self.backend(endless(b"HTTP/1.1 400 No\r\n", b"X-More: and more\r\n" * 100))
        self.assertIn(await self.failure(self.transport(backend, timeout=0.3)), ("timeout", "garbage"))
        await until(lambda: not backend.connections)

    async def test_endless_line(self) -> None:
        """A line of the head without end is given up before the timeout, and its connection is dropped."""
        backend = self.backend(endless(b"HTTP/1.1 400 No\r\nX: ", b"x" * 10_000))
        self.assertIn(await self.failure(self.transport(backend)), ("garbage", "reset"))
        await until(lambda: not backend.connections)


class FailureTests(_Case):
    """Answers that do not come, and the word for each."""

    async def test_refused(self) -> None:
        """A closed port is "refused"."""
        self.assertEqual(await self.failure(self.transport(await self.refusing_backend())), "refused")

    async def test_reset(self) -> None:
        """A connection that ends before the answer does is "reset"."""
        for action in (reset, raw(b"", end="close"), raw(b"HTTP/1.1 40", end="close"), raw(HEAD_OF_MANY, end="reset")):
            backend = self.backend(action)
            self.assertEqual(await self.failure(self.transport(backend)), "reset")
            self.assertEqual(len(backend.requests), 1)

    async def test_timeouts(self) -> None:
        """The timeout covers the whole exchange: a silent backend, a deaf one, a slow head, a slow body."""
        for action in (hang, drip(b"HTTP/1.1 204 " + b"x" * 9999), raw(HEAD_OF_MANY), drip(HEAD_OF_MANY + b"x" * 9999)):
            backend = self.backend(action)
            start = reactor.seconds()
            self.assertEqual(await self.failure(self.transport(backend, timeout=0.2)), "timeout")
            self.assertGreaterEqual(reactor.seconds() - start, 0.15)
            await until(lambda backend=backend: not backend.connections)

    async def test_deaf(self) -> None:
        """A backend that accepts a connection and reads nothing is "timeout", for small and large writes."""
        backend = self.backend()
        backend.deaf = True
        transport = self.transport(backend, timeout=0.2)
        self.assertEqual(await self.failure(transport), "timeout")
        with self.assertRaises(BackendFailure) as caught:
            await transport.post(WRITE, [LINE * 200_000])
        self.assertEqual(caught.exception.reason, "timeout")

    async def test_frozen_within_an_early_answer(self) -> None:
        """A backend that begins to answer, and reads no more of a large write, is "timeout"."""
        backend = self.backend()
        backend.early = freeze(HEAD_OF_MANY + b"x")
        await self.assert_timeout(self.transport(backend, timeout=0.3), LINE * 500_000)

    async def test_slow_connect(self) -> None:
        """A connection that does not come about is "timeout"."""
        listening = socket.socket()
        self.addCleanup(listening.close)
        listening.bind((LOOPBACK, 0))
        listening.listen(0)
        filling = []
        for _ in range(4):  # until its queue is full
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
            filling.append(one)
            self.addCleanup(one.close)
        transport = self.transport(f"http://{LOOPBACK}:{listening.getsockname()[1]}/write", timeout=0.2)
        self.assertEqual(await self.failure(transport), "timeout")

    async def test_unresolved(self) -> None:
        """A name that nobody knows is "unresolved"."""
        install_resolver(self, reactor, {})
        self.assertEqual(await self.failure(self.transport("http://nowhere.invalid/write")), "unresolved")

    async def test_interrupted(self) -> None:
        """What is under way when the relay stops is "stopped", before the answer and within it."""
        for action in (hang, raw(HEAD_OF_MANY + b"x")):
            backend = self.backend(action)
            transport = self.transport(backend)
            posted = transport.post(WRITE, [LINE])
            await until(lambda backend=backend: backend.requests)
            if action is not hang:
                (exchange,) = transport._under_way
                await until(lambda exchange=exchange: exchange._received)
            transport.abort()
            problem = self.failureResultOf(posted, BackendFailure) if posted.called else None
            if problem is None:
                with self.assertRaises(BackendFailure) as caught:
                    await posted
                self.assertEqual(caught.exception.reason, "stopped")
            else:
                self.assertEqual(problem.value.reason, "stopped")
            await until(lambda backend=backend: not backend.connections)

    async def test_nothing_to_interrupt(self) -> None:
        """Stopping without anything under way does nothing."""
        self.transport(await self.refusing_backend()).abort()


class WordTests(SynchronousTestCase):
    """Failures that no loopback socket leads to."""

    def test_words(self) -> None:
        """Each failure of Twisted's has its word; what is not known is "garbage", with the error's name."""
        self.assertEqual(_explain(Failure(ConnectError("no route"))).reason, "unreachable")
        self.assertEqual(_explain(Failure(DNSLookupError("x"))).reason, "unresolved")
        problem = _explain(Failure(ZeroDivisionError("x")))
        self.assertEqual((problem.reason, problem.detail), ("garbage", "ZeroDivisionError: x"))

    def test_body(self) -> None:
        """A body may be paused, resumed and stopped when it is written already."""
        body = _Body(b"abc")
        body.pauseProducing()
        body.resumeProducing()
        body.stopProducing()
        self.assertEqual(body.length, 3)


class ConnectionTests(_Case):
    """Connections that are used again, and those that went stale."""

    async def test_used_again(self) -> None:
        """One connection carries one exchange after the other, whatever their answers."""
        backend = self.backend(answer(204), answer(400, b"bad"), answer(500), chunked(503, b"x"), gzipped(200, b"x"))
        transport = self.transport(backend)
        statuses = [(await self.post(transport)).status for _ in range(6)]
        self.assertEqual(statuses, [204, 400, 500, 503, 200, 200])
        self.assertEqual(backend.connection_count, 1)

    async def test_not_used_again(self) -> None:
        """A connection that the backend ends with its answer is not used again, and nothing fails for it."""
        for action in (answer(204, b"", (b"Connection", b"close")), lengthless(200, b"x"), answer(204, close=True)):
            backend = self.backend(action)
            transport = self.transport(backend)
            for _ in range(3):
                self.assertLess((await self.post(transport)).status, 300)
                await until(lambda backend=backend: not backend.connections)
            self.assertEqual([each.connection for each in backend.requests], [0, 1, 2])

    async def test_stale(self) -> None:
        """A write on a connection that proves stale is sent again, once, on a fresh one."""
        for ending in (reset, raw(b"", end="close")):
            backend = self.backend(answer(204), ending, answer(204))
            transport = self.transport(backend)
            for _ in range(2):
                self.assertEqual((await self.post(transport)).status, 204)
            self.assertEqual([each.connection for each in backend.requests], [0, 0, 1])
            self.assertEqual([each.body for each in backend.requests], [LINE] * 3)

    async def test_only_once(self) -> None:
        """When the fresh connection breaks too, the write has failed."""
        backend = self.backend(answer(204), reset)
        transport = self.transport(backend)
        await self.post(transport)
        self.assertEqual(await self.failure(transport), "reset")
        self.assertEqual([each.connection for each in backend.requests], [0, 0, 1])

    async def test_only_once_with_other_stale_ones(self) -> None:
        """The second try is on a fresh connection, even if the pool holds more that may be stale."""
        hold = Hold(answer(204))
        backend = self.backend(hold)
        transport = self.transport(backend)
        posted = [transport.post(WRITE, [LINE]) for _ in range(3)]
        await until(lambda: len(backend.requests) == 3)
        hold.release()
        for each in posted:
            await each
        backend.script.clear()
        backend.script.extend([reset, answer(204)])
        self.assertEqual((await self.post(transport)).status, 204)
        self.assertEqual(backend.requests[-1].connection, 3)
        await until(lambda: len(backend.connections) == 1)

    async def test_not_a_fresh_one(self) -> None:
        """A write on a fresh connection is not sent again when that breaks."""
        backend = self.backend(reset)
        self.assertEqual(await self.failure(self.transport(backend)), "reset")
        self.assertEqual(len(backend.requests), 1)

    async def test_not_after_an_answer_began(self) -> None:
        """A write whose answer had begun is not sent again."""
        backend = self.backend(answer(204), raw(b"HTTP/1.1 2", end="close"))
        transport = self.transport(backend)
        await self.post(transport)
        self.assertEqual(await self.failure(transport), "reset")
        self.assertEqual(len(backend.requests), 2)

    async def test_refused_the_second_time(self) -> None:
        """When the backend is gone altogether, the second try says so."""
        backend = self.backend(answer(204))
        transport = self.transport(backend)
        await self.post(transport)
        await backend.stop()
        self.assertEqual(await self.failure(transport), "refused")

    async def test_retry_within_the_timeout(self) -> None:
        """The second try has what is left of the timeout, not a new one."""

        def late_reset(connection: Any) -> None:
            connection.later(0.25, connection.transport.abortConnection)

        backend = self.backend(answer(204), late_reset, hang)
        transport = self.transport(backend, timeout=0.4)
        await self.post(transport)
        start = reactor.seconds()
        self.assertEqual(await self.failure(transport), "timeout")
        self.assertLess(reactor.seconds() - start, 0.6)
        self.assertEqual(len(backend.requests), 3)

    async def test_through_the_relay(self) -> None:
        """A client notices nothing of a stale connection, and nothing is counted."""
        backend = self.backend(answer(204), reset, answer(204))
        relay = self.relay(backend)
        user = await self.client(relay)
        self.assertEqual([(await user.ask(request())).status for _ in range(2)], [204, 204])
        self.assertEqual(relay.senders[0].failures, {})

    async def test_kept_to_the_end(self) -> None:
        """Idle connections are closed with the transport."""
        backend = self.backend()
        transport = self.transport(backend)
        await self.post(transport)
        await transport.close()
        await until(lambda: not backend.connections)


def _join(target: str, *sources: str) -> None:
    Path(target).write_bytes(b"# and\n".join([Path(source).read_bytes() for source in sources]))


def server_options(pem: str, *, client_ca: str | None = None) -> CertificateOptions:
    """Return a server's side of TLS, with a certificate and perhaps an authority whose clients alone are let in."""
    certificate = PrivateCertificate.loadPEM(Path(pem).read_bytes())
    trust = trustRootFromCertificates([Certificate.loadPEM(Path(client_ca).read_bytes())]) if client_ca else None
    return CertificateOptions(
        privateKey=certificate.privateKey.original, certificate=certificate.original, trustRoot=trust
    )


def heard_name(backend: ScriptedBackend) -> bytes | None:
    """Return the server's name that came in the handshake of the only connection."""
    (connection,) = backend.connections
    handle: Connection = connection.transport.getHandle()
    name: bytes | None = handle.get_servername()
    return name


class TLSTests(_Case):
    """HTTPS."""

    def setUp(self) -> None:
        """Make an authority."""
        self.authority = Authority(self.mktemp())

    def _secure(self, *script: Any, host: str = LOOPBACK, client_ca: str | None = None) -> ScriptedBackend:
        return self.backend(*script, tls=server_options(self.authority.issue(host), client_ca=client_ca))

    async def test_verified(self) -> None:
        """A backend whose certificate our authority signed is written to, on one connection."""
        backend = self._secure(answer(204), answer(400, b"x" * 100_000))
        transport = self.transport(backend, ca_file=self.authority.ca_file())
        self.assertEqual((await self.post(transport)).status, 204)
        self.assertEqual(len((await self.post(transport)).body), 100_000)
        self.assertEqual(backend.connection_count, 1)

    async def test_among_other_authorities(self) -> None:
        """A file may hold several authorities."""
        both = self.mktemp()
        _join(both, Authority(self.mktemp(), "another").ca_file(), self.authority.ca_file())
        transport = self.transport(self._secure(), ca_file=both)
        self.assertEqual((await self.post(transport)).status, 204)

    async def test_wrong_authority(self) -> None:
        """A certificate of another authority is "tls", and nothing is sent."""
        backend = self._secure()
        other = Authority(self.mktemp())
        self.assertEqual(await self.failure(self.transport(backend, ca_file=other.ca_file())), "tls")
        self.assertEqual(await self.failure(self.transport(backend)), "tls")
        self.assertEqual(backend.requests, [])

    async def test_wrong_name(self) -> None:
        """A certificate for another address or name is "tls", and nothing is sent."""
        for host in ("127.0.0.2", "example.org"):
            backend = self._secure(host=host)
            transport = self.transport(backend, ca_file=self.authority.ca_file())
            self.assertEqual(await self.failure(transport), "tls")
            self.assertEqual(backend.requests, [])

    async def test_by_name(self) -> None:
        """A backend may be known by name, and hears it in the handshake, verified or not."""
        for verify in (True, False):
            backend = self._secure(host="localhost")
            url = f"https://localhost:{backend.port}/write"
            transport = self.transport(url, ca_file=self.authority.ca_file(), verify=verify)
            self.assertEqual((await self.post(transport)).status, 204)
            self.assertEqual(heard_name(backend), b"localhost")

    async def test_by_address(self) -> None:
        """An address is not sent as a server's name (RFC 6066, 3), verified or not."""
        for verify in (True, False):
            backend = self._secure()
            transport = self.transport(backend, ca_file=self.authority.ca_file(), verify=verify)
            self.assertEqual((await self.post(transport)).status, 204)
            self.assertIsNone(heard_name(backend))

    async def test_unverified(self) -> None:
        """Without verification any certificate will do."""
        backend = self._secure(host="example.org")
        self.assertEqual((await self.post(self.transport(backend, verify=False))).status, 204)

    async def test_client_certificate(self) -> None:
        """A backend that wants a certificate gets ours, verified or not."""
        ours = Authority(self.mktemp(), "clients")
        backend = self._secure(client_ca=ours.ca_file())
        pem = ours.issue("relay")
        for settings in ({"ca_file": self.authority.ca_file()}, {"verify": False}):
            transport = self.transport(backend, client_certificate=pem, **settings)
            self.assertEqual((await self.post(transport)).status, 204)

    async def test_without_client_certificate(self) -> None:
        """A backend that wants a certificate and gets none is "tls"."""
        backend = self._secure(client_ca=self.authority.ca_file())
        for settings in ({"ca_file": self.authority.ca_file()}, {"verify": False}):
            self.assertEqual(await self.failure(self.transport(backend, **settings)), "tls")
        self.assertEqual(backend.requests, [])

    async def test_plain_backend(self) -> None:
        """A backend that speaks no TLS is "tls"."""
        backend = self.backend()
        backend.early = raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", end="close")
        url = backend.url.replace("http:", "https:")
        self.assertEqual(await self.failure(self.transport(url, ca_file=self.authority.ca_file())), "tls")

    async def test_stale(self) -> None:
        """A stale TLS connection is replaced like any other, with and without a farewell."""
        for ending in (reset, raw(b"", end="close")):
            backend = self._secure(answer(204), ending, answer(204))
            transport = self.transport(backend, ca_file=self.authority.ca_file())
            for _ in range(2):
                self.assertEqual((await self.post(transport)).status, 204)
            self.assertEqual([each.connection for each in backend.requests], [0, 0, 1])

    async def test_reset(self) -> None:
        """A TLS connection that breaks without an answer is "reset"."""
        for ending in (reset, raw(b"", end="close"), raw(HEAD_OF_MANY, end="reset"), raw(HEAD_OF_MANY, end="close")):
            transport = self.transport(self._secure(ending), ca_file=self.authority.ca_file())
            self.assertEqual(await self.failure(transport), "reset")

    async def test_timeout(self) -> None:
        """A TLS backend that hangs is "timeout", at each stage of the exchange."""
        for action in (hang, drip(b"HTTP/1.1 204 " + b"x" * 9999), raw(HEAD_OF_MANY)):
            transport = self.transport(self._secure(action), ca_file=self.authority.ca_file(), timeout=0.3)
            self.assertEqual(await self.failure(transport), "timeout")

    async def test_timeout_of_the_handshake(self) -> None:
        """A TLS backend that never shakes hands is "timeout"."""
        backend = self.backend()
        backend.deaf = True
        url = backend.url.replace("http:", "https:")
        self.assertEqual(await self.failure(self.transport(url, timeout=0.2)), "timeout")

    async def test_frozen_within_the_answer(self) -> None:
        """A TLS backend that freezes within its answer is "timeout", although it does not take part in the farewell."""
        backend = self._secure(freeze(HEAD_OF_MANY + b"x"))
        await self.assert_timeout(self.transport(backend, ca_file=self.authority.ca_file(), timeout=0.3))

    async def test_stopping_with_a_frozen_backend(self) -> None:
        """An idle TLS connection to a frozen backend does not keep the relay from stopping in time."""
        backend = self._secure(freeze(b"HTTP/1.1 204 No Content\r\n\r\n"))
        relay = self.relay(self.output(backend, ca_file=self.authority.ca_file()), shutdown_timeout=0.6)
        self.assertEqual((await self.ask(relay, request())).status, 204)
        stopped = relay.parent.stopService()
        start = reactor.seconds()
        await until(lambda: stopped.called or reactor.seconds() > start + 1)
        in_time = stopped.called
        await backend.stop()
        await stopped
        self.assertTrue(in_time, "the relay has not stopped within its shutdown timeout")

    async def test_in_the_relay(self) -> None:
        """An output's TLS settings are used, and a wrong authority is counted as "tls"."""
        backend = self._secure()
        wrong = Authority(self.mktemp()).ca_file()
        relay = self.relay(
            self.output(backend, "good", ca_file=self.authority.ca_file()),
            self.output(backend, "bad", ca_file=wrong),
            self.output(backend, "careless", skip_tls_verification=True),
        )
        self.assertEqual((await self.ask(relay, request())).status, 204)
        await until(lambda: all(sender.is_idle for sender in relay.senders))
        self.assertEqual([dict(sender.failures) for sender in relay.senders], [{}, {"tls": 1}, {}])
        self.assertEqual(len(backend.requests), 2)


class PolicyTests(SynchronousTestCase):
    """Files that cannot be used."""

    def test_missing(self) -> None:
        """A missing file is named in one line."""
        for name in ("ca_file", "client_certificate"):
            error = self.assertRaises(ConfigError, ClientTLS, **{name: "/nowhere/x.pem"})
            self.assertEqual(str(error), "/nowhere/x.pem: No such file or directory")

    def test_unusable(self) -> None:
        """A file without what should be in it is named in one line."""
        ca_file = Authority(self.mktemp()).ca_file()
        rubbish = self.mktemp()
        Path(rubbish).write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        empty = self.mktemp()
        Path(empty).write_bytes(b"")
        for settings in (
            {"ca_file": empty},
            {"ca_file": rubbish},
            {"client_certificate": empty},
            {"client_certificate": rubbish},
            {"client_certificate": ca_file},
        ):
            error = self.assertRaises(ConfigError, ClientTLS, **settings)
            (path,) = settings.values()
            self.assertTrue(str(error).startswith(f"{path}: not a usable PEM file: "), str(error))
            self.assertEqual(len(str(error).splitlines()), 1)


class URLTests(_Case):
    """URLs of backends."""

    async def test_names(self) -> None:
        """Whatever the resolver takes is a host's name: for writes, databases to create and pings."""
        for name in ("my_influxdb_1", "db--01", "-db-", "db.", "xn--a", "x" * 64):
            backend = self.backend()
            backend.ping = answer(204)
            install_resolver(self, reactor, {name: [LOOPBACK], name.encode(): [LOOPBACK]})
            url = f"http://{name}:{backend.port}"
            transport = self.transport(f"{url}/write", ping_url=f"{url}/ping")
            for asked in (transport.post(WRITE, [LINE]), transport.create_database(WRITE), transport.ping()):
                self.assertEqual((await asked).status, 204)
            hosts = [each.header("Host") for each in (*backend.requests, *backend.pings)]
            self.assertEqual(hosts, [f"{name}:{backend.port}".encode()] * 3)

    async def test_names_with_tls(self) -> None:
        """A certificate may name such a host, and the host hears its name in the handshake."""
        authority = Authority(self.mktemp())
        for name in ("my_influxdb_1", "db--01"):
            backend = self.backend(tls=server_options(authority.issue(name)))
            install_resolver(self, reactor, {name: [LOOPBACK]})
            for verify in (True, False):
                url = f"https://{name}:{backend.port}/write"
                transport = self.transport(url, ca_file=authority.ca_file(), verify=verify)
                self.assertEqual((await self.post(transport)).status, 204)
                self.assertEqual(heard_name(backend), name.encode())
                await transport.close()
                await until(lambda backend=backend: not backend.connections)

    async def test_certificate_for_another_name(self) -> None:
        """A certificate for another name than such a host's is "tls", and nothing is sent."""
        authority = Authority(self.mktemp())
        backend = self.backend(tls=server_options(authority.issue("my_influxdb_2")))
        install_resolver(self, reactor, {"my_influxdb_1": [LOOPBACK]})
        transport = self.transport(f"https://my_influxdb_1:{backend.port}/write", ca_file=authority.ca_file())
        self.assertEqual(await self.failure(transport), "tls")
        self.assertEqual(backend.requests, [])

    async def test_name_with_dot(self) -> None:
        """A name that ends in the root's dot is looked up with it, and verified and announced without."""
        authority = Authority(self.mktemp())
        backend = self.backend(tls=server_options(authority.issue("db.example.org")))
        resolver = install_resolver(self, reactor, {"db.example.org.": [LOOPBACK]})
        transport = self.transport(f"https://db.example.org.:{backend.port}/write", ca_file=authority.ca_file())
        self.assertEqual((await self.post(transport)).status, 204)
        self.assertEqual(heard_name(backend), b"db.example.org")
        self.assertEqual(resolver.asked, ["db.example.org."])

    async def test_names_in_the_relay(self) -> None:
        """A relay with such a backend takes writes for it."""
        backend = self.backend()
        install_resolver(self, reactor, {"my_influxdb_1": [LOOPBACK]})
        url = f"http://my_influxdb_1:{backend.port}/write"
        relay = self.relay(HTTPOutputConfig("one", url, url, f"{url}/ping"))
        self.assertEqual((await self.ask(relay, request())).status, 204)

    async def test_zone(self) -> None:
        """An IPv6 zone is for the address alone, and no business of the server's (RFC 6874)."""
        transport = self.transport("http://[::1%25nowhere]:8086/write")
        self.assertEqual(transport._host, b"[::1]:8086")
        self.assertIn(await self.failure(transport), ("unreachable", "unresolved", "refused"))

    async def test_ipv6(self) -> None:
        """A backend may have an IPv6 address."""
        backend = ScriptedBackend()
        listening = reactor.listenTCP(0, backend, interface="::1")
        self.addCleanup(listening.stopListening)
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        port = listening.getHost().port
        transport = self.transport(f"http://[::1]:{port}/write")
        self.assertEqual((await self.post(transport)).status, 204)
        self.assertEqual(backend.requests[0].header("Host"), b"[::1]:%d" % port)

    def test_default_ports(self) -> None:
        """Without a port it is HTTP's or HTTPS's own."""
        for scheme in ("http", "https"):
            output = HTTPOutputConfig("one", "", f"{scheme}://localhost/write", "")
            self.assertEqual(self.transport(output.write_url)._host, b"localhost")
