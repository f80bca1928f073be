"""Prometheus' remote writes through the relay, between a scripted client and scripted backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from influxrelay.config.loader import load
from influxrelay.config.settings import Config, HTTPOutputConfig
from influxrelay.core.errors import ConfigError
from influxrelay.delivery.sender import Sender
from influxrelay.listeners.factory import remote_write_url
from influxrelay.listeners.http import HTTPService
from influxrelay.operations.views import Refused
from influxrelay.tap import describe
from testing.remote_write import Timeseries, version_1
from testing.remote_write_case import (
    INFLUXDB_PATH,
    NOW,
    STALE,
    V2,
    RemoteWriteTestCase,
    of_body,
    one_series,
    packed,
    post,
    unpacked,
    written,
)
from testing.scripted import LINE, LOOPBACK, Answer, BackendConnection, Hold, answer, request, reset, until


class RequestTests(RemoteWriteTestCase):
    """What the backends receive."""

    async def test_prometheus(self) -> None:
        """A Prometheus gets body, Content-Type, version and tenant unchanged, at its URL, and User-Agent is ours."""
        backend = self.backend()
        relay = self.relay(self.prometheus(backend, query="source=relay"))
        sent = post(one_series(), b"X-Scope-OrgID: team-a", b"THANOS-TENANT: b", b"Authorization: Bearer x")
        found = await self.ask(relay, sent)
        self.assertEqual((found.status, found.body), (204, b""))
        (got,) = backend.requests
        self.assertEqual((got.method, got.path, got.query), (b"POST", b"/api/v1/write", b"source=relay"))
        self.assertEqual(got.body, packed(version_1(one_series())))
        for name, value in {
            "Content-Type": b"application/x-protobuf",
            "Content-Encoding": b"snappy",
            "X-Prometheus-Remote-Write-Version": b"0.1.0",
            "X-Scope-OrgID": b"team-a",
            "THANOS-TENANT": b"b",
            "Authorization": b"Bearer x",
        }.items():
            self.assertEqual(got.header(name), value, name)
        self.assertTrue((got.header("User-Agent") or b"").startswith(b"influxrelay/"))

    async def test_influxdb(self) -> None:
        """An InfluxDB gets it at its own path, for the database of the client, or of the listener."""
        backend = self.backend()
        relay = self.relay(self.influxdb(backend), prometheus_database="metrics", default_retention_policy="week")
        await self.ask(relay, post(one_series(), path=b"/api/v1/prom/write?db=db&rp=day&u=me&p=secret"))
        await self.ask(relay, post(one_series()))
        self.assertEqual([each.path for each in backend.requests], [b"/api/v1/prom/write"] * 2)
        first, second = (each.query for each in backend.requests)
        self.assertEqual((first, second), (b"db=db&rp=day&u=me&p=secret", b"db=metrics&rp=week"))

    async def test_kinds(self) -> None:
        """Each backend gets what it takes, and only its answer counts."""
        first, second = self.backend(), self.backend()
        relay = self.relay(self.influxdb(first), self.prometheus(second), consistency="all")
        self.assertEqual((await self.ask(relay, request())).status, 204)
        self.assertEqual((await self.ask(relay, post(one_series()))).status, 204)
        self.assertEqual([each.path for each in first.requests], [b"/write", b"/api/v1/prom/write"])
        self.assertEqual([each.path for each in second.requests], [b"/api/v1/write"])

    async def test_queries(self) -> None:
        """A query goes to InfluxDB, and never to a Prometheus."""
        first, second = self.backend(), self.backend(answer(200, b'{"results":[{"statement_id":0}]}\n'))
        relay = self.relay(self.prometheus(first), self.influxdb(second))
        for statement in (b"SHOW%20DATABASES", b"CREATE%20DATABASE%20d"):
            found = await self.ask(relay, request(b"/query?q=" + statement, b""))
            self.assertEqual(found.status, 200)
        self.assertEqual((len(first.requests), len(second.requests)), (0, 2))

    async def test_nobody(self) -> None:
        """What no backend takes is 400, with the reason."""
        relay = self.relay(self.prometheus(self.backend()))
        self.assert_error(await self.ask(relay, request()), 400, "no backend of test takes line protocol")

    async def test_merged(self) -> None:
        """Bodies of 1.0 that wait become one that holds the same series; other tenants go by themselves."""
        hold = Hold(answer(204))
        backend = self.backend(hold, answer(204))
        relay = self.relay(self.prometheus(backend))
        clients = [await self.client(relay) for _ in range(4)]
        for index, client in enumerate(clients):
            tenant = (b"X-Scope-OrgID: other",) if index == 3 else ()
            client.send(post(one_series(f"m{index}"), *tenant))
            await until(lambda: _count(relay) == index + 1)
        hold.release()
        for client in clients:
            self.assertEqual((await client.answer()).status, 204)
        bodies = sorted(unpacked(each.body) for each in backend.requests)
        expected = [one_series("m0"), one_series("m1") + one_series("m2"), one_series("m3")]
        self.assertEqual(bodies, sorted(map(version_1, expected)))

    async def test_version_2_alone(self) -> None:
        """Bodies of 2.0 are never merged."""
        hold = Hold(written(204, 1))
        backend = self.backend(hold, written(204, 1))
        relay = self.relay(self.prometheus(backend))
        clients = [await self.client(relay) for _ in range(3)]
        for index, client in enumerate(clients):
            client.send(post(one_series(f"m{index}"), version=2))
            await until(lambda: _count(relay) == index + 1)
        hold.release()
        for client in clients:
            self.assertEqual((await client.answer()).status, 204)
        self.assertEqual([each.header("Content-Type") for each in backend.requests], [V2] * 3)


def _count(relay: HTTPService) -> int:
    return sum(each.writes for each in relay.remote_writes)


class RefusalTests(RemoteWriteTestCase):
    """What the relay says by itself."""

    async def test_media_types(self) -> None:
        """Another Content-Type or Content-Encoding is 415; none at all is that of 1.0."""
        backend = self.backend()
        relay = self.relay(self.prometheus(backend))
        for kind in (b"application/json", b"image/png", b"application/x-protobuf;proto=other", b"text/plain"):
            self.assertEqual((await self.ask(relay, post(one_series(), content_type=kind))).status, 415, kind)
        for encoding in (b"gzip", b"deflate", b"zstd", b"identity"):
            self.assertEqual((await self.ask(relay, post(one_series(), encoding=encoding))).status, 415, encoding)
        self.assertEqual(backend.requests, [])
        bare = request(b"/api/v1/write", packed(version_1(one_series())))
        self.assertEqual((await self.ask(relay, bare)).status, 204)

    async def test_version_2_and_influxdb(self) -> None:
        """2.0 is 415 where a backend is InfluxDB, which would take it for empty."""
        backend = self.backend()
        relay = self.relay(self.influxdb(backend), self.prometheus(self.backend()))
        self.assertEqual((await self.ask(relay, post(one_series(), version=2))).status, 415)
        self.assertEqual(backend.requests, [])

    async def test_version_2_without_counts(self) -> None:
        """A 2xx that says nothing of what was written is a 415: the backend has understood nothing."""
        relay = self.relay(self.prometheus(self.backend()))
        self.assertEqual((await self.ask(relay, post(one_series(), version=2))).status, 415)

    async def test_corrupt(self) -> None:
        """What cannot be unpacked, or is no message, is 400."""
        backend = self.backend()
        relay = self.relay(self.prometheus(backend))
        body = packed(version_1(one_series()))
        for corrupt in (b"0" + body[1:], b"", b"\xff" * 20, packed(version_1(one_series())[:-3]), packed(b"\x0a\x80")):
            found = await self.ask(relay, of_body(corrupt))
            self.assertEqual(found.status, 400, corrupt)
        self.assertEqual(backend.requests, [])

    async def test_limits(self) -> None:
        """Bodies over max-body-size, or that say to hold more than max-decoded-size, are 413."""
        large = one_series("m" * 5000)
        for settings in ({"max_decoded_size": 4000}, {"max_body_size": 100}):
            relay = self.relay(self.prometheus(self.backend()), **settings)  # type: ignore[arg-type]
            self.assertEqual((await self.ask(relay, post(large))).status, 413, settings)

    async def test_methods_and_database(self) -> None:
        """Only POST is taken; InfluxDB's path wants a database."""
        relay = self.relay(self.influxdb(self.backend()))
        self.assertEqual((await self.ask(relay, request(b"/api/v1/write", b"", method=b"GET"))).status, 405)
        found = await self.ask(relay, post(one_series(), path=b"/api/v1/prom/write"))
        self.assert_error(found, 400, "database is required")

    async def test_rate_limit(self) -> None:
        """Remote writes count towards the limit of the listener as lines do."""
        self.stop_rate_clock()
        relay = self.relay(self.influxdb(self.backend()), rate_limit=1, burst_limit=2)
        statuses = [(await self.ask(relay, post(one_series(), path=INFLUXDB_PATH))).status for _ in range(2)]
        self.assertEqual(statuses, [204, 204])
        for refused in (post(one_series()), request(b"/write?db=db", LINE)):
            found = await self.ask(relay, refused)
            self.assertEqual((found.status, found.header("Retry-After")), (429, b"1"))

    async def test_creates_databases(self) -> None:
        """An InfluxDB that lacks the database is given it, and nothing of the relay's own is in that request."""
        missing = answer(404, b'{"error":"database not found: \\"db\\""}')
        backend = self.backend(missing, answer(200, b"{}"), answer(204))
        relay = self.relay(self.influxdb(backend, buffer_size_mb=1, create_databases=True))
        self.assertEqual((await self.ask(relay, post(one_series(), path=INFLUXDB_PATH))).status, 204)
        self.assertEqual(backend.requests[1].query, b"q=CREATE+DATABASE+%22db%22")

    async def test_empty(self) -> None:
        """A message with nothing in it is 204, and no backend is asked."""
        backend = self.backend()
        relay = self.relay(self.prometheus(backend))
        self.assertEqual((await self.ask(relay, of_body(packed(b"")))).status, 204)
        self.assertEqual(backend.requests, [])


