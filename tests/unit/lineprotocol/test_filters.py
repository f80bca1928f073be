"""Filters: names, expressions, what is left of a body, and who gets what through a relay."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config.loader import load
from influxrelay.config.settings import FilterConfig as Rule
from influxrelay.config.settings import UDPListenerConfig, UDPOutputConfig
from influxrelay.core import slices
from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply, Write
from influxrelay.delivery.backlog import State
from influxrelay.delivery.factory import make_filter
from influxrelay.delivery.fanout import FanOut
from influxrelay.journal.store import Record
from influxrelay.lineprotocol import filters
from influxrelay.lineprotocol import parser as line_protocol
from influxrelay.lineprotocol.filters import ExpressionError, Filter, compile_expression, divide
from influxrelay.lineprotocol.parser import MAX_SERIES, read_series, split_lines
from influxrelay.listeners.http import HTTPService
from influxrelay.listeners.inherited_sockets import Sockets
from influxrelay.listeners.udp import UDPService
from influxrelay.tap import describe
from testing import influx_grammar
from testing.scripted import Hold, RelayTestCase, ScriptedBackend, answer, reactor, request, until
from tests.unit.delivery.test_buffered_sender import JournalCase
from tests.unit.delivery.test_fanout import FakeRoad
from tests.unit.delivery.test_sender import Client, destination, write
from tests.unit.journal.test_journal_trouble import JournalTestCase
from tests.unit.lineprotocol.test_parser import ALL, MALFORMED, RUBBISH

# Series as they are written, and what is read of them.
READ = {
    b"cpu": (b"cpu", []),
    b"cpu,host=a,dc=b": (b"cpu", [b"host", b"dc"]),
    rb"disk\ free,mount\ point=/a\ b": (b"disk free", [b"mount point"]),
    rb"a\,b,c\,d=e,f\=g=h": (b"a,b", [b"c,d", b"f=g"]),
    rb"a\=b,c=d\=e": (b"a=b", [b"c"]),
    rb"a\"b,c\"d=e": (b'a"b', [rb"c\"d"]),
    rb"a\b,c\d=e": (rb"a\b", [rb"c\d"]),
    b"tab\tbed,a\tb=c": (b"tab\tbed", [b"a\tb"]),
    "größe,wärme=ja".encode(): ("größe".encode(), ["wärme".encode()]),
    b"cpu,host==": (b"cpu", [b"host"]),
    b"cpu,host=#": (b"cpu", [b"host"]),
}
UNREADABLE = (b"", b"#cpu", b",host=a", b"cpu,", b"cpu,host", b"cpu,host=", b"cpu,=a", b"cpu,host=a,", b"cpu,,a=b")

# Patterns for which a backtracking engine takes for ever, and texts that let it.
A_LOT = 64 * 1024 - 1024
EXPONENTIAL = (
    (r"^(a+)+$", b"a" * A_LOT + b"!"),
    (r"^(a|aa)+$", b"a" * A_LOT + b"!"),
    (r"^(a|a?)+$", b"a" * A_LOT + b"!"),
    (r"(.*a){20}b", b"a" * A_LOT),
    (r"^(([a-z])+.)+[A-Z]([a-z])+$", b"a" * A_LOT),
    (r"^(\w+-?)*$", b"aaaa-" * (A_LOT // 5) + b"!"),
    (r"(a?){500}a{500}$", b"a" * A_LOT + b"!"),
    (r"[ab]*a[ab]{300}c", b"abbaabab" * (A_LOT // 8)),
)


class SeriesTests(SynchronousTestCase):
    """What is read of lines."""

    def test_names(self) -> None:
        """Measurement and tag keys are read as InfluxDB shows them; a series that it refuses is not read."""
        for series, names in READ.items():
            self.assertEqual(read_series(series), names, series)
        for series in UNREADABLE:
            self.assertIsNone(read_series(series), series)

    def test_too_long(self) -> None:
        """A series is read as long as InfluxDB may take it."""
        self.assertEqual(read_series(b"a" * MAX_SERIES), (b"a" * MAX_SERIES, []))
        self.assertIsNone(read_series(b"a" * (MAX_SERIES + 1)))

    def test_lines(self) -> None:
        """Lines end where InfluxDB ends them, and blanks before a series do not belong to it."""
        for body, expected in (
            (b"", [(b"", b"")]),
            (b"\n", [(b"", b""), (b"", b"")]),
            (b"a v=1 1", [(b"a v=1 1", b"a")]),
            (b"a v=1 1\nb,c=d v=1\n", [(b"a v=1 1", b"a"), (b"b,c=d v=1", b"b,c=d"), (b"", b"")]),
            (b'a s="1\n2" 1\n b v=1', [(b'a s="1\n2" 1', b"a"), (b" b v=1", b"b")]),
            (b"\n\t \0b,c=d v=1\r\n", [(b"", b""), (b"\t \0b,c=d v=1\r", b"b,c=d"), (b"", b"")]),
            (b" b v=1\na v=1", [(b" b v=1", b"b"), (b"a v=1", b"a")]),
            (rb"a\ b,c=d\,e v=1", [(rb"a\ b,c=d\,e v=1", rb"a\ b,c=d\,e")]),
            (b'a s="open\nb v=1', [(b'a s="open\nb v=1', b"a")]),
            (b'a,q="b v=1\nc,q="d v=1', [(b'a,q="b v=1', b'a,q="b'), (b'c,q="d v=1', b'c,q="d')]),
        ):
            lines, series = split_lines(body)
            self.assertEqual([*zip(lines, series, strict=True)], expected, body)

    @settings(max_examples=500, deadline=None)
    @given(RUBBISH)
    def test_agrees_with_influxdb(self, body: bytes) -> None:
        """Whatever the bytes, lines and series are those that InfluxDB reads, and nothing is lost."""
        lines, series = split_lines(body)
        self.assertEqual(b"\n".join(lines), body)
        stripped = [line.lstrip(b" \t\0").removesuffix(b"\n") for line in lines]  # in a string that is left open
        points = [each for each in zip(stripped, series, strict=True) if each[0] and not each[0].startswith(b"#")]
        read = [*influx_grammar.read(body)]
        self.assertEqual([line for line, _ in points], [line.text for line in read])
        for (_, found), line in zip(points, read, strict=True):
            if line.accepted:
                self.assertEqual(found, line.series)
                self.assertIsNotNone(read_series(found))


class ExpressionTests(SynchronousTestCase):
    """The engine."""

    def test_exponential(self) -> None:
        """Patterns that are exponential for other engines end on names of 64 KiB."""
        for pattern, name in EXPONENTIAL:
            self.assertIsNone(compile_expression(pattern).search(name), pattern)
            for line, rule in (
                (name + b",tag=x v=1 1", ([pattern], [])),
                (b"m," + name + b"=x v=1 1", ([], [pattern])),
            ):
                self.assertEqual(divide(line, [Filter(*rule)])[0], [b""], pattern)

    def test_errors(self) -> None:
        """What is no expression, or a huge one, is refused with a reason."""
        for pattern, words in (
            ("(", r"missing \): \("),
            ("a**", r"bad repetition operator"),
            (r"\1", "invalid escape sequence"),
            ("(?=a)", "invalid perl operator"),
            (r"\pL{1000}", "too large|instructions"),
            ("((a{100}){100}){100}", "invalid repetition size"),
        ):
            self.assertRaisesRegex(ExpressionError, words, compile_expression, pattern)

    def test_not_utf_8(self) -> None:
        """A dot matches what is no UTF-8, as in Go."""
        self.assertEqual(divide(b"a\xff v=1 1", [Filter(["^..$"], [])])[0], [b"a\xff v=1 1"])
        self.assertEqual(divide("aé v=1 1".encode(), [Filter(["^..$"], [])])[0], ["aé v=1 1".encode()])


class DivideTests(SynchronousTestCase):
    """What is left of a body."""

    def left(self, body: bytes, *rules: tuple[list[str], list[str]]) -> list[bytes]:
        """Return what is left for each filter."""
        return divide(body, [Filter(*rule) for rule in rules])[0]

    def test_fork(self) -> None:
        """The examples of the fork's documentation keep what they say, now line by line."""
        first, second = (["^.{0,8}$"], ["^.{0,5}$"]), ([], ["^.{5,12}$"])
        for line, taken in (
            (b"cpu,host=a v=1 1", [True, False]),
            (b"cpu,server=a v=1 1", [False, True]),
            (b"cpu,hosts=a v=1 1", [True, True]),
            (b"measurement,host=a v=1 1", [False, False]),
            (b"cpu,host=a,server=b v=1 1", [False, False]),
            (b"cpu v=1 1", [True, True]),
        ):
            self.assertEqual([bool(each) for each in self.left(line, first, second)], taken, line)

    def test_all_expressions(self) -> None:
        """A line is taken if its measurement matches all expressions, and each of its tags all the others."""
        body = b"cpu,host=a v=1 1\nmem,host=a v=1 2\ncpu,host=a,dc=b v=1 3\ncpu v=1 4\n"
        self.assertEqual(self.left(body, (["c", "u$"], [])), [b"cpu,host=a v=1 1\ncpu,host=a,dc=b v=1 3\ncpu v=1 4\n"])
        self.assertEqual(self.left(body, (["^mem", "cpu"], [])), [b""])
        self.assertEqual(self.left(body, ([], ["^h", "t$"])), [b"cpu,host=a v=1 1\nmem,host=a v=1 2\ncpu v=1 4\n"])
        self.assertEqual(self.left(body, (["^mem$"], ["^host$"])), [b"mem,host=a v=1 2\n"])

    def test_unchanged(self) -> None:
        """Where nothing is taken out the body is the same object, and equal filters are one."""
        body = b"a v=1 1\nb v=1 2\n"
        self.assertIs(self.left(body, (["[ab]"], []))[0], body)
        self.assertEqual(len({Filter(["a"], []), Filter(["a"], []), Filter([], ["a"])}), 2)

    def test_unreadable(self) -> None:
        """Comments and malformed lines stay beside what is taken; without a line to be stored nothing is left."""
        body = b"# a comment\n\ncpu v=1 1\n,host=a v=1 1\ncpu,host v=1\nmem v=1 1\n"
        self.assertEqual(self.left(body, (["^mem$"], []))[0], body.replace(b"cpu v=1 1\n", b""))
        self.assertEqual(self.left(b"# a comment\ncpu v=1 1\n", (["^mem$"], [])), [b""])
        for line in MALFORMED:
            lines, series = split_lines(line)
            if len(lines) == 1 and read_series(series[0]) is None:
                self.assertEqual(self.left(line, (["^$"], ["^$"])), [line])

    def test_unwanted(self) -> None:
        """Lines that no filter takes are counted; comments are not."""
        body = b"# comment\na v=1 1\nb v=1 1\nc v=1 1\nd v=1 1\n"
        self.assertEqual(divide(body, [Filter(["a"], []), Filter(["b"], [])])[1], 2)
        self.assertEqual(divide(body, [Filter(["a"], []), Filter([""], [])])[1], 0)

    def test_memory(self) -> None:
        """The verdicts are remembered, but not too many of them, and none of long series."""
        self.patch(filters, "_MEMORY", 10)
        each = Filter(["a"], [])
        for number in range(35):
            divide(b"a%d v=1 1\nb%d v=1 1" % (number, number), [each])
            self.assertLessEqual(len(each._takes), 10)
        each = Filter(["a"], [])
        divide(b"a" * 2000 + b" v=1 1", [each])
        self.assertEqual(each._takes, {})

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.sampled_from([*ALL, b"a v=1", b"b,t=1 v=1", b'c s="x\ny"', b" a,u=2 v=1 5"]), max_size=12))
    def test_all_lines(self, parts: list[bytes]) -> None:
        """What is left and what is taken out are all the lines, each with its bytes, and in order."""
        body = b"\n".join(parts)
        lines, series = split_lines(body)
        for rule in ((["a"], []), ([], ["t"]), (["^[^,]{0,3}$"], ["^.$"])):
            kept, _ = divide(body, [Filter(*rule)])
            taken = Filter(*rule).judge(series)
            left = [line for line, verdict in zip(lines, taken, strict=True) if verdict]
            if kept != [b""]:
                self.assertEqual(kept[0], b"\n".join(left))
            else:
                self.assertEqual([*influx_grammar.read(b"\n".join(left))], [])
            for name, verdict in zip(series, taken, strict=True):
                self.assertTrue(verdict or read_series(name) is not None)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.sampled_from([*ALL, b"a v=1", b"b,t=1 v=1", b'c s="x\ny"', b" a,u=2 v=1 5"]), max_size=12))
    def test_bit_by_bit(self, parts: list[bytes]) -> None:
        """What is left does not depend on how much of a body is looked at in one go."""
        body = b"\n".join(parts)
        chosen = [Filter(["a"], []), Filter([], ["t"]), Filter(["."], ["."]), Filter(["^b"], [])]
        with patch.multiple(line_protocol, _WINDOW=1 << 20, _OFTEN=1 << 20):
            whole = divide(body, chosen)
        with patch.multiple(line_protocol, _WINDOW=4, _OFTEN=1):
            self.assertEqual(divide(body, chosen), whole)


