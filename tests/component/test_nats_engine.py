"""The engine of shared journals on real NATS servers, in a process with a reactor that has an event loop."""

from __future__ import annotations

import subprocess
import sys

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import JournalError
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.engine import NatsEngine
from testing.servers import PROJECT


class NatsEngineTests(SynchronousTestCase):
    """Tests in a process of their own, and what can be seen without a server."""

    def run_on_uvloop(self, module: str) -> None:
        """Run tests on uvloop, as a relay has it."""
        options = ["-m", "testing.reactors", "uvloop", "--reporter=text", f"--temp-directory={self.mktemp()}"]
        command = [sys.executable, *options, module]
        environment = {"PYTHONPATH": str(PROJECT)}
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_engine(self) -> None:
        """The engine does all that engines do."""
        self.run_on_uvloop("tests.component.nats_engine")

    def test_journal(self) -> None:
        """The journals of two relays keep what they promise."""
        self.run_on_uvloop("tests.component.nats_journal")

    def test_checks(self) -> None:
        """It says what servers do not promise."""
        self.run_on_uvloop("tests.component.nats_checks")

    def test_faults(self) -> None:
        """It survives whatever happens to servers."""
        self.run_on_uvloop("tests.component.nats_faults")

    def test_another_reactor(self) -> None:
        """A reactor without an event loop is refused, with what to do."""
        make = (Clock(), "nats://h/s", ["h:4222"], "s", JournalLimits())
        error = self.assertRaises(JournalError, NatsEngine, *make)
        self.assertEqual(
            str(error), "nats://h/s: a shared journal needs a reactor on asyncio; start twistd without --reactor"
        )
