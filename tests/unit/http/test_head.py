"""Heads of requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.http import head as head_module
from influxrelay.http.head import MAX_HEAD, HeadCache, HeadError, check_beginning, find_end, parse_head

LINE = b"POST /write?db=db HTTP/1.1\r\n"


def _head(*headers: bytes, line: bytes = LINE) -> bytes:
    return line + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


class ParseTests(SynchronousTestCase):
    """:func:`parse_head`."""

    def assert_refused(self, raw: bytes, status: int) -> None:
        """Check that a head is refused."""
        self.assertEqual(self.assertRaises(HeadError, parse_head, raw).status, status, raw)

    def test_fields(self) -> None:
        """A head is taken apart."""
        head = parse_head(_head(b"Host: x", b"content-LENGTH: 12", b"Authorization:  Token a:b \t", b"X-Empty:"))
        self.assertEqual((head.method, head.path, head.query, head.length), (b"POST", b"/write", b"db=db", 12))
        self.assertEqual(head.authorization, b"Token a:b")
        self.assertEqual((head.header(b"x-empty"), head.header(b"x-missing")), (b"", b""))
        self.assertEqual((head.chunked, head.keep_alive, head.expects_continue), (False, True, False))

    def test_first_value(self) -> None:
        """Of a header that is there twice the first value counts, and both can be had."""
        head = parse_head(_head(b"X-A: one", b"x-a: two", b"Content-Encoding: a", b"Content-Encoding: gzip"))
        self.assertEqual((head.header(b"x-a"), head.values(b"x-a")), (b"one", [b"one", b"two"]))
        self.assertEqual(head.encoding, b"a,gzip")

    def test_line_ends(self) -> None:
        """A bare LF ends each line, the first and the last included, as in Go; so do both kinds mixed."""
        expected = parse_head(_head(b"Host: x", b"Content-Length: 3")).headers
        lines = [b"POST /write?db=db HTTP/1.1", b"Host: x", b"Content-Length: 3", b""]
        for ends in range(16):
            raw = b"".join(line + (b"\n" if ends >> index & 1 else b"\r\n") for index, line in enumerate(lines))
            self.assertEqual(find_end(raw + b"\n\nmore", 0), len(raw))
            self.assertEqual(parse_head(raw).headers, expected, raw)

    def test_folded_lines(self) -> None:
        """A folded header is one line, as in Go."""
        for fold in (b"\r\n ", b"\n\t", b"\r\n  \t "):
            self.assertEqual(parse_head(_head(b"X-A: b" + fold + b"c")).header(b"x-a"), b"b c")
        self.assert_refused(_head(b" X-A: b"), 400)

    def test_request_lines(self) -> None:
        """Any token is a method, and any target without blanks is one; what is not ASCII in it is escaped."""
        for line, method, path, query in (
            (b"BREW /x HTTP/1.1", b"BREW", b"/x", b""),
            (b"get /x?? HTTP/1.0", b"get", b"/x", b"?"),
            (b"M-SEARCH * HTTP/1.1", b"M-SEARCH", b"*", b""),
            (b"GET http://relay:9096/a/b?c=d HTTP/1.1", b"GET", b"/a/b", b"c=d"),
            (b"GET HTTP://relay HTTP/1.1", b"GET", b"/", b""),
            (b"GET http://relay?c HTTP/1.1", b"GET", b"/", b"c"),
            (b"GET /a\xff?b=\xc3\xa9 HTTP/1.1", b"GET", b"/a%FF", b"b=%C3%A9"),
            (b"CONNECT relay:80 HTTP/1.1", b"CONNECT", b"relay:80", b""),
            (b"GET /x#y?z HTTP/1.2", b"GET", b"/x#y", b"z"),
        ):
            head = parse_head(_head(line=line + b"\r\n"))
            self.assertEqual((head.method, head.path, head.query), (method, path, query), line)

    def test_routes(self) -> None:
        """A route is the path without its escapes; what does not begin with a slash has none."""
        for target, route in ((b"/%77rite", b"/write"), (b"/%zz", b"/%zz"), (b"*", b""), (b"xwrite", b"")):
            self.assertEqual(parse_head(_head(line=b"GET " + target + b" HTTP/1.1\r\n")).route, route)

    def test_wrong_request_lines(self) -> None:
        """What is no request line is refused, as soon as it is there."""
        for line, status in (
            (b"nonsense", 400),
            (b"GET  /x HTTP/1.1", 400),
            (b"GET /x y HTTP/1.1", 400),
            (b"GET /x", 400),
            (b"GET /x http/1.1", 400),
            (b"GET /x HTTP/1.11", 400),
            (b"G\0T /x HTTP/1.1", 400),
            (b"GET /\x7f HTTP/1.1", 400),
            (b"GET /x HTTP/2.0", 505),
            (b"\x16\x03\x01\x02\x00", 400),
        ):
            self.assert_refused(line + b"\r\n\r\n", status)
            found = self.assertRaises(HeadError, check_beginning, b"xx" + line + b"\nHost", 2)
            self.assertEqual(found.status, status)

    def test_wrong_headers(self) -> None:
        """What is no header is refused, and so is what could be read in two ways."""
        for headers, status in (
            ([b"Broken header"], 400),
            ([b"X A: b"], 400),
            ([b"X-A : b"], 400),
            ([b": b"], 400),
            ([b"X-A: b\rc"], 400),
            ([b"X-A: b\0"], 400),
            ([b"Content-Length: many"], 400),
            ([b"Content-Length: +5"], 400),
            ([b"Content-Length: -5"], 400),
            ([b"Content-Length: 0x5"], 400),
            ([b"Content-Length:"], 400),
            ([b"Content-Length: 5, 5"], 400),
            ([b"Content-Length: " + b"9" * 5000], 400),
            ([b"Content-Length: 5", b"Content-Length: 5"], 400),
            ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], 400),
            ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], 400),
            ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400),
            ([b"Transfer-Encoding: chunked, identity"], 400),
            ([b"Transfer-Encoding: gzip, chunked"], 501),
            ([b"Expect: 200-ok"], 417),
        ):
            self.assert_refused(_head(*headers), status)
        self.assert_refused(_head(b"Transfer-Encoding: chunked", line=b"POST /write HTTP/1.0\r\n"), 400)

    def test_offer_of_another_protocol(self) -> None:
        """Java's client offers HTTP/2 with its first request, which is read as any other."""
        head = parse_head(_head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"Content-Length: 5"))
        self.assertEqual((head.length, head.keep_alive), (5, True))

    def test_keep_alive(self) -> None:
        """HTTP/1.1 stays open but for "close" in any list, and HTTP/1.0 ends but for "keep-alive"."""
        for line, header, stays in (
            (LINE, b"Connection: keep-alive", True),
            (LINE, b"connection: TE,  Close", False),
            (LINE, b"Connection: closed", True),
            (b"GET / HTTP/1.0\r\n", b"X: y", False),
            (b"GET / HTTP/1.0\r\n", b"Connection: Keep-Alive", True),
            (b"GET / HTTP/1.0\r\n", b"Connection: Keep-Alive, close", False),
        ):
            self.assertIs(parse_head(_head(header, line=line)).keep_alive, stays, header)

    def test_expect(self) -> None:
        """A client of HTTP/1.1 may ask whether to go on."""
        self.assertTrue(parse_head(_head(b"Expect: 100-Continue")).expects_continue)
        self.assertFalse(parse_head(_head(b"Expect: 100-continue", line=b"GET / HTTP/1.0\r\n")).expects_continue)

    def test_limits(self) -> None:
        """A head has a hundred headers and 16 KiB, complete or not."""
        for headers in ([b"X: y"] * 101, [b"X: " + b"y" * MAX_HEAD]):
            raw = _head(*headers)
            self.assert_refused(raw, 431)
            self.assertEqual(self.assertRaises(HeadError, check_beginning, raw[:-2], 0).status, 431)
        raw = _head(*[b"X: y"] * 100)
        check_beginning(raw[:-2], 0)
        self.assertEqual(len(parse_head(raw).headers), 100)


