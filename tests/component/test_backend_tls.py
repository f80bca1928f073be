"""Backends that speak TLS: the same for posts, and for whatever else they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from OpenSSL.SSL import Connection
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, trustRootFromCertificates
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from influxrelay.core.errors import ConfigError
from influxrelay.core.write import Reply
from influxrelay.delivery.http_backend import HTTPBackend
from influxrelay.transport.tls import ClientTLS
from testing.backend_case import BackendCase
from testing.certificates import Authority
from testing.resolver import install_resolver
from testing.scripted import (
    LINE,
    LOOPBACK,
    ScriptedBackend,
    answer,
    drip,
    freeze,
    hang,
    raw,
    reactor,
    request,
    reset,
    until,
)

if TYPE_CHECKING:
    Suite = BackendCase
else:
    Suite = object  # for trial would run the tests of a suite as well

HEAD_OF_MANY = b"HTTP/1.1 400 No\r\nContent-Length: 1000000000\r\n\r\n"


def server_options(pem: str, *, client_ca: str | None = None) -> CertificateOptions:
    """Return a server's side of TLS, with a certificate and perhaps an authority whose clients alone are let in."""
    certificate = PrivateCertificate.loadPEM(Path(pem).read_bytes())
    trust = trustRootFromCertificates([Certificate.loadPEM(Path(client_ca).read_bytes())]) if client_ca else None
    return CertificateOptions(
        privateKey=certificate.privateKey.original, certificate=certificate.original, trustRoot=trust
    )


def heard_name(backend: ScriptedBackend) -> bytes | None:
    """Return the server's name that came in the handshake of the last connection."""
    handle: Connection = backend.connections[-1].transport.getHandle()
    name: bytes | None = handle.get_servername()
    return name


