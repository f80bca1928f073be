"""The whole service, made from a configuration file."""

from __future__ import annotations

import os
import signal
import socket
import sys
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

from influxrelay.config.loader import load
from influxrelay.config.settings import Config, HTTPListenerConfig, HTTPOutputConfig, UDPListenerConfig, UDPOutputConfig
from influxrelay.core.errors import ConfigError, StartError
from influxrelay.service.relay_service import RelayService
from influxrelay.tap import Options, makeService
from testing.configuration import BROKEN_PEM, SHARED_NAME, write_config
from testing.logs import watch_log
from testing.scripted import LINE, LOOPBACK, Hold, RelayTestCase, ScriptedBackend, answer, hang, reactor, request, until


class ServiceTests(RelayTestCase):
    """The service, in this process."""

    def start(self, service: Any) -> None:
        """Start a service as twistd does; it stops with the test."""
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: service.stopService() if service.running else None)

    def udp_relay(
        self, *outputs: UDPOutputConfig | HTTPOutputConfig, shutdown_timeout: float = 2.0, **settings: Any
    ) -> RelayService:
        """Start a relay with a UDP listener."""
        listener = UDPListenerConfig(
            name="packets", bind_addr="test", host=LOOPBACK, port=0, outputs=tuple(outputs), **settings
        )
        service = RelayService(Config(path="test", shutdown_timeout=shutdown_timeout, udp=(listener,)), reactor)
        self.start(service)
        return service

    def udp_output(self, backend: ScriptedBackend, query: str = "db=d", **settings: Any) -> HTTPOutputConfig:
        """Return an HTTP output of a UDP listener."""
        return self.output(backend, query=query, **settings)

    def send(self, service: RelayService, *datagrams: bytes) -> None:
        """Send datagrams to the first listener."""
        listener: Any = service.listeners[0]
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for datagram in datagrams:
                sender.sendto(datagram, (LOOPBACK, listener._port.getHost().port))

    async def test_from_file_to_write(self) -> None:
        """makeService() opens nothing; what it returns listens from its start on, relays, and stops."""
        backend = self.backend()
        path = write_config(
            self,
            f"""
            [[http]]
            name = "web"
            bind-addr = "{LOOPBACK}:0"
            output = [{{ name = "one", location = "{backend.url}" }}]
            [[udp]]
            name = "packets"
            bind-addr = "{LOOPBACK}:0"
            batch-timeout = "1ms"
            output = [
                {{ name = "one", location = "{backend.url}?db=d", username = "me", password = "p" }},
                {{ name = "two", location = "localhost:9" }},
            ]
            """,
        )
        options = Options()
        options.parseOptions(["--config", path])
        log = watch_log(self)
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        service: Any = makeService(options)
        web, packets = service.listeners
        self.assertEqual((web._port, packets._port), (None, None))
        self.start(service)
        self.assertEqual((await self.ask(web, request(b"/ping", b"", method=b"GET"))).status, 204)
        self.assertEqual((await self.ask(web, request())).status, 204)
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(LINE, (LOOPBACK, packets._port.getHost().port))
        await until(lambda: len(backend.requests) == 2)
        self.assertEqual([each.body for each in backend.requests], [LINE, LINE])
        self.assertEqual([each.query for each in backend.requests], [b"db=db", b"db=d&precision=ns"])
        self.assertEqual(backend.requests[1].header("Authorization"), b"Basic bWU6cA==")
        await until(lambda: any("backend two is at" in line for line in log))
        transport: Any = packets.outputs[1].transport
        await service.stopService()
        self.assertFalse(service.running)
        self.assertEqual(log[-1], "influxrelay has stopped")
        await until(lambda: transport.disconnected, "the closed socket")

    async def test_shared_names(self) -> None:
        """Outputs that share a name each get every write and are told apart in health; the log warns of them."""
        one, two = self.backend(), self.backend()
        text = SHARED_NAME.replace("http://10.0.0.1:8086/write", one.url).replace("http://10.0.0.2:8086/write", two.url)
        log = watch_log(self)
        service = RelayService(load(write_config(self, text)), reactor)
        self.start(service)
        web = self.http(service)
        self.assertEqual((await self.ask(web, request())).status, 204)
        await until(lambda: one.requests and two.requests)
        for backend in (one, two):
            name = f"influx@{urlsplit(backend.url).netloc}"
            self.assertTrue(any(f'this one is called "{name}"' in line for line in log), log)
            asked = request(f"/health/backends/{name}".encode(), b"", method=b"GET")
            self.assertEqual((await self.ask(web, asked)).status, 200)

    async def test_udp_to_udp(self) -> None:
        """With only UDP listeners the relay starts and stops too, and its last words are the counts."""
        log = watch_log(self)
        service = self.udp_relay(UDPOutputConfig(name="out", location="x", host=LOOPBACK, port=9))
        self.send(service, b"rubbish")
        listener: Any = service.listeners[0]
        await until(lambda: listener.protocol.lines_in)
        transport: Any = listener.outputs[0].transport
        await service.stopService()
        self.assertIn("packets: lines received: 1, dropped: 1 (invalid: 1); sent to out: 0, dropped: 0", log)
        await until(lambda: transport.disconnected, "the closed socket")

    async def test_batches_are_settled(self) -> None:
        """What was received before the stop is sent and answered before it ends, and counted."""
        held = Hold(answer(204))
        backend = self.backend(held)
        log = watch_log(self)
        service = self.udp_relay(self.udp_output(backend), batch_interval=3600.0)
        self.send(service, LINE, LINE)
        listener: Any = service.listeners[0]
        await until(lambda: listener.protocol.datagrams_in == 2)
        self.assertEqual(backend.requests, [])
        stopped = service.stopService()
        await until(lambda: backend.requests)
        self.assertFalse(stopped.called)
        held.release()
        await stopped
        self.assertEqual([each.body for each in backend.requests], [LINE * 2])
        self.assertIn("packets: lines received: 2, dropped: 0; sent to one: 2, dropped: 0", log)

    async def test_batches_are_given_up(self) -> None:
        """A backend that never answers does not hold up the stop: the lines are counted as lost."""
        backend = self.backend(hang)
        log = watch_log(self)
        service = self.udp_relay(self.udp_output(backend), batch_interval=0.001, shutdown_timeout=0.2)
        self.send(service, LINE)
        await until(lambda: backend.requests)
        await service.stopService()
        self.assertIn("not everything could be settled within 0.1 s", log)
        self.assertIn("packets: lines received: 1, dropped: 0; sent to one: 0, dropped: 1 (503: 1)", log)

    async def test_hanging_write(self) -> None:
        """A write that hangs at its backend is answered 503 when the time for stopping is over."""
        backend = self.backend(hang)
        relay = self.relay(backend, shutdown_timeout=0.2)
        client = await self.client(relay)
        client.send(request())
        await until(lambda: backend.requests)
        await self.stop(relay)
        self.assert_unable(await client.answer())

    async def test_unix_socket(self) -> None:
        """A listener on a Unix socket says so in the log, and answers."""
        path = f"/tmp/influxrelay-{os.getpid()}.sock"  # short: the system allows 107 bytes
        log = watch_log(self)
        relay = self.relay(self.backend(), endpoint=f"unix:{path}")
        self.assertTrue(any("listening for HTTP on" in line and path in line for line in log), log)
        self.assertEqual((await self.ask(relay, request())).status, 204)

    async def test_rate_limit(self) -> None:
        """With a rate-limit writes beyond it are answered 429."""
        self.stop_rate_clock()
        relay = self.relay(self.backend(), rate_limit=1, burst_limit=2)
        found = [(await self.ask(relay, request())).status for _ in range(3)]
        self.assertEqual(found, [204, 204, 429])

    def stderr(self) -> StringIO:
        """Return what stands for the process's standard error until the test ends."""
        stderr = StringIO()
        self.patch(sys, "__stderr__", stderr)
        return stderr

    def test_bad_endpoints(self) -> None:
        """An endpoint string that cannot be read is an error that says why, before anything is opened."""
        for endpoint, reason in (
            ("nonsense:1", "unknown kind of endpoint 'nonsense'; known: tcp, tcp6, ssl, unix, systemd"),
            ("tcp:port", "invalid literal"),
            ("tcp:1:no=such", "got an unexpected keyword argument 'no'"),
            ("unix", "missing 1 required positional argument: 'address'"),
            ("systemd:domain=INET", "an index or a name is needed, and not both"),
        ):
            error = self.assertRaises(ConfigError, self.service_on, endpoint)
            self.assertTrue(str(error).startswith(f"web: test: {reason}"), str(error))

    def test_bad_certificate(self) -> None:
        """A server's PEM file that cannot be used, or read, is an error that names it, before anything is opened."""
        pem = write_config(self, BROKEN_PEM)
        for path, reason in ((pem, "not a usable PEM file: OpenSSL cannot read it"), ("/no/pem", "No such file")):
            error = self.assertRaises(ConfigError, self.service_on, f"ssl:0:interface={LOOPBACK}:privateKey={path}")
            self.assertTrue(str(error).startswith(f"web: {path}: {reason}"), str(error))

    def test_missing_inherited_socket(self) -> None:
        """An endpoint that names a socket which was not inherited stops the start with one line."""
        self.stderr()
        error = self.assertRaises(StartError, self.service_on("systemd:domain=INET:name=web").privilegedStartService)
        self.assertEqual(str(error), "influxrelay: web: cannot listen on test: no inherited socket has the name 'web'")

    async def test_taken_port(self) -> None:
        """A taken port stops the start: starting raises the line that ends the process."""
        self.stderr()
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = taken.getsockname()[1]
            service = self.service_on(f"tcp:{port}:interface={LOOPBACK}")
            error = self.assertRaises(StartError, service.privilegedStartService)
        self.assertIn("influxrelay: web: cannot listen on test: ", str(error))
        self.assertIn("in use", str(error))

    async def test_taken_udp_port(self) -> None:
        """The same holds for UDP."""
        self.stderr()
        with socket.socket(type=socket.SOCK_DGRAM) as taken:
            taken.bind((LOOPBACK, 0))
            output = UDPOutputConfig(name="out", location="x", host=LOOPBACK, port=9)
            listener = UDPListenerConfig(
                name="packets", bind_addr="test", host=LOOPBACK, port=taken.getsockname()[1], outputs=(output,)
            )
            service = RelayService(Config(path="test", udp=(listener,)), reactor)
            error = self.assertRaises(StartError, service.privilegedStartService)
        self.assertIn("influxrelay: packets: cannot listen on test: ", str(error))

    def service_on(self, endpoint: str) -> RelayService:
        """Return a service, not started, that listens on an endpoint."""
        output = HTTPOutputConfig(name="a", location="x", write_url="http://127.0.0.1:1/write", ping_url="x")
        listener = HTTPListenerConfig(name="web", bind_addr="test", endpoint=endpoint, outputs=(output,))
        return RelayService(Config(path="test", http=(listener,)), reactor)
