"""The first steps in the documentation of client libraries of InfluxDB 1.x, with the relay's address."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import Any
from unittest import TestCase

from influxdb import InfluxDBClient

from testing import node
from testing.balancer_case import wait_until
from testing.query_system import system
from testing.servers import LOOPBACK, Influxd

NODE_INFLUX = "influx@5.12.0"
_NODE_SCRIPT = """
const Influx = require('influx');
const influx = new Influx.InfluxDB({
  host: '%(host)s',
  port: %(port)d,
  database: 'express_response_db',
  schema: [{
    measurement: 'response_times',
    fields: { path: Influx.FieldType.STRING, duration: Influx.FieldType.INTEGER },
    tags: ['host'],
  }],
});
(async () => {
  const names = await influx.getDatabaseNames();
  if (!names.includes('express_response_db')) await influx.createDatabase('express_response_db');
  await influx.createRetentionPolicy('week', { duration: '7d', replication: 1 });
  await influx.writePoints([
    { measurement: 'response_times', tags: { host: 'a' }, fields: { duration: 53, path: '/' }, timestamp: 1 },
    { measurement: 'response_times', tags: { host: 'b' }, fields: { duration: 54, path: '/x' }, timestamp: 2 },
  ]);
  const rows = await influx.query(
    `select * from response_times where host = ${Influx.escape.stringLit('a')} order by time desc limit 10`);
  const several = await influx.query(['select path from response_times', 'select "duration" from response_times']);
  const measurements = await influx.getMeasurements();
  const policies = await influx.showRetentionPolicies();
  await influx.dropSeries({ where: tag => tag.tag('host').equals.value('a') });
  const left = await influx.query('select * from response_times');
  const hosts = await influx.ping(5000);
  console.log(JSON.stringify({
    rows: rows.map(row => [row.host, row.duration, row.path]), several: several.map(each => each.length), measurements,
    policies: policies.map(each => each.name), left: left.map(row => row.host), online: hosts.map(host => host.online),
  }));
})().catch(error => { console.error(error.message); process.exit(1); });
"""


_FRAMES = """
import json
import pandas
from influxdb import DataFrameClient
client = DataFrameClient("%(host)s", %(port)d, "root", "root", "frames")
client.create_database("frames")
index = pandas.date_range(start="2014-11-16", periods=30, freq="h")
frame = pandas.DataFrame(data=[float(number) for number in range(30)], index=index, columns=["value"])
client.write_points(frame, "demo", protocol="line")
client.write_points(frame, "demo", {"k1": "v1", "k2": "v2"}, protocol="line")
found = client.query("select * from demo")["demo"]
print(json.dumps({"rows": len(found), "sum": found["value"].sum()}))
"""
_AIOINFLUX = """
import asyncio, json
from aioinflux import InfluxDBClient
point = {
    "time": "2009-11-10T23:00:00Z",
    "measurement": "cpu_load_short",
    "tags": {"host": "server01", "region": "us-west"},
    "fields": {"value": 0.64},
}
async def main():
    async with InfluxDBClient(host="%(host)s", port=%(port)d, db="testdb") as client:
        await client.create_database(db="testdb")
        await client.write(point)
        found = await client.query("SELECT value FROM cpu_load_short")
        await client.write([f"m v={number}i {number}" for number in range(1, 2001)])
        chunks = await client.query("SELECT v FROM m", chunked=True, chunk_size=100)
        print(json.dumps({
            "value": found["results"][0]["series"][0]["values"][0][1],
            "sizes": [len(each["results"][0]["series"][0]["values"]) async for each in chunks],
            "ping": bool(await client.ping()),
        }))
asyncio.run(main())
"""


class ClientTests(TestCase):
    """Clients of two servers and a relay."""

    def setUp(self) -> None:
        """Have all started."""
        self.servers, self.relay = system()
        self.port = int(self.relay.url.rpartition(":")[2])

    def run_script(self, script: str) -> Any:
        """Return the JSON that a script prints."""
        command = [sys.executable, "-W", "ignore", "-c", script % {"host": LOOPBACK, "port": self.port}]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def check_rows(self, q: str, database: str, rows: list[Any]) -> None:
        """Wait until both servers give the same rows: the client waits for one of them."""
        for server in self.servers:
            wait_until(partial(self.has_rows, server, q, database, rows), f"{q} gives {rows}")

    def has_rows(self, server: Influxd, q: str, database: str, rows: list[Any]) -> bool:
        """Say whether a server gives these rows."""
        return server.rows(q, database) == rows

    def test_json(self) -> None:
        """influxdb-python: the example of its README."""
        client = InfluxDBClient(LOOPBACK, self.port, "root", "root", "example")
        self.addCleanup(client.close)
        client.create_database("example")
        self.assertIn({"name": "example"}, client.get_list_database())
        body = {
            "measurement": "cpu_load_short",
            "tags": {"host": "server01", "region": "us-west"},
            "time": "2009-11-10T23:00:00Z",
            "fields": {"Float_value": 0.64, "Int_value": 3, "String_value": "Text", "Bool_value": True},
        }
        client.write_points([body])
        bound = {"host": "server01"}
        (point,) = client.query(
            "select Int_value from cpu_load_short where host=$host;", bind_params=bound
        ).get_points()
        self.assertEqual(point["Int_value"], 3)
        client.create_user("reader", "secret")
        client.grant_privilege("read", "example", "reader")
        self.assertEqual(client.get_list_privileges("reader"), [{"database": "example", "privilege": "READ"}])
        client.create_continuous_query("cq", "SELECT mean(Int_value) INTO m FROM cpu_load_short GROUP BY time(1h)")
        self.assertIn("cq", str(client.get_list_continuous_queries()))
        client.drop_user("reader")
        self.check_rows("SELECT count(Int_value) FROM cpu_load_short", "example", [[0, 1]])
        client.drop_database("example")
        self.assertNotIn({"name": "example"}, client.get_list_database())

    def test_data_frame(self) -> None:
        """influxdb-python's DataFrameClient: frames are written and read."""
        self.assertEqual(self.run_script(_FRAMES), {"rows": 60, "sum": 870.0})
        self.check_rows("SELECT count(value) FROM demo", "frames", [[0, 60]])

    def test_aioinflux(self) -> None:
        """aioinflux: the example of its documentation, and answers in chunks."""
        self.assertEqual(self.run_script(_AIOINFLUX), {"value": 0.64, "sizes": [100] * 20, "ping": True})
        self.check_rows("SELECT count(v) FROM m", "testdb", [[0, 2000]])

    def test_node(self) -> None:
        """node-influx: the example of its documentation."""
        shown = json.loads(node.run(_NODE_SCRIPT % {"host": LOOPBACK, "port": self.port}, NODE_INFLUX))
        self.assertEqual(shown["rows"], [["a", 53, "/"]])
        self.assertEqual((shown["several"], shown["measurements"]), ([2, 2], ["response_times"]))
        self.assertEqual(shown["policies"], ["autogen", "week"])
        self.assertEqual((shown["left"], shown["online"]), (["b"], [True]))
        self.check_rows('SELECT count("duration") FROM response_times', "express_response_db", [[0, 1]])
