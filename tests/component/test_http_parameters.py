"""What a write's parameters, method and path mean, before a backend is asked."""

from __future__ import annotations

from typing import Any

from influxrelay import __version__
from testing.http_case import HTTPTestCase
from testing.scripted import request

PRECISIONS = "use n, ns, u, ms, s, m or h"


class ParameterTests(HTTPTestCase):
    """The query string of a write."""

    async def test_no_database(self) -> None:
        """A write without db is refused in InfluxDB's words."""
        await self.begin()
        for target in (b"/write", b"/write?", b"/write?db=", b"/write?rp=db", b"/write?DB=db", b"/write?&&=&db"):
            self.assert_error(await self.asked(request(target)), 400, "database is required")
        self.assert_not_asked()

    async def test_bytes_of_an_error(self) -> None:
        """An error of the relay's own has InfluxDB's form to the byte."""
        await self.begin()
        found = await self.asked(request(b"/write"))
        self.assertEqual(found.body, b'{"error":"database is required"}\n')
        self.assertEqual(found.header("X-Influxdb-Error"), b"database is required")
        self.assertEqual(found.header("Content-Type"), b"application/json")
        self.assertEqual(found.header("Content-Length"), b"33")

    async def test_precision(self) -> None:
        """Each precision that InfluxDB knows is taken, and sent on as written."""
        await self.begin()
        for precision in (b"", b"n", b"ns", b"u", b"ms", b"s", b"m", b"h"):
            query = b"db=db&precision=" + precision
            self.assertEqual((await self.asked(request(b"/write?" + query))).status, 204)
            self.assertEqual(self.server.requests[-1].query, query)

    async def test_bad_precision(self) -> None:
        """Another precision is refused with the value and the allowed ones."""
        await self.begin()
        for precision in ("us", "S", "NS", "nano", "1", "ms ", "rfc3339"):
            target = b"/write?db=db&precision=" + precision.replace(" ", "+").encode()
            self.assert_error(await self.asked(request(target)), 400, f'invalid precision "{precision}" ({PRECISIONS})')
        self.assert_not_asked()

    async def test_nasty_precision(self) -> None:
        """A value of any bytes is named without breaking the header or the JSON."""
        await self.begin()
        found = await self.asked(request(b"/write?db=db&precision=%0d%0aSet-Cookie:%20a%22%00%ff%c3%a9"))
        self.assertEqual((found.status, found.header("Set-Cookie")), (400, None))
        self.assertIn(rb"\"", found.body)
        self.assertFalse([value for _, value in found.headers if b"\r" in value or b"\n" in value or b"\0" in value])

    async def test_consistency(self) -> None:
        """Consistency "one" is taken in any case, and so is none."""
        await self.begin()
        for word in (b"one", b"One", b"ONE", b""):
            self.assertEqual((await self.asked(request(b"/write?db=db&consistency=" + word))).status, 204, word)

    async def test_other_consistency(self) -> None:
        """Every consistency that InfluxDB knows is taken, in any case."""
        await self.begin()
        for word in (b"any", b"quorum", b"all", b"ALL"):
            self.assertEqual((await self.asked(request(b"/write?db=db&consistency=" + word))).status, 204, word)

    async def test_unknown_consistency(self) -> None:
        """An unknown consistency is refused with the value and the allowed ones."""
        await self.begin()
        found = await self.asked(request(b"/write?db=db&consistency=most"))
        self.assert_error(found, 400, 'invalid consistency level "most" (use any, one, quorum or all)')

    async def test_query_oddities(self) -> None:
        """Queries are read as InfluxDB reads them, and sent on as they are."""
        await self.begin()
        for query in (
            b"db=a&db=b",
            b"db=a%20b%2Fc&rp=d+e",
            b"%64%62=x",
            b"db=x&rp=%zz",
            b"db=x&y",
            b"db=x&&z=",
            b"db=a=b",
            b"db=x?y",
            b"db=%C3%A9",
            b"db=x&debug=1;2",
            b"db=x/y:z@,!$'()*~|^`{}<>[]\\\"",
        ):
            self.assertEqual((await self.asked(request(b"/write?" + query))).status, 204, query)
            self.assertEqual(self.server.requests[-1].query, query)

    async def test_broken_escape(self) -> None:
        """A parameter with a broken escape counts as not given."""
        await self.begin()
        for query in (b"db=%zz", b"db=%4", b"db=%", b"%6=x&d%62%=x"):
            self.assert_error(await self.asked(request(b"/write?" + query)), 400, "database is required")

    async def test_raw_non_ascii(self) -> None:
        """Bytes beyond ASCII, which may not be in a URL, are sent on escaped."""
        await self.begin()
        self.assertEqual((await self.asked(request("/write?db=é%20x".encode()))).status, 204)
        self.assertEqual(self.server.requests[0].query, b"db=%C3%A9%20x")

    async def test_number_sign(self) -> None:
        """A number sign in the query is part of it for the backend too, as for InfluxDB (``url.ParseRequestURI``)."""
        await self.begin()
        self.assertEqual((await self.asked(request(b"/write?db=a#b"))).status, 204)
        self.assertIn(self.server.requests[0].query, (b"db=a#b", b"db=a%23b"))

    async def test_default_retention_policy(self) -> None:
        """An empty or missing rp is filled in; one that is given stays."""
        await self.begin(default_retention_policy="a b&c")
        for query, sent in (
            (b"db=x", b"db=x&rp=a+b%26c"),
            (b"db=x&rp=&precision=s", b"db=x&precision=s&rp=a+b%26c"),
            (b"db=x&rp=own", b"db=x&rp=own"),
        ):
            await self.asked(request(b"/write?" + query, b"cpu v=1 1"))
            self.assertEqual(self.server.requests[-1].query, sent)

    async def test_many_destinations(self) -> None:
        """The relay remembers no more than so many destinations, and none with a long query."""
        self.patch(__import__("influxrelay.http.write_resource", fromlist=["x"]), "_MEMORY", 4)
        await self.begin()
        for number in range(10):
            query = b"db=d%d" % number
            await self.asked(request(b"/write?" + query))
            await self.asked(request(b"/write?" + query + b"&x=" + b"y" * 2000))
        resource: Any = self.service.root.children[b"write"]
        self.assertLessEqual(len(resource._routes), 4)
        self.assertEqual(max(len(query) for query, _, _ in resource._routes), 5)


