"""InfluxDB's own clients before a relay and two servers."""

from __future__ import annotations

from typing import Any

from influxdb import InfluxDBClient
from influxdb_client.client.influxdb_client import InfluxDBClient as InfluxDB2Client
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from influxrelay import __version__
from influxrelay.listeners.http import HTTPService
from testing.influxdb_case import InfluxDBTestCase
from testing.scripted import LOOPBACK, reactor


class ClientTests(InfluxDBTestCase):
    """Clients that people use, unchanged."""

    def port(self, relay: HTTPService) -> int:
        """Return where a relay listens."""
        port: int = relay.address().port
        return port

    async def test_influxdb(self) -> None:
        """The influxdb package's client pings and writes points, plain and compressed, in its precisions."""
        relay = self.relay_to_both()
        points: list[dict[str, Any]] = [
            {
                "measurement": "cpu load",
                "tags": {"host": "a b", "region": "eu,west"},
                "time": 1_700_000_000 + number,
                "fields": {"f": 0.5, "i": number, "b": True, "s": 'say "hi" there \\ 5'},
            }
            for number in range(50)
        ]
        for compressed in (False, True):
            self.db = await self.new_database()
            client = InfluxDBClient(LOOPBACK, self.port(relay), database=self.db, gzip=compressed)
            self.addCleanup(client.close)
            self.assertEqual(await deferToThread(client.ping), f"relay-{__version__}")
            written = await deferToThread(client.write_points, points, time_precision="s", batch_size=20)
            self.assertTrue(written)
            found = await self.both(50)
            ((key, rows),) = found.items()
            self.assertEqual(key, ("cpu load", (("host", "a b"), ("region", "eu,west"))))
            self.assertEqual([row["time"] for row in rows], [point["time"] * 10**9 for point in points])
            self.assertEqual({name: rows[7][name] for name in "fibs"}, points[7]["fields"])

    async def test_influxdb_without_time(self) -> None:
        """Points without a time, and plain lines, get the same one on both servers."""
        client = InfluxDBClient(LOOPBACK, self.port(self.relay_to_both()), database=self.db)
        self.addCleanup(client.close)
        await deferToThread(client.write_points, [{"measurement": "m", "fields": {"v": 1.0}}])
        await deferToThread(client.write_points, ["n v=1", "o v=2 5"], protocol="line")
        await self.both(3)

    async def test_influxdb_retention_policy(self) -> None:
        """The client's retention policy is used."""
        for server in self.servers:
            await deferToThread(server.query, f"CREATE RETENTION POLICY weekly ON {self.db} DURATION INF REPLICATION 1")
        client = InfluxDBClient(LOOPBACK, self.port(self.relay_to_both()), database=self.db)
        self.addCleanup(client.close)
        point = {"measurement": "m", "fields": {"v": 1.0}, "time": 1}
        await deferToThread(client.write_points, [point], retention_policy="weekly")
        for server in self.servers:
            while not await deferToThread(server.rows, f"SELECT v FROM {self.db}.weekly.m", self.db):
                await deferLater(reactor, 0.01)  # the test's timeout ends this
            self.assertEqual(await self.total(server), 0)

    async def test_influxdb_error(self) -> None:
        """The client raises the error that a server gave, with its text."""
        client = InfluxDBClient(LOOPBACK, self.port(self.relay_to_both()), database="nosuchdatabase")
        self.addCleanup(client.close)
        try:
            await deferToThread(client.write_points, [{"measurement": "m", "fields": {"v": 1.0}}])
        except Exception as error:  # noqa: BLE001 (the client's class is none of our business)
            self.assertIn('database not found: \\"nosuchdatabase\\"', str(error))
        else:
            self.fail("no error")

    async def test_influxdb_client(self) -> None:
        """The influxdb-client package writes lines to /write with its own HTTP machinery and a 1.x token."""
        relay = self.relay_to_both()

        def write() -> int:
            url = f"http://{LOOPBACK}:{self.port(relay)}"
            with InfluxDB2Client(url=url, token="me:secret", org="-") as client:
                _, status, _ = client.api_client.call_api(
                    "/write",
                    "POST",
                    query_params=[("db", self.db), ("precision", "s")],
                    header_params={"Content-Type": "text/plain; charset=utf-8"},
                    body=b"a,x=1 v=1\nb v=2 1700000000",
                    _return_http_data_only=False,
                )
                return int(status)

        self.assertEqual(await deferToThread(write), 204)
        points = await self.both(2)
        self.assertEqual(points["b", ()][0]["time"], 1_700_000_000 * 10**9)
