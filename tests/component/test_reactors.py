"""Ports and clients on each of the reactors, as the tests of both see them in this process on one."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import PROJECT

TESTS = ("tests.component.test_streams", "tests.component.test_client_endpoint")


class ReactorTests(SynchronousTestCase):
    """Each in a process of its own."""

    def run_on(self, reactor: str) -> None:
        """Run the tests on a reactor."""
        options = ["--reporter=text", f"--temp-directory={self.mktemp()}"]
        command = [sys.executable, "-m", "testing.reactors", reactor, *options, *TESTS]
        environment = {"PYTHONPATH": str(PROJECT)}
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_epoll(self) -> None:
        """All behaves alike on Twisted's epoll reactor."""
        self.run_on("epoll")

    def test_asyncio(self) -> None:
        """All behaves alike on asyncio's own loop."""
        self.run_on("asyncio")

    def test_uvloop(self) -> None:
        """All behaves alike on uvloop."""
        self.run_on("uvloop")
