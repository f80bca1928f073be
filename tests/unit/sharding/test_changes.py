"""Statements that change several shards."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.influxql.parser import parse
from influxrelay.sharding.changes import check_change, combined
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.placement import Epoch, ShardKey, ShardMap

BORDER = 10**18
SHARDS = [("1", 1.0), ("2", 1.0)]
DONE = Reply(200, (), b'{"results":[{"statement_id":0}]}\n')
IN_RANGE = f"WHERE time >= {BORDER} AND time < {BORDER + 10}"


def written(count: int) -> Reply:
    """Return the answer to a SELECT INTO."""
    series = {"name": "result", "columns": ["time", "written"], "values": [[0, count]]}
    return Reply(200, (), json.dumps({"results": [{"statement_id": 0, "series": [series]}]}).encode())


class CheckTests(SynchronousTestCase):
    """What can be done on each shard by itself."""

    def check(self, text: str, key: str = "tag:c") -> None:
        """Check a statement."""
        (statement,) = parse(text)
        epochs = [Epoch(None, SHARDS), Epoch(BORDER, [*SHARDS, ("3", 1.0)])]
        check_change(statement, ShardMap(ShardKey.read(key), epochs), 2 * BORDER)

    def test_taken(self) -> None:
        """INTO and continuous queries that are grouped by the key, and everything that reads nothing."""
        self.check(f"SELECT max(v) INTO n FROM m {IN_RANGE} GROUP BY time(1m), c")
        self.check(f"SELECT * INTO n FROM m {IN_RANGE} GROUP BY *")
        self.check(f"SELECT max(v) INTO x.:MEASUREMENT FROM /m/ {IN_RANGE} GROUP BY time(1m)", "measurement")
        self.check("CREATE CONTINUOUS QUERY q ON d BEGIN SELECT max(v) INTO n FROM m GROUP BY time(1m), c END")
        for text in ("CREATE DATABASE d", "DROP MEASUREMENT m", "DELETE WHERE c != 'x'"):
            self.check(text)

    def test_refused(self) -> None:
        """What would write to other shards, or what a shard alone decides in another way."""
        for text, words in (
            (f"SELECT max(v) INTO n FROM m {IN_RANGE} AND c = 'x'", 'GROUP BY "c"'),
            (f"SELECT max(x) INTO n FROM (SELECT max(v) AS x FROM m) {IN_RANGE} GROUP BY c", 'GROUP BY "c"'),
            ("SELECT max(v) INTO n FROM m GROUP BY c", "several epochs"),
            (f"SELECT max(v) INTO n FROM m {IN_RANGE} AND e != 'x' GROUP BY c", "="),
            ("CREATE CONTINUOUS QUERY q ON d BEGIN SELECT max(v) INTO n FROM m GROUP BY time(1m) END", "GROUP BY"),
        ):
            self.assertRaisesRegex(Refused, words, self.check, text)
        self.assertRaisesRegex(Refused, ":MEASUREMENT", self.check, f"SELECT v INTO n FROM m {IN_RANGE}", "measurement")


class AnswerTests(SynchronousTestCase):
    """What a client is told."""

    def test_worst(self) -> None:
        """The worst answer of all shards: 5xx, 4xx, an error of the statement."""
        error = Reply(200, (), b'{"results":[{"statement_id":0,"error":"no"}]}\n')
        bad, down = json_error(400, "bad"), json_error(503, "down")
        self.assertIs(combined([DONE, error, bad, down]), down)
        self.assertIs(combined([bad, error, DONE]), bad)
        self.assertIs(combined([DONE, error]), error)
        self.assertIs(combined([DONE]), DONE)

    def test_written(self) -> None:
        """What was written is added up, if all shards tell."""
        self.assertIs(combined([written(3), DONE]), DONE)
        reply = combined([written(3), written(4), written(0)])
        self.assertEqual(json.loads(reply.body), json.loads(written(7).body))
