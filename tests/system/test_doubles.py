"""The doubles of InfluxDB 2.x and 3.x, as the real clients see them."""

from __future__ import annotations

import json
from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient as InfluxDB2Client
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from influxdb_client_3 import InfluxDBClient3, write_client_options
from influxdb_client_3 import WriteOptions as WriteOptions3
from influxdb_client_3.exceptions.exceptions import InfluxDBPartialWriteError
from influxdb_client_3.write_client.client.write_api import WriteType
from twisted.trial.unittest import SynchronousTestCase

from testing.influxdb2 import ORG_ID, InfluxDB2
from testing.influxdb3 import InfluxDB3
from testing.servers import send

SECOND = 10**9


class InfluxDB2Tests(SynchronousTestCase):
    """The double of 2.x."""

    def setUp(self) -> None:
        """Start it."""
        self.server = InfluxDB2(buckets=["b"])
        self.server.start()
        self.addCleanup(self.server.stop)

    def write(self, record: str, *, token: str = "token", org: str = "org", bucket: str = "b") -> None:
        """Write with the real client, in seconds."""
        with InfluxDB2Client(url=self.server.url, token=token, org=org, enable_gzip=True) as client:
            client.write_api(write_options=SYNCHRONOUS).write(bucket, record=record, write_precision="s")

    def test_stored(self) -> None:
        """Points are kept by bucket, with types and times, and fields of one point are joined."""
        self.write(r'cpu,b=1,a=x\ y i=1i,f=1,t=true,s="a \"b\",c" 5')
        self.write(r"cpu,a=x\ y,b=1 more=2 5", org=ORG_ID)
        key = ("cpu", (("a", "x y"), ("b", "1")), 5 * SECOND)
        self.assertEqual(list(self.server.contents), ["b"])
        self.assertEqual(set(self.server.contents["b"]), {key})
        self.assertEqual(self.server.contents["b"][key], {"i": 1, "f": 1.0, "t": True, "s": 'a "b",c', "more": 2.0})

    def test_probes(self) -> None:
        """The client's questions about the server are answered."""
        with InfluxDB2Client(url=self.server.url, token="token", org="org") as client:
            self.assertTrue(client.ping())
            self.assertEqual((client.health().status, client.ready().status), ("pass", "ready"))

    def test_refused(self) -> None:
        """Each error has its status, code and message; a conflict of types rejects only the lines that it concerns."""
        self.write("cpu v=1 1")
        for settings, record, status, code, message in (
            ({"token": "x"}, "cpu v=1", 401, "unauthorized", "unauthorized access"),
            ({"org": "x"}, "cpu v=1", 404, "not found", 'organization name "x" not found'),
            ({"bucket": "x"}, "cpu v=1", 404, "not found", 'bucket "x" not found'),
            ({}, "no line", 400, "invalid", "unable to parse 'no line'"),
            ({}, "cpu v=1i 2\ncpu w=2 3", 422, "unprocessable entity", "partial write: field type conflict"),
        ):
            arguments: dict[str, Any] = settings
            error = self.assertRaises(ApiException, self.write, record, **arguments)
            shown = json.loads(error.body)
            self.assertEqual((error.status, shown["code"]), (status, code))
            self.assertIn(message, shown["message"])
        self.assertEqual(sorted(time for *_, time in self.server.contents["b"]), [SECOND, 3 * SECOND])

    def test_outage(self) -> None:
        """A server that was stopped answers nothing, and has its points when it is back."""
        self.write("cpu v=1 1")
        self.server.stop()
        self.assertRaises(OSError, send, "GET", f"{self.server.url}/ping")
        self.server.start()
        self.write("cpu v=1 2")
        self.assertEqual(len(self.server.contents["b"]), 2)


class InfluxDB3Tests(SynchronousTestCase):
    """The double of 3.x."""

    def setUp(self) -> None:
        """Start it."""
        self.server = InfluxDB3()
        self.server.start()
        self.addCleanup(self.server.stop)

    def write(self, record: str, *, partial: bool = True, precision: str = "s") -> None:
        """Write with the real client."""
        options = WriteOptions3(write_type=WriteType.synchronous, use_v2_api=False, accept_partial=partial)
        made = write_client_options(write_options=options)
        with InfluxDBClient3(host=self.server.url, token="token", database="d", write_client_options=made) as client:
            client.write(record, write_precision=precision)

    def test_stored(self) -> None:
        """A database is there with its first write, in each precision."""
        for precision, unit in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", SECOND)):
            self.write(f"cpu,p={precision} v=1 {7 * unit}", precision=precision)
        self.assertEqual({time for *_, time in self.server.contents["d"]}, {7 * SECOND})
        status, _ = send("POST", f"{self.server.url}/api/v3/write_lp?db=d&p=token", b"guessed v=1 1700000000")
        self.assertEqual(status, 204)
        self.assertIn(("guessed", (), 1_700_000_000 * SECOND), self.server.contents["d"])

    def test_partial(self) -> None:
        """Good lines of a bad body are stored, unless all or nothing is asked for; the bad ones are named."""
        bad = "cpu v=1 1\nno line\ncpu v=2 2"
        error: InfluxDBPartialWriteError = self.assertRaises(InfluxDBPartialWriteError, self.write, bad, partial=False)
        self.assertEqual([(each.line_number, each.original_line) for each in error.line_errors], [(2, "no line")])
        self.assertEqual(len(self.server.contents["d"]), 0)
        error = self.assertRaises(InfluxDBPartialWriteError, self.write, bad)
        self.assertEqual([(each.line_number, each.original_line) for each in error.line_errors], [(2, "no line")])
        self.assertEqual(len(self.server.contents["d"]), 2)

    def test_refused(self) -> None:
        """A token is needed for everything but the health."""
        self.assertEqual(send("GET", f"{self.server.url}/health")[0], 200)
        for method, path in (("GET", "/ping"), ("POST", "/api/v3/write_lp?db=d")):
            self.assertEqual(send(method, self.server.url + path, b"cpu v=1")[0], 401)
