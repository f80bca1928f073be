"""What clients of InfluxDB first do, with the relay's address, before two real servers."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import tempfile
import urllib.parse
from collections.abc import Callable
from typing import Any
from unittest import TestCase

from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError

from testing.balancer_case import wait_until
from testing.query_system import system
from testing.servers import LOOPBACK, Influxd, find_program, send


class QueryTests(TestCase):
    """Clients of two servers and a relay."""

    def setUp(self) -> None:
        """Have all started."""
        self.servers, self.relay = system()

    def client(self, database: str, **headers: str) -> InfluxDBClient:
        """Return a client of the relay."""
        port = int(self.relay.url.rpartition(":")[2])
        client = InfluxDBClient(LOOPBACK, port, database=database, headers=headers or None)
        self.addCleanup(client.close)
        return client

    def ask(self, q: str, *, method: str = "POST", url: str = "", **parameters: str) -> Any:
        """Ask the relay, and return the answer."""
        values = urllib.parse.urlencode({"q": q, **parameters})
        base = url or self.relay.url
        status, body = send(method, f"{base}/query?{values}", b"")
        self.assertEqual(status, 200, body)
        return json.loads(body)

    def wait_for(self, server: Influxd, q: str, database: str, holds: Callable[[Any], bool]) -> None:
        """Wait until the rows that a server gives are right: the client waits for one of the servers."""
        wait_until(lambda: holds(server.rows(q, database)), q)

    def run_in_terminal(self, *command: str, text: str) -> str:
        """Return what a program prints on a terminal on which somebody types this."""
        ours, its = pty.openpty()
        self.addCleanup(os.close, ours)
        with subprocess.Popen(command, stdin=its, stdout=its, stderr=its) as process:
            os.close(its)
            printed = b""
            os.write(ours, text.encode())
            try:
                while piece := os.read(ours, 65536):
                    printed += piece
            except OSError:  # how Linux tells that the other end is closed
                pass
            self.assertEqual(process.wait(60), 0, printed)
        return printed.decode("utf-8", "replace")

    def run_program(self, *command: str) -> str:
        """Return what a program prints."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_client_library(self) -> None:
        """influxdb-python creates, writes, reads, in chunks too, deletes and drops; both servers have the same."""
        client = self.client("library")
        client.create_database("library")
        for server in self.servers:
            self.wait_for(server, "SHOW DATABASES", "", lambda rows: ["library"] in rows)
        client.create_retention_policy("short", "1d", "1")
        lines = [f"m,host=h{number % 3} v={number}i {number}" for number in range(1, 25_001)]
        client.write_points(lines, protocol="line", batch_size=5000, consistency="all")
        for server in self.servers:
            self.assertEqual(server.rows("SELECT count(v) FROM m", "library"), [[0, 25_000]])
        self.assertEqual(len(list(client.query("SELECT * FROM m").get_points())), 25_000)
        plain = self.client("library", Accept="application/json")  # the library cannot join chunks of msgpack
        chunked = plain.query("SELECT * FROM m", chunked=True, chunk_size=1000)
        self.assertEqual(sum(len(list(each.get_points())) for each in chunked), 25_000)
        bound = client.query("SELECT v FROM m WHERE host = $h", bind_params={"h": "h1"}, params={"epoch": "ns"})
        self.assertEqual(len(list(bound.get_points())), 8334)
        client.delete_series(tags={"host": "h1"})
        for server in self.servers:
            self.wait_for(server, "SELECT count(v) FROM m", "library", lambda rows: rows == [[0, 16_666]])
        with self.assertRaisesRegex(InfluxDBClientError, "error parsing query"):
            client.query("SELECT FROM")
        client.drop_database("library")
        for server in self.servers:
            self.wait_for(server, "SHOW DATABASES", "", lambda rows: ["library"] not in rows)

    def test_shell(self) -> None:
        """The influx shell works interactively, with -execute and with -import."""
        influx = find_program("influx", "influxdb-client")
        there = ["-host", LOOPBACK, "-port", self.relay.url.rpartition(":")[2]]
        self.run_program(influx, *there, "-execute", "CREATE DATABASE shell")
        text = "USE shell\nINSERT weather,town=bonn temperature=21 1\nSELECT * FROM weather\nexit\n"
        printed = self.run_in_terminal(influx, *there, text=text)
        self.assertIn("1 21 bonn", " ".join(printed.split()))
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("# DDL\nCREATE DATABASE imported\n# DML\n# CONTEXT-DATABASE: imported\nm v=1 1\nm v=2 2\n")
            file.flush()
            self.run_program(influx, *there, "-import", "-path", file.name)
        for server in self.servers:
            self.assertEqual(server.rows("SELECT v FROM m", "imported"), [[1, 1], [2, 2]])
        csv = self.run_program(influx, *there, "-database", "imported", "-format", "csv", "-execute", "SELECT v FROM m")
        self.assertEqual(csv.split(), ["name,time,v", "m,1,1", "m,2,2"])

    def test_curl(self) -> None:
        """Curl gets the same from the relay as from a server: a multipart file, CSV, msgpack, gzip."""
        curl = find_program("curl", "curl")
        self.ask("CREATE DATABASE curl")
        self.assertEqual(send("POST", f"{self.relay.url}/write?db=curl", b"m v=1,w=2i 1\n")[0], 204)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("SELECT * FROM m; SHOW MEASUREMENTS\n")
            file.flush()
            for options in (
                ["-F", f"q=@{file.name}", "-F", "db=curl"],
                ["-F", "q=SELECT * FROM m", "-F", "db=curl"],
                ["-G", "--data-urlencode", "q=SELECT * FROM m", "-d", "db=curl", "-H", "Accept: application/csv"],
                ["-G", "--data-urlencode", "q=SELECT * FROM m", "-d", "db=curl", "-H", "Accept: application/x-msgpack"],
                ["-G", "--data-urlencode", "q=SELECT * FROM m", "-d", "db=curl&pretty=true&epoch=s", "--compressed"],
                ["-G", "--data-urlencode", "q=SELECT x FROM", "-d", "db=curl"],
            ):
                answers = {
                    subprocess.run(
                        [curl, "-sS", *options, f"{url}/query"], capture_output=True, timeout=60, check=True
                    ).stdout
                    for url in (self.relay.url, self.servers[0].url)
                }
                self.assertEqual(len(answers), 1, answers)

    def test_grafana(self) -> None:
        """Grafana's requests are answered: all in the URL, or ``q`` in a form and the rest in the URL."""
        self.ask("CREATE DATABASE grafana")
        self.assertEqual(send("POST", f"{self.relay.url}/write?db=grafana", b"m,host=a v=1 1000000000\n")[0], 204)
        q = 'SELECT mean("v") FROM "m" WHERE time >= 0ms and time <= 9000ms GROUP BY time(1s) fill(null)'
        get = self.ask(q, method="GET", db="grafana", epoch="ms")
        url = f"{self.relay.url}/query?db=grafana&epoch=ms"
        form = urllib.parse.urlencode({"q": q}).encode()
        _, post = send("POST", url, form, {"Content-Type": "application/x-www-form-urlencoded"})
        self.assertEqual(get, json.loads(post))
        self.assertEqual(get["results"][0]["series"][0]["values"][1], [1000, 1])
        keys = self.ask('SHOW TAG VALUES FROM "m" WITH KEY = "host"', method="GET", db="grafana")
        self.assertEqual(keys["results"][0]["series"][0]["values"], [["host", "a"]])

    def test_several_statements(self) -> None:
        """Several statements get the results that a server would give, behind an error too."""
        for q in (
            "CREATE DATABASE many; SHOW RETENTION POLICIES ON many; SELECT v FROM nothing",
            "DROP MEASUREMENT nothing; SHOW USERS; SHOW DATABASES",
            "SHOW USERS; DROP MEASUREMENT nothing; SHOW DATABASES",
        ):
            answers = []
            for url in (self.relay.url, self.servers[0].url):
                for server in self.servers:
                    server.query("DROP DATABASE many")
                    server.query("CREATE DATABASE mixed")
                status, body = send("POST", f"{url}/query?{urllib.parse.urlencode({'q': q, 'db': 'mixed'})}", b"")
                answers.append((status, body))
            self.assertEqual(answers[0], answers[1], q)

    def test_into(self) -> None:
        """``SELECT INTO`` with ``now()`` gives the same points on both servers."""
        self.ask("CREATE DATABASE source")
        self.assertEqual(send("POST", f"{self.relay.url}/write?db=source", b"m v=1\nm v=2\n")[0], 204)
        self.ask("SELECT v INTO copy FROM m WHERE time < now()", db="source", consistency="all")
        rows = [server.rows("SELECT v FROM copy", "source") for server in self.servers]
        self.assertEqual(rows[0], rows[1])
        self.assertEqual(len(rows[0]), 1)

    def test_passwords(self) -> None:
        """No password of a statement is in the log."""
        self.ask("CREATE USER someone WITH PASSWORD 'kept secret'")
        self.ask("SET PASSWORD FOR someone = 'more secret'")
        log = "".join(path.read_text("utf-8", "replace") for path in self.relay.directory.rglob("*.log"))
        self.assertIn("[REDACTED]", log)
        self.assertNotIn("secret", log)

    def test_a_server_dies(self) -> None:
        """Reads and changes go on while a server is down; it gets what has changed when it is back."""
        self.ask("CREATE DATABASE deaths")
        self.servers[1].kill()
        try:
            for _ in range(10):
                self.assertIn("results", self.ask("SHOW DATABASES", method="GET"))
            self.ask("CREATE DATABASE missed; DROP DATABASE deaths")
        finally:
            self.servers[1].start()
        self.ask("CREATE DATABASE again", consistency="all")
        names = [row[0] for row in self.servers[1].rows("SHOW DATABASES", "")]
        self.assertLessEqual({"missed", "again"}, set(names))
        self.assertNotIn("deaths", names)
