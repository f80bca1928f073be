"""What Prometheus is told of relays: known stories, and the exact figures that come of them."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Sequence
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.internet.defer import Deferred

from influxrelay import __version__
from influxrelay.config.settings import (
    AdminConfig,
    Config,
    HTTPListenerConfig,
    HTTPOutputConfig,
    UDPListenerConfig,
    UDPOutputConfig,
)
from influxrelay.listeners.udp import UDPService
from influxrelay.operations.metric_families import FAMILIES
from influxrelay.service.relay_service import RelayService
from influxrelay.transport.sockets import Sockets
from testing.metrics_case import MetricsCase
from testing.scripted import LINE, LOOPBACK, Hold, answer, in_chunks, reactor, request, reset, until

NOT_READY = answer(404, b'{"error":"database not found: \\"db\\""}\n')
REFUSAL = answer(400, b'{"error":"field type conflict"}\n')


class HTTPTests(MetricsCase):
    """What HTTP clients send, and what they are told."""

    async def test_writes_and_answers(self) -> None:
        """Writes, lines and bytes are those that were given to the backends; every answer to a write is counted."""
        relay = self.relay(self.backend(answer(204), answer(204), answer(204), REFUSAL), max_body_size=1000)
        self.watch(relay)
        client = await self.client(relay)
        two = b"m v=1 1\nm v=2 2"
        for sent in (
            request(body=b"m v=1\n"),
            request(body=two),
            request(b"/write?db=db", gzip.compress(two), b"Content-Encoding: gzip"),
            request(body=b"m v=1i 1\n"),  # refused by the backend
            request(body=b"\n# nothing\n"),
            request(b"/write", two),
            request(b"/write?db=db", method=b"PUT"),
            request(b"/write?db=db", method=b"OPTIONS"),
            request(b"/ping", b"", method=b"GET"),
            request(b"/nowhere"),
            in_chunks(b"/write?db=db", b"x" * 2000),
        ):
            await client.ask(sent)
        await self.assert_figure("influxrelay_writes_total", {("test",): 4})
        await self.assert_figure("influxrelay_lines_total", {("test",): 6})
        await self.assert_figure("influxrelay_received_bytes_total", {("test",): 6 + 2 * len(two) + 9})
        expected = {"204": 5, "400": 2, "405": 1, "413": 1}
        answers = {("test", code): count for code, count in expected.items()}
        await self.assert_figure("influxrelay_http_answers_total", answers)
        refused = {("test", code): 1 for code in ("400", "404", "405", "413")}
        await self.assert_figure("influxrelay_http_refused_total", refused)
        self.assertIn(("test", "503"), await self.figures("influxrelay_http_answers_total"))

    async def test_refused_early(self) -> None:
        """What is over the rate limit, what is no HTTP and what comes during the stop are refused, and counted."""
        backend = self.backend(Hold(answer(204)))
        self.stop_rate_clock()
        relay = self.relay(backend, rate_limit=1, burst_limit=1)
        self.watch(relay)
        client = await self.client(relay)
        client.send(request())
        await until(lambda: backend.requests, "the write")
        await self.ask(relay, request())
        await self.ask(relay, b"GET /\r\n\r\n")
        relay.site.refuse_requests()
        other = await self.client(relay)
        await other.ask(request())
        refused = {("test", code): 1 for code in ("400", "429", "503")}
        await self.assert_figure("influxrelay_http_refused_total", refused)
        await self.assert_figure("influxrelay_http_answers_total", {("test", "429"): 1, ("test", "503"): 1})
        await self.wait_for("influxrelay_http_connections", {("test",): 2})


class BackendTests(MetricsCase):
    """What becomes of writes at each backend."""

    async def test_merged(self) -> None:
        """Writes that wait travel as one request, and are counted as merged; each request's time is in a bucket."""
        hold = Hold(answer(204))
        backend = self.backend(hold, answer(204))
        relay = self.relay(backend)
        self.watch(relay)
        clients = [await self.client(relay) for _ in range(4)]
        for number, client in enumerate(clients):
            client.send(request())
            await until(lambda: relay.senders[0].writes > number, "the write")
        one = ("test", "backend-0")
        await self.assert_figure("influxrelay_backend_requests_in_flight", {one: 1})
        await self.assert_figure("influxrelay_backend_waiting_writes", {one: 3})
        await self.assert_figure("influxrelay_backend_waiting_bytes", {one: 3 * len(LINE)})
        hold.release()
        for client in clients:
            self.assertEqual((await client.answer()).status, 204)
        for name, expected in (
            ("influxrelay_backend_requests_total", 2),
            ("influxrelay_backend_writes_total", 4),
            ("influxrelay_backend_sent_writes_total", 4),
            ("influxrelay_backend_merged_writes_total", 3),
            ("influxrelay_backend_request_duration_seconds_count", 2),
        ):
            await self.assert_figure(name, {one: expected})
        for name in ("waiting_writes", "waiting_bytes", "requests_in_flight", "request_failures_total"):
            await self.assert_figure(f"influxrelay_backend_{name}", {})
        await self.assert_figure("influxrelay_backend_state", {(*one, "up"): 1})

    async def test_failures(self) -> None:
        """Failures are counted by their reason, requests and writes apart; a refused write is no failed request."""
        backend = self.backend(answer(500, close=True), reset, REFUSAL)
        relay = self.relay(backend)
        self.watch(relay)
        statuses = [(await self.ask(relay, request())).status for _ in range(3)]
        self.assertEqual((statuses, len(backend.requests)), ([500, 503, 400], 3))
        one = ("test", "backend-0")
        requests = {(*one, "500"): 1, (*one, "reset"): 1}
        await self.assert_figure("influxrelay_backend_request_failures_total", requests)
        await self.assert_figure("influxrelay_backend_failed_writes_total", {**requests, (*one, "400"): 1})
        await self.assert_figure("influxrelay_backend_request_duration_seconds_count", {one: 2})
        await self.assert_figure("influxrelay_backend_state", {(*one, "up"): 1})
        self.assertEqual(await self.figures("influxrelay_dead_letters"), {}, "there is no queue")

    async def test_trouble(self) -> None:
        """A backend that cannot be reached is in trouble, and the others are not."""
        relay = self.relay(await self.refusing_backend(), self.backend())
        self.watch(relay)
        self.assertEqual((await self.ask(relay, request())).status, 204)
        one, two = ("test", "backend-0"), ("test", "backend-1")
        await self.wait_for("influxrelay_backend_state", {(*one, "trouble"): 1, (*two, "up"): 1})
        await self.assert_figure("influxrelay_backend_request_failures_total", {(*one, "refused"): 1})
        await self.assert_figure("influxrelay_backend_request_duration_seconds_count", {two: 1})
        await self.assert_figure("influxrelay_healthy", {("test",): 1})

    async def test_unhealthy(self) -> None:
        """A listener of which no backend can be reached is not healthy."""
        relay = self.relay(await self.refusing_backend())
        self.watch(relay)
        await self.assert_figure("influxrelay_healthy", {("test",): 1})
        self.assertEqual((await self.ask(relay, request())).status, 503)
        self.assertEqual(await self.figures("influxrelay_healthy"), {("test",): 0})

    async def test_state(self) -> None:
        """A backend is in one state: paused, else in trouble, else behind, else up."""
        not_ready = Hold(NOT_READY)
        relay = self.relay(self.output(self.backend(not_ready), "one", buffer_size_mb=1), self.backend())
        self.watch(relay)
        sender = relay.senders[0]
        self.assertEqual((await self.ask(relay, request())).status, 204)
        not_ready.release()
        await self.wait_for("influxrelay_backend_state", {("test", "one", "behind"): 1, ("test", "backend-1", "up"): 1})
        sender.pause()
        await self.assert_figure(
            "influxrelay_backend_state", {("test", "one", "paused"): 1, ("test", "backend-1", "up"): 1}
        )

    async def test_info(self) -> None:
        """The info metrics say what runs, and how it is configured."""
        relay = self.relay(
            self.output(self.backend(), "one", buffer_size_mb=1), self.output(self.backend(), "two"), consistency="any"
        )
        self.watch(relay)
        self.assertEqual(
            await self.figures("influxrelay_backend_info"), {("test", "one", "memory"): 1, ("test", "two", "none"): 1}
        )
        self.assertEqual(await self.figures("influxrelay_listener_info"), {("test", "http", "test", ""): 1})
        self.assertEqual(await self.figures("influxrelay_config_info"), {("relay.toml",): 1})
        ((version, _, _),) = await self.figures("influxrelay_build_info")
        self.assertEqual(version, __version__)