class RelayTests(SynchronousTestCase):
    """Who has a part in a write, and what the client is told."""

    def build(self, *expressions: str | None) -> None:
        """Build a relay to roads, each with a filter or none."""
        self.roads = [FakeRoad(f"road{number}") for number in range(len(expressions))]
        for road, expression in zip(self.roads, expressions, strict=True):
            road.filter = None if expression is None else Filter([expression], [])
        self.relay = FanOut("test", self.roads)  # type: ignore[arg-type]

    def submit(self, body: bytes, consistency: str = "") -> list[Reply]:
        """Submit a write; return where the answers will be."""
        told: list[Reply] = []
        self.relay.submit(write(body), consistency).addCallback(told.append)
        return told

    def bodies(self) -> list[list[bytes]]:
        """Return what each road was given."""
        return [[each.body for each in road.taken] for road in self.roads]

    def test_parts(self) -> None:
        """Each backend gets its lines; those with the same filter get the same object."""
        self.build("a", None, "b", "a")
        body = b"a v=1 1\nb v=1 2\na v=1 3\n"
        self.submit(body)
        part = b"a v=1 1\na v=1 3\n"
        self.assertEqual(self.bodies(), [[part], [body], [b"b v=1 2\n"], [part]])
        self.assertIs(self.roads[0].taken[0], self.roads[3].taken[0])
        self.assertEqual(self.roads[0].taken[0].destination, destination())
        self.assertEqual(self.relay.lines_unwanted, 0)

    def test_no_part(self) -> None:
        """A backend for which nothing is left is neither asked nor waited for, whatever the consistency."""
        for consistency in ("one", "quorum", "all", "any"):
            self.build("a", "b", "a")
            told = self.submit(b"a v=1 1\n", consistency)
            self.assertEqual([len(each) for each in self.bodies()], [1, 0, 1])
            self.roads[0].settle(Reply(204))
            self.roads[2].settle(Reply(204))
            self.assertEqual([each.status for each in told], [204])
        self.build("a", "b")
        told = self.submit(b"b v=1 1\n", "all")
        self.roads[1].settle(BackendFailure("refused", "x"))
        self.assertIn(b"(road1: refused)", told[0].body)

    def test_for_nobody(self) -> None:
        """A write of which no backend takes a line is answered 204, and its lines are counted."""
        for consistency in ("one", "all"):
            self.build("a", "b")
            self.assertEqual(self.submit(b"c v=1 1\nd v=1 1\n", consistency), [Reply(204)])
            self.assertEqual(self.bodies(), [[], []])
            self.assertEqual(self.relay.lines_unwanted, 2)
        self.submit(b"c v=1 1\na v=1 1\n")
        self.assertEqual(self.relay.lines_unwanted, 3)
        self.assertEqual(self.bodies(), [[b"a v=1 1\n"], []])

    def test_changed(self) -> None:
        """Filters that are replaced hold for the writes that follow."""
        self.build("a", None)
        self.submit(b"b v=1 1\n")
        self.roads[0].filter = Filter(["b"], [])
        self.relay.reconfigure("test", self.relay.roads, consistency="one")
        self.submit(b"b v=1 2\na v=1 2\n")
        self.roads[0].filter = None
        self.relay.reconfigure("test", self.relay.roads, consistency="one")
        self.submit(b"c v=1 3\n")
        self.assertEqual(self.bodies()[0], [b"b v=1 2\n", b"c v=1 3\n"])


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
        case.patch(slices, "SLICE", 0.0)
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
        self.patch(slices, "SLICE", 0.0)
        backend = self.backend()
        relay = self.relay(self.output(backend, "p", **rules("1")))
        service: Any = relay
        asked = Deferred.fromCoroutine(self.ask(relay, request(b"/write?db=db", NAMES)))
        road = service.roads[0]
        before = road.filter
        await until(lambda: len(before._takes) > 5, "the beginning")
        self.assertLess(len(before._takes), 500)
        road.filter = Filter(["^name0007$"], [])
        service._relay.reconfigure("test", service.roads, consistency="one")
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
        queue: Any = relay.roads[1].queue  # type: ignore[attr-defined]
        await until(lambda: queue.dead_letters, "the dead letter")
        self.assertEqual([ticket.write.body for ticket, _ in queue.dead_letters], [PART])