class TLSSuite(Suite):
    """HTTPS."""

    def setUp(self) -> None:
        """Make an authority."""
        self.authority = Authority(self.mktemp())

    def send(self, transport: HTTPBackend) -> Deferred[Reply]:
        """Ask the backend something."""
        raise NotImplementedError

    async def reason(self, transport: HTTPBackend) -> str:
        """Ask, which must fail; return the reason."""
        problem = await self.problem(self.send(transport))
        self.assertFalse(transport.is_busy())
        return problem.reason

    def secure(self, *script: Any, pem: str = "", client_ca: str | None = None) -> ScriptedBackend:
        """Start a backend."""
        return self.backend(*script, tls=server_options(pem or self.authority.issue(), client_ca=client_ca))

    def trusting(self, backend: ScriptedBackend, **settings: Any) -> HTTPBackend:
        """Make a transport that trusts our authority."""
        return self.transport(backend, ca_file=self.authority.ca_file(), **settings)

    async def test_verified(self) -> None:
        """A backend whose certificate our authority signed is asked, on one connection."""
        backend = self.secure(answer(204), answer(400, b"x" * 100_000))
        transport = self.trusting(backend)
        self.assertEqual((await self.send(transport)).status, 204)
        self.assertEqual(len((await self.send(transport)).body), 100_000)
        self.assertEqual(backend.connection_count, 1)

    async def test_among_other_authorities(self) -> None:
        """A file may hold several authorities."""
        both = self.both_authorities()
        self.assertEqual((await self.send(self.transport(self.secure(), ca_file=both))).status, 204)

    def both_authorities(self) -> str:
        """Write a file with another authority and ours."""
        both = Path(self.mktemp())
        files = (Authority(self.mktemp(), "another").ca_file(), self.authority.ca_file())
        both.write_text("# and\n".join([Path(each).read_text() for each in files]))
        return str(both)

    async def test_self_signed(self) -> None:
        """A certificate that nobody vouches for is "tls", unless it is trusted itself."""
        pem = self.authority.issue()
        backend = self.secure(pem=pem)
        self.assertEqual(await self.reason(self.transport(backend)), "tls")
        self.assertEqual((await self.send(self.transport(backend, ca_file=pem))).status, 204)

    async def test_wrong_authority(self) -> None:
        """A certificate of another authority is "tls", and nothing is sent."""
        backend = self.secure()
        other = Authority(self.mktemp())
        self.assertEqual(await self.reason(self.transport(backend, ca_file=other.ca_file())), "tls")
        self.assertEqual(backend.requests, [])

    async def test_expired(self) -> None:
        """A certificate that has expired is "tls", and nothing is sent."""
        backend = self.secure(pem=self.authority.issue(expired=True))
        self.assertEqual(await self.reason(self.trusting(backend)), "tls")
        self.assertEqual(backend.requests, [])

    async def test_wrong_name(self) -> None:
        """A certificate for another address or name is "tls", and nothing is sent."""
        for host in ("127.0.0.2", "example.org"):
            backend = self.secure(pem=self.authority.issue(host))
            self.assertEqual(await self.reason(self.trusting(backend)), "tls")
            self.assertEqual(backend.requests, [])

    async def test_names(self) -> None:
        """A backend may be known by any name, and hears it in the handshake, verified or not."""
        for name in ("localhost", "my_influxdb_1", "db--01"):
            backend = self.secure(pem=self.authority.issue(name))
            install_resolver(self, reactor, {name: [LOOPBACK]})
            url = f"https://{name}:{backend.port}/write"
            for verify in (True, False):
                transport = self.transport(url, ca_file=self.authority.ca_file(), verify=verify)
                self.assertEqual((await self.send(transport)).status, 204)
                self.assertEqual(heard_name(backend), name.encode())

    async def test_wrong_name_with_underscores(self) -> None:
        """A certificate for another name than such a host's is "tls", and nothing is sent."""
        backend = self.secure(pem=self.authority.issue("my_influxdb_2"))
        install_resolver(self, reactor, {"my_influxdb_1": [LOOPBACK]})
        url = f"https://my_influxdb_1:{backend.port}/write"
        self.assertEqual(await self.reason(self.transport(url, ca_file=self.authority.ca_file())), "tls")
        self.assertEqual(backend.requests, [])

    async def test_name_with_dot(self) -> None:
        """A name that ends in the root's dot is looked up with it, and verified and announced without."""
        backend = self.secure(pem=self.authority.issue("db.example.org"))
        resolver = install_resolver(self, reactor, {"db.example.org.": [LOOPBACK]})
        url = f"https://db.example.org.:{backend.port}/write"
        self.assertEqual((await self.send(self.transport(url, ca_file=self.authority.ca_file()))).status, 204)
        self.assertEqual(heard_name(backend), b"db.example.org")
        self.assertEqual(resolver.asked, ["db.example.org."])

    async def test_by_address(self) -> None:
        """An address is not sent as a server's name (RFC 6066, 3), verified or not."""
        for verify in (True, False):
            backend = self.secure()
            self.assertEqual((await self.send(self.trusting(backend, verify=verify))).status, 204)
            self.assertIsNone(heard_name(backend))

    async def test_unverified(self) -> None:
        """Without verification any certificate will do."""
        backend = self.secure(pem=self.authority.issue("example.org", expired=True))
        self.assertEqual((await self.send(self.transport(backend, verify=False))).status, 204)

    async def test_client_certificate(self) -> None:
        """A backend that wants a certificate gets ours, verified or not."""
        ours = Authority(self.mktemp(), "clients")
        backend = self.secure(client_ca=ours.ca_file())
        for verify in (True, False):
            transport = self.trusting(backend, client_certificate=ours.issue("relay"), verify=verify)
            self.assertEqual((await self.send(transport)).status, 204)

    async def test_without_client_certificate(self) -> None:
        """A backend that wants a certificate and gets none is "tls"."""
        backend = self.secure(client_ca=self.authority.ca_file())
        for verify in (True, False):
            self.assertEqual(await self.reason(self.trusting(backend, verify=verify)), "tls")
        self.assertEqual(backend.requests, [])

    async def test_plain_backend(self) -> None:
        """A backend that speaks no TLS is "tls"."""
        backend = self.backend()
        backend.early = raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", end="close")
        url = backend.url.replace("http:", "https:")
        self.assertEqual(await self.reason(self.transport(url)), "tls")

    async def test_stale(self) -> None:
        """A stale TLS connection is replaced like any other, with and without a farewell."""
        for ending in (reset, raw(b"", end="close")):
            backend = self.secure(answer(204), ending, answer(204))
            transport = self.trusting(backend)
            for _ in range(2):
                self.assertEqual((await self.send(transport)).status, 204)
            self.assertEqual([each.connection for each in backend.requests], [0, 0, 1])

    async def test_reset(self) -> None:
        """A TLS connection that breaks before a status line has come is "reset"."""
        for ending in (reset, raw(b"", end="close"), raw(b"HTTP/1.1 4", end="reset"), raw(b"HTTP/1.1 4", end="close")):
            self.assertEqual(await self.reason(self.trusting(self.secure(ending))), "reset")

    async def test_cut_off(self) -> None:
        """The status is believed of an answer that breaks off, and of one that never ends."""
        for action, timeout in (
            (raw(HEAD_OF_MANY, end="reset"), 60.0),
            (raw(HEAD_OF_MANY, end="close"), 60.0),
            (raw(HEAD_OF_MANY), 3.0),  # in which a busy machine has to shake hands
            (freeze(HEAD_OF_MANY + b"x"), 3.0),
        ):
            backend = self.secure(action)
            self.assertEqual((await self.send(self.trusting(backend, timeout=timeout))).status, 400)

    async def test_timeout(self) -> None:
        """A TLS backend that hangs is "timeout", at each stage of the exchange."""
        for action in (hang, drip(b"HTTP/1.1 204 " + b"x" * 9999)):
            self.assertEqual(await self.reason(self.trusting(self.secure(action), timeout=0.3)), "timeout")
        backend = self.backend()
        backend.deaf = True
        url = backend.url.replace("http:", "https:")
        self.assertEqual(await self.reason(self.transport(url, timeout=0.2)), "timeout")


