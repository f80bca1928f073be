"""Filters in a relay: who gets which lines of a write, with and without a journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config.loader import load
from influxrelay.config.settings import FilterConfig as Rule
from influxrelay.config.settings import UDPListenerConfig, UDPOutputConfig
from influxrelay.core import cooperation
from influxrelay.core.write import Reply, Write
from influxrelay.delivery.fate import Fate
from influxrelay.lineprotocol import filters
from influxrelay.lineprotocol.filters import Filter
from influxrelay.listeners.http import HTTPService
from influxrelay.listeners.output_settings import make_filter
from influxrelay.listeners.udp import UDPService
from influxrelay.tap import describe
from influxrelay.transport.sockets import Sockets
from testing.journal_relay import JournalTestCase
from testing.scripted import Hold, RelayTestCase, ScriptedBackend, answer, reactor, request, until


def rules(*expressions: str) -> dict[str, Any]:
    """Return the setting of an output with filters for measurements."""
    return {"filters": tuple(Rule(("x",), measurement_expression=each) for each in expressions)}


BODY = b"a v=1 1\nb v=1 2\na v=1 3\n"
PART = b"a v=1 1\na v=1 3\n"
BAD = answer(400, b'{"error":"unable to parse"}\n')


class Turns:
    """Stands for an expression that takes everything, and notes in which turns of the reactor it is asked."""

    def __init__(self, case: SynchronousTestCase) -> None:
        case.patch(filters, "compile_expression", lambda _: self)
        case.patch(cooperation, "SLICE", 0.0)
        self.asked: set[int] = set()
        self._turn = 0
        ticking = LoopingCall(self._tick)
        ticking.start(0)
        case.addCleanup(ticking.stop)

    def _tick(self) -> None:
        self._turn += 1

    def search(self, name: bytes) -> bytes:
        """Find the name."""
        self.asked.add(self._turn)
        return name


NAMES = b"".join(b"name%04d v=1 1\n" % number for number in range(500))


class HTTPTests(RelayTestCase):
    """Through an HTTP listener, without a queue or with one in memory."""

    async def test_many_names(self) -> None:
        """Names that were never seen are looked at in many turns, and others are served in between."""
        turns = Turns(self)
        backend = self.backend()
        relay = self.relay(self.output(backend, "p", **rules("a")))
        self.assertEqual((await self.ask(relay, request(b"/write?db=db", NAMES))).status, 204)
        self.assertGreater(len(turns.asked), 100)
        self.assertEqual([each.body for each in backend.requests], [NAMES])

    async def test_reload_in_between(self) -> None:
        """Filters that change while names are looked at hold for the write."""
        self.patch(cooperation, "SLICE", 0.0)
        backend = self.backend()
        relay = self.relay(self.output(backend, "p", **rules("1")))
        service: Any = relay
        asked = Deferred.fromCoroutine(self.ask(relay, request(b"/write?db=db", NAMES)))
        sender = service.senders[0]
        before = sender.filter
        await until(lambda: len(before._takes) > 5, "the beginning")
        self.assertLess(len(before._takes), 500)
        other = attrs.evolve(sender.settings, filter=Filter(["^name0007$"], []))
        sender.reconfigure(sender.backend, other)
        service._fan_out.reconfigure("test", service.senders, consistency="one")
        self.assertEqual((await asked).status, 204)
        self.assertEqual([each.body for each in backend.requests], [b"name0007 v=1 1\n"])

    async def test_bytes(self) -> None:
        """What arrives at a backend are its lines, and one who gets nothing is not asked."""
        all_of_it, part, nothing = self.backend(), self.backend(), self.backend()
        relay = self.relay(all_of_it, self.output(part, "p", **rules("a")), self.output(nothing, "n", **rules("c")))
        found = await self.ask(relay, request(b"/write?db=db&consistency=all", BODY))
        self.assertEqual(found.status, 204)
        self.assertEqual([each.body for each in all_of_it.requests], [BODY])
        self.assertEqual([each.body for each in part.requests], [PART])
        self.assertEqual(nothing.requests, [])

    async def test_buffered_dead_letter(self) -> None:
        """A dead letter in memory has only the lines that the backend was given."""
        refusal = Hold(BAD)
        good, bad = self.backend(), self.backend(refusal)
        relay = self.relay(
            self.output(good, "good", buffer_size_mb=1), self.output(bad, "bad", buffer_size_mb=1, **rules("a"))
        )
        await self.ask(relay, request(body=BODY))
        refusal.release()
        backlog = relay.senders[1].backlog
        await until(backlog.dead_letters, "the dead letter")
        self.assertEqual([letter.write.body for letter in backlog.dead_letters()], [PART])


class JournalTests(JournalTestCase):
    """With a journal, which keeps writes as they came."""

    def outputs(self, good: ScriptedBackend, other: ScriptedBackend, *expressions: str) -> list[Any]:
        """Return two outputs, the second one with filters."""
        return [self.output(good, "good"), self.output(other, "other", **rules(*expressions))]

    def take_down(self, backend: ScriptedBackend) -> None:
        """Let a backend break all connections; it keeps its port, which somebody else might take."""
        backend.rejects = True
        for connection in list(backend.connections):
            connection.transport.abortConnection()

    async def test_restart(self) -> None:
        """What waits for a filtered backend over a restart reaches it filtered, merged, in order, and is then done."""
        good, other = self.backend(), self.backend()
        self.take_down(other)
        relay = self.start(*self.outputs(good, other, "a"))
        for number in range(5):
            body = b"a v=1 %d\nb v=1 1\n" % number if number % 2 == 0 else b"b v=1 %d\n" % number
            self.assertEqual((await self.ask(relay, request(body=body))).status, 204)
        await self.stop(relay)
        other.rejects = False
        relay = self.start(*self.outputs(good, other, "a"))
        await until(lambda: sum(each.body.count(b"\n") for each in other.requests) == 3, "the backlog")
        self.assertEqual(b"".join(each.body for each in other.requests), b"a v=1 0\na v=1 2\na v=1 4\n")
        await self.stop(relay)
        self.assertEqual(len(good.requests), 5)
        with self.opened() as journal:
            self.assertEqual([each.writes for each in journal.depths()], [0, 0])

    async def test_backlog_of_many_names(self) -> None:
        """What is read from the disk is looked at in many turns, too."""
        turns = Turns(self)
        good, other = self.backend(), self.backend()
        self.take_down(other)
        relay = self.start(*self.outputs(good, other, "a"))
        self.assertEqual((await self.ask(relay, request(body=NAMES))).status, 204)
        await self.stop(relay)
        other.rejects = False
        turns.asked.clear()
        self.start(*self.outputs(good, other, "a"))
        await until(lambda: [each.body for each in other.requests] == [NAMES], "the backlog")
        self.assertGreater(len(turns.asked), 100)

    async def test_nothing_stays(self) -> None:
        """Writes of which a backend gets nothing do not wait for it in the journal, up or down."""
        good, other = self.backend(), self.backend()
        relay = self.start(*self.outputs(good, other, "c"))
        for _ in range(3):
            await self.ask(relay, request(body=BODY))
        self.take_down(other)
        await self.ask(relay, request(body=BODY))
        await self.stop(relay)
        self.assertEqual(other.requests, [])
        with self.opened() as journal:
            self.assertEqual([each.writes for each in journal.depths()], [0, 0])

    async def test_dead_letter(self) -> None:
        """A dead letter has only the lines that the backend was given, also after it waited on disk."""
        refusal = Hold(BAD)
        good, other = self.backend(), self.backend(refusal)
        relay = self.start(*self.outputs(good, other, "a"))
        await self.ask(relay, request(body=BODY))
        refusal.release()
        await self.letters(relay, 1)
        self.take_down(other)
        await self.ask(relay, request(body=BODY))
        await self.stop(relay)
        other.rejects = False
        relay = self.start(*self.outputs(good, other, "a"))
        await self.letters(relay, 2)
        await self.stop(relay)
        with self.opened() as journal:
            self.assertEqual([each.write.body for each in journal.dead_letters()], [PART, PART])

    async def letters(self, relay: HTTPService, count: int) -> None:
        """Wait for so many dead letters."""
        writer: Any = relay.writer
        while (await writer.contents()).dead_letters != {"other": count}:
            await deferLater(reactor, 0.01)

    async def test_for_nobody(self) -> None:
        """A write for nobody is answered 204 and not kept."""
        good, other = self.backend(), self.backend()
        relay = self.start(self.output(good, "one", **rules("x")), self.output(other, "two", **rules("y")))
        self.assertEqual((await self.ask(relay, request(body=BODY))).status, 204)
        writer: Any = relay.writer
        self.assertEqual(writer.last_number, 0)


FILE = """
http = [{bind-addr = ":9096", output = [
    {name = "east", location = "http://a/write"},
    {name = "west", location = "http://b/write"},
    {name = "all", location = "http://c/write"},
]}]
udp = [{bind-addr = ":9096", output = [
    {name = "east", location = "127.0.0.1:8089"},
    {name = "west", location = "http://127.0.0.1:8086/write?db=udp"},
    {name = "all", location = "127.0.0.1:7089"},
]}]

