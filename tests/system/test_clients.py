"""The clients of all generations, unchanged, in front of backends of all generations."""

from __future__ import annotations

import json
from typing import Any

from influxdb import InfluxDBClient
from influxdb_client.client.influxdb_client import InfluxDBClient as InfluxDB2Client
from influxdb_client.client.write.point import Point
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from influxdb_client_3 import InfluxDBClient3, write_client_options
from influxdb_client_3 import WriteOptions as WriteOptions3
from influxdb_client_3.exceptions.exceptions import InfluxDBPartialWriteError
from influxdb_client_3.write_client.client.write_api import WriteType
from twisted.internet.threads import deferToThread

from testing.client_case import COUNT, DB, NOW, ClientCase, output
from testing.scripted import LOOPBACK, RelayTestCase, request
from testing.servers import Influxd
from testing.victoria_metrics import VictoriaMetrics


class V2ClientTests(ClientCase):
    """influxdb-client for Python."""

    def connect(self, **settings: Any) -> InfluxDB2Client:
        """Return a client of the relay."""
        return InfluxDB2Client(url=self.url, token="whatever:secret", org="org", **settings)

    async def test_synchronous(self) -> None:
        """Each write is answered; all servers have all points, the one of 1.x that was down included."""

        def write(start: int) -> None:
            with self.connect() as client:
                api = client.write_api(write_options=SYNCHRONOUS)
                for number in range(start, start + COUNT):
                    point = Point("cpu").tag("host", f"a {number % 3}").field("v", number).field("s", 'x "y"\n')
                    api.write(DB, record=point.time(NOW + number, WritePrecision.S))

        await self.check_outage(self.influxds[1], write)

    async def test_batching(self) -> None:
        """Batches with gzip reach all servers, the one of 1.x that was down included."""

        def write(start: int) -> None:
            options = WriteOptions(batch_size=7, flush_interval=50, jitter_interval=0)
            with self.connect(enable_gzip=True) as client, client.write_api(write_options=options) as api:
                for number in range(start, start + COUNT):
                    api.write(DB, record=f"cpu,host=a v={number}i,ok=true {(NOW + number) * 10**9}")

        await self.check_outage(self.influxds[0], write)
        self.assertTrue(all(each.headers.get("content-encoding") == "gzip" for each in self.two.asked))

    async def test_precisions(self) -> None:
        """Times mean the same in each precision."""

        def write() -> None:
            with self.connect() as client:
                api = client.write_api(write_options=SYNCHRONOUS)
                for number, (precision, unit) in enumerate(
                    (
                        (WritePrecision.S, 1),
                        (WritePrecision.MS, 10**3),
                        (WritePrecision.US, 10**6),
                        (WritePrecision.NS, 10**9),
                    )
                ):
                    api.write(DB, record=f"cpu v={number} {(NOW + number) * unit}", write_precision=precision)

        await deferToThread(write)
        found = await self.equal(4)
        self.assertEqual(sorted(time for _, _, time in found), [(NOW + number) * 10**9 for number in range(4)])

    async def test_refused(self) -> None:
        """The client reads the message of a refusal, and of an error of the relay's own."""

        def refused(bucket: str, record: str) -> ApiException:
            with self.connect() as client:
                api = client.write_api(write_options=SYNCHRONOUS)
                error: ApiException = self.assertRaises(ApiException, api.write, bucket, record=record)
                return error

        found = await deferToThread(refused, DB, "no line")
        self.assertEqual((found.status, json.loads(found.body)["code"]), (400, "invalid"))
        self.assertIn("unable to parse", found.message)
        found = await deferToThread(refused, "/rp", "cpu v=1")
        self.assertEqual((found.status, json.loads(found.body)["code"]), (404, "not found"))

    async def test_probes(self) -> None:
        """The client's questions about the server are answered."""

        def ask() -> None:
            with self.connect() as client:
                self.assertTrue(client.ping())
                health = client.health()
                self.assertEqual((health.name, health.status), ("influxrelay", "pass"))
                self.assertEqual(client.ready().status, "ready")
                self.assertTrue(client.version().startswith("relay-"))

        await deferToThread(ask)