class PostTests(TLSSuite, BackendCase):
    """Posts."""

    def send(self, transport: HTTPBackend) -> Deferred[Reply]:
        """Post a line."""
        return self.post(transport)

    async def test_large(self) -> None:
        """A write that is larger than all buffers arrives whole."""
        backend = self.secure()
        self.assertEqual((await self.post(self.trusting(backend), LINE * 200_000)).status, 204)
        self.assertEqual(backend.requests[0].body, LINE * 200_000)

    async def test_stopping_with_a_frozen_backend(self) -> None:
        """An idle TLS connection to a frozen backend does not keep the relay from stopping in time."""
        backend = self.secure(freeze(b"HTTP/1.1 204 No Content\r\n\r\n"))
        relay = self.relay(self.output(backend, ca_file=self.authority.ca_file()), shutdown_timeout=0.6)
        self.assertEqual((await self.ask(relay, request())).status, 204)
        service: Any = relay.parent
        stopped = service.stopService()
        start = reactor.seconds()
        await until(lambda: stopped.called or reactor.seconds() > start + 1)
        in_time = stopped.called
        await backend.stop()
        await stopped
        self.assertTrue(in_time, "the relay has not stopped within its shutdown timeout")

    async def test_in_the_relay(self) -> None:
        """An output's TLS settings are used, and a wrong authority is counted as "tls"."""
        backend = self.secure()
        wrong = Authority(self.mktemp()).ca_file()
        relay = self.relay(
            self.output(backend, "good", ca_file=self.authority.ca_file()),
            self.output(backend, "bad", ca_file=wrong),
            self.output(backend, "careless", skip_tls_verification=True),
        )
        self.assertEqual((await self.ask(relay, request())).status, 204)
        await until(lambda: all(sender.is_idle for sender in relay.senders))
        self.assertEqual([dict(sender.clients.failures) for sender in relay.senders], [{}, {"tls": 1}, {}])
        self.assertEqual(len(backend.requests), 2)


class QuestionTests(TLSSuite, BackendCase):
    """Whatever else is asked."""

    def send(self, transport: HTTPBackend) -> Deferred[Reply]:
        """Ask something of no importance."""
        return transport.client.ask(b"GET", b"/query?q=x", Headers(), timeout=transport.timeout)


class FileTests(SynchronousTestCase):
    """Files that cannot be used."""

    def test_missing(self) -> None:
        """A missing file is named in one line."""
        for name in ("ca_file", "client_certificate"):
            settings: Any = {name: "/nowhere/x.pem"}
            error = self.assertRaises(ConfigError, ClientTLS, **settings)
            self.assertEqual(str(error), "/nowhere/x.pem: No such file or directory")

    def test_unusable(self) -> None:
        """A file without what should be in it is named in one line."""
        ca_file = Authority(self.mktemp()).ca_file()
        rubbish = self.mktemp()
        Path(rubbish).write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        empty = self.mktemp()
        Path(empty).write_bytes(b"")
        for name, path in (
            ("ca_file", empty),
            ("ca_file", rubbish),
            ("client_certificate", empty),
            ("client_certificate", rubbish),
            ("client_certificate", ca_file),
        ):
            settings: Any = {name: path}
            error = self.assertRaises(ConfigError, ClientTLS, **settings)
            self.assertTrue(str(error).startswith(f"{path}: not a usable PEM file: "), str(error))
            self.assertEqual(len(str(error).splitlines()), 1)