class JournalTests(JournalTestCase):
    """With a journal, which keeps writes as they came."""

    timeout = 120  # a loaded machine may pause for seconds

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
        keeper: Any = relay.keeper
        while await keeper.call(lambda journal: journal.count_dead_letters()) != {"other": count}:
            await deferLater(reactor, 0.01)

    async def test_for_nobody(self) -> None:
        """A write for nobody is answered 204 and not kept."""
        good, other = self.backend(), self.backend()
        relay = self.start(self.output(good, "one", **rules("x")), self.output(other, "two", **rules("y")))
        self.assertEqual((await self.ask(relay, request(body=BODY))).status, 204)
        keeper: Any = relay.keeper
        self.assertEqual(keeper.last_seq, 0)


class RandomTests(JournalCase):
    """A filtered backend of a journal, and whatever may happen to it."""

    def test_schedules(self) -> None:
        """Through failures, a backlog on disk and restarts its lines arrive in order, and nothing stays on disk."""
        for seed in range(40):
            rng = Random(seed)
            self.build(max_waiting=rng.choice((20, 60, 10_000)), max_batch=rng.choice((10, 100)))
            self.road.filter = Filter(["^a$"], [])
            wanted: list[bytes] = []
            taken: list[bytes] = []
            for number in range(60):
                self.act(rng, taken)
                names = rng.choice((b"a", b"b", b"ab", b"ba", b"bb", b"aa"))
                lines = [b"%c v=1 %d%d" % (name, number, index) for index, name in enumerate(names)]
                wanted += [line for line in lines if line.startswith(b"a")]
                self.submit_part(b"\n".join(lines) + b"\n")
            for _ in range(1000):
                for post in self.backend.pending:
                    post.answer()
                    taken += post.body.split(b"\n")[:-1]
                if not self.road._lanes:
                    break
                self.clock.advance(0.1)
            self.assert_idle()
            self.assertEqual(taken, wanted, f"seed {seed}")

    def act(self, rng: Random, taken: list[bytes]) -> None:
        """Let something happen, or nothing."""
        what = rng.random()
        posts = self.backend.pending
        if what < 0.4:
            for post in posts:
                taken += post.body.split(b"\n")[:-1]
                post.answer()
        elif what < 0.6:
            for post in posts:
                post.fail()
        elif what < 0.9:
            self.clock.advance(rng.random())
        elif what < 0.95:
            self.road.close()
            for post in posts:
                post.fail("stopped")
            filtered = self.road.filter
            self.build_road()
            self.road.filter = filtered
            self.road.resume(self.keeper.journal.backlog("fake"), self.keeper.last_seq)

    def submit_part(self, body: bytes) -> None:
        """Submit an acknowledged write as a relay does."""
        ticket = self.ticket(body)
        ticket.settle(State.KEPT)
        self.keeper.last_seq = ticket.seq
        self.keeper.append(Record(ticket.seq, ticket.time, ticket.write))
        part = self.road.part_of(ticket.write)
        if part is None:
            self.road.skip(ticket)
        else:
            Client(self.road.submit(part, ticket))


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

        def take(write: Write, consistency: str = "") -> Any:
            sent.append(write)
            return FanOut("none", []).submit(write)

        backend = ScriptedBackend()
        backend.port = 1
        http = self.output(backend, "http", query="db=db", **rules("[ab]"))
        sender = UDPOutputConfig("udp", "127.0.0.1:1", "127.0.0.1", 1, **rules("c"))
        service = UDPService(
            UDPListenerConfig("u", ":0", "127.0.0.1", 0, outputs=(http, sender)), reactor, Sockets(reactor)
        )
        batcher, output = service.outputs
        datagrams: list[bytes] = []
        output._address = ("127.0.0.1", 1)  # type: ignore[union-attr]
        output.transport = type("T", (), {"write": lambda _, data, __: datagrams.append(data)})()  # type: ignore[union-attr]
        road: Any = service.roads[0]
        road.submit = take
        service.protocol._received = [b'a v=1 1\nc s="1\n2" 2\nd v=1 3\nb v=1 4']
        service.protocol.flush()
        batcher.flush()  # type: ignore[union-attr]
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
