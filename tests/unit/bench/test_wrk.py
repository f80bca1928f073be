"""The load generator's scripts, and what it prints."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from bench.scenarios import REQUEST_DIGITS, Scenario, scenarios
from bench.wrk import Load, parse, script

OUTPUT = """\
Running 1s test @ http://127.0.0.1:18280/write?db=bench
  2 threads and 64 connections
Requests/sec:  40000.00
bench 40000 1000000 1500 9000 3 0 0 0 1
"""


class ParseTests(SynchronousTestCase):
    """wrk's output."""

    def test_figures(self) -> None:
        """Times are in seconds; errors are named, and refused writes are not counted as taken."""
        load = parse(OUTPUT)
        self.assertEqual(load, Load(40000, 1.0, 0.0015, 0.009, {"non-2xx": 3, "timeouts": 1}))
        self.assertEqual(load.taken, 39997)

    def test_nothing(self) -> None:
        """Output without figures is an error that shows the output."""
        self.assertRaisesRegex(ValueError, "unable to connect", parse, "unable to connect to 127.0.0.1")


class ScriptTests(SynchronousTestCase):
    """The Lua scripts."""

    def test_body(self) -> None:
        """A script holds the whole body, each byte as a decimal escape, and names its encoding."""
        for scenario in scenarios(quick=False):
            if scenario.backends == "sinks":
                text = script(scenario)
                found = re.search(r'wrk\.body = "(.*)"', text)
                assert found is not None
                body = bytes(int(byte) for byte in found[1].split("\\")[1:])
                self.assertEqual(body, scenario.body)
                self.assertEqual("gzip" in text, scenario.gzip)

    def test_fresh_points(self) -> None:
        """With real servers each request has timestamps of its own, and the threads have ranges that do not overlap."""
        text = script(Scenario("influxd 64x1000", "influxd", 64, 1000))
        self.assertIn("threads * 500000000", text)
        found = re.search(r"local pieces = \{ (.*) \}", text)
        assert found is not None
        self.assertEqual(found[1].count('", "'), 1000)
        self.assertIn(f'"%0{len(REQUEST_DIGITS)}d"', text)
