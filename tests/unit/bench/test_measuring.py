"""What is written, what arrives, and what processes use."""

from __future__ import annotations

import gzip
import os
import time

from twisted.trial.unittest import SynchronousTestCase

from bench.backends import lines_in
from bench.processes import Stat, Usage
from bench.scenarios import LINE_LENGTH, Scenario, body, count_lines, scenarios
from testing.servers import ServerError

PLAIN = Scenario("64x1000", "sinks", 64, 1000)
ZIPPED = Scenario("64x1000 gzip", "sinks", 64, 1000, gzip=True)


class ScenarioTests(SynchronousTestCase):
    """The rows."""

    def test_names(self) -> None:
        """No two scenarios have the same name, and those of the quick run are among all of them."""
        every = [scenario.name for scenario in scenarios(quick=False)]
        self.assertEqual(len(every), len(set(every)))
        quick = [scenario.name for scenario in scenarios(quick=True)]
        self.assertTrue(0 < len(quick) < len(every))
        self.assertLessEqual(set(quick), set(every))

    def test_body(self) -> None:
        """A body has as many different lines of the same length as asked for."""
        lines = body(1000).splitlines()
        self.assertEqual({len(line) for line in lines}, {LINE_LENGTH})
        self.assertEqual(len({line.rpartition(b" ")[2] for line in lines}), 1000)
        self.assertEqual(gzip.decompress(ZIPPED.body), PLAIN.body)


class CountTests(SynchronousTestCase):
    """Lines by the size of a body."""

    def test_plain(self) -> None:
        """Lines are counted in bodies that were joined, with or without the last newline."""
        for count in (1, 2, 1000):
            self.assertEqual(count_lines(len(body(count))), count)
            self.assertEqual(count_lines(len(body(count)) - 1), count)
        joined = len(body(1000)) * 3
        self.assertEqual(lines_in(f"{joined} identity", ZIPPED), 3000)

    def test_gzip(self) -> None:
        """Lines are counted in gzip bodies that were joined as they came; others are an error, not a wrong count."""
        size = len(ZIPPED.body)
        self.assertEqual(lines_in(f"{size * 2} gzip", ZIPPED), 2000)
        for what, scenario in ((f"{size + 1} gzip", ZIPPED), (f"{size} gzip", PLAIN), (f"{size} deflate", ZIPPED)):
            self.assertRaises(ServerError, lines_in, what, scenario)


class UsageTests(SynchronousTestCase):
    """CPU time and memory."""

    def test_stat(self) -> None:
        """Session, CPU time and memory are found behind a command's name with blanks and parentheses."""
        fields = ["S", "1", "7", "42", *["0"] * 7, "100", "20", "3", "4", *["0"] * 6, "9", *["0"] * 28]
        ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        expected = Stat(5, 42, 120 / ticks, 7 / ticks, 9 * page)
        self.assertEqual(Stat.parse(f"5 (a) b (c)) {' '.join(fields)}\n"), expected)

    def test_this_process(self) -> None:
        """The CPU time that this process uses is its session's; it is another's if that session is not ours."""
        own = os.getsid(0)
        before, start = Usage(), time.process_time()
        while time.process_time() - start < 0.1:
            pass
        after = Usage()
        self.assertGreater(after.cpu(own) - before.cpu(own), 0.05)
        self.assertGreater(after.resident(own), 1 << 20)
        with_ours = after.others_since(before, [])
        without = after.others_since(before, [own])
        self.assertGreater(with_ours - without, 0.05)

    def test_ended(self) -> None:
        """A contender that has ended is an error, not one without CPU time."""
        self.assertRaises(ServerError, Usage().cpu, 2**31)
