"""A relay before servers of two makers, InfluxDB 1.x and VictoriaMetrics, both of which have to take each write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from influxrelay.config.settings import HTTPOutputConfig
from testing.client_case import DB, QUEUE, contents
from testing.metric_servers import VictoriaMetrics
from testing.remote_write import Timeseries
from testing.remote_write_case import post
from testing.scripted import Answer, RelayTestCase, reactor, request
from testing.servers import Influxd

NOW = 1_700_000_000  # seconds
COUNT = 10
Points = dict[tuple[str, int], float]
"""Values by ``host`` and second."""


class MixedTests(RelayTestCase):
    """Lines and remote writes with ``consistency = "all"``."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Start the servers and the relay."""
        directory = Path(self.mktemp())
        self.influxd = Influxd(directory / "influxd")
        self.victoria = VictoriaMetrics(directory / "victoria")
        for server in (self.influxd, self.victoria):
            self.addCleanup(deferToThread, server.stop)
            await deferToThread(server.start)
        await deferToThread(self.influxd.create_database, DB)
        self.listener = self.relay(
            self.to(self.influxd.url, "influxd"),
            self.to(self.victoria.url, "victoria", write_prom_url=self.victoria.write_url),
            consistency="all",
        )

    def to(self, url: str, name: str, **settings: Any) -> HTTPOutputConfig:
        """Return an output with a queue."""
        place = f"{url}/write"
        return HTTPOutputConfig(
            name=name, location=place, write_url=place, ping_url=f"{url}/ping", **{**QUEUE, **settings}
        )

    async def write(self, written: bytes) -> Answer:
        """Write until both servers have it, as a client does."""
        deadline = reactor.seconds() + 30
        while (answer := await self.ask(self.listener, written)).status == 503:
            self.assertLess(reactor.seconds(), deadline)
            await deferLater(reactor, 0.1)
        return answer

    async def check_outages(self, written: list[bytes], points: Points) -> None:
        """Write while each of the servers is down for a while; then both hold the same."""
        third = len(written) // 3
        for each in written[:third]:
            self.assertEqual((await self.ask(self.listener, each)).status, 204)
        for server, name, some in (
            (self.victoria, b"victoria", written[third : 2 * third]),
            (self.influxd, b"influxd", written[2 * third :]),
        ):
            await deferToThread(server.stop)
            refused = await self.ask(self.listener, some[0])
            self.assertEqual(refused.status, 503)
            self.assertIn(name + b": refused", refused.body)
            await deferToThread(server.start)
            for each in some:
                self.assertEqual((await self.write(each)).status, 204)
        self.assertEqual(await deferToThread(self.in_influxd), points)
        self.assertEqual(await deferToThread(self.in_victoria), points)

    def in_influxd(self) -> Points:
        """Return what InfluxDB holds."""
        return {
            (dict(tags)["host"], time // 10**9): fields["value"]
            for (_, tags, time), fields in contents(self.influxd).items()
        }

    def in_victoria(self) -> Points:
        """Return what VictoriaMetrics holds."""
        found = self.victoria.samples('{host!=""}')
        return {
            (json.loads(series)["host"], time // 1000): value
            for series, samples in found.items()
            for value, time in samples
        }

    async def test_lines(self) -> None:
        """Each write is acknowledged when both have it, and is a 503 that names the one that is down until then."""
        written = [
            request(b"/write?precision=s&db=db", b"cpu,host=h%d value=%d %d" % (number % 3, number, NOW + number))
            for number in range(3 * COUNT)
        ]
        points = {(f"h{number % 3}", NOW + number): float(number) for number in range(3 * COUNT)}
        await self.check_outages(written, points)

    async def test_remote_writes(self) -> None:
        """The same of samples, of which InfluxDB makes points of a measurement for each metric."""
        written = [
            post(
                [
                    Timeseries({"__name__": "probe", "host": f"h{n}"}, [(float(number), 1000 * (NOW + number))])
                    for n in range(3)
                ],
                path=b"/api/v1/prom/write?db=db",
            )
            for number in range(3 * COUNT)
        ]
        points = {(f"h{n}", NOW + number): float(number) for number in range(3 * COUNT) for n in range(3)}
        await self.check_outages(written, points)
