"""What the operator says that answers mean, before scripted backends."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from influxrelay.cli import render
from influxrelay.config.settings import AnswerConfig, Config, HTTPListenerConfig, HTTPOutputConfig, TCPListenerConfig
from influxrelay.listeners.tcp import TCPService
from influxrelay.service.relay_service import RelayService
from influxrelay.tap import describe
from testing.remote_write_case import RemoteWriteTestCase, one_series, post
from testing.scripted import LINE, LOOPBACK, answer, reactor, request, until

PAGE = answer(404, b"<html>default backend</html>")
LIMIT = answer(400, b"err-mimir-max-series-per-user")
NOT_FOUND = (range(404, 405),)


class AnswerRuleTests(RemoteWriteTestCase):
    """The key ``answers``, as clients and operators see it."""

    async def test_page_of_a_proxy(self) -> None:
        """With "retry" a proxy's 404 fails no write that another backend takes; its backend gets the write later."""
        rules = (AnswerConfig("retry", NOT_FOUND, "default backend"),)
        first, second = self.backend(PAGE, answer(204)), self.backend()
        relay = self.relay(
            self.output(first, "a", answers=rules, buffer_size_mb=1, max_delay_interval=0.1), self.output(second, "b")
        )
        write = request(b"/write?db=db", LINE)
        self.assertEqual((await self.ask(relay, write)).status, 204)
        await until(lambda: len(first.requests) == 2 and relay.senders[0].is_idle)
        self.assertEqual([each.lines for each in first.requests], [LINE, LINE])

    async def test_nobody_takes_it(self) -> None:
        """With "retry" a client is told to try again if no backend takes the write; by default it is shown the page."""
        write = request(b"/write?db=db", LINE)
        for rules, status in (((), 404), ((AnswerConfig("retry", NOT_FOUND),), 503)):
            relay = self.relay(self.output(self.backend(PAGE), "a", answers=rules))
            self.assertEqual((await self.ask(relay, write)).status, status)

    async def test_limit_of_a_receiver(self) -> None:
        """With "retry" a receiver's limit loses no samples: the body is sent until the limit is raised."""
        rules = (AnswerConfig("retry", (), "err-mimir-max-series"),)
        first = self.backend(LIMIT, LIMIT, answer(204))
        relay = self.relay(
            self.prometheus(first, "a", answers=rules, buffer_size_mb=1, max_delay_interval=0.1),
            self.prometheus(self.backend(), "b"),
        )
        self.assertEqual((await self.ask(relay, post(one_series()))).status, 204)
        await until(lambda: len(first.requests) == 3 and relay.senders[0].is_idle)
        self.assertEqual(relay.senders[0].backlog.dead_letters(), [])

    async def test_counts(self) -> None:
        """Operators see each count with its meaning and reason: in the metrics, the status and the list of queues."""
        rules = (AnswerConfig("stale", (range(403, 404),)), AnswerConfig("retry", NOT_FOUND, "default"))
        first = self.backend(answer(403), answer(400, b'{"error":"unable to parse"}'), PAGE, answer(204))
        relay = self.relay(
            self.output(first, "a", answers=rules, buffer_size_mb=1, max_delay_interval=0.1),
            self.output(self.backend(), "b", buffer_size_mb=1),
            consistency="any",
        )
        service = relay.parent
        assert isinstance(service, RelayService)
        for count in (1, 2, 4):
            self.assertEqual((await self.ask(relay, request(b"/write?db=db", LINE))).status, 204)
            await until(lambda count=count: len(first.requests) == count and relay.senders[0].is_idle)  # type: ignore[misc]
        samples = {
            (each.name, each.labels.get("means", ""), each.labels["reason"]): each.value
            for family in await service.collect()
            for each in family.samples
            if each.labels.get("backend") == "a" and "reason" in each.labels and each.value
        }
        family = "influxrelay_backend_{}_total".format
        for name, means, reason in (
            ("answers", "stale", "403"),
            ("answers", "dead-letter", "400"),
            ("answers", "retry", "default"),
            ("stale_writes", "", "403"),
            ("refused_writes", "", "400"),
        ):
            self.assertEqual(samples.pop((family(name), means, reason)), 1, name)
        told = await service.describe()
        self.assertEqual(
            told["queues"][0]["refused"],
            [{"means": "dead-letter", "reason": "400", "count": 1}, {"means": "stale", "reason": "403", "count": 1}],
        )
        self.assertIn(
            "test/a: answers other than 2xx: dead-letter (400): 1, retry (default): 1, stale (403): 1;"
            " of acknowledged writes: dead-letter (400): 1, stale (403): 1",
            render.queues({"relay": "running", "queues": told["queues"]}),
        )

    def test_described(self) -> None:
        """``--check`` tells how many rules each output has."""
        output = HTTPOutputConfig("a", "x", "http://h/write", "http://h/ping", answers=(AnswerConfig("stale"),) * 2)
        listener = HTTPListenerConfig("main", ":9096", "tcp:9096", outputs=(output,))
        self.assertIn(", 2 rules for answers", describe(Config(path="test", http=(listener,))))

    async def test_lines_over_tcp(self) -> None:
        """Lines without a client that could be told wait behind an answer that means "hold"; they are not dropped."""
        backend = self.backend(answer(403), answer(403), answer(204))
        outputs = (self.output(backend, query="db=db", answers=(AnswerConfig("hold", (range(403, 404),)),)),)
        listener = TCPListenerConfig("tcp", "test", f"tcp:0:interface={LOOPBACK}", batch_interval=0.01, outputs=outputs)
        service = RelayService(Config(path="test", shutdown_timeout=2.0, tcp=(listener,)), reactor)
        self.patch(service.prober, "start", lambda: None)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        (relay,) = service.listeners
        assert isinstance(relay, TCPService)
        client = await self.client(relay)  # type: ignore[arg-type]
        client.send(LINE)
        await until(lambda: relay.batcher.lines_out == 1)
        self.assertEqual([each.lines for each in backend.requests], [LINE] * 3)
        self.assertEqual(dict(relay.batcher.dropped), {})
