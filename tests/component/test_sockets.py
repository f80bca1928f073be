"""Ports that are made from sockets which are open already, and the gentle stop that they allow."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from influxrelay.config.loader import load
from influxrelay.http import site as web
from influxrelay.listeners.endpoint import Endpoint
from influxrelay.service.relay_service import RelayService
from influxrelay.transport.client import ClientEndpoint
from influxrelay.transport.sockets import Sockets, describe
from testing.certificates import Authority
from testing.logs import watch_events
from testing.scripted import (
    LOOPBACK,
    PING,
    Client,
    Hold,
    RelayTestCase,
    ScriptedBackend,
    answer,
    reactor,
    request,
    until,
)


class _Case(RelayTestCase):
    def setUp(self) -> None:
        """Make a directory."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def given(self, kind: socket.SocketKind = socket.SOCK_STREAM, host: str = LOOPBACK) -> socket.socket:
        """Open a socket as a service manager does."""
        given = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        self.addCleanup(given.close)
        given.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            given.listen()
        return given

    def short_directory(self) -> str:
        """Make a directory for unix sockets, whose names have 107 bytes at most."""
        directory = tempfile.mkdtemp(prefix="relay-")
        self.addCleanup(shutil.rmtree, directory)
        return directory

    async def service(self, text: str, *given: socket.socket) -> RelayService:
        """Start a relay that has these sockets."""
        config = self.directory / "relay.toml"
        config.write_text(text)
        fds = [os.dup(each.fileno()) for each in given]
        for fd in fds:
            self.addCleanup(os.close, fd)
        service = RelayService(load(config), reactor, sockets=Sockets(dict.fromkeys(fds, "web")))
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        return service

    async def connect(self, endpoint: Any) -> Client:
        """Connect a client."""
        factory = Factory.forProtocol(Client)
        factory.noisy = False
        client: Client = await endpoint.connect(factory)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.leave()))
        return client

    async def connect_to(self, given: socket.socket) -> Client:
        """Connect a client to a TCP socket."""
        return await self.connect(TCP4ClientEndpoint(reactor, LOOPBACK, given.getsockname()[1]))


def http(bind: str, backend: ScriptedBackend, more: str = "") -> str:
    """Return an HTTP listener's configuration."""
    return f'[[http]]\nbind-addr = "{bind}"\n{more}\n[[http.output]]\nlocation = "{backend.url}"\n'


def _load(pem: str) -> Certificate:
    return Certificate.loadPEM(Path(pem).read_bytes())


def _mode(path: str) -> int:
    return Path(path).stat().st_mode


