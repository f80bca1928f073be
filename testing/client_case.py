"""Servers of all generations behind a relay, for clients that write before, during and after an outage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from influxrelay.config.settings import HTTPOutputConfig
from testing.influxdb2 import InfluxDB2
from testing.influxdb3 import InfluxDB3
from testing.influxdb_double import InfluxDBDouble
from testing.points import Contents
from testing.scripted import LOOPBACK, RelayTestCase, reactor
from testing.servers import Influxd, send

DB = "db"
NOW = 1_700_000_000
COUNT = 40
QUEUE: dict[str, Any] = {"buffer_size_mb": 16, "max_delay_interval": 0.1}
_PATHS = {"v1": "/write", "v2": "/api/v2/write", "v3": "/api/v3/write_lp"}


def output(name: str, url: str, api: str = "v1", **settings: Any) -> HTTPOutputConfig:
    """Return an output with a queue."""
    return HTTPOutputConfig(
        name=name, location=url, write_url=url + _PATHS[api], ping_url=f"{url}/ping", api=api, **{**QUEUE, **settings}
    )


def contents(server: Influxd) -> Contents:
    """Return what a server of 1.x holds."""
    url = f"{server.url}/query?epoch=ns&db={DB}&q={quote('SELECT * FROM /.*/ GROUP BY *')}"
    (result,) = json.loads(send("GET", url)[1])["results"]
    found: Contents = {}
    for series in result.get("series", ()):
        tags = tuple(sorted((name, value) for name, value in series.get("tags", {}).items() if value))
        for row in series["values"]:
            fields = {key: value for key, value in zip(series["columns"], row, strict=True) if value is not None}
            found[series["name"], tags, fields.pop("time")] = fields
    return found


class ClientCase(RelayTestCase):
    """Has two servers of 1.x, doubles of 2.x and 3.x, and a relay in front of them."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Start the servers and the relay."""
        directory = Path(self.mktemp())
        self.influxds = [Influxd(directory / name) for name in "ab"]
        self.two = InfluxDB2(buckets=[DB])
        self.three = InfluxDB3()
        servers: list[Any] = [*self.influxds, self.two, self.three]
        for server in servers:
            self.addCleanup(deferToThread, server.stop)
            await deferToThread(server.start)
        for influxd in self.influxds:
            await deferToThread(influxd.create_database, DB)
        a, b = self.influxds
        self.service = self.relay(
            output("a", a.url),
            output("b", b.url),
            output("two", self.two.url, "v2", org="org", token="token"),
            output("three", self.three.url, "v3", token="token"),
        )
        port: Any = self.service._port
        self.port: int = port.getHost().port
        self.url = f"http://{LOOPBACK}:{self.port}"

    async def check_outage(self, server: Influxd | InfluxDBDouble, write: Callable[[int], object]) -> None:
        """Write before, during and after an outage of a server; then all hold the same.

        :param write: writes a number of points that begins with this one, and returns when they are written.
        """
        await deferToThread(write, 0)
        await deferToThread(server.stop)
        await deferToThread(write, COUNT)
        await deferToThread(server.start)
        await deferToThread(write, 2 * COUNT)
        await self.equal(3 * COUNT)

    async def equal(self, count: int) -> Contents:
        """Wait until all servers have that many points, and check that these are the same."""
        deadline = reactor.seconds() + 30
        while True:
            held = [await deferToThread(contents, each) for each in self.influxds]
            held += [each.contents[DB] for each in (self.two, self.three)]
            sizes = [len(each) for each in held]
            if sizes == [count] * len(held) and all(each == held[0] for each in held):
                return held[0]
            self.assertLess(reactor.seconds(), deadline, f"the servers have {sizes} points instead of {count}")
            await deferLater(reactor, 0.05)
