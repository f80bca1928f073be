"""One write for several shards."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import Destination, Reply, Write
from influxrelay.lineprotocol.scanner import run
from influxrelay.sharding.fanout import ShardedFanOut, worst
from influxrelay.sharding.placement import Epoch, ShardKey, ShardMap

DESTINATION = Destination(b"db", b"", b"ns", (b"", b"", b""))
KEY = ShardKey(b"t")
ONE = ShardMap(KEY, [Epoch(None, [("s1", 1)])], "s1")
TWO = ShardMap(KEY, [Epoch(None, [("s1", 1), ("s2", 1)], {b"a": "s1", b"b": "s2"})])


class FakeFanOut:
    """Keeps what it is given, with the Deferred of its answer."""

    divides_lines = False

    def __init__(self) -> None:
        self.given: list[tuple[bytes, str]] = []
        self.answers: list[Deferred[Reply]] = []

    def submit(self, write: Write, consistency: str, division: object) -> Deferred[Reply]:
        """Keep a write."""
        self.given.append((write.body, consistency))
        self.answers.append(Deferred())
        return self.answers[-1]


def write(body: bytes) -> Write:
    """Return a write."""
    return Write(DESTINATION, b"db=db", b"", body)


class FanOutTests(SynchronousTestCase):
    """Between a client and two shards."""

    def setUp(self) -> None:
        """Make them."""
        self.one, self.two = FakeFanOut(), FakeFanOut()
        self.both: Any = {"s1": self.one, "s2": self.two}
        self.fan_out = ShardedFanOut(TWO, self.both)

    def test_divided(self) -> None:
        """Each shard is given its part with the consistency; the answer comes when the last one has answered."""
        body = write(b"m,t=a v=1 1\nm,t=b v=1 1\n")
        answer = self.fan_out.submit(body, "all", run(self.fan_out.divide_slowly(body)))
        self.assertEqual((self.one.given, self.two.given), ([(b"m,t=a v=1 1\n", "all")], [(b"m,t=b v=1 1\n", "all")]))
        self.two.answers[0].callback(Reply(400))
        self.assertNoResult(answer)
        self.one.answers[0].callback(Reply(204))
        self.assertEqual(self.successResultOf(answer).status, 400)

    def test_reload_in_between(self) -> None:
        """A write that was divided before a reload goes where the shards of now are."""
        body = write(b"m,t=a v=1 1\nm,t=b v=1 1\n")
        division = run(self.fan_out.divide_slowly(body))
        only: Any = {"s1": self.one}
        self.fan_out.reconfigure(ONE, only)
        self.fan_out.submit(body, "one", division)
        self.assertEqual((self.one.given, self.two.given), ([(body.body, "one")], []))

    def test_reload_that_leaves_no_place(self) -> None:
        """If there is no place any more for one of its lines, it is answered 400, and no shard is given anything."""
        only: Any = {"s1": self.one}
        fan_out = ShardedFanOut(ONE, only)
        body = write(b"m v=1 1\nm,t=b v=1 1\n")
        division = run(fan_out.divide_slowly(body))
        fan_out.reconfigure(TWO, self.both)
        self.assertEqual(self.successResultOf(fan_out.submit(body, "one", division)).status, 400)
        self.assertEqual((self.one.given, self.two.given), ([], []))

    def test_failure(self) -> None:
        """A mistake of ours in one shard is told once, whatever the others answer."""
        body = write(b"m,t=a v=1 1\nm,t=b v=1 1\n")
        answer = self.fan_out.submit(body)
        self.one.answers[0].errback(ValueError())
        self.failureResultOf(answer, ValueError)
        self.two.answers[0].callback(Reply(204))

    def test_nothing(self) -> None:
        """A body of comments is taken, and nobody is asked."""
        self.assertEqual(self.successResultOf(self.fan_out.submit(write(b"# one\n"))).status, 204)
        self.assertEqual((self.one.given, self.two.given), ([], []))


class WorstTests(SynchronousTestCase):
    """What a client is told."""

    def test_order(self) -> None:
        """A 5xx comes before "not now", that before another 4xx, and all of them before a 2xx."""
        for statuses, expected in (
            ((204, 204), 204),
            ((204, 400), 400),
            ((400, 429), 429),
            ((429, 503, 400), 503),
            ((500, 503), 500),
        ):
            self.assertEqual(worst([Reply(each) for each in statuses]).status, expected)

    def test_counts(self) -> None:
        """What was written is added up, if every shard tells."""
        name = b"X-Prometheus-Remote-Write-Samples-Written"
        some = [Reply(204, ((name, b"2"),)), Reply(204, ((name, b"3"),))]
        self.assertEqual(dict(worst(some).headers)[name], b"5")
        self.assertEqual(worst([Reply(204), some[0]]).headers, ())
