"""Reads through the relay are answered byte for byte as a server answers them, whatever their shape."""

from __future__ import annotations

import gzip
import http.client
from typing import Any
from unittest import TestCase
from urllib.parse import urlencode

from testing.query_system import system
from testing.servers import LOOPBACK

DATABASE = "answers"
ALL = "SELECT * FROM m"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
OF_THE_CONNECTION = {  # and what tells the relay from a server
    *("date", "request-id", "x-request-id", "transfer-encoding", "content-length"),
    *("x-influxdb-version", "x-influxrelay-backend"),
}
READS: list[tuple[dict[str, str], dict[str, str]]] = [  # parameters and headers
    ({"q": ALL}, {}),
    ({}, {}),
    *(({"q": q}, {}) for q in ("", ";", "-- nothing", "/* */", "SELECT FROM", "nonsense")),
    *(({"q": ALL, "chunked": "true", "chunk_size": size}, {}) for size in ("5", "x", "0", "100000")),
    ({"q": ALL, "async": "true"}, {}),
    ({"q": ALL, "pretty": "true"}, {}),
    *(({"q": ALL, "epoch": epoch}, {}) for epoch in ("ns", "n", "u", "ms", "s", "m", "h", "x", "")),
    *(({"q": ALL}, {"Accept": kind}) for kind in ("application/csv", "text/csv", "application/x-msgpack", "x/y")),
    ({"q": ALL}, {"Accept-Encoding": "gzip"}),
    ({"q": ALL, "chunked": "true", "chunk_size": "5"}, {"Accept-Encoding": "gzip", "Accept": "application/csv"}),
    *(({"q": "SELECT v FROM m WHERE h = $h", "params": given}, {}) for given in ('{"h":"a"}', '{"h":', "[1]", "")),
    ({"q": "SELECT v FROM m WHERE v = $v", "params": '{"v":1.0}'}, {}),
    ({"q": ALL, "db": "nowhere"}, {}),
    ({"q": ALL, "db": ""}, {}),
    ({"q": "SELECT v FROM m; SELECT x FROM; SELECT v FROM m"}, {}),
    ({"q": "SELECT v FROM nowhere..m; SELECT v FROM m"}, {}),
    ({"q": "SHOW MEASUREMENTS; SHOW TAG KEYS; SHOW FIELD KEYS; SHOW RETENTION POLICIES"}, {}),
    ({"q": 'SHOW TAG VALUES FROM "m" WITH KEY = "h"'}, {}),
    ({"q": "EXPLAIN SELECT v FROM m"}, {}),
    (
        {"q": "SELECT mean(v) FROM m WHERE time >= 0 AND time < 50ns GROUP BY time(10ns), h FILL(previous) LIMIT 3"},
        {},
    ),
]


class AnswerTests(TestCase):
    """A relay and the server behind it."""

    def setUp(self) -> None:
        """Have points on both servers."""
        self.servers, self.relay = system()
        self.port = int(self.relay.url.rpartition(":")[2])
        for server in self.servers:
            server.query(f"DROP DATABASE {DATABASE}")
            server.create_database(DATABASE)
            server.write("".join(f"m,h=a v={n} {n}\nm,h=b v={n} {n}\n" for n in range(1, 40)), DATABASE)

    def ask(self, port: int, method: str, target: str, body: str | None, headers: dict[str, str]) -> tuple[Any, ...]:
        """Return status, headers and body of an answer."""
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            found = answer.read()
        finally:
            connection.close()
        shown = {name.lower(): value for name, value in answer.getheaders()}
        if shown.get("content-encoding") == "gzip":
            found = gzip.decompress(found)  # the bytes of two packings may differ
        shown = {name: value for name, value in shown.items() if name not in OF_THE_CONNECTION}
        return answer.status, shown, found

    def check(self, method: str, target: str, body: str | None, headers: dict[str, str]) -> None:
        """Check that the relay answers as the server."""
        direct = self.ask(self.servers[0].http_port, method, target, body, headers)
        relayed = self.ask(self.port, method, target, body, headers)
        self.assertEqual(relayed, direct, (method, target, body, headers))

    def test_in_the_url(self) -> None:
        """Everything in the URL, with GET and with POST."""
        for parameters, headers in READS:
            target = f"/query?{urlencode({'db': DATABASE, **parameters})}"
            self.check("GET", target, None, headers)
            self.check("POST", target, None, headers)

    def test_in_a_form(self) -> None:
        """``q`` in a form and the rest in the URL, or all in the form."""
        for parameters, headers in READS:
            rest = {name: value for name, value in parameters.items() if name != "q"}
            q = {name: value for name, value in parameters.items() if name == "q"}
            self.check("POST", f"/query?{urlencode({'db': DATABASE, **rest})}", urlencode(q), {**headers, **FORM})
            self.check("POST", "/query", urlencode({"db": DATABASE, **parameters}), {**headers, **FORM})

    def test_changes(self) -> None:
        """Requests that change something, too, come in the form that was asked for."""
        mixed = (
            "SELECT v FROM m LIMIT 2; CREATE DATABASE other; SELECT count(v) FROM m; SHOW DATABASES;"
            " SELECT v FROM nowhere..m"
        )
        forms: tuple[dict[str, str], ...] = (
            {},
            {"pretty": "true"},
            {"chunked": "true"},
            {"chunked": "true", "pretty": "true"},
            {"async": "true"},
        )
        for q in ("CREATE DATABASE other", mixed):
            for form in forms:
                target = f"/query?{urlencode({'db': DATABASE, 'q': q, 'epoch': 'ns', **form})}"
                found = [self.ask(port, "POST", target, None, {}) for port in (self.servers[0].http_port, self.port)]
                direct, relayed = ((status, shown.get("content-type"), body) for status, shown, body in found)
                self.assertEqual(relayed, direct, target)

    def test_no_form(self) -> None:
        """A body that is no form is not looked at."""
        self.check("POST", "/query", f"q={ALL}", {"Content-Type": "text/plain"})
        self.check("POST", "/query", "q=%zz", FORM)

    def test_admin(self) -> None:
        """``/admin``, which relays of another family have for statements, is the same as ``/query``."""
        target = f"?{urlencode({'q': ALL, 'db': DATABASE})}"
        direct = self.ask(self.servers[0].http_port, "POST", f"/query{target}", None, {})
        self.assertEqual(self.ask(self.port, "POST", f"/admin{target}", None, {}), direct)
        status, _, body = self.ask(self.port, "POST", "/admin", "q=CREATE+DATABASE+administered", FORM)
        self.assertEqual((status, body), (200, b'{"results":[{"statement_id":0}]}\n'))
        self.assertIn(b"administered", self.ask(self.port, "GET", "/query?q=SHOW+DATABASES", None, {})[2])
