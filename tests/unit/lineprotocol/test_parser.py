r"""Tests for :mod:`influxrelay.lineprotocol.parser`.

The tables say what InfluxDB 1.x does with each line. :mod:`testing.influx_grammar`, an independent port of its parser,
has to agree with them, and then serves to check the regular expressions with arbitrary bytes.
"""

from __future__ import annotations

import re
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.lineprotocol import parser, scanner
from influxrelay.lineprotocol.datagrams import all_simple, split_valid
from influxrelay.lineprotocol.parser import (
    PRECISIONS,
    is_blank,
    is_blank_slowly,
    prepare,
    prepare_slowly,
    stamp,
    timestamp,
)
from influxrelay.lineprotocol.scanner import run
from testing import influx_grammar
from testing.line_protocol_cases import (
    ALL,
    BODIES,
    MALFORMED,
    NOW,
    RUBBISH,
    SKIPPED,
    STAMP,
    STAMPED,
    TIMED,
    UNSIGNED,
    UNTIMED,
)


class TableTests(SynchronousTestCase):
    """Line by line, and in company."""

    def test_oracle_agrees_with_the_tables(self) -> None:
        """The port of InfluxDB's parser reads every line of the tables as its table says."""
        for line in ALL:
            seen = [(read.accepted, read.time is not None) for read in influx_grammar.read(line)]
            if line in SKIPPED:
                self.assertEqual(seen, [], line)
            else:
                self.assertEqual(seen, [(line not in MALFORMED, line in TIMED)], line)

    def test_untimed_lines_get_the_digits(self) -> None:
        """A valid line without a timestamp ends in one space and the digits, blanks at its end are gone."""
        for line in UNTIMED + UNSIGNED:
            self.assertEqual(stamp(line, b"ns", NOW), STAMPED[line], line)
            self.assertEqual(stamp(line + b"\n", b"ns", NOW), STAMPED[line] + b"\n", line)

    def test_other_lines_stay(self) -> None:
        """Lines with a timestamp, malformed lines, comments and blank lines stay, as the same object."""
        for line in TIMED + MALFORMED + SKIPPED:
            for body in (line, line + b"\n"):
                self.assertIs(stamp(body, b"ns", NOW), body, line)

    def test_neighbours_do_not_matter(self) -> None:
        """Every line of the tables is treated the same among other lines of each kind."""
        for line in ALL:
            for before in (b"cpu v=1", b"cpu v=1 0", b'cpu s="two\nlines"', b'cpu s="x" 12', b"cpu", b"#", b"cpu v=1 "):
                for after in (b"a v=1", b'cpu s="\r\n"', b'cpu s="x\ny" 12', b"12"):
                    lines = (before, line, after)
                    body = b"\n".join(lines)
                    self.assertEqual(stamp(body, b"ns", NOW), b"\n".join(STAMPED[each] for each in lines), body)

    def test_all_at_once(self) -> None:
        """All the tables in one body come out line by line as they do alone."""
        body = b"\n".join(ALL)
        self.assertEqual(stamp(body, b"ns", NOW), b"\n".join(STAMPED[line] for line in ALL))

    def test_udp_keeps_what_influxdb_accepts(self) -> None:
        """Of the tables' lines, alone or all together, UDP keeps those that any InfluxDB 1.x accepts."""
        kept = [line.lstrip(b" \t\0") for line in UNTIMED + TIMED]
        self.assertEqual(split_valid(b"\n".join(ALL)), (kept, len(UNSIGNED + MALFORMED)))
        for line in kept:
            self.assertEqual(split_valid(line + b"\n"), ([line], 0), line)
        for line in UNSIGNED + MALFORMED:
            self.assertEqual(split_valid(line), ([], 1), line)
        for line in SKIPPED:
            self.assertEqual(split_valid(line), ([], 0), line)


class StampTests(SynchronousTestCase):
    """What the tables do not show."""

    def test_precisions(self) -> None:
        """The digits are the time in the write's precision, rounded down."""
        digits = {
            b"": b"1763700000123456789",
            b"n": b"1763700000123456789",
            b"ns": b"1763700000123456789",
            b"u": b"1763700000123456",
            b"ms": b"1763700000123",
            b"s": b"1763700000",
            b"m": b"29395000",
            b"h": b"489916",
        }
        self.assertEqual({precision: timestamp(precision, NOW) for precision in PRECISIONS}, digits)
        for precision, expected in digits.items():
            body = b"cpu v=1 " + expected + b"\n"
            self.assertEqual(stamp(b"cpu v=1\n", precision, NOW), body)
            self.assertIs(stamp(body, precision, NOW), body)
            last = body[:-1]
            self.assertIs(stamp(last, precision, NOW), last)

    def test_stray_backslash(self) -> None:
        """A last line that ends in a string and a stray backslash is stamped, and means what it meant."""
        self.assertEqual(stamp(b'cpu s="x"\\', b"ns", NOW), b'cpu s="x".' + STAMP)
        self.assertEqual(stamp(b'cpu s="x"\\\n', b"ns", NOW), b'cpu s="x".' + STAMP + b"\n")
        self.assertEqual(stamp(b'cpu s="x"\\\\', b"ns", NOW), b'cpu s="x"\\\\' + STAMP)

    def test_hidden_line(self) -> None:
        """A line that would get the time of its arrival and swallow the next one is refused by all backends alike."""
        body = b' a="b v=1 \ncpu v=2'
        (before,) = influx_grammar.read(body)
        (after,) = influx_grammar.read(stamp(body, b"ns", NOW))
        self.assertEqual((before.accepted, before.time, after.accepted), (True, None, False))


