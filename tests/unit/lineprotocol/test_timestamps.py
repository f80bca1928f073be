"""Timestamps in another precision."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.lineprotocol.scanner import run
from influxrelay.lineprotocol.timestamps import convert_slowly, guess, rescale
from testing.influx_grammar import read
from testing.line_protocol_cases import random_line

SECONDS = 1_700_000_000


class RescaleTests(SynchronousTestCase):
    """A finer unit."""

    def test_lines(self) -> None:
        """The timestamp of each line is multiplied, and nothing else changes."""
        for body, expected in (
            (b"cpu v=1 5", b"cpu v=1 300"),
            (b"cpu v=1 5\ncpu v=2 -6 \n", b"cpu v=1 300\ncpu v=2 -360 \n"),
            (b"cpu v=7\n", b"cpu v=7\n"),
            (b"# 5 \n\ncpu,a=1 v=1i,w=t 0\n", b"# 300 \n\ncpu,a=1 v=1i,w=t 0\n"),
            (b'cpu s="a 5\nb 5" 5\n', b'cpu s="a 5\nb 5" 300\n'),
            (b'# "x" 5\n  cpu s="5" 5', b'# "x" 5\n  cpu s="5" 300'),
            (rb"c\ pu v=1 5", rb"c\ pu v=1 300"),
            (b'cpu s="open 5', b'cpu s="open 5'),
            (b'cpu s="x" 5 5', b'cpu s="x" 5 5'),
            (b"", b""),
        ):
            self.assertEqual(rescale(body, 60), expected)

    def test_random_lines(self) -> None:
        """Of any lines InfluxDB reads the same series and fields, and the times that were meant."""
        random = Random(12)
        body = b"\n".join(random_line(random, SECONDS // 60 + number) for number in range(500))
        before, after = list(read(body)), list(read(rescale(body, 60)))
        self.assertEqual(
            [(each.series, each.fields) for each in before], [(each.series, each.fields) for each in after]
        )
        self.assertEqual([int(each.time or 0) * 60 for each in before], [int(each.time or 0) for each in after])

    def test_long_body(self) -> None:
        """A body of many windows is converted bit by bit, with and without strings."""
        for line, expected in ((b"cpu v=1 5\n", b"cpu v=1 300\n"), (b'cpu s="x" 5\n', b'cpu s="x" 300\n')):
            steps = convert_slowly(line * 20_000, lambda digits: b"%d" % (int(digits) * 60))
            self.assertEqual(next(steps), 0)
            self.assertEqual(run(steps), expected * 20_000)


class GuessTests(SynchronousTestCase):
    """An open precision."""

    def test_sizes(self) -> None:
        """Each size of a number stands for one precision, as in 3.x."""
        for digits, expected in (
            (b"1700000000", 1_700_000_000 * 10**9),
            (b"-4999999999", -4_999_999_999 * 10**9),
            (b"5000000000", 5_000_000_000 * 10**6),
            (b"1700000000123", 1_700_000_000_123 * 10**6),
            (b"5000000000000", 5_000_000_000_000 * 10**3),
            (b"1700000000123456", 1_700_000_000_123_456 * 10**3),
            (b"5000000000000000", 5_000_000_000_000_000),
            (b"1700000000123456789", 1_700_000_000_123_456_789),
            (b"0", 0),
        ):
            self.assertEqual(int(guess(digits)), expected)
