"""Queries through a relay with three shards, beside one server that has all the data."""

from __future__ import annotations

import atexit
import gzip
import json
import tempfile
import time
import urllib.parse
from functools import cache
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Any
from unittest import TestCase

from influxdb import InfluxDBClient

from influxrelay.sharding.outcomes import Refused
from testing.servers import LOOPBACK, Influxd, Relay, free_port, send
from testing.shard_queries import BORDER, POLICY, Queries, points
from testing.sharding import Comparison

_CONFIG = """
[[http]]
name = "main"
bind-addr = "{address}"
shard-key = "tag:customer"
default-shard = "s1"
[[http.shard]]
name = "s1"
output = [
    {{ name = "a", location = "{urls[0]}/write", buffer-size-mb = 8 }},
    {{ name = "d", location = "{urls[3]}/write", buffer-size-mb = 8 }},
]
[[http.shard]]
name = "s2"
output = [{{ name = "b", location = "{urls[1]}/write" }}]
[[http.shard]]
name = "s3"
output = [{{ name = "c", location = "{urls[2]}/write" }}]
[[http.epoch]]
shards = ["s1", "s2"]
[[http.epoch]]
since = "2026-01-05T06:00:00Z"
shards = ["s1", "s2", "s3"]
pin = {{ acme = "s3" }}
"""


@cache
def system() -> tuple[Influxd, tuple[Influxd, ...], Relay]:
    """Return a server with all data, one for each shard, and a relay; they end with this process."""
    directory = Path(tempfile.mkdtemp(prefix="influxrelay-sharded-"))
    atexit.register(rmtree, directory, ignore_errors=True)
    whole, *shards = (Influxd(directory / name) for name in ("whole", "a", "b", "c", "d"))
    port = free_port()
    config = _CONFIG.format(address=f"{LOOPBACK}:{port}", urls=[each.url for each in shards])
    relay = Relay(directory / "relay", config, port)
    for server in (whole, *shards, relay):
        server.start()
        atexit.register(server.stop)
    lines = "\n".join(line for *_, line in points(3, 1500)).encode()
    for url in (whole.url, relay.url):
        statement = urllib.parse.urlencode({"q": f"CREATE DATABASE d {POLICY}"})
        status, body = send("POST", f"{url}/query?{statement}", b"")
        if (status, json.loads(body)) != (200, {"results": [{"statement_id": 0}]}):
            raise AssertionError(body)
        status, body = send("POST", f"{url}/write?db=d", lines)
        if status != 204:
            raise AssertionError(body)
    return whole, tuple(shards), relay