class MergeTests(SynchronousTestCase):
    """Which bodies may be joined."""

    def test_closed_bodies(self) -> None:
        """Bodies whose last line ends with its newline are mergeable, whatever malformed lines they have."""
        for line in ALL:
            self.assertTrue(prepare(line + b"\n", b"ns", NOW)[1], line)

    def test_open_bodies(self) -> None:
        """A body whose end would take hold of the next body's first line has to stay alone."""
        for body in (
            b'cpu s="x',
            b'cpu s="x\n',
            b'cpu s="x\\"\n',
            b'a v=1 1\ncpu s="x\n',
            b"cpu v=1 \\\n",
            b"cpu v=1 12\\",
            b'cpu s="x"\\\n',
            b'cpu s="x\\"',
            b'# a="x\n',
            b"# \\\n",
            b' cpu="x v=1\n',
        ):
            joined = body + b"cpu v=1 1" if body.endswith(b"\n") else body + b"\ncpu v=1 1"
            self.assertNotIn(b"cpu v=1 1", [line.text for line in influx_grammar.read(joined)], body)
            self.assertFalse(prepare(body, b"ns", NOW)[1], body)


class BlankTests(SynchronousTestCase):
    """``is_blank``."""

    def test_is_blank(self) -> None:
        """Bodies of blank lines and comments are blank; those with a line that InfluxDB reads are not."""
        self.assertTrue(is_blank(b"\n".join(SKIPPED)))
        for line in SKIPPED:
            self.assertTrue(is_blank(line), line)
            self.assertTrue(is_blank(b"\n\n" + line + b"\n"), line)
        for line in UNTIMED + UNSIGNED + TIMED + MALFORMED:
            self.assertFalse(is_blank(line), line)
            self.assertFalse(is_blank(b"\n# c\n" + line), line)


class SimpleTests(SynchronousTestCase):
    """``all_simple``."""

    def test_simple(self) -> None:
        """Usual datagrams, in which every line has its timestamp, are simple."""
        self.assertTrue(all_simple(b"cpu v=1 1763700000123456789"))
        self.assertTrue(all_simple(b'cpu,host=a\\ b v=1i,s="x y \\"z\\"",t=true 1763700000123456789\na v=.5 -12\n'))
        for precision in PRECISIONS:
            self.assertTrue(all_simple(b"cpu v=1 " + timestamp(precision, NOW), precision))

    def test_not_simple(self) -> None:
        """Anything else is not: no timestamp, one out of range, malformed, a comment, a newline in a string."""
        for line in [*UNTIMED, *UNSIGNED, *MALFORMED, *SKIPPED, b'cpu s="x\ny" 12', b"cpu v=1u 12"]:
            self.assertFalse(all_simple(line), line)
            self.assertFalse(all_simple(b"cpu v=1 12\n" + line + b"\ncpu v=1 12"), line)
        for precision in (b"u", b"ms", b"s", b"m", b"h"):
            self.assertFalse(all_simple(b"cpu v=1 1763700000123456789", precision))

    def test_range(self) -> None:
        """UDP keeps a timestamp up to the last one InfluxDB takes, in each precision, and none beyond."""
        for precision, nanoseconds in PRECISIONS.items():
            last = (2**63 - 2) // nanoseconds
            for number, valid in ((last, True), (-last, True), (last + 1, False), (-last - 1, False)):
                line = b"cpu v=1 %d" % number
                self.assertEqual(split_valid(line, precision), ([line], 0) if valid else ([], 1), line)


