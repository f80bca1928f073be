"""Copying windows of which the target has nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, cycle, repeat
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.parser import parse
from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.connection import TooLarge, TooSlow, Unanswered
from influxrelay.verification.lines import series_lines
from influxrelay.verification.repair import Mending, Outdated
from influxrelay.verification.server import NegativeZero, Series, Server
from influxrelay.verification.statements import WRITE_COUNTS, Extent, Measurement, Window
from influxrelay.verification.tombstones import Missed
from influxrelay.verification.write_counts import WriteCounts

M = Measurement("d", "rp", "m")
HOUR = 3600 * 10**9
WHOLE = Window(0, HOUR)


@attrs.define
class Counting(Server):
    """A server with points of one series, whose shards count writes.

    :ivar counts: what the shard of the first hour says, one time after the other; None for no answer.
    :ivar most: bytes of an answer, at one for each point.
    """

    values: dict[int, Any] = attrs.field(factory=dict)
    counts: Any = attrs.field(factory=lambda: repeat(0))
    started: str = "noon"
    asked: list[str] = attrs.field(factory=list)
    most: int = 10
    problems: Iterator[Exception] = attrs.field(factory=lambda: cycle((TooLarge("large"), TooSlow("limited"))))
    tags: dict[str, str] = attrs.field(factory=dict)

    def ask(self, statement: str) -> list[Series]:
        """Return the points of a window."""
        self.asked.append(statement)
        *_, since, _, _, _, until = statement.removesuffix(" GROUP BY *").split()
        values = [[time, value] for time, value in sorted(self.values.items()) if int(since) <= time <= int(until)]
        return [Series("m", self.tags, ["time", "f"], values)] if values else []

    def ask_binary(self, statement: str, limit: int) -> list[Series]:
        """Return the points of a window, unless they are too many."""
        answer = self.ask(statement)
        if answer and len(answer[0].values) > self.most < limit:
            raise next(self.problems)
        return answer

    def fetch(self, statement: str, limit: int | None = None) -> bytes:
        """Return the points of a window in some form."""
        return repr(self.ask(statement)).encode()

    def ask_within(self, statement: str, patience: float, limit: int | None = None) -> list[Series]:
        """Return how many writes the shards have had."""
        assert statement == WRITE_COUNTS, statement
        count = next(self.counts)
        if count is None:
            raise Unanswered("not allowed")
        ends = ["1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z", "1970-01-01T02:00:00Z"]
        places = [["d", "rp"], ["d", "rp"], ["other", "rp"]]
        spans = [ends[:2], ends[1:], ends[:2]]
        shards = [[n, *place, 1, *span] for n, (place, span) in enumerate(zip(places, spans, strict=True))]
        columns = ["id", "database", "retention_policy", "shard_group", "start_time", "end_time"]
        return [
            Series("d", {}, columns, shards),
            Series("shard", {"id": "0"}, ["diskBytes", "writeReq"], [[next(_sizes), count]]),
            *(Series("shard", {"id": each}, ["diskBytes", "writeReq"], [[0, next(_sizes)]]) for each in "12"),
            Series("system", {}, ["PID", "started"], [[1, self.started]]),
        ]


_sizes = iter(range(10_000))  # another one each time


@attrs.define
class Writing:
    """Writes to a server.

    :ivar happen: is called after each write.
    """

    target: Counting
    happen: Callable[[], object] = lambda: None
    refusal: str = ""
    outdated: int = 0
    written: list[str] = attrs.field(factory=list)
    has_missed: Sequence[Missed] = ()

    def mark(self) -> str:
        """Return any mark."""
        return ""

    def missed(self) -> Sequence[Missed]:
        """Return what the source has missed."""
        return self.has_missed

    def write(self, measurement: Measurement, lines: Sequence[str], mark: str, *, last: bool) -> str:
        """Write."""
        assert (measurement, last) == (M, True)
        if self.outdated:
            self.outdated -= 1
            raise Outdated
        self.written += lines
        for line in [] if self.refusal else lines:
            _, field, time = line.split(" ")
            self.target.values[int(time)] = float(field.removeprefix("f="))
        self.happen()
        return self.refusal


def server(values: dict[int, Any], counts: Any = None, **settings: Any) -> Counting:
    """Return a server."""
    counts = repeat(0) if counts is None else counts
    return Counting(f"server{next(_sizes)}", "", ClientTLS(), values=values, counts=counts, **settings)


class GapTests(SynchronousTestCase):
    """What is written, and whether it is read back."""

    def mend(self, source: Counting, writer: Writing, **settings: Any) -> Mending:
        """Copy everything."""
        mending = Mending(source, writer.target, writer, **settings)
        mending.mend(Extent(M, WHOLE), {"f": {"float"}})
        return mending

    def test_undisturbed(self) -> None:
        """What nobody has written to meanwhile is read once."""
        source, target = server({1: 1.0, 2: 2.5}), server({})
        mending = self.mend(source, Writing(target))
        self.assertEqual((target.values, mending.copied, mending.uncopied), ({1: 1.0, 2: 2.5}, 2, []))
        self.assertEqual((len(source.asked), len(target.asked)), (1, 0))

    def test_disturbed(self) -> None:
        """What a client writes meanwhile is there in the end, whether the server counts its writes or not."""
        for counts in (iter((0, 1)), iter((None,))):
            source, target = server({1: 1.0, 2: 1e20, 3: NegativeZero(-0.0)}, counts), server({})
            writes = chain([source], repeat(server({})))
            mending = self.mend(source, Writing(target, lambda: next(writes).values.update({1: 7.0})))
            self.assertEqual((target.values[1], len(target.values), mending.copied), (7.0, 3, 3))
            self.assertGreater(len(target.asked), 0)

    def test_newer_value(self) -> None:
        """A newer value that the target has and the source has not yet is left alone."""
        source, target = server({1: 1.0}, iter((0, 1))), server({})
        writer = Writing(target, lambda: target.values.update({1: 7.0}))
        mending = self.mend(source, writer)
        self.assertEqual((target.values, writer.written, mending.copied), ({1: 7.0}, ["m f=1.0 1"], 1))

    def test_large_floats(self) -> None:
        """JSON shows large floats as integers with other digits: they are the same."""
        source, target = server({1: 1.2345678901234568e20}, iter((0, 1))), server({})

        def see() -> None:
            source.values[1] = target.values[1] = 123456789012345680000
            source.values[2] = 5.0

        writer = Writing(target, see)
        self.mend(source, writer)
        self.assertEqual(len(writer.written), 2)

    def test_refused(self) -> None:
        """What the target refuses is named with what it says; what cannot be written is named, too."""
        (refused,) = self.mend(server({1: 1.0, 2: 2.0}), Writing(server({}), refusal="no")).uncopied
        self.assertEqual((refused.points, refused.message), (2, "no"))
        mending = self.mend(server({1: 1.0}, tags={"t": "\\"}), Writing(server({})))
        (unwritable,) = mending.uncopied
        self.assertEqual((unwritable.points, mending.copied), (1, 0))
        self.assertIn("line protocol", unwritable.message)

    def test_outdated(self) -> None:
        """What was read before a change is read again."""
        target = server({})
        mending = self.mend(server({1: 1.0}), Writing(target, outdated=1))
        self.assertEqual((target.values, mending.copied), ({1: 1.0}, 1))

    def test_large(self) -> None:
        """A window with too large an answer, or beyond the server's limits, is copied in parts, the newest first."""
        source, target = server({n: float(n) for n in range(0, HOUR, HOUR // 35)}), server({})
        writer = Writing(target)
        self.assertEqual(self.mend(source, writer).copied, 36)
        self.assertEqual(target.values, source.values)
        self.assertLess(int(writer.written[-1].split()[2]), HOUR // 4)

    def test_dry_run(self) -> None:
        """A dry run counts, and what is deleted is not copied."""
        target = server({})
        self.assertEqual(self.mend(server({1: 1.0}), Writing(target), dry_run=True).copied, 1)
        (statement,) = parse("DROP MEASUREMENT m")
        missed = Missed("1", 10, ("d",), "DROP MEASUREMENT m", statement)
        mending = self.mend(server({1: 1.0, 11: 1.0}), Writing(target, has_missed=[missed]))
        self.assertEqual((mending.copied, target.values), (1, {11: 1.0}))


class CountTests(SynchronousTestCase):
    """What a server counts."""

    def test_counts(self) -> None:
        """They change with a write to a shard of the window, and with a restart."""
        source = server({}, iter((5, 5, 6, 6)))
        counts = WriteCounts(source)
        before = counts.read(M, WHOLE)
        self.assertIsNotNone(before)
        self.assertEqual(counts.read(M, WHOLE), before)
        after = counts.read(M, WHOLE)
        self.assertNotEqual(after, before)
        source.started = "one o'clock"
        self.assertNotEqual(counts.read(M, WHOLE), after)

    def test_unknown(self) -> None:
        """A server that does not tell is not asked again; where there is no shard, there is nothing to compare."""
        self.assertIsNone(WriteCounts(server({})).read(M._replace(policy="x"), WHOLE))
        counts = WriteCounts(server({}, iter((None, 1))))
        self.assertIsNone(counts.read(M, WHOLE))
        self.assertIsNone(counts.read(M, WHOLE))


class LineTests(SynchronousTestCase):
    """The lines of a series."""

    def test_values(self) -> None:
        """Each value is written by the type that its field has, and what a point lacks is left out."""
        series = Series(
            "m",
            {"{t}": "{}", "u": ""},
            ["time", "f", "{i}", "u", "b"],
            [[1, 2.0, 2**53 + 1, 2**64 - 1, True], [2, 1e300, None, None, False], [3, 5e-324, -1, 0, None]],
        )
        kinds = {"f": "float", "{i}": "integer", "u": "unsigned", "b": "boolean"}
        self.assertEqual(
            list(series_lines("m{", series, kinds)),
            [
                "m{,{t}={} f=2.0,{i}=9007199254740993i,u=18446744073709551615u,b=True 1",
                "m{,{t}={} f=1e+300,b=false 2",
                "m{,{t}={} f=5e-324,{i}=-1i,u=0u 3",
            ],
        )

    def test_texts(self) -> None:
        """Text is escaped; a series or a field that cannot be written has no lines."""
        series = Series("m", {}, ["time", "s"], [[1, 'a"b']])
        self.assertEqual(list(series_lines("m", series, {"s": "string"})), ['m s="a\\"b" 1'])
        self.assertEqual(list(series_lines("#m", series, {"s": "string"})), [""])
        series = Series("m", {}, ["time", "s\\"], [[1, 1.0]])
        self.assertEqual(list(series_lines("m", series, {"s\\": "float"})), [""])