class WrittenTests(RemoteWriteTestCase):
    """The headers that say what was written."""

    def counts(self, found: Answer) -> list[bytes | None]:
        """Return samples, histograms and exemplars of an answer."""
        names = ("Samples", "Histograms", "Exemplars")
        return [found.header(f"X-Prometheus-Remote-Write-{name}-Written") for name in names]

    async def test_first(self) -> None:
        """With one they are those of the backend whose answer counts."""
        relay = self.relay(self.prometheus(self.backend(written(200, 7, 1, 2))))
        found = await self.ask(relay, post(one_series(), version=2))
        self.assertEqual((found.status, self.counts(found)), (204, [b"7", b"1", b"2"]))

    async def test_least(self) -> None:
        """With all they are the least of each."""
        outputs = [
            self.prometheus(self.backend(written(204, *counts)), f"p{index}")
            for index, counts in enumerate(((7, 1, 2), (5, 3, 4), (6, 2, 0)))
        ]
        relay = self.relay(*outputs, consistency="all")
        found = await self.ask(relay, post(one_series(), version=2))
        self.assertEqual(self.counts(found), [b"5", b"1", b"0"])

    async def test_own(self) -> None:
        """When the relay itself acknowledges, it counts."""
        backend = await self.refusing_backend()
        relay = self.relay(self.prometheus(backend, buffer_size_mb=1), consistency="any")
        series = [Timeseries({"__name__": "a"}, [(1.0, NOW), (2.0, NOW + 1)], exemplars=3, histograms=1)]
        found = await self.ask(relay, post(series, version=2))
        self.assertEqual((found.status, self.counts(found)), (204, [b"2", b"1", b"3"]))

    async def test_refused(self) -> None:
        """A refusal passes unchanged, with what was written of the request."""
        relay = self.relay(self.prometheus(self.backend(written(400, 3, body=b"invalid labels\n"))))
        found = await self.ask(relay, post(one_series(), version=2))
        self.assertEqual((found.status, found.body, self.counts(found)), (400, b"invalid labels\n", [b"3", b"0", b"0"]))