class TakeOverTests(_Case):
    """Listeners whose address is that of a given socket."""

    async def test_tcp(self) -> None:
        """A TCP listener answers at the given socket, and leaves it open: who connects later waits for the next one."""
        given, backend = self.given(), self.backend()
        text = http(f"{LOOPBACK}:{given.getsockname()[1]}", backend)
        first = await self.service(text, given)
        client = await self.connect_to(given)
        self.assertEqual((await client.ask(request())).status, 204)
        client.vanish()
        await first.stopService()
        waiting = await self.connect_to(given)
        waiting.send(request())
        await self.service(text, given)
        self.assertEqual((await waiting.answer()).status, 204)
        self.assertEqual(len(backend.requests), 2)

    async def test_tls(self) -> None:
        """A listener with a certificate speaks TLS at the given socket."""
        given = self.given()
        authority = Authority(str(self.directory))
        pem = f'ssl-combined-pem = "{authority.issue()}"'
        await self.service(http(f"{LOOPBACK}:{given.getsockname()[1]}", self.backend(), pem), given)
        trust = trustRootFromCertificates([_load(authority.ca_file())])
        endpoint = TCP4ClientEndpoint(reactor, LOOPBACK, given.getsockname()[1])
        client = await self.connect(wrapClientTLS(optionsForClientTLS(LOOPBACK, trustRoot=trust), endpoint))
        self.assertEqual((await client.ask(request())).status, 204)

    async def test_unix(self) -> None:
        """A unix listener answers at the given socket, and leaves its file as it is."""
        given = socket.socket(socket.AF_UNIX)
        self.addCleanup(given.close)
        path = f"{self.short_directory()}/s"
        given.bind(path)
        given.listen()
        mode = _mode(path)
        service = await self.service(http(f"unix:{path}", self.backend()), given)
        client = await self.connect(UNIXClientEndpoint(reactor, path))
        self.assertEqual((await client.ask(request())).status, 204)
        client.vanish()
        await service.stopService()
        self.assertEqual(_mode(path), mode)

    async def test_udp(self) -> None:
        """A UDP listener gets what waits in the given socket, and what comes after its end is for the next one."""
        given, backend = self.given(socket.SOCK_DGRAM), self.backend()
        where = given.getsockname()
        text = f'[[udp]]\nbind-addr = "{LOOPBACK}:{where[1]}"\nbatch-timeout = "1ms"\nread-buffer = 4096\n'
        text += f'[[udp.output]]\nlocation = "{backend.url}?db=d"\n'
        size = given.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for value in range(3):
                sender.sendto(b"m value=%d 1\n" % value, where)
                service = await self.service(text, given)
                await until(lambda: len(backend.requests) > value, "the datagram at the backend")
                await service.stopService()
        bodies = [each.body for each in backend.requests]
        self.assertEqual(bodies, [b"m value=0 1\n", b"m value=1 1\n", b"m value=2 1\n"])
        self.assertEqual(given.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), size)  # the manager's is kept

    async def test_admin(self) -> None:
        """The listener for operators may have a given socket, too."""
        given = self.given()
        admin = f'[admin]\nbind-addr = "{LOOPBACK}:{given.getsockname()[1]}"\n'
        await self.service(admin + http(f"{LOOPBACK}:0", self.backend()), given)
        self.assertEqual((await (await self.connect_to(given)).ask(PING)).status, 204)

    async def test_every_address(self) -> None:
        """A listener for every address takes the given socket for every address, IPv4's or both's."""
        for host in ("0.0.0.0", "::"):
            given = self.given(host=host)
            service = await self.service(http(f":{given.getsockname()[1]}", self.backend()), given)
            self.assertEqual((await (await self.connect_to(given)).ask(PING)).status, 204, host)
            await service.stopService()

    async def test_inherited_by_nobody_else(self) -> None:
        """The given descriptors do not block, and no child of this process has them."""
        given = self.given()
        os.set_inheritable(given.fileno(), True)
        Sockets({given.fileno(): "web"})
        self.assertFalse(os.get_inheritable(given.fileno()))
        self.assertFalse(os.get_blocking(given.fileno()))


def _has_two_lines(backend: ScriptedBackend) -> bool:
    return b"".join(each.body for each in backend.requests) == b"m v=1 1\n" * 2


class EverywhereTests(_Case):
    """Listeners for every address of the machine."""

    async def test_both_families(self) -> None:
        """``":PORT"`` and ``"0.0.0.0:PORT"`` take HTTP and UDP from both families, and the log names each client."""
        events = watch_events(self)
        for host in ("", "0.0.0.0"):
            backend = self.backend()
            text = http(f"{host}:0", backend, "access-log = true")
            text += f'[[udp]]\nbind-addr = "{host}:0"\nbatch-timeout = "1ms"\n'
            text += f'[[udp.output]]\nlocation = "{backend.url}?db=d"\n'
            service = await self.service(text)
            web, packets = (each.address().port for each in service.listeners)
            for address, family in ((LOOPBACK, socket.AF_INET), ("::1", socket.AF_INET6)):
                client = await self.connect(ClientEndpoint(reactor, address, web, timeout=30.0))
                self.assertEqual((await client.ask(PING)).status, 204)
                self.assertEqual([each["client"] for each in events if "client" in each][-1], address)
                with socket.socket(family, socket.SOCK_DGRAM) as sender:
                    sender.sendto(b"m v=1 1\n", (address, packets))
            await until(partial(_has_two_lines, backend))
            await service.stopService()


