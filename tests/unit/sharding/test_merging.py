"""Results of several shards made into one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.influxql.parser import parse
from influxrelay.influxql.timerange import EARLIEST, TimeRange
from influxrelay.influxql.unparsing import Writer
from influxrelay.sharding.aggregates import aggregate
from influxrelay.sharding.merge_groups import Groups
from influxrelay.sharding.merge_rows import merge_rows
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.results import Block
from influxrelay.sharding.rewriting import rewritten
from influxrelay.sharding.schema import Schema
from influxrelay.sharding.windows import NOTHING, Fill, Windows, filled

FIELDS = {"v": "float", "i": "integer", "s": "string", "b": "boolean"}
HOUR = 3600 * 10**9


def rows(name: str, times: Sequence[int], host: str = "") -> Block:
    """Return rows of a series, each with its time as its value."""
    return Block(name, {"host": host} if host else None, ("time", "v"), [[when, when] for when in times])


class RowTests(SynchronousTestCase):
    """Rows in one order."""

    def merged(self, *sources: Sequence[Block], **options: Any) -> list[tuple[str, str, list[int]]]:
        """Return the series that come of those of some shards."""

        async def each(blocks: Sequence[Block]) -> AsyncIterator[Block]:
            for block in blocks:
                yield block

        async def run() -> list[tuple[str, str, list[int]]]:
            found: list[tuple[str, str, list[int]]] = []
            async for block in merge_rows([each(blocks) for blocks in sources], **options):
                head = (block.name, (block.tags or {}).get("host", ""))
                if not found or found[-1][:2] != head:
                    found.append((*head, []))
                found[-1][2].extend(row[0] for row in block.rows)
            return found

        return self.successResultOf(Deferred.fromCoroutine(run()))

    def test_order(self) -> None:
        """Rows are ordered by series and time, whatever blocks they come in, also backwards."""
        one = [rows("m", [1, 4], "a"), rows("m", [6, 9], "a"), rows("n", [2], "b")]
        two = [rows("m", [2, 3, 4, 7], "a"), rows("m", [0], "c")]
        expected = [("m", "a", [1, 2, 3, 4, 4, 6, 7, 9]), ("m", "c", [0]), ("n", "b", [2])]
        self.assertEqual(self.merged(one, two, []), expected)
        backwards = [
            [attrs.evolve(block, rows=block.rows[::-1]) for block in reversed(blocks)] for blocks in (one, two)
        ]
        expected = [(name, host, times[::-1]) for name, host, times in expected[::-1]]
        self.assertEqual(self.merged(*backwards, descending=True), expected)

    def test_bounds(self) -> None:
        """LIMIT and OFFSET count the rows of each series of the whole."""
        one, two = [rows("m", [1, 4]), rows("n", [1])], [rows("m", [2, 3]), rows("n", [2])]
        self.assertEqual(self.merged(one, two, limit=2, offset=1), [("m", "", [2, 3]), ("n", "", [2])])


class WindowTests(SynchronousTestCase):
    """Empty windows."""

    def test_fill(self) -> None:
        """Each kind of fill makes of empty windows what InfluxDB makes of them."""
        windows = Windows(10, 0, 5, 45)
        for fill, kind, expected in (
            (Fill("null"), "integer", [NOTHING, 4, NOTHING, 9, NOTHING]),
            (Fill("none"), "integer", [4, 9]),
            (Fill("number", 7.9), "integer", [7, 4, 7, 9, 7]),
            (Fill("number", 7), "string", ["", 4, "", 9, ""]),
            (Fill("previous"), "integer", [NOTHING, 4, 4, 9, 9]),
            (Fill("linear"), "integer", [NOTHING, 4, 6, 9, NOTHING]),
            (Fill("linear"), "float", [NOTHING, 4, 6.5, 9, NOTHING]),
        ):
            found = list(filled([(10, 4), (30, 9)], windows, fill, kind, counts=False, descending=False))
            self.assertEqual([value for _, value in found], expected, fill)
        found = list(filled([(10, 4)], windows, Fill("null"), "integer", counts=True, descending=True))
        self.assertEqual(found, [(40, 0), (30, 0), (20, 0), (10, 4), (0, 0)])

    def test_unbounded(self) -> None:
        """Without a lower bound a group begins with its first window."""
        windows = Windows(10, 0, EARLIEST, 45)
        found = list(filled([(20, 4)], windows, Fill("null"), "integer", counts=False, descending=False))
        self.assertEqual(found, [(20, 4), (30, NOTHING), (40, NOTHING)])

    def test_daylight_saving(self) -> None:
        """Days of a time zone have 23 hours when summer time begins."""
        begin = 1_774_652_400 * 10**9  # 2026-03-28T00:00:00 in Berlin; the clocks change on the 29th
        windows = Windows(24 * HOUR, 0, begin, begin + 70 * HOUR, ZoneInfo("Europe/Berlin"))
        found = filled([(begin, 1)], windows, Fill("null"), "integer", counts=False, descending=False)
        self.assertEqual([(when - begin) // HOUR for when, _ in found], [0, 24, 47])


class GroupTests(SynchronousTestCase):
    """Functions."""

    def result(self, text: str, *shards: Sequence[Sequence[Block]], until: int = 40, most: int = 9) -> list[list[Any]]:
        """Return the rows that come of what each shard says to each question."""
        (statement,) = parse(text)
        assert statement.select is not None
        schema = Schema(FIELDS, frozenset(("host",)))
        select = rewritten(statement.select, schema)
        plan = aggregate(select, schema, Writer(0), TimeRange(0, until, has_since=True))
        groups = Groups(plan, Windows(select.interval(), 0, 0, until), most)
        for answers in shards:
            for question, blocks in zip(plan.questions, answers, strict=True):
                for block in blocks:
                    groups.add(question, block)
        return [row for block in groups.blocks() for row in block.rows]

    def block(self, *rows: list[Any]) -> list[Block]:
        """Return a series."""
        return [Block("m", None, (), list(rows))]

    def test_parts(self) -> None:
        """Means come of sums and counts, spreads of extremes; integers stay exact, and wrap at 64 bits."""
        text = "SELECT mean(v), count(i), sum(i) * 2, spread(i) FROM m"
        one = [self.block([0, 1, 2, 3, 2**62, 9, 4])]
        two = [self.block([0, 3, 2, 4, 2**62 + 1, 12, 5])]
        self.assertEqual(self.result(text, one, two), [[0, 1.0, 7, 2, 8]])

    def test_selectors(self) -> None:
        """The earlier of equal extremes is chosen; first and last with time() follow InfluxDB's rules for ties."""
        self.assertEqual(self.result("SELECT max(v) FROM m", [self.block([7, 3])], [self.block([5, 3])]), [[5, 3.0]])
        text = "SELECT first(b), last(b), last(s) FROM m GROUP BY time(40u)"
        one = [self.block([1, True], [9, False]), self.block([9, "a"])]
        two = [self.block([1, False]), self.block([9, "b"])]
        self.assertEqual(self.result(text, one, two, until=30), [[0, False, False, "b"]])

    def test_streams(self) -> None:
        """Functions of windows read one window before the range, and skip empty ones."""
        text = "SELECT difference(sum(i)), cumulative_sum(count(i)) FROM m GROUP BY time(10u) fill(null)"
        one = [self.block([0, 1], [10_000, 1]), self.block([-10_000, 5], [0, 1], [10_000, 1])]
        two = [self.block([10_000, 2]), self.block([10_000, 2])]
        expected = [[0, -4, 1], [10_000, 2, 4], [20_000, None, 4]]
        self.assertEqual(self.result(text, one, two, until=29_999), expected)

    def test_many_points(self) -> None:
        """More points than are allowed are refused."""
        text = "SELECT last(v) FROM m GROUP BY time(40u)"
        block = self.block([1, 1], [2, 2])
        self.assertRaisesRegex(Refused, "max-merge-points", self.result, text, [block], [block], most=3)

    def test_unreadable(self) -> None:
        """Tags that are not UTF-8 look alike in JSON, and are refused."""
        block = Block("m", {"host": "a\ufffd"}, (), [[0, 1]])
        self.assertRaisesRegex(Refused, "UTF-8", self.result, "SELECT sum(v) FROM m GROUP BY host", [[block]])

    def test_refused(self) -> None:
        """What cannot be merged is refused with the function's name."""
        for call in (
            "median(v)",
            "derivative(v)",
            "derivative(mean(v))",
            "difference(sum(v))",
            "cumulative_sum(last(s))",
            "count(distinct(v))",
            "max(v), host",
            "sum(s)",
            "min(s)",
            "mean(b)",
            "count(host)",
        ):
            self.assertRaises(Refused, self.result, f"SELECT {call} FROM m")