def stale_writes(sender: Sender) -> int:
    """Return how many acknowledged writes had samples that the backend has already."""
    return sum(number for (means, _), number in sender.refused.items() if means == "stale")


class StaleTests(RemoteWriteTestCase):
    """Samples that a backend has already."""

    async def test_does_not_settle(self) -> None:
        """A stale answer settles nothing as long as another backend may take the body, and is then counted."""
        hold = Hold(answer(204))
        first, second = self.backend(STALE), self.backend(hold)
        relay = self.relay(self.prometheus(first, "a"), self.prometheus(second, "b"))
        client = await self.client(relay)
        client.send(post(one_series()))
        await until(lambda: first.requests and second.requests)
        hold.release()
        self.assertEqual((await client.answer()).status, 204)
        await until(lambda: [stale_writes(each) for each in relay.senders] == [1, 0])
        self.assertEqual([len(each.requests) for each in (first, second)], [1, 1])

    async def test_shown(self) -> None:
        """It is shown, unchanged, if no backend takes the body, whatever its status."""
        for status, text in (
            (400, b"out of order sample\n"),
            (409, b"conflict\n"),
            (500, b"too old sample\n"),
            (400, b"the sample has been rejected (err-mimir-sample-timestamp-too-old)"),
        ):
            relay = self.relay(self.prometheus(self.backend(answer(status, text)), "a"), await self._dead())
            found = await self.ask(relay, post(one_series()))
            self.assertEqual((found.status, found.body), (status, text))
            self.assertEqual([stale_writes(each) for each in relay.senders], [0, 0])

    async def _dead(self) -> HTTPOutputConfig:
        return self.prometheus(await self.refusing_backend(), "dead")

    async def test_queued(self) -> None:
        """Of a queue it is passed: neither repeated nor a dead letter, and what is behind it follows."""
        backend = self.backend(reset, STALE, answer(204))
        relay = self.relay(
            self.prometheus(backend, "a", buffer_size_mb=1, max_delay_interval=0.1),
            self.prometheus(self.backend(), "b"),
        )
        for name in ("one", "two"):
            self.assertEqual((await self.ask(relay, post(one_series(name)))).status, 204)
        sender = relay.senders[0]
        await until(lambda: sender.is_idle and len(backend.requests) >= 3)
        self.assertEqual(stale_writes(sender), 1)
        self.assertEqual((sender.backlog.dead_letters(), sender.backlog.losses()), ([], []))
        self.assertEqual(unpacked(backend.requests[-1].body), version_1(one_series("two")))

    async def test_halved(self) -> None:
        """A body of which one sample is stale is sent in halves until all others have been taken."""
        backend = self.backend()
        relay = self.relay(self.prometheus(backend, "a", buffer_size_mb=1), self.prometheus(self.backend(), "b"))
        series = [each for name in ("m0", "m1", "m2", "m3") for each in one_series(name)]
        backend.script.clear()

        def refuse_one(connection: BackendConnection) -> None:
            stale = b"m1" in unpacked(backend.requests[-1].body)
            (STALE if stale else answer(204))(connection)

        backend.script.append(refuse_one)
        self.assertEqual((await self.ask(relay, post(series))).status, 204)
        await until(lambda: relay.senders[0].is_idle)
        taken = [unpacked(each.body) for each in backend.requests if b"m1" not in unpacked(each.body)]
        self.assertEqual(taken, [version_1(one_series("m0")), version_1(one_series("m2") + one_series("m3"))])
        self.assertEqual(stale_writes(relay.senders[0]), 1)

    async def test_not_halved(self) -> None:
        """Thanos and Mimir have taken the rest: nothing is sent again."""
        for stale in (answer(409, b"out of order\n"), answer(400, b"err-mimir-sample-out-of-order")):
            backend = self.backend(stale)
            relay = self.relay(self.prometheus(backend, "a"), self.prometheus(self.backend(), "b"))
            await self.ask(relay, post(one_series("m", 1.0, 2.0, 3.0)))
            await until(lambda: relay.senders[0].is_idle and stale_writes(relay.senders[0]) == 1)
            self.assertEqual(len(backend.requests), 1)


