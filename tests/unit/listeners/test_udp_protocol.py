"""Datagrams in: lines with a timestamp, the valid ones."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.lineprotocol.parser import PRECISIONS
from influxrelay.listeners.udp_protocol import LineReceiver
from testing.logs import watch_log
from testing.scripted import LOOPBACK
from testing.udp import NOW, Sink

DATAGRAMS = (
    *(
        b"a v=1 1",
        b"a v=1 1\n",
        b"a v=1 1\nb v=2 2",
        b"a v=1",
        b"a v=1\n",
        b"",
        b"\n",
        b"# a\n",
        b"rubbish",
        b"a v=1 1\n\n",
    ),
    *(b'a s="b', b'c" 1', b'a s="b\nc" 1', b"a\\", b"a\\\nb v=1 1", b"a v=1 ", b"1", b" a v=1 1", b"a v=1 1 \n"),
)


class ListenerTests(SynchronousTestCase):
    """The listener, on a Clock."""

    def setUp(self) -> None:
        """Make a listener with one output, and a time that goes on with each look at it."""
        self.clock = Clock()
        self.sink = Sink()
        self.log = watch_log(self)
        self.now = NOW
        self.listener = self.make()

    def make(self, *outputs: Sink, precision: str = "ns") -> LineReceiver:
        """Make a listener."""
        return LineReceiver("relay", self.clock, outputs or [self.sink], precision=precision, clock=self.tick)

    def tick(self) -> int:
        """Tell the time."""
        self.now += 1
        return self.now

    def receive(self, *datagrams: bytes) -> None:
        """Let datagrams arrive in one reactor turn."""
        for datagram in datagrams:
            self.listener.datagramReceived(datagram, (LOOPBACK, 1))
        self.clock.advance(0)

    def test_one_stamp_for_each_turn(self) -> None:
        """Lines without a timestamp get the same one within a reactor turn, and a new one in the next."""
        self.receive(b"a v=1\nb v=2", b"c v=3\n")
        self.receive(b"d v=4")
        self.assertEqual(
            self.sink.sent,
            [
                [b"a v=1 %d" % (NOW + 1), b"b v=2 %d" % (NOW + 1), b"c v=3 %d" % (NOW + 1)],
                [b"d v=4 %d" % (NOW + 2)],
            ],
        )

    def test_nothing_before_the_turn_is_over(self) -> None:
        """Datagrams wait for the end of the turn, and flush() takes them at once and only once."""
        self.listener.datagramReceived(b"a v=1 1", (LOOPBACK, 1))
        self.assertEqual(self.sink.sent, [])
        self.listener.flush()
        self.clock.advance(0)
        self.assertEqual(self.sink.sent, [[b"a v=1 1"]])

    @given(st.lists(st.sampled_from(DATAGRAMS), min_size=1, max_size=6))
    @example([b"a v=1 1", b"", b"\n"])
    def test_together(self, datagrams: list[bytes]) -> None:
        """Datagrams that come in one turn are read as if each had come alone."""
        apart, together = (LineReceiver("relay", Clock(), [Sink()], clock=lambda: NOW) for _ in range(2))
        for datagram in datagrams:
            apart.datagrams_received([datagram])
        together.datagrams_received(datagrams)
        (one,), (other,) = apart._outputs, together._outputs
        assert isinstance(one, Sink)
        assert isinstance(other, Sink)
        self.assertEqual(one.lines, other.lines)
        for name in ("datagrams_in", "bytes_in", "lines_in", "dropped"):
            self.assertEqual(getattr(apart, name), getattr(together, name), name)

    def test_given_timestamps_stay(self) -> None:
        """A line with a timestamp is not touched."""
        lines = [b'a,t=x v=1,s="q\\" 1\n2" 1234567890', b"b v=2i -5", b"c\\ d v=t 0"]
        self.receive(b"\n".join(lines))
        self.assertEqual(self.sink.lines, lines)

    def test_precisions(self) -> None:
        """The stamp is the arrival time in the listener's precision, rounded down."""
        for precision in ("ns", "u", "ms", "s", "m", "h"):
            self.sink.sent.clear()
            self.listener = self.make(precision=precision)
            self.receive(b"a v=1")
            self.assertEqual(self.sink.lines, [b"a v=1 %d" % (self.now // PRECISIONS[precision.encode()])])

    def test_every_output(self) -> None:
        """Each output gets each line, with the same stamp."""
        sinks = Sink(), Sink(), Sink()
        self.listener = self.make(*sinks)
        self.receive(b"a v=1\nb v=2")
        for sink in sinks:
            self.assertEqual(sink.lines, [b"a v=1 %d" % (NOW + 1), b"b v=2 %d" % (NOW + 1)])

    def test_invalid_lines_travel_with_nobody(self) -> None:
        """A line that is no line protocol is dropped and counted; its neighbours travel without it."""
        self.receive(b"a v=1 1\nrubbish\nb v= 2\nc v=3 3", b"d,v=4 4", b"e v=1u 5\nf v=6 6 6\ng v=7 7")
        self.assertEqual(self.sink.lines, [b"a v=1 1", b"c v=3 3", b"g v=7 7"])
        self.assertEqual(self.listener.dropped, {"invalid": 5})
        self.assertEqual(self.listener.lines_in, 8)
        self.assertEqual(self.listener.datagrams_in, 3)

    def test_timestamps_out_of_range(self) -> None:
        """A timestamp that is out of InfluxDB's range in the listener's precision makes a line invalid."""
        for precision, good, bad in (
            ("ns", 2**63 - 2, 2**63 - 1),
            ("s", 9_223_372_036, 9_223_372_037),
            ("h", 2_562_047, 2_562_048),
        ):
            self.sink.sent.clear()
            self.listener = self.make(precision=precision)
            self.receive(b"a v=1 %d\nb v=2 %d" % (bad, good))
            self.assertEqual(self.sink.lines, [b"b v=2 %d" % good], precision)
            self.assertEqual(self.listener.dropped, {"invalid": 1})

    def test_comments_and_blank_lines(self) -> None:
        """Comments, blank lines and empty datagrams are neither lines nor rubbish."""
        self.receive(b"# hello\n\n  \na v=1 1\n\n", b"", b"\n", b"#")
        self.assertEqual(self.sink.lines, [b"a v=1 1"])
        self.assertEqual((self.listener.lines_in, self.listener.dropped), (1, {}))
        self.assertEqual(self.listener.datagrams_in, 4)

    def test_nothing_valid(self) -> None:
        """An output is not bothered when no line is valid."""
        self.receive(b"rubbish")
        self.assertEqual(self.sink.sent, [])

    def test_log_of_rubbish_is_throttled(self) -> None:
        """A flood of rubbish is one log line in ten seconds, with a count and the start of the last datagram."""
        for _ in range(100):
            self.receive(b"rubbish " + b"x" * 1000)
        self.assertEqual(len(self.log), 1)
        self.assertIn("line protocol, once, the last", self.log[0])
        self.assertIn("rubbish xxx", self.log[0])
        self.assertLess(len(self.log[0]), 250)
        self.clock.advance(10)
        self.receive(b"\xff\x00\n")
        self.assertEqual(len(self.log), 2)
        self.assertIn("100 times", self.log[1])
        self.assertTrue(self.log[1].isprintable(), self.log[1])
        self.assertEqual(self.listener.dropped, {"invalid": 101})
