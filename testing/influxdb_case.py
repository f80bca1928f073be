"""A relay before two real InfluxDB servers."""

from __future__ import annotations

import atexit
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from shutil import rmtree
from typing import Any
from urllib.parse import quote

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from influxrelay.config.settings import HTTPOutputConfig
from influxrelay.lineprotocol.parser import PRECISIONS
from influxrelay.listeners.http import HTTPService
from testing.line_protocol_cases import random_line
from testing.scripted import Answer, RelayTestCase, reactor, request
from testing.servers import Influxd, send

NOW = 1_700_000_000_123_456_789  # nanoseconds
_databases = count()


@cache
def pair(udp_precision: str = "ns") -> tuple[Influxd, Influxd]:
    """Return two servers that run, with UDP ports of a precision; they are started once and end with this process."""
    directory = Path(tempfile.mkdtemp(prefix="influxrelay-influxdb-"))
    servers = [
        Influxd(directory / name, udp_database="udp", udp_precision="n" if udp_precision == "ns" else udp_precision)
        for name in "ab"
    ]

    def stop() -> None:
        for server in servers:
            server.kill()
        rmtree(directory, ignore_errors=True)

    atexit.register(stop)
    with ThreadPoolExecutor() as pool:
        list(pool.map(Influxd.start, servers))
    return servers[0], servers[1]


class InfluxDBTestCase(RelayTestCase):
    """Two servers, a database of the test's own on both, and ways to write and to compare."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Have the servers, and a database of this test's own on both."""
        self.a, self.b = self.servers = pair()
        self.db = await self.new_database()

    async def new_database(self) -> str:
        """Create a database on both servers."""
        name = f"db{next(_databases)}"
        for server in self.servers:
            await deferToThread(server.create_database, name)
        return name

    def output_to(self, server: Influxd, **settings: Any) -> HTTPOutputConfig:
        """Return the output that leads to a server."""
        url = f"{server.url}/write"
        settings.setdefault("name", f"influxd-{server.http_port}")
        return HTTPOutputConfig(location=url, write_url=url, ping_url=f"{server.url}/ping", **settings)

    def relay_to_both(self, **settings: Any) -> HTTPService:
        """Start a relay in front of both servers."""
        return self.relay(*(self.output_to(server, **settings) for server in self.servers))

    def url(self, relay: HTTPService, **parameters: str) -> bytes:
        """Return the target of a write to this test's database."""
        pairs = {"db": self.db, **parameters}.items()
        return b"/write?" + "&".join(f"{name}={quote(value)}" for name, value in pairs).encode()

    async def write(self, relay: HTTPService, body: bytes, *headers: bytes, **parameters: str) -> Answer:
        """Write through the relay."""
        return await self.ask(relay, request(self.url(relay, **parameters), body, *headers))

    async def points(self, server: Influxd, db: str = "") -> dict[tuple[str, tuple[Any, ...]], list[dict[str, Any]]]:
        """Return all points of a database: by measurement and tags the fields, with the time in nanoseconds."""
        query = quote("SELECT * FROM /.*/ GROUP BY *")
        url = f"{server.url}/query?epoch=ns&db={db or self.db}&q={query}"
        status, body = await deferToThread(send, "GET", url)
        self.assertEqual(status, 200, body)
        (result,) = json.loads(body)["results"]
        self.assertNotIn("error", result)
        return {
            (series["name"], tuple(sorted(tag for tag in series.get("tags", {}).items() if tag[1]))): [
                {key: value for key, value in zip(series["columns"], row, strict=True) if value is not None}
                for row in series["values"]
            ]
            for series in result.get("series", ())
        }

    async def total(self, server: Influxd, db: str = "") -> int:
        """Return the number of points in a database."""
        return sum(map(len, (await self.points(server, db)).values()))

    async def both(self, count_: int, db: str = "") -> Any:
        """Wait until both servers have that many points, check that they are the same, and return them."""
        deadline = reactor.seconds() + 20
        for server in self.servers:
            while (found := await self.total(server, db)) != count_:
                self.assertLess(reactor.seconds(), deadline, f"{found} points instead of {count_} on {server.url}")
                await deferLater(reactor, 0.02)
        first, second = [await self.points(server, db) for server in self.servers]
        self.assertEqual(first, second)
        return first

    async def reference(self, body: bytes, precision: str) -> Any:
        """Write straight to the first server, into another database, and return what is in it then."""
        name = await self.new_database()
        url = f"{self.a.url}/write?db={name}&precision={precision}"
        status, answer = await deferToThread(send, "POST", url, body)
        self.assertEqual(status, 204, answer)
        return await self.points(self.a, name)

    def times(self, points: Any) -> set[int]:
        """Return the times that points have."""
        return {row["time"] for rows in points.values() for row in rows}

    def timestamped(self, precision: str) -> bytes:
        """Return lines of every kind, each with a timestamp of its own in a precision."""
        random = Random(precision)
        start = NOW // PRECISIONS[precision.encode()]
        return b"\n".join(random_line(random, start + number) for number in range(100))