class UDPTests(MetricsCase):
    """Lines by datagram."""

    async def test_lines(self) -> None:
        """Datagrams, bytes and lines are counted in and out, and what is dropped by its reason."""
        relay = self.udp(
            UDPOutputConfig("datagrams", "there", LOOPBACK, 9, mtu=40),
            self.output(self.backend(), "writes", query="db=db"),
        )
        long = b"m v=%b 1" % (b"1" * 50)
        datagrams = [b"m v=1 1\nm v=2 2\n", b"nonsense", long, b"m v=3 3"]
        self.send(relay, datagrams)
        await until(lambda: relay.protocol.datagrams_in == 4, "the datagrams")
        relay.outputs[1].flush()  # type: ignore[union-attr]
        await self.wait_for("influxrelay_udp_sent_lines_total", {("udp", "datagrams"): 3, ("udp", "writes"): 4})
        await self.assert_figure("influxrelay_udp_datagrams_total", {("udp",): 4})
        await self.assert_figure("influxrelay_received_bytes_total", {("udp",): sum(map(len, datagrams))})
        await self.assert_figure("influxrelay_lines_total", {("udp",): 5})
        await self.assert_figure("influxrelay_udp_dropped_lines_total", {("udp", "invalid"): 1})
        await self.assert_figure("influxrelay_udp_unsent_lines_total", {("udp", "datagrams", "mtu"): 1})
        await self.assert_figure("influxrelay_backend_writes_total", {("udp", "writes"): 1})
        self.assertEqual(await self.figures("influxrelay_listener_info"), {("udp", "udp", "test", ""): 1})

    async def test_overflow(self) -> None:
        """What comes faster than it can be read is counted by the kernel, and told."""
        relay = self.udp(UDPOutputConfig("datagrams", "there", LOOPBACK, 9), read_buffer=4096)
        self.send(relay, [b"m v=1 1".ljust(1000)] * 200)  # while the reactor cannot read
        protocol = relay.protocol
        await until(lambda: protocol.datagrams_in + protocol.overflows() == 200, "all datagrams")
        lost = protocol.overflows()
        self.assertGreater(lost, 100)
        await self.assert_figure("influxrelay_udp_overflows_total", {("udp",): lost})

    def udp(self, *outputs: UDPOutputConfig | HTTPOutputConfig, **settings: Any) -> UDPService:
        """Start a UDP listener."""
        config = UDPListenerConfig("udp", "test", LOOPBACK, 0, outputs=outputs, **settings)
        service = UDPService(config, reactor, Sockets())
        service.startService()
        self.addCleanup(service.abort)
        self.addCleanup(service.stop_listening)
        for sender in service.senders:
            self.addCleanup(sender.backend.close)
        self.watch(service)
        return service

    def send(self, relay: UDPService, datagrams: Sequence[bytes]) -> None:
        """Send datagrams, one after the other."""
        address = relay._port.getHost()
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for datagram in datagrams:
                sender.sendto(datagram, (address.host, address.port))


