"""Bodies that came compressed, through journals and filters: they stay as they came."""

from __future__ import annotations

import gzip
from typing import Any

from influxrelay.config.settings import FilterConfig
from influxrelay.listeners.http import HTTPService
from influxrelay.operations.commands import run
from influxrelay.operations.views import Request
from testing.journal_relay import JournalTestCase
from testing.scripted import Answer, RelayTestCase, ScriptedBackend, answer, request, until

BAD = answer(400, b'{"error":"unable to parse"}\n')
ENCODING = b"Content-Encoding: gzip"


def packed(number: int) -> bytes:
    """Return a compressed write."""
    return gzip.compress(b"m v=%di %d\n" % (number, number), mtime=0)


class JournalTests(JournalTestCase):
    """The journal keeps them as they came."""

    async def write_packed(self, relay: HTTPService, body: bytes) -> int:
        """Write a compressed body, and return the answer's status."""
        return (await self.ask(relay, request(b"/write?db=db", body, ENCODING))).status

    def take_down(self, backend: ScriptedBackend) -> None:
        """Let a backend break all connections; it keeps its port, which somebody else might take."""
        backend.rejects = True
        for connection in list(backend.connections):
            connection.transport.abortConnection()

    async def test_backlog(self) -> None:
        """A backlog is sent as members of one stream, also by the next relay; the journal holds nothing unpacked."""
        good, other = self.backend(), self.backend()
        self.take_down(other)
        relay = self.start(good, other)
        bodies = [packed(number) for number in range(5)]
        for body in bodies:
            self.assertEqual(await self.write_packed(relay, body), 204)
        self.assertEqual([each.body for each in good.requests], bodies)
        await self.stop(relay)
        log = b"".join(each.read_bytes() for each in self.directory.glob("*.log"))
        self.assertEqual((b"".join(bodies[:1]) in log, b"m v=" in log), (True, False))
        other.rejects = False
        relay = self.start(good, other)
        await until(lambda: sum(each.lines.count(b"\n") for each in other.requests) == 5, "the backlog")
        self.assertEqual({each.header("Content-Encoding") for each in other.requests}, {b"gzip"})
        self.assertEqual(b"".join(each.body for each in other.requests), b"".join(bodies))

    async def test_mixed(self) -> None:
        """Compressed and plain writes keep their order in a backlog."""
        good, other = self.backend(), self.backend()
        self.take_down(other)
        relay = self.start(good, other)
        for number in range(6):
            if number % 3:
                self.assertEqual(await self.write_packed(relay, packed(number)), 204)
            else:
                self.assertEqual(await self.write(relay, number), 204)
        await self.stop(relay)
        other.rejects = False
        self.start(good, other)
        await until(lambda: sum(each.lines.count(b"\n") for each in other.requests) == 6, "the backlog")
        lines = b"".join(each.lines for each in other.requests).splitlines()
        self.assertEqual(lines, [b"m v=%di %d" % (number, number) for number in range(6)])

    async def test_dead_letter(self) -> None:
        """A dead letter is listed and shown unpacked, and replayed as it came."""
        good, other = self.backend(), self.backend(BAD, answer(204))
        self.take_down(other)
        relay = self.start(good, other)
        self.assertEqual(await self.write_packed(relay, packed(1)), 204)
        other.rejects = False

        async def do(command: str, *ids: str) -> dict[str, Any]:
            return await run([relay], Request(command, ids=ids), lambda done, total: None)

        letters: list[dict[str, Any]] = []
        while not letters:
            letters = (await do("dead-letters list"))["dead_letters"]
        self.assertEqual(letters[0]["first_line"], "m v=1i 1")
        self.assertEqual((await do("dead-letters show", letters[0]["id"]))["lines"], "m v=1i 1\n")
        self.assertEqual((await do("dead-letters replay", letters[0]["id"]))["replayed"], [letters[0]["id"]])
        self.assertEqual((other.requests[-1].body, other.requests[-1].header("Content-Encoding")), (packed(1), b"gzip"))


class FilterTests(RelayTestCase):
    """Filters read them unpacked."""

    async def sent(self, lines: bytes) -> tuple[Answer, bytes, ScriptedBackend]:
        """Write through a filter for one measurement; return the answer, what was sent, and the backend."""
        backend = self.backend()
        relay = self.relay(self.output(backend, filters=(FilterConfig(("x",), measurement_expression="^a$"),)))
        body = gzip.compress(lines, mtime=0)
        return await self.ask(relay, request(b"/write?db=db", body, ENCODING)), body, backend

    async def test_nothing_removed(self) -> None:
        """A body of which a filter removes nothing is passed on as it came, whatever its size."""
        for count in (1, 5000):
            found, body, backend = await self.sent(b"a v=1 1\n" * count)
            self.assertEqual((found.status, [each.body for each in backend.requests]), (204, [body]))
            self.assertEqual(backend.requests[0].header("Content-Encoding"), b"gzip")

    async def test_removed(self) -> None:
        """One of which it removes something is compressed again."""
        for count in (1, 5000):
            found, _, backend = await self.sent(b"a v=1 1\nb v=1 1\n" * count)
            self.assertEqual((found.status, [each.lines for each in backend.requests]), (204, [b"a v=1 1\n" * count]))
            self.assertEqual(backend.requests[0].header("Content-Encoding"), b"gzip")

    async def test_all_removed(self) -> None:
        """One of which it leaves nothing is not sent."""
        found, _, backend = await self.sent(b"b v=1 1\n")
        self.assertEqual((found.status, backend.requests), (204, []))
