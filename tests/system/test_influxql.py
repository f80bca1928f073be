"""The parser beside a real influxd: both understand the same statements."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.parser import QueryError, parse
from influxrelay.influxql.rewriting import statement_text
from testing.influxql_cases import CHANGES, READS, mutated, table
from testing.influxql_refused import refused
from testing.servers import Influxd

COUNT = 10_000


class InfluxdTests(SynchronousTestCase):
    """What influxd says of statements."""

    def setUp(self) -> None:
        """Start a server."""
        self.server = Influxd(Path(self.mktemp()).resolve())
        self.addCleanup(self.server.stop)
        self.server.start()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.http_port, timeout=60)
        self.addCleanup(self.connection.close)

    def ask(self, query: str) -> tuple[int, str]:
        """Return status and body of the answer."""
        body = urlencode({"q": query, "db": "db"}, errors="surrogateescape")
        self.connection.request("POST", "/query", body, {"Content-Type": "application/x-www-form-urlencoded"})
        response = self.connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")

    def check(self, query: str) -> bool:
        """Compare our verdict with influxd's, and return it."""
        status, answer = self.ask(query)
        theirs = not (status == 400 and "error parsing query" in answer)
        ours = True
        try:
            parse(query)
        except QueryError:
            ours = False
        if ours and "not supported" in answer and query.lstrip(" ;\n").upper().startswith("DELETE"):
            return True  # versions from 1.12 on take DELETE FROM rp.m, which this one does not
        self.assertEqual(ours, theirs, (query, status, answer))
        return ours

    def test_verdicts(self) -> None:
        """Ten thousand statements that were changed by chance are understood by both or by neither."""
        correct = [query for text in (READS, CHANGES) for query, _, _ in table(text)]
        understood = sum(map(self.check, [*correct, *refused(), *mutated(1, COUNT)]))
        self.assertGreater(understood, COUNT // 20)

    def test_now(self) -> None:
        """A time in the place of now() is read by influxd as that time."""
        self.ask("CREATE DATABASE db")
        self.connection.request("POST", "/write?db=db", "m v=1 1700000000000000000\nm v=2 1700009000000000000")
        self.connection.getresponse().read()
        text = "SELECT v FROM m WHERE time >= now() - 1h AND time < now()"
        (statement,) = parse(text)
        _, answer = self.ask(statement_text(text, statement, 1_700_003_600_000_000_001))
        self.assertEqual(json.loads(answer)["results"][0].get("series"), None)
        _, answer = self.ask(statement_text(text, statement, 1_700_000_000_000_000_001))
        self.assertEqual(json.loads(answer)["results"][0]["series"][0]["values"], [["2023-11-14T22:13:20Z", 1]])
