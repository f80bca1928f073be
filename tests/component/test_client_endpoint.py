"""Connections to servers: names, TLS, failures and time, on the reactor of the test."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from influxrelay.transport.client import ClientEndpoint, UNIXEndpoint
from influxrelay.transport.tls import ClientTLS, ServerTLS
from influxrelay.transport.tls_connection import TLSConnection
from testing.certificates import Authority
from testing.directories import short_directory
from testing.resolver import install_resolver
from testing.scripted import LOOPBACK, reactor, until
from testing.servers import free_port
from testing.streams import Recorder, Recorders


class _TLSServer(Factory):
    """Puts TLS before the protocols of another factory."""

    noisy = False

    def __init__(self, inner: Recorders, tls: ServerTLS) -> None:
        self._inner = inner
        self._tls = tls

    def buildProtocol(self, addr: object) -> TLSConnection:
        return TLSConnection(self._inner.buildProtocol, self._tls.context, reactor)


class _Case(TestCase):
    timeout = 600

    def setUp(self) -> None:
        """Make an authority, and a factory for both ends."""
        self.authority = Authority(self.mktemp())
        self.ours, self.theirs = Recorders(), Recorders()
        self.addCleanup(self._close)

    async def _close(self) -> None:
        ends = [*self.ours.made, *self.theirs.made]
        for each in ends:
            if each.transport is not None and each.reason is None:
                each.transport.abortConnection()
        await until(lambda: all(each.reason for each in ends if each.transport is not None), "the end of all")

    async def serve(self, factory: Factory | None = None) -> int:
        """Listen, and return the port."""
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK).listen(factory or self.theirs)
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def serve_tls(self, host: str = LOOPBACK, pem: str | None = None) -> int:
        """Listen with a certificate, and return the port."""
        return await self.serve(_TLSServer(self.theirs, ServerTLS(pem or self.authority.issue(host))))

    async def connect(self, port: int, host: str = LOOPBACK, *, within: float = 30.0, **options: Any) -> Recorder:
        """Connect, and return the protocol at this end."""
        endpoint: Any = ClientEndpoint(reactor, host, port, timeout=within, **options)
        protocol: Recorder = await endpoint.connect(self.ours)
        return protocol

    async def fails(self, port: int, error: type[BaseException], **options: Any) -> str:
        """Check that a connection fails, and return what the exception says."""
        try:
            await self.connect(port, **options)
        except error as found:
            return str(found)
        raise AssertionError("it was connected")

    async def assert_talking(self, client: Recorder) -> None:
        """Check that each end gets what the other one writes."""
        client.transport.write(b"question")
        await until(lambda: self.theirs.made and self.theirs.made[-1].received == b"question")
        self.theirs.made[-1].transport.write(b"answer")
        await until(lambda: client.received == b"answer")


class TCPTests(_Case):
    """Connections without TLS."""

    async def test_address(self) -> None:
        """An address is connected to."""
        await self.assert_talking(await self.connect(await self.serve()))

    async def test_name(self) -> None:
        """Whatever the system's resolver takes is a name: with underscores, with two hyphens, with a dot at its end."""
        names = ("my_influxdb_1", "db--01", "-db", "a.b_c.example.")
        port = await self.serve()
        await self.assert_talking(await self.connect(port, "localhost"))
        install_resolver(self, reactor, dict.fromkeys(names, (LOOPBACK,)))
        for name in names:
            await self.assert_talking(await self.connect(port, name))

    async def test_unknown_name(self) -> None:
        """A name that the system's resolver does not know is a failed look-up, as is one that cannot be a name."""
        for name in ("no-such-host.invalid", "a..b", "x" * 64 + ".invalid"):
            self.assertIn(name, await self.fails(1, DNSLookupError, host=name))

    async def test_refused(self) -> None:
        """A port that nobody listens on refuses."""
        self.assertIn("Connection refused", await self.fails(free_port(), ConnectionRefusedError))

    async def test_next_address(self) -> None:
        """A host is reached at its second address if the first one refuses."""
        port = await self.serve()
        install_resolver(self, reactor, {"two": ["127.0.0.2", LOOPBACK]})
        await self.assert_talking(await self.connect(port, "two"))
        self.assertIn("refused", await self.fails(free_port(), ConnectionRefusedError, host="two"))

    async def test_timeout(self) -> None:
        """A server whose queue is full is a time-out, within the time that is given."""
        with socket.socket() as full:
            full.bind((LOOPBACK, 0))
            full.listen(0)
            port = full.getsockname()[1]
            with socket.create_connection((LOOPBACK, port)):
                await self.fails(port, TimeoutError, within=0.2)

    async def test_cancelled(self) -> None:
        """A connection that is not wanted any more is cancelled, and no protocol is made."""
        with socket.socket() as full:
            full.bind((LOOPBACK, 0))
            full.listen(0)
            port = full.getsockname()[1]
            with socket.create_connection((LOOPBACK, port)):
                connecting = ClientEndpoint(reactor, LOOPBACK, port, timeout=30.0).connect(self.ours)
                connecting.cancel()
                await self.assertFailure(connecting, CancelledError, ConnectingCancelledError)
        self.assertEqual(self.ours.made, [])

    async def test_unix(self) -> None:
        """A unix socket is connected to; one that is not there is an error with the reason."""
        path = f"{short_directory(self)}/s"
        port: Any = await UNIXServerEndpoint(reactor, path).listen(self.theirs)
        self.addCleanup(port.stopListening)
        client: Any = await UNIXEndpoint(reactor, path, timeout=30.0).connect(self.ours)
        await self.assert_talking(client)
        missing = UNIXEndpoint(reactor, f"{path}-none", timeout=30.0).connect(self.ours)
        error = await self.assertFailure(missing, ConnectError)
        self.assertIn("No such file", str(error))


