"""What is told while a command works."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.cli.terminal import Work


class PipedTests(SynchronousTestCase):
    """Standard error is no terminal."""

    def test_told(self) -> None:
        """Once a minute a line says how far the work is, and how long the rest will take at that pace."""
        now = [0.0]
        err = StringIO()
        with redirect_stderr(err), Work("verify", lambda: now[0]) as work:
            for seconds, done in ((0, 0), (61, 0), (100, 1), (150, 2.5), (200, 4), (211, 5), (215, 10)):
                now[0] = seconds
                work(done, 10, f"{int(done)} of 10 windows")
        self.assertEqual(
            err.getvalue().splitlines(),
            [
                "influxrelay verify: 0 of 10 windows",
                "influxrelay verify: 2 of 10 windows, about 7m30s left",
                "influxrelay verify: 5 of 10 windows, about 3m31s left",
            ],
        )