class V3ClientTests(ClientCase):
    """influxdb3-python."""

    def connect(self, *, v2: bool = False, gzip: bool = False, **options: Any) -> InfluxDBClient3:
        """Return a client of the relay; without options it is synchronous.

        :param v2: whether to write in the API of 2.x, which is this client's default.
        """
        chosen = options or {"write_type": WriteType.synchronous}
        made = write_client_options(write_options=WriteOptions3(use_v2_api=v2, **chosen))
        return InfluxDBClient3(host=self.url, token="secret", database=DB, write_client_options=made, enable_gzip=gzip)

    async def test_synchronous(self) -> None:
        """Each write is answered; all servers have all points, the one of 3.x that was down included."""

        def write(start: int) -> None:
            with self.connect() as client:
                for number in range(start, start + COUNT):
                    client.write(f"cpu,host=a v={number} {NOW + number}", write_precision="s")

        await self.check_outage(self.three, write)
        self.assertEqual({each.values["precision"] for each in self.three.asked}, {"second"})
        self.assertEqual({each.path for each in self.three.asked}, {"/api/v3/write_lp"})

    async def test_batching(self) -> None:
        """Batches with gzip reach all servers, the one of 1.x that was down included."""

        def write(start: int) -> None:
            with self.connect(gzip=True, batch_size=7, flush_interval=50, jitter_interval=0) as client:
                for number in range(start, start + COUNT):
                    client.write(f"cpu,host=a v={number}i {(NOW + number) * 10**9}")

        await self.check_outage(self.influxds[0], write)

    async def test_v2_api(self) -> None:
        """The client's way through the API of 2.x, which it takes by default, works too."""

        def write(start: int) -> None:
            with self.connect(v2=True) as client:
                for number in range(start, start + COUNT):
                    client.write(f"cpu v={number} {(NOW + number) * 10**9}")

        await self.check_outage(self.influxds[0], write)

    async def test_refused(self) -> None:
        """The client reads which lines a backend has refused, whatever its generation."""

        def refused() -> InfluxDBPartialWriteError:
            with self.connect() as client:
                error: InfluxDBPartialWriteError = self.assertRaises(
                    InfluxDBPartialWriteError, client.write, "cpu v=1 1\nno line"
                )
                return error

        found = await deferToThread(refused)
        self.assertEqual([each.original_line for each in found.line_errors], ["no line"])


class V1ClientTests(ClientCase):
    """influxdb for Python, which is Debian's python3-influxdb."""

    async def test_minutes(self) -> None:
        """Points in a precision that only 1.x has are the same on all servers."""

        def write(start: int) -> None:
            client = InfluxDBClient(LOOPBACK, self.port, "user", "password", DB)
            points = [
                {
                    "measurement": "cpu",
                    "tags": {"host": "a"},
                    "time": NOW // 60 + number,
                    "fields": {"v": float(number)},
                }
                for number in range(start, start + COUNT)
            ]
            self.assertTrue(client.write_points(points, time_precision="m"))
            client.close()

        await self.check_outage(self.three, write)


class PasswordTests(RelayTestCase):
    """A server of 1.x that asks for a password."""

    async def test_token(self) -> None:
        """A client of 2.x is known there by a token made of user and password, and refused by another one."""
        server = Influxd(self.mktemp(), user=("user", "password"))
        self.addCleanup(deferToThread, server.stop)
        await deferToThread(server.start)
        await deferToThread(server.create_database, DB)
        relay = self.relay(output("a", server.url))
        port: Any = relay._port
        url = f"http://{LOOPBACK}:{port.getHost().port}"

        def write(token: str) -> None:
            with InfluxDB2Client(url=url, token=token, org="any") as client:
                client.write_api(write_options=SYNCHRONOUS).write(f"{DB}/autogen", record="cpu v=1 1")

        await deferToThread(write, "user:password")
        self.assertEqual(await deferToThread(server.rows, "SELECT v FROM cpu", DB), [[1, 1]])
        refused: Any = self.assertFailure(deferToThread(write, "user:wrong"), ApiException)
        error = await refused
        self.assertEqual((error.status, json.loads(error.body)["code"]), (401, "unauthorized"))


class VictoriaMetricsTests(RelayTestCase):
    """A server of another maker that takes the API of 2.x."""

    async def test_writes(self) -> None:
        """Writes of clients of all generations reach VictoriaMetrics through its ``/api/v2/write``."""
        server = VictoriaMetrics(self.mktemp())
        self.addCleanup(deferToThread, server.stop)
        await deferToThread(server.start)
        relay = self.relay(output("vm", server.url, "v2", org="any"))
        for number, target in enumerate(
            (b"/write?db=db&precision=h", b"/api/v2/write?bucket=db", b"/api/v3/write_lp?db=db")
        ):
            time = b"%d" % (NOW // 3600) if number == 0 else b"%d000000000" % NOW
            found = await self.ask(relay, request(target, b"cpu,host=h%d v=%d %b" % (number, number, time)))
            self.assertEqual(found.status, 204)
        self.assertEqual(
            await deferToThread(server.samples, "cpu_v"),
            {"h0": (0, NOW // 3600 * 3600 * 1000), "h1": (1, NOW * 1000), "h2": (2, NOW * 1000)},
        )