class TLSTests(_Case):
    """Connections with TLS."""

    def trusting(self) -> ClientTLS:
        """Trust the test's authority."""
        return ClientTLS(ca_file=self.authority.ca_file())

    async def test_address(self) -> None:
        """A certificate for an address is checked against that, whichever family it is of."""
        await self.assert_talking(await self.connect(await self.serve_tls(), tls=self.trusting()))
        port = await self.serve_tls("127.0.0.2")
        said = await self.fails(port, ssl.SSLCertVerificationError, tls=self.trusting())
        self.assertIn("IP address mismatch", said)

    async def test_name(self) -> None:
        """Names with underscores and two hyphens are checked, and asked for, as any other."""
        names = ("my_influxdb_1", "db--01", "localhost")
        install_resolver(self, reactor, dict.fromkeys(names, (LOOPBACK,)))
        for name in names:
            asked: list[str | None] = []
            tls = ServerTLS(self.authority.issue(name))
            tls.context.sni_callback = lambda _, asked_for, __, asked=asked: asked.append(asked_for)
            port = await self.serve(_TLSServer(self.theirs, tls))
            await self.assert_talking(await self.connect(port, name, tls=self.trusting()))
            self.assertEqual(asked, [name])
            said = await self.fails(port, ssl.SSLCertVerificationError, host=LOOPBACK, tls=self.trusting())
            self.assertIn("IP address mismatch", said)

    async def test_untrusted(self) -> None:
        """A certificate that nobody vouches for is refused with the reason, and the server gets nothing."""
        port = await self.serve_tls()
        self.assertIn("certificate verify failed", await self.fails(port, ssl.SSLError, tls=ClientTLS()))
        await until(lambda: self.theirs.made and self.theirs.made[0].reason, "the server's end")
        self.assertIsInstance(self.theirs.made[0].error, ssl.SSLError)
        self.assertEqual(self.theirs.made[0].received, b"")
        self.assertEqual(self.ours.made, [])

    async def test_unverified(self) -> None:
        """Without verification whoever answers is believed, whatever the name."""
        install_resolver(self, reactor, {"whoever": [LOOPBACK]})
        port = await self.serve_tls("somebody-else")
        for host in (LOOPBACK, "whoever"):
            await self.assert_talking(await self.connect(port, host, tls=ClientTLS(verify=False)))

    async def test_server_certificate_as_authority(self) -> None:
        """A server's own certificate may be trusted by itself, without who has signed it."""
        pem = self.authority.issue()
        port = await self.serve_tls(pem=pem)
        await self.assert_talking(await self.connect(port, tls=ClientTLS(ca_file=pem)))

    async def test_client_certificate(self) -> None:
        """The certificate that is named is shown to a server that asks for one; without it the connection ends."""
        tls = ServerTLS(self.authority.issue())
        tls.context.load_verify_locations(self.authority.ca_file())
        tls.context.verify_mode = ssl.CERT_REQUIRED
        port = await self.serve(_TLSServer(self.theirs, tls))
        shown = self.authority.issue("client")
        ours = ClientTLS(ca_file=self.authority.ca_file(), client_certificate=shown)
        await self.assert_talking(await self.connect(port, tls=ours))
        refused = await self.connect(port, tls=self.trusting())  # TLS 1.3: the server's word comes after the handshake
        await until(lambda: refused.reason, "the end of the connection")
        self.assertIsInstance(refused.error, ssl.SSLError)
        self.assertIn("certificate required", str(refused.error).lower())

    async def test_no_tls(self) -> None:
        """A server that does not speak TLS is a failure of TLS."""
        port = await self.serve(Recorders(on_connection=lambda each: each.transport.write(b"HTTP/1.1 400 Bad\r\n\r\n")))
        self.assertIn("wrong version number", await self.fails(port, ssl.SSLError, tls=ClientTLS()))

    async def test_silent(self) -> None:
        """A server that does not answer in the handshake is a time-out."""
        port = await self.serve()
        await self.fails(port, TimeoutError, tls=ClientTLS(), within=0.2)
        await until(lambda: self.theirs.made and self.theirs.made[0].reason, "the end at the server")

    def test_connected_at_the_last_moment(self) -> None:
        """A connection that is there when the time is over, and cannot be cancelled any more, is given up."""
        clock = Clock()
        aborted: list[bool] = []

        def abort() -> None:
            aborted.append(True)
            late.handshake.errback(ConnectionAborted())

        late = SimpleNamespace(handshake=Deferred(), abortConnection=abort)
        connecting: Deferred[Any] = Deferred(lambda made: made.callback(late))
        endpoint = ClientEndpoint(clock, LOOPBACK, 1, timeout=5.0, tls=ClientTLS())
        self.patch(endpoint, "_endpoint", SimpleNamespace(connect=lambda _: connecting))
        connected = endpoint.connect(self.ours)
        clock.advance(5.0)
        self.assertIn("not connected within 5 s", str(self.failureResultOf(connected, TimeoutError).value))
        self.assertEqual(aborted, [True])

    async def test_closed(self) -> None:
        """A server that closes the connection instead of shaking hands is a closed connection."""
        port = await self.serve(Recorders(on_connection=lambda each: each.transport.loseConnection()))
        endpoint = ClientEndpoint(reactor, LOOPBACK, port, timeout=30.0, tls=ClientTLS())
        await self.assertFailure(endpoint.connect(self.ours), ConnectionLost, ConnectionDone)

    def test_equality(self) -> None:
        """Two settings are equal if their files have the same content, whatever their names."""
        pem = self.authority.issue()
        copy = Path(self.mktemp())
        copy.write_bytes(Path(pem).read_bytes())
        self.assertEqual(ClientTLS(client_certificate=pem), ClientTLS(client_certificate=str(copy)))
        self.assertEqual(ServerTLS(pem), ServerTLS(str(copy)))
        copy.write_bytes(Path(self.authority.issue("other")).read_bytes())
        self.assertNotEqual(ClientTLS(client_certificate=pem), ClientTLS(client_certificate=str(copy)))
        self.assertNotEqual(ClientTLS(), ClientTLS(verify=False))
