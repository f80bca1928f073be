"""What tests of a backend's transport have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.http_backend import HTTPBackend
from influxrelay.transport.tls import ClientTLS
from testing.scripted import LINE, RelayTestCase, ScriptedBackend, reactor, until

WRITE = Write(Destination(b"db", b"", b"ns", (b"", b"", b"")), b"db=db", b"", LINE)


class BackendCase(RelayTestCase):
    """Has transports to backends."""

    def transport(self, backend: ScriptedBackend | str, **settings: Any) -> HTTPBackend:
        """Make the transport to a backend."""
        tls = {name: settings.pop(name) for name in ("verify", "ca_file", "client_certificate") if name in settings}
        url = backend if isinstance(backend, str) else backend.url
        settings = {"timeout": 10.0, "ping_url": url.replace("/write", "/ping"), **settings}
        made = HTTPBackend("one", url, reactor, ClientTLS(**tls), **settings)
        self.addCleanup(made.close)
        self.addCleanup(made.abort)
        return made

    def post(self, transport: HTTPBackend, body: bytes = LINE, write: Write = WRITE) -> Deferred[Reply]:
        """Post a body."""
        return transport.post(write, [body])

    async def problem(self, asked: Deferred[Reply]) -> BackendFailure:
        """Return why a request has failed."""
        try:
            reply = await asked
        except BackendFailure as problem:
            self.assertIsNone(problem.reply)
            return problem
        raise AssertionError(f"answered {reply}")


if TYPE_CHECKING:
    Suite = BackendCase
else:
    Suite = object  # for trial would run the tests of a suite as well


class ClientSuite(Suite):
    """Tests for posts, and for whatever else a backend is asked."""

    def send(self, transport: HTTPBackend) -> Deferred[Reply]:
        """Ask the backend something."""
        raise NotImplementedError

    async def reason(self, transport: HTTPBackend) -> str:
        """Ask, which must fail; return the reason."""
        problem = await self.problem(self.send(transport))
        self.assertFalse(transport.is_busy())
        self.assertTrue(problem.detail)
        return problem.reason

    async def gone(self, backend: ScriptedBackend) -> None:
        """Wait until a backend has no connections."""
        await until(lambda: not backend.connections)


class PostCase(BackendCase):
    """Posts."""

    def send(self, transport: HTTPBackend) -> Deferred[Reply]:
        """Post a line."""
        return self.post(transport)


class QuestionCase(BackendCase):
    """Whatever else is asked."""

    def send(self, transport: HTTPBackend) -> Deferred[Reply]:
        """Ask something of no importance."""
        return transport.client.ask(b"POST", b"/query?q=x", Headers(), timeout=transport.timeout)
