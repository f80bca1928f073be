"""Ports and clients on each of the reactors, as the tests of both see them in this process on uvloop's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import PROJECT

TESTS = [f"tests.component.test_{name}" for name in ("streams", "stream_flow", "client_endpoint")]


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


class MemoryTests(SynchronousTestCase):
    """What a relay does not need is not in memory."""

    def test_no_second_tls(self) -> None:
        """Under ``twistd`` Twisted's own TLS is not imported, on which nothing here is built."""
        file = Path(self.mktemp())
        file.write_text('[[http]]\nbind-addr = "127.0.0.1:0"\n[[http.output]]\nlocation = "http://127.0.0.1:1/write"\n')
        words = f"""if True:
            import sys
            from influxrelay import tap
            options = tap.Options()
            options.parseOptions(["--config", {str(file)!r}])
            tap.makeService(options)
            print([name for name in ("cryptography", "twisted.internet.tcp") if name in sys.modules])
        """
        command = [sys.executable, "-c", words]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(PROJECT)})
        self.assertEqual(ended.stdout, "['twisted.internet.tcp']\n")
