"""The headers that clients, browsers and backends get, and the access log."""

from __future__ import annotations

import gzip
import re
from typing import Any

from influxrelay import __version__
from influxrelay.config.settings import HTTPOutputConfig
from influxrelay.listeners.http import HTTPService
from testing.http_case import HTTPTestCase
from testing.logs import watch_events
from testing.scripted import LINE, Answer, Client, RelayTestCase, ScriptedBackend, answer, request, until

ALLOWED_HEADERS = (
    b"Accept",
    b"Accept-Encoding",
    b"Authorization",
    b"Content-Length",
    b"Content-Type",
    b"X-CSRF-Token",
    b"X-HTTP-Method-Override",
)


class HeaderTests(HTTPTestCase):
    """The headers of every answer."""

    async def test_everywhere(self) -> None:
        """Every answer has a date, the version, and a request id of its own, under both names."""
        await self.begin(answer(204), answer(400, b"bad"), answer(503, b"down"), max_body_size=1000)
        ids = set()
        for data in (
            *[request()] * 3,
            request(body=b""),
            request(b"/write"),
            request(b"/nothing"),
            request(method=b"PUT"),
            request(body=b"", method=b"OPTIONS"),
            request(b"/ping", b"", method=b"GET"),
            request(b"/write?db=db", LINE, b"Content-Encoding: br"),
            request(body=b"", length=1001),
        ):
            found = await self.asked(data)
            self.assertEqual(found.header("X-Influxdb-Version"), f"relay-{__version__}".encode())
            self.assertRegex(found.header("Date") or b"", rb"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
            self.assertRegex(found.header("Request-Id") or b"", rb"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
            self.assertEqual(found.header("Request-Id"), found.header("X-Request-Id"))
            ids.add(found.header("Request-Id"))
        self.assertEqual(len(ids), 11)

    async def test_malformed_requests(self) -> None:
        """A request that is no HTTP is answered 400 with the headers of every answer, and the connection ends."""
        await self.begin()
        for data in (
            b"nonsense\r\n\r\n",
            request(b"/write?db=db", b"", b"Content-Length: many", length=-1),
            request(b"/write?db=db", b"", b"Content-Length: " + b"9" * 5000, length=-1),
            request(b"/write?db=db", LINE, b"Content-Length: 5"),
            request(b"/write?db=db", b"zz\r\n\r\n", b"Transfer-Encoding: chunked", length=-1),
            request(b"/write?db=db", LINE, b"Transfer-Encoding: chunked"),
            request(b"/write?db=db", b"", b"Broken header", length=-1),
        ):
            with self.subTest(data=data[:80]):
                user = await self.client(self.service)
                user.send(data)
                await until(lambda: user.closed)
                head = user.unread
                self.assertTrue(head.startswith(b"HTTP/1.1 400 "), head)
                self.assertIn(b"\r\nX-Influxdb-Version: relay-", head)
                self.assertIn(b"\r\nConnection: close\r\n", head)
        self.assert_not_asked()

    async def test_request_id(self) -> None:
        """The client's X-Request-Id, else its Request-Id, comes back under both names."""
        await self.begin()
        for headers, expected in (
            ((b"X-Request-Id: mine",), b"mine"),
            ((b"Request-Id: other",), b"other"),
            ((b"Request-Id: other", b"X-Request-ID: mine"), b"mine"),
            ((b"X-Request-Id: one", b"X-Request-Id: two"), b"one"),
        ):
            for target in (b"/write?db=db", b"/write"):
                found = await self.asked(request(target, LINE, *headers))
                self.assertEqual(found.header("X-Request-Id"), expected)
                self.assertEqual(found.header("Request-Id"), expected)

    async def test_nasty_request_id(self) -> None:
        """A request id cannot put headers into the answer."""
        await self.begin()
        for value in (b"a\nSet-Cookie: b", b"a\rSet-Cookie: b", b"a\r\n Set-Cookie: b", b"\nSet-Cookie: b"):
            user = await self.client(self.service)
            user.send(request(b"/write?db=db", LINE, b"X-Request-Id: " + value))
            await until(lambda: b"\r\n\r\n" in user.unread)
            lines = re.split(rb"[\r\n]+", user.unread)
            self.assertEqual([line for line in lines if line.startswith(b"Set-Cookie")], [], value)

    async def test_header_oddities(self) -> None:
        """Odd header values, folded, empty or not ASCII, do no harm."""
        await self.begin()
        for header in (
            b"X-Odd: \xff\xfe",
            b"X-Folded: a\r\n  b",
            b"X-Empty:",
            b"Cookie: a=b; c",
            b"content-type:text/x",
        ):
            self.assertEqual((await self.asked(request(b"/write?db=db", LINE, header))).status, 204, header)


class BrowserTests(HTTPTestCase):
    """Requests of web pages, which have an ``Origin``."""

    origin = b"https://grafana.example.org"

    def assert_allowed(self, found: Answer, origin: bytes) -> None:
        """Check the headers that InfluxDB adds for an origin."""
        for name, value in (
            ("Allow-Origin", origin),
            ("Allow-Methods", b"DELETE, GET, OPTIONS, POST, PUT"),
            (
                "Allow-Headers",
                b", ".join(ALLOWED_HEADERS),
            ),
            ("Expose-Headers", b"Date, X-InfluxDB-Version, X-InfluxDB-Build"),
        ):
            self.assertEqual(found.header(f"Access-Control-{name}"), value)

    def assert_nothing_allowed(self, found: Answer) -> None:
        """Check that nothing is said about origins."""
        self.assertFalse([name for name, _ in found.headers if name.startswith(b"access-control")])

    async def test_all(self) -> None:
        """Every response to a web page has InfluxDB's headers, preflights and errors too; no other response has."""
        await self.begin(answer(204), answer(400, b"bad"), answer(204), max_body_size=1000)
        for data, status in (
            (request(b"/write", b"", b"Access-Control-Request-Method: POST", method=b"OPTIONS"), 204),
            (request(), 204),
            (request(), 400),
            (request(b"/write"), 400),
            (request(b"/nothing"), 404),
            (request(b"/ping", b"", method=b"GET"), 204),
            (request(body=b"", length=1001), 413),
        ):
            head, end, body = data.partition(b"\r\n\r\n")
            user = await self.client(self.service)
            found = await user.ask(head, b"\r\nOrigin: " + self.origin, end, body)
            self.assertEqual(found.status, status)
            self.assert_allowed(found, self.origin)
        self.assert_nothing_allowed(await self.asked(request()))

    async def test_some(self) -> None:
        """With ``cors-origins`` only those that it names are answered so, however they spell a host's name."""
        await self.begin(cors_origins=("https://grafana.example.org", "http://localhost:3000"))
        for origin in (self.origin, b"http://LOCALHOST:3000"):
            self.assert_allowed(await self.asked(request(b"/write?db=db", LINE, b"Origin: " + origin)), origin)
        for origin in (b"https://example.org", b"http://grafana.example.org", b"http://localhost", b"null", b"*", b""):
            found = await self.asked(request(b"/write?db=db", LINE, b"Origin: " + origin))
            self.assertEqual(found.status, 204)
            self.assert_nothing_allowed(found)

    async def test_none(self) -> None:
        """An empty list allows none."""
        await self.begin(cors_origins=())
        self.assert_nothing_allowed(await self.asked(request(b"/write?db=db", LINE, b"Origin: " + self.origin)))


class AccessLogTests(HTTPTestCase):
    """``access-log``."""

    async def _lines(self, relay: HTTPService, user: Client, *requests: bytes) -> list[str]:
        events = watch_events(self)
        for each in requests:
            await user.ask(each)
        return [
            event["log_format"].format(**event)
            for event in events
            if event["log_namespace"].endswith("RelaySite") and "{client}" in (event["log_format"] or "")
        ]

    async def test_lines(self) -> None:
        """Each answer is one line, without credentials."""
        await self.begin(access_log=True, max_body_size=1000)
        lines = await self._lines(
            self.service,
            self.user,
            request(b"/write?db=db&u=secret&p=secret&precision=s"),
            request(b"/ping", b"", method=b"GET"),
            request(b"/nothing%ff"),
        )
        self.assertEqual(
            lines,
            [
                "127.0.0.1 POST /write?db=db&precision=s 204 0",
                "127.0.0.1 GET /ping 204 0",
                "127.0.0.1 POST /nothing%ff 404 22",
            ],
        )

    async def test_refused(self) -> None:
        """A request that is refused before its body is complete has its line too."""
        await self.begin(access_log=True, max_body_size=10)
        lines = await self._lines(self.service, self.user, request(b"/write?db=db", b"#" * 50))
        self.assertEqual(lines, ["127.0.0.1 POST /write?db=db 413 37"])

    async def test_unix(self) -> None:
        """A client on a Unix socket, which has no address, has its line."""
        path = self.mktemp()
        relay = self.relay(self.backend(), endpoint=f"unix:{path}", access_log=True)
        lines = await self._lines(relay, await self.client(relay), request())
        self.assertEqual([line.partition(" ")[2] for line in lines], ["POST /write?db=db 204 0"])

    async def test_off(self) -> None:
        """Without access-log nothing is logged for a request."""
        await self.begin()
        self.assertEqual(await self._lines(self.service, self.user, request()), [])


class ForwardingTests(RelayTestCase):
    """What a backend receives."""

    async def _received(self, data: bytes, **settings: Any) -> tuple[Any, ScriptedBackend]:
        backend = self.backend()
        relay = self.relay(self.output(backend, **settings))
        self.assertEqual((await self.ask(relay, data)).status, 204)
        return backend.requests[0], backend

    async def test_request(self) -> None:
        """A write travels as a POST with the client's query string, and headers of the relay's own."""
        query = b"db=a%20b&rp=x&precision=ns&consistency=ONE&u=me&p=p%26w&other=1&other=2"
        found, backend = await self._received(request(b"/write?" + query, LINE, b"X-Other: 1", b"Cookie: a=b"))
        self.assertEqual((found.method, found.path, found.query, found.body), (b"POST", b"/write", query, LINE))
        self.assertEqual(found.header("Host"), b"127.0.0.1:%d" % backend.port)
        self.assertEqual(found.header("User-Agent"), b"influxrelay/" + __version__.encode())
        self.assertEqual(found.header("Content-Length"), b"%d" % len(LINE))
        self.assertEqual(found.header("Content-Type"), b"text/plain; charset=utf-8")
        for name in ("Authorization", "X-Other", "Cookie", "Content-Encoding", "Transfer-Encoding"):
            self.assertIsNone(found.header(name))

    async def test_authorization(self) -> None:
        """The client's Authorization arrives unchanged."""
        for value in (b"Basic dTpw", b"Token a:b", b"Bearer x.y.z", b"Odd \xe9"):
            found, _ = await self._received(request(b"/write?db=db", LINE, b"Authorization: " + value))
            self.assertEqual(found.header("Authorization"), value)

    async def test_own_password(self) -> None:
        """An output's own user and password replace all credentials of the client."""
        data = request(b"/write?u=me&db=db&p=pw&%75=me&rp=x", LINE, b"Authorization: Token theirs")
        found, _ = await self._received(data, username="relay", password="päss:word")
        self.assertEqual(found.header("Authorization"), b"Basic cmVsYXk6cMOkc3M6d29yZA==")
        self.assertEqual(found.query, b"db=db&rp=x")

    async def test_own_token(self) -> None:
        """An output's own token replaces all credentials of the client."""
        data = request(b"/write?u=me&db=db&p=pw", LINE, b"Authorization: Basic dTpw")
        found, _ = await self._received(data, token="abc:def")
        self.assertEqual(found.header("Authorization"), b"Token abc:def")
        self.assertEqual(found.query, b"db=db")

    async def test_own_credentials_for_one(self) -> None:
        """One output's credentials do not reach another output."""
        first, second = self.backend(), self.backend()
        relay = self.relay(self.output(first, token="secret"), second)
        await self.ask(relay, request(b"/write?db=db&u=a&p=b", LINE, b"Authorization: Basic dTpw"))
        await until(lambda: first.requests and second.requests)
        self.assertEqual(first.requests[0].header("Authorization"), b"Token secret")
        self.assertEqual(second.requests[0].header("Authorization"), b"Basic dTpw")
        self.assertEqual(second.requests[0].query, b"db=db&u=a&p=b")

    async def test_gzip(self) -> None:
        """With gzip bodies travel compressed, and say so."""
        body = LINE * 1000
        found, _ = await self._received(request(body=body), gzip=True)
        self.assertEqual(found.header("Content-Encoding"), b"gzip")
        self.assertEqual(gzip.decompress(found.body), body)
        self.assertLess(len(found.body), len(body) / 10)

    async def test_another_path(self) -> None:
        """The output's path is asked, whatever it is."""
        backend = self.backend()
        output = HTTPOutputConfig("one", backend.url, f"http://127.0.0.1:{backend.port}/a/b;c", backend.url)
        await self.ask(self.relay(output), request())
        self.assertEqual((backend.requests[0].path, backend.requests[0].query), (b"/a/b;c", b"db=db"))
