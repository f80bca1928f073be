"""The documentation: it builds, and what it says of the configuration and of commands is so."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.cli.arguments import make_parser
from influxrelay.config.loader import load
from influxrelay.tap import Options
from testing.certificates import make_pem
from testing.servers import PROJECT
from tools import module_list

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
        for other in (text.replace('\n# gzip = "as-received"\n', "\n"), text.replace("\n# gzip = ", "\n# zip = ")):
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
        self.assertEqual(facts["gzip"], ('"as-received", true or false', '"as-received"'))
        self.assertEqual(facts["create-databases"], ("true or false", "false"))
        self.assertEqual(facts["buffer-full"], ('"reject" or "drop-oldest"', '"reject"'))
        self.assertEqual(facts["ca-file"], ("a PEM file with a certificate", '""'))
        self.assertEqual(facts["password-file"], ("a file that holds a secret", '""'))
        self.assertEqual(facts["name"], ("a string without control characters", ""))
        self.assertTrue(config_reference.is_required("http.output", "location"))
        self.assertFalse(config_reference.is_required("http.output", "name"))


class ArchitectureTests(SynchronousTestCase):
    """``docs/architecture.rst``."""

    def test_modules(self) -> None:
        """The page lists every folder and module, as ``python -m tools.module_list`` writes it."""
        page = module_list.PAGE.read_text(encoding="utf-8")
        self.assertEqual(page, module_list.with_list(page))
        for path in module_list.PACKAGE.rglob("*.py"):
            if path.name != "__init__.py":
                self.assertIn(f"{path.name}``", page)


class FragmentTests(SynchronousTestCase):
    """What ``changes.d`` says of the next release."""

    def test_fragments(self) -> None:
        """Every file in ``changes.d`` is a news fragment, and towncrier makes an item of each."""
        command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "next"]
        found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
        self.assertEqual(found.returncode, 0, found.stderr)
        items = [" ".join(each.split()) for each in re.split(r"(?m)^- |^\w+\n~+\n", found.stdout)]
        for path in sorted((PROJECT / "changes.d").iterdir()):
            if path.name not in ("README.rst", "template.jinja"):
                with self.subTest(path.name):
                    self.assertRegex(path.name, r"^[a-z0-9-]+\.(added|changed|fixed|removed)\.rst$")
                    self.assertIn(" ".join(path.read_text(encoding="utf-8").split()), items)


def pages() -> dict[str, str]:
    """Return the texts that are written for people, by name."""
    paths = [*PROJECT.glob("*.rst"), *DOCS.glob("*.rst")]
    return {str(path.relative_to(PROJECT)): path.read_text(encoding="utf-8") for path in paths}


def commands(text: str) -> Iterator[str]:
    """Yield what a text shows as commands: lines of its literal blocks, and what stands in double backquotes."""
    for _, block in re.findall(r"(?m)^( *)\S?.*::(?: \w+)?\n\n((?:\1 +\S.*\n|\n)+)", text):
        for line in re.findall(r"(?m)^ +(?:\$ )?(?:\S*/bin/)?((?:influxrelay|twistd|make) .*)", block):
            yield re.sub(r" +# .*| [>|&;].*", "", line)
    for literal in re.findall(r"``((?:influxrelay|twistd|make)\s[^`]+)``", text):
        yield " ".join(literal.split())


class ConsistencyTests(SynchronousTestCase):
    """What one page says of others, of files, commands and settings."""

    def test_references(self) -> None:
        """Every file that a page names is there."""
        found = 0
        for name, text in pages().items():
            for path in re.findall(r"``((?:docs|etc|tools|bench|tests|changes\.d|\.ci)/[\w./-]+)``", text):
                found += 1
                self.assertTrue((PROJECT / path).exists(), f"{name}: {path}")
        self.assertGreater(found, 15)

    def test_commands(self) -> None:
        """Every command that a page shows has options and targets that there are."""
        targets = re.findall(r"(?m)^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"))
        tried = 0
        for name, text in pages().items():
            for command in commands(text):
                program, *words = shlex.split(command)
                with self.subTest(f"{name}: {command}"):
                    tried += 1
                    if program == "make":
                        self.assertIn(words[0], targets)
                    elif program == "twistd":
                        options = words[words.index("influxrelay") :] if "influxrelay" in words else []
                        known = {f"--{option}" for option in Options().synonyms}
                        self.assertLessEqual({each.split("=")[0] for each in options if each.startswith("--")}, known)
                    else:
                        self.assert_parses(words)
        self.assertGreater(tried, 20)

    def assert_parses(self, words: list[str]) -> None:
        """Check that the command line takes these words, or more of their kind."""
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            for attempt in (words, [*words, "--help"]):
                try:
                    make_parser().parse_args(attempt)
                except SystemExit as end:
                    if end.code == 0:
                        return
                else:
                    return
        self.fail(f"influxrelay {words}")

    def test_configurations(self) -> None:
        """Every configuration that a page shows is correct, if it is a whole one."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        for name in ("server.pem", "west-ca.pem"):
            (directory / name).write_bytes(make_pem("leaf"))
        (directory / "password").write_text("secret")
        tried = 0
        for name, text in pages().items():
            for _, block in re.findall(r"(?m)^( *)\.\. code-block:: toml\n\n((?:\1   .*\n|\n)+)", text):
                toml = textwrap.dedent(block)
                if re.search(r"(?m)^\[\[(http|udp)\]\]", toml) and "location" in toml:
                    tried += 1
                    path = directory / "relay.toml"
                    path.write_text(toml.replace('"/etc/influxrelay/', f'"{directory}/'), encoding="utf-8")
                    with self.subTest(f"{name}: {toml}"):
                        load(path, secrets=False)
        self.assertGreaterEqual(tried, 5)
