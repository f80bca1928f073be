"""A backend that does what a test tells it, a client that sends what a test tells it, and a relay between them.

All three live in the test's own reactor and talk over loopback sockets. What tests of this kind need is all here.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from influxrelay.config.settings import Config, HTTPListenerConfig, HTTPOutputConfig
from influxrelay.core.token_bucket import TokenBucket
from influxrelay.listeners import http
from influxrelay.listeners.http import HTTPService
from influxrelay.service.relay_service import RelayService
from testing.messages import LINE, LOOPBACK, Answer, HeaderList, Message, Received, parse_head, reactor, together, until
from testing.scripted_backend import (
    Action,
    BackendConnection,
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
    reset,
)
from testing.scripted_client import PING, Client, in_chunks, request

__all__ = [
    "LINE",
    "LOOPBACK",
    "PING",
    "Action",
    "Answer",
    "BackendConnection",
    "Client",
    "HeaderList",
    "Hold",
    "Message",
    "Received",
    "RelayTestCase",
    "ScriptedBackend",
    "answer",
    "chunked",
    "drip",
    "endless",
    "freeze",
    "garbage",
    "gzipped",
    "hang",
    "in_chunks",
    "lengthless",
    "parse_head",
    "raw",
    "reactor",
    "request",
    "reset",
    "together",
    "until",
]


class RelayTestCase(TestCase):
    """Has backends, clients and relays that end with the test."""

    timeout = 600  # seconds; only a test that hangs takes as long, also on a busy machine
    pings = False  # of backends by the relays
    _backends: Sequence[ScriptedBackend] = ()

    def stop_rate_clock(self) -> Clock:
        """Let rate limits go by a clock that the test advances, however long its requests take."""
        clock = Clock()
        self.patch(http, "TokenBucket", lambda rate, burst, _: TokenBucket(rate, burst, clock.seconds))
        return clock

    def backend(self, *script: Action, tls: CertificateOptions | None = None) -> ScriptedBackend:
        """Start a backend."""
        backend = ScriptedBackend(*script).listen(tls)
        self._backends = [*self._backends, backend]
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        return backend

    async def refusing_backend(self) -> ScriptedBackend:
        """Return a backend that refuses connections."""
        backend = ScriptedBackend()
        # A port that is bound but does not listen: it refuses, and nobody else can get it.
        bound = socket.socket()
        self.addCleanup(bound.close)
        bound.bind((LOOPBACK, 0))
        backend.port = bound.getsockname()[1]
        return backend

    def output(self, backend: ScriptedBackend, name: str = "one", **settings: Any) -> HTTPOutputConfig:
        """Return the output that leads to a backend."""
        return HTTPOutputConfig(
            name=name, location=backend.url, write_url=backend.url, ping_url=backend.url + "/ping", **settings
        )

    def relay(
        self,
        *outputs: ScriptedBackend | HTTPOutputConfig,
        endpoint: str = f"tcp:0:interface={LOOPBACK}",
        shutdown_timeout: float = 2.0,
        **settings: Any,
    ) -> HTTPService:
        """Start a relay with one listener, and return that; its service is ``parent``."""
        made = tuple(
            each if isinstance(each, HTTPOutputConfig) else self.output(each, f"backend-{number}")
            for number, each in enumerate(outputs)
        )
        listener = HTTPListenerConfig(name="test", bind_addr="test", endpoint=endpoint, outputs=made, **settings)
        service = RelayService(Config(path="test", shutdown_timeout=shutdown_timeout, http=(listener,)), reactor)
        if not self.pings:
            self.patch(service.prober, "start", lambda: None)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        started = service.listeners[0]
        if not isinstance(started, HTTPService):
            raise TypeError(started)
        return started

    async def _end(self, service: RelayService) -> None:
        for backend in self._backends:  # first, so that none keeps the relay waiting
            await backend.stop()
        if service.running:
            await service.stopService()

    def http(self, service: RelayService, number: int = 0) -> HTTPService:
        """Return a listener for HTTP."""
        found = service.listeners[number]
        assert isinstance(found, HTTPService)
        return found

    async def stop(self, relay: HTTPService) -> None:
        """Stop the service of a relay in order."""
        parent: Any = relay.parent
        await parent.stopService()

    async def client(self, relay: HTTPService, *, tls: Any = None) -> Client:
        """Connect to a relay."""
        host: Any = relay.address()
        if hasattr(host, "port"):
            endpoint: Any = TCP4ClientEndpoint(reactor, LOOPBACK, host.port)
        else:
            endpoint = UNIXClientEndpoint(reactor, host.name)
        if tls is not None:
            endpoint = wrapClientTLS(tls, endpoint)
        factory = Factory.forProtocol(Client)
        factory.noisy = False
        client: Client = await endpoint.connect(factory)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.leave()))
        return client

    async def ask(self, relay: HTTPService, *pieces: bytes) -> Answer:
        """Send a request on a connection of its own and return the answer."""
        client = await self.client(relay)
        found = await client.ask(*pieces)
        client.vanish()
        return found

    def assert_error(self, found: Answer, status: int, message: str) -> None:
        """Check an error of the relay's own, byte for byte."""
        self.assertEqual(found.status, status)
        self.assertEqual(found.body, b'{"error":"%b"}\n' % message.replace('"', '\\"').encode())
        self.assertEqual(found.header("Content-Type"), b"application/json")
        self.assertEqual(found.header("X-Influxdb-Error"), message.encode())

    def assert_unable(self, found: Answer) -> None:
        """Check the answer for a write that no backend answered."""
        self.assert_error(found, 503, "unable to write points")
