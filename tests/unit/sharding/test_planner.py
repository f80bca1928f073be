"""Who is asked what."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.replies import json_error
from influxrelay.influxql.parser import parse
from influxrelay.sharding.outcomes import Refused, ShardFailed, StatementError, Unanswered
from influxrelay.sharding.placement import Epoch, ShardKey, ShardMap
from influxrelay.sharding.queries import Alone, Planner, Together
from influxrelay.sharding.results import Answer, Block


class FakeAnswer:
    """What a shard says."""

    def __init__(self, results: list[tuple[int, list[Block]]], problem: Unanswered | None) -> None:
        self._results = results
        self._problem = problem

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> tuple[int, list[Block]]:
        if self._problem is not None:
            raise self._problem
        if not self._results:
            raise StopAsyncIteration
        return self._results.pop(0)

    def close(self) -> None:
        """Do nothing."""


class FakeShard:
    """A shard that knows a field and a tag.

    :ivar asked: all questions.
    """

    def __init__(self, fields: str = "v::float, host::tag", problem: Unanswered | None = None) -> None:
        self.asked: list[str] = []
        self._fields = fields
        self._problem = problem

    def ask(self, text: str) -> Answer:
        """Answer."""
        self.asked.append(text)
        results = []
        if text.startswith("EXPLAIN"):
            plan = [["EXPRESSION: <nil>"], [f"AUXILIARY FIELDS: {self._fields}"]]
            results = [(0, [Block("", None, ("QUERY PLAN",), plan)])]
        return FakeAnswer(results, self._problem)


class PlannerTests(SynchronousTestCase):
    """Two shards."""

    def setUp(self) -> None:
        """Have two shards that know different fields."""
        self.one = FakeShard()
        self.two = FakeShard("v::integer, w::string")

    def plan(self, text: str, key: str = "tag:c") -> Alone | Together:
        """Return how a query is answered."""
        shards = ShardMap(ShardKey.read(key), [Epoch(None, [("1", 1), ("2", 1)], {b"x": "1", b"y": "2"})], "1")
        (statement,) = parse(text)
        planner = Planner(shards, {"1": self.one, "2": self.two}, 5, 100)
        results: list[Any] = []
        Deferred.fromCoroutine(planner.plan(statement, text, text)).addBoth(results.append)
        if not isinstance(results[0], Alone | Together):
            results[0].raiseException()
        found: Alone | Together = results[0]
        return found

    def test_alone(self) -> None:
        """One shard is asked with types; others are asked for what it does not know, and may be down."""
        self.assertEqual(
            self.plan("SELECT v FROM m WHERE c = 'x' AND host = 'a'"),
            Alone("1", """SELECT "v"::float FROM "m" WHERE "c" = 'x' AND "host" = 'a'"""),
        )
        self.two = FakeShard(problem=ShardFailed(json_error(503, "down")))
        self.assertEqual(
            self.plan("SELECT * FROM m WHERE c = 'x'"),
            Alone("1", """SELECT "host"::tag, "v"::float FROM "m" WHERE "c" = 'x'"""),
        )

    def test_at_home(self) -> None:
        """With measurements as keys the shard of one is asked as its client has asked, and no other."""
        text = "SELECT * FROM x WHERE v > 3"
        self.assertEqual(self.plan(text, "measurement"), Alone("1", text))
        self.assertEqual(self.two.asked, [])

    def test_together(self) -> None:
        """Over several shards each is asked with the fields and types of all."""
        how = self.plan("SELECT * FROM m WHERE w != 'a'")
        assert isinstance(how, Together)

        async def run() -> list[Block]:
            return [block async for block in how.blocks()]

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(run())), [])
        expected = """SELECT "host"::tag, "v"::float, "w"::string FROM "m" WHERE "w"::string != 'a'"""
        self.assertEqual([each.asked[-1] for each in (self.one, self.two)], [expected, expected])

    def test_failures(self) -> None:
        """A shard that does not answer fails a query over all; an error of the statement is its result."""
        self.two = FakeShard(problem=ShardFailed(json_error(503, "down")))
        self.assertRaises(ShardFailed, self.plan, "SELECT mean(v) FROM m")
        self.two = FakeShard(problem=StatementError("database not found: d"))
        self.assertRaises(StatementError, self.plan, "SELECT mean(v) FROM m")

    def test_refused(self) -> None:
        """What might differ is refused with what would do."""
        for text in (
            "SELECT median(v) FROM m",
            "SELECT v FROM m SLIMIT 1",
            "SELECT v FROM m WHERE c = 'x' AND time > '2026-01-01' tz('Local')",
            "SELECT v FROM m WHERE c = 'x' AND time != 0",
            "SELECT v FROM m OFFSET 1",
            "SELECT max(v) FROM (SELECT v FROM m)",
            "SELECT max(x) FROM (SELECT max(v) AS x FROM m WHERE time > 0 GROUP BY time(1m), c) GROUP BY c",
            "SELECT v FROM a..m, b..m",
            "EXPLAIN SELECT v FROM m",
            "SHOW STATS",
            "SHOW SERIES CARDINALITY",
            "SHOW MEASUREMENTS WHERE a = 'x' AND b = 'y'",
            "SHOW MEASUREMENTS WHERE b != 'y'",
            "SHOW MEASUREMENTS WHERE b =~ /.*/",
        ):
            self.assertRaises(Refused, self.plan, text)
        self.one = FakeShard("c::string")
        self.assertRaisesRegex(Refused, "rename", self.plan, "SELECT v FROM m WHERE c = 'x'")