class TypeTests(RemoteWriteTestCase):
    """What the configuration says."""

    def load(self, output: str) -> Config:
        """Load a file with one output."""
        path = Path(self.mktemp())
        path.write_text(f'[[http]]\nbind-addr = "{LOOPBACK}:0"\n[[http.output]]\nname = "o"\n{output}\n')
        return load(path)

    def test_urls(self) -> None:
        """Where remote writes go follows from the location and the type."""
        for output, url in (
            ('location = "http://h:1/write"', "http://h:1/api/v1/prom/write"),
            ('location = "http://h:1"', "http://h:1/api/v1/prom/write"),
            ('location = "http://h:1/influx/write"', "http://h:1/influx/api/v1/prom/write"),
            ('location = "http://h:1/"\nendpoints = { write_prom = "/p" }', "http://h:1/p"),
            ('type = "prometheus"\nlocation = "http://h:1/api/v1/push?x=1"', "http://h:1/api/v1/push?x=1"),
        ):
            (found,) = self.load(output).http[0].outputs
            self.assertEqual(remote_write_url(found), url)
        self.assertEqual(found.ping_url, "http://h:1/-/healthy")

    def test_refused(self) -> None:
        """A Prometheus has no API of InfluxDB's, and no databases."""
        for line in ('api = "v2"', "create-databases = true", "gzip = true"):
            output = f'type = "prometheus"\nlocation = "http://h/w"\n{line}'
            self.assertIn("unknown key", str(self.assertRaises(ConfigError, self.load, output)))
        self.assertRaises(ConfigError, self.load, 'type = "other"\nlocation = "http://h/w"')

    def test_described(self) -> None:
        """``--check`` shows who takes remote writes only, and says that filters do not apply to them."""
        text = (
            'type = "prometheus"\nlocation = "http://h/w?x=1"\n[[filter]]\noutputs = ["o"]\n'
            'measurement-expression = "^cpu"'
        )
        shown = describe(self.load(text))
        self.assertIn("takes Prometheus' remote writes only", shown)
        self.assertIn("  filters do not apply to Prometheus' remote writes", shown.splitlines())

    async def test_another_type(self) -> None:
        """Another type needs a restart: what is queued is for the old one."""
        relay = self.relay(self.influxdb(self.backend(), "one"))
        (output,) = relay.config.outputs
        listener = attrs.evolve(relay.config, outputs=(attrs.evolve(output, type="prometheus"),))
        config = Config(path="test", http=(listener,))
        parent: Any = relay.parent
        with self.assertRaisesRegex(Refused, "another type needs a restart"):
            await parent.change(lambda: config, check=True)


class LineTests(RemoteWriteTestCase):
    """Lines beside remote writes."""

    async def test_order(self) -> None:
        """Lines and remote writes of one database do not wait for each other."""
        hold = Hold(answer(204))
        backend = self.backend(hold, answer(204))
        relay = self.relay(self.influxdb(backend))
        client = await self.client(relay)
        client.send(request(b"/write?db=db", LINE))
        await until(lambda: backend.requests)
        self.assertEqual((await self.ask(relay, post(one_series(), path=INFLUXDB_PATH))).status, 204)
        hold.release()
        self.assertEqual((await client.answer()).status, 204)