class OtherTests(_Case):
    """Sockets that fit no listener, and listeners that no socket fits."""

    def events(self) -> list[dict[str, Any]]:
        """Return the list to which log events will be added."""
        return watch_events(self)

    async def test_unused(self) -> None:
        """Each given descriptor that no listener wants is named in the log, and the listeners open their own ports."""
        events = self.events()
        tcp, tcp6, udp, pipe = self.given(), self.given(host="::1"), self.given(socket.SOCK_DGRAM), os.pipe()
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(b"\0influxrelay-test-%d" % os.getpid())
        packet = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
        self.addCleanup(unix.close)
        self.addCleanup(packet.close)
        for fd in pipe:
            self.addCleanup(os.close, fd)
        config = self.directory / "relay.toml"
        config.write_text(http(f"{LOOPBACK}:0", self.backend()))
        fds = [each.fileno() for each in (tcp, tcp6, udp, unix, packet)]
        service = RelayService(load(config), reactor, sockets=Sockets(dict.fromkeys([*fds, pipe[0]], "")))
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        self.assertEqual(
            [event["unused"] for event in events if "unused" in event],
            [
                f"file descriptor {pipe[0]} (Socket operation on non-socket)",
                f"tcp {LOOPBACK}:{tcp.getsockname()[1]}",
                f"tcp [::1]:{tcp6.getsockname()[1]}",
                f"udp {LOOPBACK}:{udp.getsockname()[1]}",
                f"unix \0influxrelay-test-{os.getpid()}",
                describe(packet),
            ],
        )

    async def test_connection(self) -> None:
        """A client's connection has a listener's address, and is not taken for it."""
        given = self.given()
        with socket.create_connection(given.getsockname()) as client, given.accept()[0] as connection:
            sockets = Sockets({connection.fileno(): ""})
            self.assertRaises(OSError, sockets.tcp, *client.getpeername())
        sockets = Sockets({given.fileno(): "web"})
        self.assertTrue(sockets.tcp(*given.getsockname()).inherited)
        self.assertFalse(sockets.has_udp(*given.getsockname()))

    async def test_systemd_endpoint(self) -> None:
        """An endpoint string names a given socket by its name or its place, and that counts as used."""
        for which in ("name=web", "index=0"):
            given = self.given()
            service = await self.service(http(f"systemd:domain=INET:{which}", self.backend()), given)
            self.assertEqual((await (await self.connect_to(given)).ask(PING)).status, 204)
            await service.stopService()
        sockets = Sockets({given.fileno(): "web"})
        self.assertEqual(sockets.unused(), [describe(given)])
        for name in ("web", "other"):
            with contextlib.suppress(LookupError):
                Endpoint.read(f"systemd:domain=INET:name={name}").bind(sockets).close()
                self.assertEqual(name, "web")
        self.assertEqual(sockets.unused(), [])


class GentleStopTests(_Case):
    """The end of a relay whose clients can connect to its successor."""

    async def test_connected_before(self) -> None:
        """A client that was connected before the stop has its write taken, on a new connection or on one it keeps."""
        self.patch(web, "IDLE_GRACE", 60.0)  # this machine may be slower than any client
        self.patch(web, "FRESH_GRACE", 60.0)
        given, backend = self.given(), self.backend()
        service = await self.service(http(f"{LOOPBACK}:{given.getsockname()[1]}", backend), given)
        fresh, kept = await self.connect_to(given), await self.connect_to(given)
        self.assertEqual((await kept.ask(request())).status, 204)
        await until(lambda: len(self.http(service).site.connections) == 2, "both connections")
        stopped = service.stopService()
        for client in (kept, fresh):
            found = await client.ask(request())
            self.assertEqual((found.status, found.header("Connection")), (204, b"close"))
            await client.end()
        await stopped
        self.assertEqual(len(backend.requests), 3)

    async def test_silent(self) -> None:
        """A client that says nothing more is sent away, and does not keep the relay."""
        given = self.given()
        service = await self.service(http(f"{LOOPBACK}:{given.getsockname()[1]}", self.backend()), given)
        kept = await self.connect_to(given)
        self.assertEqual((await kept.ask(request())).status, 204)
        await service.stopService()
        await kept.end()

    async def test_late(self) -> None:
        """After the grace a request that comes behind another one is refused: the relay has to end some time."""
        held = Hold(answer(204))
        given, backend = self.given(), self.backend(held)
        service = await self.service(http(f"{LOOPBACK}:{given.getsockname()[1]}", backend), given)
        client = await self.connect_to(given)
        client.send(request()[:-5])
        site = self.http(service).site
        await until(lambda: not all(each.is_idle() for each in site.connections), "the request")
        stopped = service.stopService()
        site.refuse_requests()
        client.send(request()[-5:])
        self.assert_error(await client.answer(), 503, "the relay is shutting down")
        await stopped