class MethodAndPathTests(HTTPTestCase):
    """What is there, and what may be done with it."""

    async def test_options(self) -> None:
        """OPTIONS on /write tells what is allowed."""
        await self.begin()
        found = await self.asked(request(b"/write", b"", method=b"OPTIONS"))
        self.assertEqual((found.status, found.header("Allow"), found.body), (204, b"POST", b""))

    async def test_other_methods(self) -> None:
        """Another method on /write is not allowed."""
        await self.begin()
        for method in (b"GET", b"PUT", b"DELETE", b"PATCH", b"post", b"BREW"):
            found = await self.asked(request(method=method))
            self.assert_error(found, 405, "method not allowed")
            self.assertEqual(found.header("Allow"), b"POST")
        self.assert_not_asked()

    async def test_head(self) -> None:
        """HEAD on /write is not allowed, and is told so without a body."""
        await self.begin()
        self.user.send(request(body=b"", method=b"HEAD"), request())
        found = await self.user.answer(to_head=True)
        self.assertEqual((found.status, found.header("Allow")), (405, b"POST"))
        self.assertEqual((await self.user.answer()).status, 204)

    async def test_unknown_paths(self) -> None:
        """An unknown path is answered 404 in JSON."""
        await self.begin()
        for path in (
            b"/",
            b"/writes",
            b"/write/",
            b"/write/x",
            b"//write",
            b"/WRITE",
            b"/%",
            b"/%zz",
            b"*",
            b"/write;x",
        ):
            self.assert_error(await self.asked(request(path + b"?db=db")), 404, "not found")
        self.assert_not_asked()

    async def test_other_forms_of_the_path(self) -> None:
        """A path may be escaped, and be part of a whole URL."""
        await self.begin()
        for target in (
            b"/%77rite?db=db",
            b"/wr%69te?db=db",
            b"http://relay:9096/write?db=db",
            b"HTTP://relay/write?db=db",
            b"https://[::1]:1/%77rite?db=db",
        ):
            self.assertEqual((await self.asked(request(target))).status, 204, target)
            self.assertEqual(self.server.requests[-1].query, b"db=db")

    async def test_ping(self) -> None:
        """/ping is answered 204 with the relay's version."""
        await self.begin()
        for method in (b"GET", b"HEAD"):
            for target in (b"/ping", b"/ping?verbose=false", b"/ping?verbose=0", b"/ping?verbose=", b"/ping?x=1"):
                found = await self.asked(request(target, b"", method=method))
                self.assertEqual((found.status, found.body), (204, b""))
                self.assertEqual(found.header("X-Influxdb-Version"), f"relay-{__version__}".encode())
        self.assert_not_asked()

    async def test_verbose_ping(self) -> None:
        """/ping?verbose=true is answered with the version in JSON."""
        await self.begin()
        for target in (b"/ping?verbose=true", b"/ping?verbose=1", b"/ping?verbose=x"):
            found = await self.asked(request(target, b"", method=b"GET"))
            self.assertEqual(found.status, 200)
            self.assertEqual(found.body, b'{"version":"relay-%b"}\n' % __version__.encode())
            self.assertEqual(found.header("Content-Type"), b"application/json")

    async def test_verbose_ping_head(self) -> None:
        """HEAD on /ping?verbose=true gets the headers only, and the connection goes on."""
        await self.begin()
        self.user.send(request(b"/ping?verbose=true", b"", method=b"HEAD"))
        found = await self.user.answer(to_head=True)
        self.assertEqual(
            (found.status, found.header("Content-Length")), (200, b"%d" % len(f'{{"version":"relay-{__version__}"}}\n'))
        )
        self.assertEqual((await self.asked(request())).status, 204)

    async def test_first_verbose_counts(self) -> None:
        """Of a flag given twice the first counts, as with Go's ``url.Values.Get``."""
        await self.begin()
        found = await self.asked(request(b"/ping?verbose=false&verbose=true", b"", method=b"GET"))
        self.assertEqual(found.status, 204)

    async def test_default_ping_response(self) -> None:
        """/ping is answered with the configured status."""
        await self.begin(default_ping_response=200)
        found = await self.asked(request(b"/ping", b"", method=b"GET"))
        self.assertEqual((found.status, found.body, found.header("Content-Length")), (200, b"", b"0"))

    async def test_ping_with_other_methods(self) -> None:
        """Only GET and HEAD ping."""
        await self.begin()
        found = await self.asked(request(b"/ping", b""))
        self.assert_error(found, 405, "method not allowed")
        self.assertEqual(found.header("Allow"), b"GET, HEAD")
