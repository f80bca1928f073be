"""``make run``: what it prints, done word for word."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import PROJECT, find_program, free_port

PATIENCE = 60.0  # seconds


class RunTests(SynchronousTestCase):
    """Two servers and a relay, until Ctrl-C."""

    def setUp(self) -> None:
        """Start it, and read its guide."""
        find_program("curl", "curl")
        directory = Path(tempfile.mkdtemp(prefix="run-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        ports = [f"--{name}-port={free_port()}" for name in ("http", "udp", "admin", "a", "b")]
        command = [sys.executable, "-m", "tools.run", f"--directory={directory}", *ports]
        self.process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.stop)
        assert self.process.stdout is not None
        self.guide = ""
        while "Ctrl-C" not in self.guide:
            line = self.process.stdout.readline()
            self.assertTrue(line, self.guide)
            self.guide += line

    def stop(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def commands(self, title: str) -> list[str]:
        """Return the commands below a line of the guide."""
        (found,) = re.findall(rf"(?m)^{title}.*\n((?:  .*\n)+)", self.guide)
        return [line.strip() for line in found.splitlines()]

    def run_command(self, command: str) -> str:
        """Run a command as a reader does, in the checkout, and return what it prints."""
        ended = subprocess.run(
            ["bash", "-c", command], cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        self.assertEqual(ended.returncode, 0, f"{command}: {ended.stderr}")
        return ended.stdout

    def run_until(self, command: str, words: str) -> None:
        """Run a command again and again until its output contains some words."""
        deadline = time.monotonic() + PATIENCE
        while words not in (output := self.run_command(command)):
            self.assertLess(time.monotonic(), deadline, output)
            time.sleep(0.1)

    def test_guide(self) -> None:
        """Every command that is printed works, and shows what the guide says; Ctrl-C ends it all."""
        (write,) = self.commands("Write a point")
        self.assertIn("204 No Content", self.run_command(write))
        select, show = self.commands("Query through the relay")
        for words in ("X-Influxrelay-Backend: ", '"Oslo"', "-3.5"):
            self.assertIn(words, self.run_command(select))
        self.assertIn('["demo"]', self.run_command(show))
        one, two = self.commands("Query both")
        self.run_until(one, "-3.5")
        self.run_until(two, "-3.5")
        self.assertEqual(self.run_command(one), self.run_command(two))
        (datagram,) = self.commands("Write over UDP")
        self.run_command(datagram)
        self.run_until(two, "Bergen")

        freeze, write, health, queries, queues = self.commands("Freeze server b")
        resume, _ = self.commands("Let b continue")
        self.run_command(freeze)
        self.assertIn("204 No Content", self.run_command(write))
        self.assertIn('"status": "fail"', self.run_command(health))
        self.assertIn('"message": "ready for queries"', self.run_command(queries))
        self.assertRegex(self.run_command(queues), r"(?m)^demo +b +\w+ +journal +1 ")
        self.run_command(resume)
        self.run_until(health, '"status": "pass"')
        self.run_until(two, "-4")

        clash, freeze, write, resume, letters = self.commands("Let b refuse")
        self.run_command(clash)
        self.run_command(freeze)
        self.assertIn("204 No Content", self.run_command(write))
        self.run_command(resume)
        self.run_until(letters, "field type conflict")

        top, health, status, metrics = self.commands("See how the relay is")
        self.assertIn("field type conflict", self.run_command(top))
        self.assertIn('"status": "pass"', self.run_command(health))
        self.assertIn('"listeners"', self.run_command(status))
        self.assertIn("influxrelay_healthy", self.run_command(metrics))
        (reload,) = self.commands("Change ")
        self.assertEqual(self.run_command(reload), "Nothing has changed.\n")
        self.assertEqual(self.stop(), 0)