class CacheTests(SynchronousTestCase):
    """:class:`HeadCache`."""

    HEADS = (
        _head(b"Host: x", b"Content-Length: 3"),
        _head(b"Host: x", b"Content-Length: 300"),
        _head(b"Host: x", b"content-length: 3", b"X-A: b"),
        _head(b"Host: x", b"X-Length: 3", b"Content-Length: 4"),
        _head(b"Host: x", b"Content-Length: 4", b"X-Length: 3"),
        _head(b"Host: x", b"Content-Length:5"),
        _head(b"Host: x", b"Content-Length:  6"),
        _head(b"Host: x", b"Content-Length: 7 "),
        _head(b"Host: x", b"Content-Length: 008"),
        _head(b"Host: x", b"Authorization: Token a"),
        _head(b"Host: x", b"Authorization: Token b"),
        _head(b"Host: x", b"X: ength: 9"),
        _head(b"Host: x", b"Transfer-Encoding: chunked"),
        _head(b"Host: x", line=b"POST /x?ength:1 HTTP/1.1\r\n"),
        _head(b"Host: x", b"Content-L"),
        _head(b"Host: x", b"Content-Length: "),
        _head(b"Host: x", b"Content-Length: x"),
        _head(b"Host: x", b"Content-Length: " + b"1" * 30),
        LINE + b"Host: x\n\nContent-Length: 3\r\n\r\n",
        LINE + b"Host: x\n\r\nContent-Length: 3\r\n\r\n",
    )

    def find(self, cache: HeadCache, raw: bytes) -> object:
        """Return what a cache knows of a head, in the middle of other data."""
        data = b"...." + raw + b"more\r\n\r\n"
        found = cache.find(data, 4, data.index(b"\r\n\r\n", 4))
        return None if found is None else (found[0].headers, found[0].query, found[1])

    def read(self, raw: bytes) -> tuple[object, bytes] | None:
        """Return what a head says by itself, and the bytes of it; None if it is refused."""
        complete = raw[: find_end(raw, 0)]
        try:
            head = parse_head(complete)
        except HeadError:
            return None
        return (head.headers, head.query, head.length), complete

    @given(st.lists(st.sampled_from(HEADS), min_size=1, max_size=6), st.sampled_from(HEADS))
    def test_never_wrong(self, before: list[bytes], wanted: bytes) -> None:
        """Whatever a cache has seen, it knows a head as it is read by itself, but for the length's digits, or not."""
        cache = HeadCache()
        for raw in before:
            read = self.read(raw)
            if read is not None:
                cache.keep(read[1], parse_head(read[1]))
        found, read = self.find(cache, wanted), self.read(wanted)
        if found is not None:
            assert isinstance(found, tuple)
            self.assertIsNotNone(read)
            assert read is not None
            expected, complete = read
            assert isinstance(expected, tuple)
            self.assertEqual(complete, wanted)
            self.assertEqual(found[1:], expected[1:])
            self.assertEqual([name for name, _ in found[0]], [name for name, _ in expected[0]])

    def test_usual_heads(self) -> None:
        """The same head is known again, with any length."""
        cache = HeadCache()
        for raw in self.HEADS[:3]:
            cache.keep(raw, parse_head(raw))
        self.assertEqual(len(cache), 2)
        for length in (b"3", b"17", b"000"):
            found = self.find(cache, _head(b"Host: x", b"Content-Length: " + length))
            assert isinstance(found, tuple)
            self.assertEqual(found[2], int(length))
        self.assertIsNone(self.find(cache, _head(b"Host: y", b"Content-Length: 3")))

    def test_bounds(self) -> None:
        """A cache holds so many heads, and no long ones."""
        self.patch(head_module, "_CACHED_HEADS", 4)
        cache = HeadCache()
        for number in range(20):
            raw = _head(b"X: %d" % number)
            cache.keep(raw, parse_head(raw))
            self.assertLessEqual(len(cache), 4)
        raw = _head(b"X: " + b"y" * 3000)
        cache.keep(raw, parse_head(raw))
        self.assertIsNone(self.find(cache, raw))