class ShardedQueryTests(TestCase):
    """Three shards, two epochs."""

    def setUp(self) -> None:
        """Have all started."""
        self.whole, self.shards, self.relay = system()

    def ask(self, q: str, url: str = "", accept: str = "", encoding: str = "", **values: str) -> tuple[int, bytes]:
        """Ask the relay, or another server."""
        headers = {"Accept": accept or "*/*", "Accept-Encoding": encoding or "identity"}
        parameters = urllib.parse.urlencode({"q": q, "db": "d", **values})
        return send("POST", f"{url or self.relay.url}/query?{parameters}", b"", headers)

    def result(self, q: str, url: str = "", **values: str) -> Any:
        """Return the parsed answer."""
        status, body = self.ask(q, url, **values)
        self.assertEqual(status, 200, body)
        return json.loads(body)

    def test_data_are_divided(self) -> None:
        """Each shard has points, and none has all."""
        counts = [each.rows("SELECT count(value) FROM cpu", "d")[0][1] for each in self.shards[:3]]
        self.assertEqual(sum(counts), self.whole.rows("SELECT count(value) FROM cpu", "d")[0][1])
        self.assertTrue(all(counts))

    def test_queries_by_chance(self) -> None:
        """Queries get what the one server says, or 400 with a reason."""
        comparison = Comparison()
        for text in islice(Queries(17), 200):
            status, body = self.ask(text, epoch="ns")
            whole = self.result(text, self.whole.url, epoch="ns")["results"][0]
            found: Any = Refused(json.loads(body)["error"]) if status == 400 else json.loads(body)["results"][0]
            self.assertIn(status, (200, 400), body)
            comparison.check(text, whole, found)
        self.assertEqual(comparison.differing, [])
        self.assertGreater(comparison.outcomes["with rows"], 50)
        self.assertLess(comparison.outcomes["refused"], 40)

    def test_forms(self) -> None:
        """Precisions, texts of times, chunks, CSV, pretty and gzip are as InfluxDB gives them."""
        windows = "time >= '2026-01-05 05:30:00' AND time < '2026-01-05 09:30:00' GROUP BY time(7m), host fill(0)"
        queries = (
            f"SELECT mean(value), max(load) FROM cpu WHERE {windows} tz('Europe/Berlin')",
            "SELECT free, err FROM disk WHERE time >= '2026-01-05T03:00:00Z' GROUP BY host; SHOW TAG KEYS",
            "SELECT value FROM nope; SELECT sum(big) FROM cpu GROUP BY customer",
        )
        for q in queries:
            for values in (
                {},
                {"epoch": "s"},
                {"epoch": "ms", "pretty": "true"},
                {"chunked": "true", "chunk_size": "7"},
            ):
                answers = [self.ask(q, url, **values)[1] for url in ("", self.whole.url)]
                if "chunked" in values:
                    documents = [[json.loads(line) for line in each.splitlines()] for each in answers]
                else:
                    documents = [json.loads(each) for each in answers]
                self.assertEqual(documents[0], documents[1], (q, values))
            csv = [self.ask(q, url, "application/csv", epoch="ns")[1] for url in ("", self.whole.url)]
            self.assertEqual(csv[0].decode(), csv[1].decode())
        packed = self.ask(queries[0], encoding="gzip")[1]
        self.assertEqual(json.loads(gzip.decompress(packed)), self.result(queries[0]))

    def test_client_library(self) -> None:
        """influxdb-python, which asks for msgpack first, reads JSON as well, in chunks too."""
        client = InfluxDBClient(LOOPBACK, int(self.relay.url.rpartition(":")[2]), database="d")
        self.addCleanup(client.close)
        whole = InfluxDBClient(LOOPBACK, self.whole.http_port, database="d")
        self.addCleanup(whole.close)
        for q in ("SELECT sum(load) FROM cpu GROUP BY host", "SELECT free FROM disk GROUP BY host"):
            self.assertEqual(list(client.query(q, epoch="ns")), list(whole.query(q, epoch="ns")))
        bound = client.query("SELECT count(value) FROM cpu WHERE host = $h", bind_params={"h": "a"}, epoch="ns")
        expected = whole.query("SELECT count(value) FROM cpu WHERE host = 'a'", epoch="ns")
        self.assertEqual(list(bound), list(expected))
        self.assertEqual(client.get_list_measurements(), whole.get_list_measurements())

    def test_several_statements(self) -> None:
        """Results are numbered, an error ends the request, and what is refused is refused before anything is sent."""
        q = "SHOW MEASUREMENTS; SELECT count(value) FROM cpu; SHOW TAG KEYS"
        whole = self.result(q, self.whole.url)["results"]
        self.assertEqual(self.result(q)["results"], whole)
        failed = self.result(f"{q}; SELECT foo(value) FROM cpu; SHOW TAG KEYS")["results"]
        self.assertEqual(failed[:3], whole)
        self.assertEqual([each["error"] for each in failed[3:]], ["undefined function foo()", "not executed"])
        self.assertEqual([each["statement_id"] for each in failed], [0, 1, 2, 3, 4])
        status, body = self.ask("SHOW MEASUREMENTS; SELECT median(value) FROM cpu")
        self.assertEqual(status, 400)
        self.assertIn("median() cannot be merged over shards", json.loads(body)["error"])

    def test_one_shard(self) -> None:
        """A fixed key is answered by its shard alone, with the columns that all shards have."""
        for q in (
            "SELECT * FROM cpu WHERE customer = 'acme' LIMIT 3",
            f"SELECT median(value) FROM cpu WHERE customer = 'acme' AND time >= {BORDER} AND rare != 7.0",
        ):
            self.assertEqual(self.result(q, epoch="ns"), self.result(q, self.whole.url, epoch="ns"))

    def test_changes(self) -> None:
        """Changes reach every shard; INTO has to be grouped by the key; what it writes is added up."""
        for url in (self.relay.url, self.whole.url):
            self.addCleanup(self.ask, "DROP RETENTION POLICY other ON d", url)
            self.ask("CREATE RETENTION POLICY other ON d DURATION INF REPLICATION 1", url)
        for each in self.shards:
            self.assertIn(["other"], [row[:1] for row in each.rows("SHOW RETENTION POLICIES", "d")])
        status, body = self.ask("SELECT mean(value) INTO other.means FROM cpu")
        self.assertEqual(status, 400)
        self.assertIn('GROUP BY "customer"', json.loads(body)["error"])
        whole = f"WHERE time >= {BORDER} GROUP BY time(1h), *"
        for url in ("", self.whole.url):
            found = self.result(f"SELECT mean(value) INTO other.means FROM cpu {whole}", url)
            ((_, written),) = found["results"][0]["series"][0]["values"]
            counted = self.result("SELECT count(mean) FROM other.means", url)
            self.assertEqual(counted["results"][0]["series"][0]["values"][0][1], written)

    def test_asynchronous(self) -> None:
        """With ``async`` a change is answered 204, and after an error nothing more is executed."""
        self.addCleanup(self.ask, "DROP DATABASE later")
        status, body = self.ask("CREATE DATABASE d", **{"async": "true"})
        self.assertEqual((status, body), (204, b""))
        status, _ = self.ask("SET PASSWORD FOR nobody = 'x'; CREATE DATABASE later", **{"async": "true"})
        self.assertLess(status, 300)
        for each in self.shards:
            self.assertNotIn(["later"], each.rows("SHOW DATABASES", "d"))

    def test_a_shard_is_down(self) -> None:
        """Without a server of a shard, queries over it are 503, never a part; those of others go on."""
        one = f"SELECT count(value) FROM cpu WHERE customer = 'acme' AND time >= {BORDER}"
        expected = self.result(one)
        everything = "SELECT count(value) FROM cpu"
        self.shards[1].kill()
        try:
            status, body = self.ask(everything)
            self.assertEqual(status, 503, body)
            self.assertIn("shard s2", json.loads(body)["error"])
            self.assertEqual(self.ask("SELECT value FROM cpu")[0], 503)
            self.assertEqual(self.ask("SHOW SERIES")[0], 503)
            self.assertEqual(self.result(one), expected)
        finally:
            self.shards[1].start()
        self.assertEqual(self.result(everything)["results"], self.result(everything, self.whole.url)["results"])

    def test_a_server_is_down(self) -> None:
        """While one server of a shard is down the other one answers, also for what is written meanwhile."""
        everything = (
            "SELECT count(value), sum(load) FROM cpu; SELECT spread(value) FROM tiny; SHOW TAG VALUES WITH KEY = host"
        )
        self.shards[0].kill()
        try:
            lines = f"cpu,customer=globex,host=z value=1,load=1i {BORDER}\ntiny value=3 {BORDER + 7}\n".encode()
            for url in (self.relay.url, self.whole.url):
                self.assertEqual(send("POST", f"{url}/write?db=d", lines)[0], 204)
            self.assertEqual(self.result(everything), self.result(everything, self.whole.url))
        finally:
            self.shards[0].start()
        deadline = time.monotonic() + 60
        while send("GET", f"{self.relay.url}/health/backends/a")[0] != 200:
            self.assertLess(time.monotonic(), deadline, "the server does not catch up")
            time.sleep(0.2)
        self.assertEqual(self.result(everything), self.result(everything, self.whole.url))

    def test_backend(self) -> None:
        """One server is asked by its name, also for what is its own."""
        status, body = self.ask("SHOW STATS")
        self.assertEqual(status, 400)
        self.assertIn("backend=NAME", json.loads(body)["error"])
        self.assertEqual(self.ask("SHOW STATS", backend="b")[0], 200)
        self.assertEqual(self.ask("SHOW STATS", backend="x")[0], 400)
        self.assertEqual(self.ask("SELECT FROM")[0], 400)