class PropertyTests(SynchronousTestCase):
    """Hypothesis."""

    @given(BODIES)
    def test_valid_bodies(self, body: tuple[bytes, bytes]) -> None:
        """Of all kinds of lines, those without a timestamp get it and nothing else changes."""
        before, expected = body
        after, mergeable = prepare(before, b"ns", NOW)
        self.assertEqual(after, expected)
        if before.endswith(b"\n"):
            self.assertTrue(mergeable)
        self.assertIs(stamp(after, b"ns", NOW + 1), after)

    @settings(max_examples=1000)
    @given(RUBBISH)
    @example(b' a="b v=1 \n')
    @example(b' a="b v=1 \nfoo"\n')
    @example(b'a b="x"\\\n')
    @example(b'a\\\\ ="b v=1 \nfoo"\n')
    def test_stamp_agrees_with_influxdb(self, body: bytes) -> None:
        """Whatever the bytes, InfluxDB reads the stamped body as the original, at one time for all backends."""
        stamped = stamp(body, b"ns", NOW)
        before, after = [*influx_grammar.read(body)], [*influx_grammar.read(stamped)]
        self.assertEqual(len(before), len(after))
        for old, new in zip(before, after, strict=True):
            if not old.accepted or old.time is not None:
                self.assertEqual(new, old)
            elif new.accepted:
                self.assertEqual((new.series, new.time), (old.series, STAMP[1:]))
                if new.fields != old.fields:
                    self.assertEqual((new.fields[:-1] + b"\\", new.fields[-1:]), (old.fields, b"."))
            else:
                self.assertIn(b"\n", old.text)
        self.assertEqual(stamp(stamped, b"ns", NOW + 1), stamped)

    @settings(max_examples=500)
    @given(st.one_of(RUBBISH, BODIES.map(lambda body: body[0])), st.integers(1, 30), st.integers(0, 40))
    @example(b'cpu s="ends in one\\\\"', 1, 0)
    @example(b'cpu v= 1\ncpu s="ends in one\\\\"', 30, 40)
    def test_slices(self, body: bytes, window: int, long: int) -> None:
        """Wherever the work is cut, the result is the same."""
        expected = (prepare(body, b"ns", NOW), is_blank(body))
        pairs = re.compile(scanner._PAIRS.pattern.replace(b"{1,1000}", b"{1,2}"), re.DOTALL)
        with (
            patch.multiple(parser, WINDOW=window, _LONG=long, OFTEN=1),
            patch.multiple(scanner, _WINDOW=window + 1, _PAIRS=pairs, OFTEN=1),
        ):
            found = (run(prepare_slowly(body, b"ns", NOW)), run(is_blank_slowly(body)))
            with patch.object(parser, "_COPIED", window):
                copied = run(prepare_slowly(body, b"ns", NOW))[0]
        self.assertEqual(found[0], expected[0])
        self.assertEqual(copied, expected[0][0])
        self.assertEqual(found[1] and body[:1] in b"# \t\0\n", expected[1])

    @settings(max_examples=500)
    @given(RUBBISH, RUBBISH)
    def test_merge_agrees_with_influxdb(self, first: bytes, second: bytes) -> None:
        """InfluxDB reads two bodies joined by a newline as it reads them one after the other."""
        first, mergeable = prepare(first, b"ns", NOW)
        if not first.endswith(b"\n"):
            first += b"\n"
        if mergeable:
            self.assertEqual(
                [*influx_grammar.read(first + second)],
                [*influx_grammar.read(first), *influx_grammar.read(second)],
            )

    @settings(max_examples=500)
    @given(RUBBISH)
    def test_split_agrees_with_influxdb(self, data: bytes) -> None:
        """Each line UDP keeps is accepted, also with all the others in one datagram; the others are counted."""
        read = [*influx_grammar.read(data, unsigned=False)]
        lines, invalid = split_valid(data)
        self.assertEqual(len(lines) + invalid, len(read))
        self.assertLessEqual(len(lines), sum(line.accepted for line in read))
        accepted = [line.text for line in influx_grammar.read(b"\n".join(lines), unsigned=False) if line.accepted]
        self.assertEqual(accepted, lines)
        if all_simple(data):
            self.assertEqual(data.removesuffix(b"\n"), b"\n".join(lines))
            self.assertTrue(all(line.time for line in read))
        self.assertEqual(is_blank(data), not read)


class SliceTests(SynchronousTestCase):
    """Large bodies, a bit at a time."""

    def test_many(self) -> None:
        """The work for a large body has many slices, whatever its lines are."""
        quick = (
            b"cpu,host=a value=1 1465839830100400200\n",
            b"cpu,host=a value=1\n",
            b"# comment\n",
            b"#" * 1_000_000,
            b"\\" * 1_000_000,
            b'cpu s="' + b"\\a" * 500_000,
        )
        slow = (
            b"cpu,host= value=1\n",
            b'cpu v="\n',
            b"cpu " + b"f=1," * 20_000 + b"g=bad\n",
            b"cpu " + b"f=1," * 50_000,
            b"cpu " + b"," * 200_000,
        )
        for units, size in ((quick, 1_000_000), (slow, 200_000)):
            for unit in units:
                body = b"x v=1 1\n" + unit * max(size // len(unit), 1)
                self.assertGreater(sum(1 for _ in prepare_slowly(body, b"ns", NOW)), 10, unit[:20])
        self.assertGreater(sum(1 for _ in is_blank_slowly(b"# comment\n" * 100_000)), 10)