class ResourceTests(MetricsCase):
    """``/metrics`` of a relay as it is started."""

    async def begin(self) -> Any:
        """Start a relay with an admin listener, and return a client of that."""
        listener = HTTPListenerConfig(
            name='the "main" one\\',
            bind_addr="test",
            endpoint=f"tcp:0:interface={LOOPBACK}",
            outputs=(self.output(self.backend(), "one", buffer_size_mb=1),),
        )
        admin = AdminConfig("test", f"tcp:0:interface={LOOPBACK}")
        service = RelayService(Config(path="test", admin=admin, http=(listener,)), reactor)
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        self.service = service
        return await self.client(service.admin)  # type: ignore[arg-type]

    async def test_formats(self) -> None:
        """Prometheus' text and OpenMetrics can be had, each parses, and both have every metric that applies."""
        client = await self.begin()
        for accept, kind, parse in (
            (b"*/*", b"text/plain; version=0.0.4", parse_text),
            (
                b"application/openmetrics-text;version=1.0.0,text/plain",
                b"application/openmetrics-text",
                parse_openmetrics,
            ),
        ):
            found = await client.ask(request(b"/metrics", b"", b"Accept: " + accept, method=b"GET"))
            self.assertEqual(found.status, 200)
            self.assertTrue((found.header("Content-Type") or b"").startswith(kind))
            families = {each.name: each for each in parse(found.body.decode())}
            kinds = {each.name.removesuffix("_total"): each.kind for each in FAMILIES}
            self.assertLessEqual({"influxrelay_writes", "influxrelay_reactor_lag_seconds"}, families.keys())
            for name in (name for name in families if name.startswith("influxrelay")):
                expected = kinds.get(name, "gauge" if name.endswith("_info") else "")
                self.assertEqual(families[name].type, expected, name)
            self.assertIn("process_open_fds", families)
            (sample,) = families["influxrelay_writes"].samples
            self.assertEqual(sample.labels, {"listener": 'the "main" one\\'})

    async def test_methods(self) -> None:
        """GET and HEAD are answered, and nothing else."""
        client = await self.begin()
        found = await client.ask(request(b"/metrics", b"", method=b"POST"))
        self.assertEqual((found.status, found.header("Allow")), (405, b"GET, HEAD"))
        client.send(request(b"/metrics", b"", method=b"HEAD"))
        found = await client.answer(to_head=True)
        self.assertEqual(found.status, 200)

    async def test_listeners_of_now(self) -> None:
        """A backend that is gone at the time of a scrape is not in it."""
        client = await self.begin()
        removed = self.service.listeners[0].senders.pop()
        found = await client.ask(request(b"/metrics", b"", method=b"GET"))
        self.assertNotIn(b'backend="one"', found.body)
        self.service.listeners[0].senders.append(removed)
        found = await client.ask(request(b"/metrics", b"", method=b"GET"))
        self.assertIn(b'backend="one"', found.body)