[[filter]]
type = "ignored"
measurement-expression = "^cpu"
tag-expression = "^.{0,9}$"
outputs = ["east", "west"]

[[filter]]
tag-expression = "host"
outputs = ["west"]
"""


class ConfigTests(RelayTestCase):
    """From the configured values to who gets what."""

    def test_udp(self) -> None:
        """Outputs of a UDP listener are filtered like others, and what none of them wants is counted there."""
        sent: list[Write] = []

        def take(write: Write, fate: Fate) -> bool:
            sent.append(write)
            fate.answered("http", Reply(204))
            return True

        backend = ScriptedBackend()
        backend.port = 1
        http = self.output(backend, "http", query="db=db", **rules("[ab]"))
        sender = UDPOutputConfig("udp", "127.0.0.1:1", "127.0.0.1", 1, **rules("c"))
        service = UDPService(UDPListenerConfig("u", ":0", "127.0.0.1", 0, outputs=(http, sender)), reactor, Sockets())
        batcher: Any = service.outputs[0]
        output: Any = service.outputs[1]
        datagrams: list[bytes] = []
        output.address = ("127.0.0.1", 1)
        handle = type("H", (), {"sendto": lambda _, data, __: datagrams.append(data)})()
        output.transport = type("T", (), {"getHandle": lambda _: handle})()
        first: Any = service.senders[0]
        first.submit = take
        service.protocol._received = [b'a v=1 1\nc s="1\n2" 2\nd v=1 3\nb v=1 4']
        service.protocol.flush()
        batcher.flush()
        self.assertEqual(datagrams, [b'c s="1\n2" 2'])
        self.assertEqual([each.body for each in sent], [b"a v=1 1\nb v=1 4\n"])
        self.assertEqual(batcher.lines_out, 2)
        self.assertEqual(service.protocol.lines_unwanted, 1)

    def test_outputs(self) -> None:
        """A filter is for every output of its name, and for no other; ``--check`` shows it."""
        path = Path(self.mktemp())
        path.write_text(FILE)
        config = load(path)
        first, second = (
            Rule(("east", "west"), "^cpu", "^.{0,9}$", "ignored"),
            Rule(("west",), tag_expression="host"),
        )
        for listener in (config.http[0], config.udp[0]):
            self.assertEqual([each.filters for each in listener.outputs], [(first,), (first, second), ()])
        self.assertEqual(make_filter(config.http[0].outputs[1]), Filter(["^cpu"], ["^.{0,9}$", "host"]))
        self.assertIsNone(make_filter(config.http[0].outputs[2]))
        shown = describe(config)
        self.assertEqual(shown.count(", only lines with measurement '^cpu' and tags '^.{0,9}$'\n"), 2)
        self.assertEqual(shown.count("lines with measurement '^cpu' and tags '^.{0,9}$' and tags 'host'"), 2)
        self.assertEqual(shown.count("only lines"), 4)
