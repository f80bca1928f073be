"""The documentation: it builds, and what it says of the configuration and of commands is so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.servers import PROJECT

DOCS = PROJECT / "docs"
sys.path.insert(0, str(DOCS))

import config_reference  # noqa: E402 (it is no package's)


class BuildTests(SynchronousTestCase):
    """Sphinx."""

    def test_no_warnings(self) -> None:
        """Sphinx builds all pages, and finds nothing to warn of."""
        output = Path(self.mktemp())
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(output)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual((found.returncode, found.stderr), (0, ""))
        self.assertTrue((output / "index.html").exists())


class ReferenceTests(SynchronousTestCase):
    """The reference of the configuration."""

    def test_keys(self) -> None:
        """A key that is missing in the file, or unknown to the code, is an error."""
        text = config_reference.EXAMPLE.read_text(encoding="utf-8")
        config_reference.check(config_reference.read_example(text))
        for other in (text.replace("\n# gzip = false\n", "\n"), text.replace("\n# gzip = ", "\n# zip = ")):
            self.assertNotEqual(other, text)
            with self.assertRaisesRegex(ValueError, r"\[http\.output\]: in one place only: \[.*'gzip'"):
                config_reference.check(config_reference.read_example(other))

    def test_facts(self) -> None:
        """What is allowed, what is the default and what is required is what the code says."""
        tables = {
            each.name: each for each in config_reference.read_example(config_reference.EXAMPLE.read_text("utf-8"))
        }
        output = tables["http.output"]
        facts = {
            key.name: (config_reference.allowed(output.known[key.name]), key.default)
            for group in output.groups
            for key in group.keys
        }
        self.assertEqual(facts["gzip"], ("true or false", "false"))
        self.assertEqual(facts["buffer-full"], ('"reject" or "drop-oldest"', '"reject"'))
        self.assertEqual(facts["ca-file"], ("a PEM file with a certificate", '""'))
        self.assertEqual(facts["password-file"], ("a file with a secret in it", '""'))
        self.assertEqual(facts["name"], ("a string without control characters", ""))
        self.assertTrue(config_reference.is_required("http.output", "location"))
        self.assertFalse(config_reference.is_required("http.output", "name"))
