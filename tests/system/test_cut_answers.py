"""What a client gets when a proxy before a backend cuts InfluxDB's answers, at every byte of each kind of them."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlencode

from isal import igzip
from twisted.internet.threads import deferToThread

from testing.scripted import Action, BackendConnection, RelayTestCase, parse_head, raw, request
from testing.servers import LOOPBACK, Influxd

DATABASE = "cut"
Q = "SELECT v, s FROM m"
KINDS: dict[str, tuple[dict[str, str], tuple[bytes, ...]]] = {  # more parameters, and headers
    "whole": ({}, ()),
    "chunked": ({"chunked": "true", "chunk_size": "2"}, ()),
    "gzip": ({}, (b"Accept-Encoding: gzip",)),
    "chunked gzip": ({"chunked": "true", "chunk_size": "2"}, (b"Accept-Encoding: gzip",)),
    "csv": ({}, (b"Accept: application/csv",)),
    "refused": ({"q": "SELECT v FROM"}, ()),  # which has a Content-Length
}


def ask(port: int, sent: bytes) -> bytes:
    """Return all that a server says until it closes the connection."""
    with socket.create_connection((LOOPBACK, port), 60) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def asking(kind: str, *headers: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """Return a request."""
    parameters, more = KINDS[kind]
    target = "/query?" + urlencode({"db": DATABASE, "q": Q, "epoch": "ns", **parameters})
    return request(target.encode(), b"", *more, *headers, method=b"GET", version=version, length=-1)


def body_of(received: bytes, *, at_end: bool = False) -> bytes | None:
    """Return the decoded body of a response as a client understands it; None if it is not complete.

    :param at_end: whether the end of the connection, which was no break, is the end of a body.
    """
    head, there, rest = received.partition(b"\r\n\r\n")
    if not there:
        return None
    headers = dict(parse_head(head)[1])
    body: bytes | None
    if headers.get(b"transfer-encoding") == b"chunked":
        body = _unchunked(rest)
    elif b"content-length" in headers:
        body = rest if len(rest) == int(headers[b"content-length"]) else None
    else:
        body = rest if at_end else None
    return igzip.decompress(body) if body and headers.get(b"content-encoding") == b"gzip" else body


def _unchunked(data: bytes) -> bytes | None:
    body = b""
    while data:
        size, there, rest = data.partition(b"\r\n")
        if not there or len(rest) < int(size, 16) + 2:
            return None
        if not int(size, 16):
            return body
        body, data = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return None


class Cuts:
    """Sends a part of an answer, and all of it whenever it is asked again.

    :ivar at: where the next answer is cut; None for all of it.
    :ivar count: how many requests have come.
    """

    def __init__(self, full: bytes, end: str) -> None:
        self.full = full
        self.at: int | None = None
        self.count = 0
        self._end = end

    def __call__(self, connection: BackendConnection) -> None:
        """Answer."""
        at, self.at = self.at, None
        self.count += 1
        action: Action = raw(self.full, "close") if at is None else raw(self.full[:at], self._end)
        action(connection)


class CutTests(RelayTestCase):
    """Two backends that send what a real server has sent, behind a relay."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Record the answers of a server."""
        server = Influxd(Path(self.mktemp()))
        self.addCleanup(deferToThread, server.stop)
        await deferToThread(server.start)
        await deferToThread(server.create_database, DATABASE)
        await deferToThread(server.write, "".join(f'm v={n}i,s="x{n}" {n}\n' for n in range(1, 6)), DATABASE)
        close = b"Connection: close"
        self.answers = {kind: await deferToThread(ask, server.http_port, asking(kind, close)) for kind in KINDS}
        for answer in self.answers.values():  # the proxy keeps connections
            self.assertIn(b"Connection: close\r\n", answer)

    async def check(self, kind: str, end: str, version: bytes = b"HTTP/1.1") -> tuple[int, int]:
        """Cut an answer at every byte; return how many clients got it all, and how many saw their connection break."""
        full = self.answers[kind].replace(b"Connection: close\r\n", b"")
        cuts = Cuts(full, end)
        relay = self.relay(self.backend(cuts), self.backend(cuts))
        expected = body_of(self.answers[kind])
        body_at = full.index(b"\r\n\r\n") + 4
        whole = broken = 0
        for at in range(len(full)):
            cuts.at, cuts.count = at, 0
            client = await self.client(relay)
            client.send(asking(kind, b"Connection: close", version=version))
            received = await client.end()
            body = body_of(received, at_end=not client.was_reset)
            if body is None:
                broken += 1
                self.assertGreater(at, body_at, full[:at])
                self.assertEqual(cuts.count, 1, full[:at])
                self.assertTrue(client.was_reset, full[:at])
            else:
                whole += 1
                self.assertEqual(body, expected, full[:at])
                self.assertEqual(cuts.count, 2, full[:at])
        self.assertGreaterEqual(whole, body_at)
        return whole, broken

    async def test_whole(self) -> None:
        """An answer in one piece is had from the other backend, or the client sees its connection break."""
        self.check_both(await self.check("whole", "close"))

    async def test_chunked(self) -> None:
        """So is one with ``chunked=true``, which comes in several pieces."""
        self.check_both(await self.check("chunked", "close"))

    async def test_gzip(self) -> None:
        """So are packed ones, of both kinds."""
        self.check_both(await self.check("gzip", "close"))
        self.check_both(await self.check("chunked gzip", "close"))

    async def test_csv(self) -> None:
        """So is one in CSV, of which each part looks like a whole."""
        self.check_both(await self.check("csv", "close"))

    async def test_content_length(self) -> None:
        """So is one that has a length: InfluxDB's refusals have."""
        self.check_both(await self.check("refused", "close"))

    async def test_reset(self) -> None:
        """A connection that is broken instead of closed changes nothing."""
        self.check_both(await self.check("chunked", "reset"))

    async def test_old_client(self) -> None:
        """A client of HTTP/1.0, whose answers end with the connection, sees that as well."""
        self.check_both(await self.check("csv", "close", b"HTTP/1.0"))

    async def test_close_delimited(self) -> None:
        """An answer that ends with the connection is never passed on, cut or not: nobody could tell."""
        head, _, _ = self.answers["csv"].partition(b"\r\n\r\n")
        body = body_of(self.answers["csv"])
        assert body is not None
        unframed = head.replace(b"Transfer-Encoding: chunked", b"X-Nothing: x") + b"\r\n\r\n" + body
        good = Cuts(self.answers["csv"].replace(b"Connection: close\r\n", b""), "close")
        cuts = Cuts(unframed, "close")
        relay = self.relay(self.backend(cuts), self.backend(good))
        for at in range(len(unframed) + 1):
            cuts.at = at
            client = await self.client(relay)
            client.send(asking("csv", b"Connection: close"))
            self.assertEqual(body_of(await client.end()), body)
        self.assertGreater(cuts.count, len(unframed) // 3)

    def check_both(self, found: tuple[int, int]) -> None:
        """Check that both have happened."""
        whole, broken = found
        self.assertGreater(whole, 100)
        self.assertGreater(broken, 10)
