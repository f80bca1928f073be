"""Lines that came in by UDP, in batches for HTTP backends."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply
from influxrelay.delivery.udp_batcher import LineBatcher
from testing.udp import FakeFanOut


class BatcherTests(SynchronousTestCase):
    """The batches for a sender, on a Clock."""

    def setUp(self) -> None:
        """Make a batcher with a limit of each kind."""
        self.clock = Clock()
        self.sender = FakeFanOut()
        self.destination = Destination(b"db", b"", b"s", (b"", b"", b""))
        self.batcher = LineBatcher(
            self.sender,
            self.clock,
            self.destination,
            b"db=db&precision=s",
            batch_lines=3,
            batch_bytes=100,
            interval=2.0,
        )

    def test_by_count(self) -> None:
        """A batch is sent as soon as it has enough lines, and the rest waits."""
        self.batcher.send([b"l%d v=1 1" % number for number in range(7)])
        self.assertEqual(
            self.sender.bodies,
            [b"l0 v=1 1\nl1 v=1 1\nl2 v=1 1\n", b"l3 v=1 1\nl4 v=1 1\nl5 v=1 1\n"],
        )

    def test_by_bytes(self) -> None:
        """A batch is sent as soon as it has enough bytes, newlines included."""
        self.batcher.send([b"x" * 49])
        self.batcher.send([b"y" * 48])
        self.assertEqual(self.sender.bodies, [])
        self.batcher.send([b"z"])
        self.assertEqual(self.sender.bodies, [b"x" * 49 + b"\n" + b"y" * 48 + b"\nz\n"])
        self.batcher.send([b"x" * 99])
        self.assertEqual(len(self.sender.bodies), 2)

    def test_by_time(self) -> None:
        """A batch is sent when its first line has waited for the interval, whatever came after it."""
        self.batcher.send([b"a v=1 1"])
        self.clock.advance(1.5)
        self.batcher.send([b"b v=1 1"])
        self.assertEqual(self.sender.bodies, [])
        self.clock.advance(0.5)
        self.assertEqual(self.sender.bodies, [b"a v=1 1\nb v=1 1\n"])

    def test_the_time_begins_anew(self) -> None:
        """After a full batch the next line waits for the whole interval again."""
        self.batcher.send([b"a v=1 1"])
        self.clock.advance(1.5)
        self.batcher.send([b"b v=1 1", b"c v=1 1", b"d v=1 1"])
        self.assertEqual(len(self.sender.bodies), 1)
        self.clock.advance(1.5)
        self.assertEqual(len(self.sender.bodies), 1)
        self.clock.advance(0.5)
        self.assertEqual(self.sender.bodies[1:], [b"d v=1 1\n"])

    def test_flush(self) -> None:
        """flush() sends what there is, once, and leaves no timer behind."""
        self.batcher.send([b"a v=1 1"])
        self.batcher.flush()
        self.batcher.flush()
        self.assertEqual(self.sender.bodies, [b"a v=1 1\n"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_lines(self) -> None:
        """No lines start no timer and make no write."""
        self.batcher.send([])
        self.batcher.flush()
        self.assertEqual((self.sender.bodies, self.clock.getDelayedCalls()), ([], []))

    def test_what_is_sent(self) -> None:
        """A batch is a write that may be merged, to the output's destination and with its query."""
        self.batcher.send([b"a v=1 1"])
        self.batcher.flush()
        write, _ = self.sender.submitted[0]
        self.assertEqual(
            (write.destination, write.query, write.authorization, write.mergeable),
            (self.destination, b"db=db&precision=s", b"", True),
        )

    def test_answers(self) -> None:
        """Lines count as sent when the backend has taken them, else as dropped, by the reason."""
        self.batcher.send([b"x v=1 1"] * 12)
        outcomes: list[Reply | Exception] = [
            Reply(204),
            Reply(400),
            BackendFailure("refused", "no"),
            ValueError("a bug"),
        ]
        for (_, answer), outcome in zip(self.sender.submitted, outcomes, strict=True):
            if isinstance(outcome, Reply):
                answer.callback(outcome)
            else:
                answer.errback(outcome)
        self.assertEqual(self.batcher.lines_out, 3)
        self.assertEqual(self.batcher.dropped, {"400": 3, "refused": 3, "error": 3})
        self.assertEqual(self.batcher.name, "fan-out")
