"""The runner behind ``make test``: what it prints, and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import PROJECT

SAMPLE = """
import os
from twisted.trial.unittest import SynchronousTestCase

class First(SynchronousTestCase):
    def test_a(self):
        print("something was printed")
    def test_b(self):
        pass

class Failing(SynchronousTestCase):
    def test_it(self):
        self.assertEqual("what is", "what should be")

class Skipped(SynchronousTestCase):
    def test_it(self):
        pass
    test_it.skip = "no time"

class Fatal(SynchronousTestCase):
    def test_it(self):
        print("these were the last words", flush=True)
        os._exit(3)
"""


class RunnerTests(SynchronousTestCase):
    """A directory with some tests, run by the runner."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        (self.directory / "sample.py").write_text(dedent(SAMPLE))

    def run_tests(self, *names: str) -> tuple[int, str]:
        """Run tests, and return the exit status and what was printed."""
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-m", "tools.run_tests", *names]
        done = subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False)
        self.assertEqual(done.stderr, "")
        return done.returncode, done.stdout

    def summary(self, *names: str) -> tuple[int, str]:
        """Run tests, and return the exit status and the last line."""
        code, printed = self.run_tests(*names)
        return code, printed.splitlines()[-1]

    def test_all_pass(self) -> None:
        """The last line counts the tests, and the status is 0 if none of them fails."""
        self.assertEqual(self.summary("sample.First"), (0, "2 passed, 0 failed"))
        self.assertEqual(self.summary("sample.First.test_a"), (0, "1 passed, 0 failed"))
        self.assertEqual(self.summary("sample.First", "sample.Skipped"), (0, "2 passed, 0 failed, 1 skipped"))

    def test_failures(self) -> None:
        """Failures are shown in full, also when a test takes its process with it, and the other tests are run."""
        code, printed = self.run_tests("sample")
        self.assertEqual((code, printed.splitlines()[-1]), (1, "2 passed, 2 failed, 1 skipped"))
        for expected in ("what should be", "sample.Failing.test_it", "status 3", "these were the last words"):
            self.assertIn(expected, printed)
        self.assertNotIn("something was printed", printed)

    def test_failures_are_kept(self) -> None:
        """The reports on failures, and no others, are in a file that a later run leaves alone."""
        _, printed = self.run_tests("sample")
        *_, where, _ = printed.splitlines()
        self.assertEqual(self.run_tests("sample.First", "sample.Skipped")[0], 0)
        kept = (self.directory / where.removeprefix("the reports on failures are kept in ")).read_text()
        for expected in ("what should be", "sample.Failing.test_it", "status 3", "these were the last words"):
            self.assertIn(expected, kept)
        self.assertNotIn("no time", kept)

    def test_beside(self) -> None:
        """What is run beside the tests must not fail either."""
        self.assertEqual(self.run_tests("--beside", "true", "sample.First")[0], 0)
        code, printed = self.run_tests("--beside", "sh -c 'echo something is wrong; exit 4'", "sample.First")
        self.assertEqual((code, printed.splitlines()[-1]), (1, "2 passed, 0 failed"))
        self.assertIn("something is wrong", printed)
        self.assertIn("has failed, see above", printed)

    def test_nothing_to_run(self) -> None:
        """Names that cannot be loaded are failures; no tests at all are no success."""
        self.assertEqual(self.summary("sample.Missing"), (1, "0 passed, 1 failed"))
        self.assertEqual(self.summary("nowhere"), (1, "0 passed, 1 failed"))
        self.assertEqual(self.summary("testing.logs"), (1, "0 passed, 0 failed"))
