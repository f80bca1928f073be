"""Tests for :mod:`influxrelay.lineprotocol.finished`."""

from __future__ import annotations

from random import Random
from unittest.mock import patch

import pcre2
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.lineprotocol.finished import WIDTHS, count_lines, find_in_large, finished_lines
from influxrelay.lineprotocol.parser import prepare_slowly
from influxrelay.lineprotocol.scanner import run

NOW = 1763700000123456789
DIGITS = b"1" * 19


def line(number: int, length: int, width: int = 19) -> bytes:
    """Return a finished line of this length, its newline included."""
    start = b"m,t=%d " % (number % 10)
    return start + b"f" * (length - len(start) - width - 4) + b"=1 " + b"%0*d\n" % (width, number)


def body_of(lengths: list[int], width: int = 19) -> bytes:
    """Return a body of such lines."""
    return b"".join(line(number, length, width) for number, length in enumerate(lengths))


class CountTests(SynchronousTestCase):
    """``count_lines``."""

    def test_count_lines(self) -> None:
        """Lines are counted by their newlines; the last one needs none."""
        for body, count in ((b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"a\nb\n", 2), (b"\n\n", 2)):
            self.assertEqual(count_lines(body), count, body)

    def test_count_many_lines(self) -> None:
        """Many lines of one length are counted exactly, with and without the last newline; others nearly so."""
        for length in (2, 7, 155, 1000, 2047, 2049, 5000):
            for count in (20, 200, 1001):
                body = (b"x" * (length - 1) + b"\n") * count
                self.assertEqual(count_lines(body), count, (length, count))
                self.assertEqual(count_lines(body[:-1]), count, (length, count))
        self.assertEqual(count_lines(b"x" * 100_000), 1)
        self.assertEqual(count_lines(b"x" * 3_000_000), 1)
        self.assertEqual(count_lines(b"\n" * 100_000), 100_000)
        random = Random(5)
        for _ in range(20):
            lines = [b"x" * random.randint(50, 200) + b"\n" for _ in range(1000)]
            self.assertLess(abs(count_lines(b"".join(lines)) - 1000), 200)


class FinishedTests(SynchronousTestCase):
    """``finished_lines``."""

    def test_few_lines(self) -> None:
        """A timestamp of usual width has to be at the end of each line, and newlines count."""
        for precision, width in WIDTHS.items():
            digits = b"1" * width
            self.assertEqual(finished_lines(b"m f=1 %b" % digits, precision), 1)
            self.assertEqual(finished_lines(b"m f=1 %b\nm f=1 %b\n" % (digits, digits), precision), 2)
            for wrong in (b"m f=1", b"m f=1 %b1" % digits, b"m f=1 %b" % digits[1:], b"m f=1\nm f=1 %b" % digits):
                self.assertEqual(finished_lines(wrong, precision), 0, wrong)
        self.assertEqual(finished_lines(b"", b"ns"), 0)
        self.assertEqual(finished_lines(b'm f="\n 1111111111111111111\n" 1111111111111111111', b"ns"), 0)

    def test_many_lines(self) -> None:
        """Lines of one length and of many are counted exactly where they are alike; nothing is missed in either."""
        random = Random(3)
        for precision, width in WIDTHS.items():
            for shortest, longest in ((60, 60), (155, 155), (150, 170), (60, 400), (900, 900), (3000, 3001)):
                lengths = [random.randint(shortest, longest) for _ in range(40_000 // shortest)]
                body = body_of(lengths, width)
                most = 0 if shortest == longest else 200
                for each in (body, body[:-1]):
                    self.assertLessEqual(abs(finished_lines(each, precision) - len(lengths)), most)

    def test_one_bad_line(self) -> None:
        """One line without a timestamp is found wherever it is, whatever it looks like and whatever is beside it."""
        random = Random(4)
        for length in (100, 155, 300):
            good = [line(number, length) for number in range(60_000 // length)]
            blank = good[0].index(b" ")
            for bad in (
                good[0][:-21] + b"\n",
                good[0].replace(b" 000", b" x00"),
                good[0][: blank + 4] + b"\n" + good[0][blank + 5 :],  # a newline in the middle
                b"m f=1\n" + good[0],
                b"m f=1\n" + good[0][: -len(b"m f=1\n") - 40] + good[0][-40:],  # as long as the others, both together
                b"\n",
            ):
                for place in (0, 1, len(good) // 2, random.randrange(len(good)), len(good) - 1):
                    lines = [*good[:place], bad, *good[place + 1 :]]
                    self.assertEqual(finished_lines(b"".join(lines), b"ns"), 0, (length, bad, place))

    def test_without_machine_code(self) -> None:
        """Where a pattern cannot become machine code, it is searched for all the same."""
        body = b"m f=1 1\n" * 3 + b"m f=1\n"
        found = find_in_large(rb"\n(?<! 1\n)")(body)
        with patch.object(pcre2, "compile", side_effect=pcre2.LibraryError(-48)):
            slowly = find_in_large(rb"\n(?<! 1\n)")(body)
        self.assertEqual(slowly.span(), found.span())
        self.assertEqual(found.end(), len(body))

    @given(
        st.lists(
            st.sampled_from(
                [b"m f=1 1111111111111111111\n", b"\n", b" ", b"=", b"1", b"1111111111111111111", b"m,t=a f=2"]
            ),
            min_size=1,
            max_size=40,
        ),
        st.integers(min_value=0, max_value=1200),
    )
    def test_nothing_to_do(self, pieces: list[bytes], place: int) -> None:
        """What is finished needs no stamp, and may be joined to others."""
        many = [line(number, 70) for number in range(600)]
        odd = b"".join(pieces)
        for body in (odd, b"".join([*many[:place], odd, *many[place:]])):
            if finished_lines(body, b"ns"):
                self.assertEqual(run(prepare_slowly(body, b"ns", NOW)), (body, True))
