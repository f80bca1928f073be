"""The command line, and the service it builds."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from influxrelay import __version__
from influxrelay.tap import Options, makeService
from testing.configuration import BROKEN_PEM, SHARED_NAME, write_config
from testing.servers import PROJECT

TWISTD = str(Path(sysconfig.get_path("scripts")) / "twistd")

WHOLE = """
[[http]]
name = "web"
bind-addr = "127.0.0.1:9096"
[[http.output]]
name = "a"
location = "http://127.0.0.1:8086/write"
username = "relay"
password = "SECRET-password"
timeout = "500ms"
[[http.output]]
name = "b"
location = "https://10.0.0.2:8086/write"
token = "SECRET-token"
[[http.output]]
name = "c"
location = "http://10.0.0.3:8086"
buffer-size-mb = 100

[[http]]
name = "kept"
bind-addr = "127.0.0.1:9098"
consistency = "quorum"
journal = "/var/lib/relay"
journal-max-age = "90m"
[[http.output]]
name = "f"
location = "http://10.0.0.6:8086"
buffer-size-mb = 100
create-databases = true

[[udp]]
name = "packets"
bind-addr = "127.0.0.1:9097"
precision = "s"
[[udp.output]]
name = "d"
location = "10.0.0.4:8089"
mtu = 512
[[udp.output]]
name = "e"
location = "http://10.0.0.5:8086/write?db=telegraf&rp=weekly"
username = "relay"
password = "SECRET-udp"
"""

SHOWN = """{path}: correct
http web: listens on 127.0.0.1:9096, consistency one
  to a: http://127.0.0.1:8086/write, as user relay, timeout 0.5 s
  to b: https://10.0.0.2:8086/write, with a token of its own, timeout 10 s
  to c: http://10.0.0.3:8086/write, as the client, timeout 10 s, buffer of 100 MB, reject when full
http kept: listens on 127.0.0.1:9098, consistency quorum
  journal in /var/lib/relay: 1024 MB, 1.5 h, reject when full, sync normal, relay on error or after 5 s
  to f: http://10.0.0.6:8086/write, as the client, timeout 10 s, creates databases
udp packets: listens on 127.0.0.1:9097, precision s
  to d: 10.0.0.4:8089, MTU 512
  to e: http://10.0.0.5:8086/write (db=telegraf&rp=weekly), as user relay, timeout 10 s, batches of 5000 lines or 1 s
"""


class OptionsTests(SynchronousTestCase):
    """The command line, read in this process."""

    def exit(self, *arguments: str) -> tuple[Any, str, str]:
        """Read a command line that ends the process; return what it exits with, and what it prints."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            error = self.assertRaises(SystemExit, Options().parseOptions, arguments)
        return error.code, out.getvalue(), err.getvalue()

    def test_help(self) -> None:
        """The help says what the program is for, how it is called, and what each option does."""
        code, out, _ = self.exit("--help")
        self.assertFalse(code)
        self.assertIn("--config FILE [--check]\nOptions:", out)
        text = " ".join(out.split())
        for sentence in (
            "-c, --config= The configuration file.",
            "--check Read the configuration, say what it would do, and exit.",
            "--version Show the version of influxrelay, and exit.",
            "Relays InfluxDB line protocol and Prometheus remote writes to every configured backend.",
        ):
            self.assertIn(sentence, text)

    def test_version(self) -> None:
        """--version shows the product's version and exits with 0, with no configuration at all."""
        self.assertEqual(self.exit("--version"), (0, f"influxrelay {__version__}\n", ""))

    def test_check(self) -> None:
        """--check shows listeners and backends, each in a line, and no secret; then it exits with 0."""
        path = write_config(self, WHOLE)
        code, out, err = self.exit("--config", path, "--check")
        self.assertEqual((code, out, err), (0, SHOWN.format(path=path), ""))

    def test_check_of_shared_names(self) -> None:
        """--check warns of outputs that share a name, and shows the names that they get."""
        code, out, err = self.exit("--config", path := write_config(self, SHARED_NAME), "--check")
        self.assertEqual((code, err), (0, ""))
        self.assertIn(f'warning: {path}: http[0].output[1].name: several outputs are named "influx"; this one', out)
        self.assertIn("to influx@10.0.0.2:8086: http://10.0.0.2:8086/write", out)

    def test_no_config(self) -> None:
        """Without --config one line asks for it."""
        self.assertEqual(self.exit(), ("influxrelay: --config FILE is required", "", ""))
        self.assertEqual(self.exit("--check")[0], "influxrelay: --config FILE is required")

    def test_bad_config(self) -> None:
        """A configuration that cannot be used is one line with the file in it, with --check and without."""
        path = write_config(self, WHOLE.replace("mtu = 512", "mtu = 0.5"))
        for arguments in (["-c", path], ["-c", path, "--check"]):
            code, out, err = self.exit(*arguments)
            self.assertRegex(code, rf"^influxrelay: {path}: udp\[0\]\.output\[0\]\.mtu: .*0\.5.*$")
            self.assertEqual((out, err), ("", ""))

    def test_bad_secrets(self) -> None:
        """An error about a secret, or about a URL with one in it, does not show it."""
        for old, new in (
            ('"SECRET-token"', '["SECRET-token"]'),
            ('"SECRET-token"', '"SECRET-tøken"'),
            ('token = "SECRET-token"', 'token = "SECRET-token"\npassword = "SECRET-password"'),
            ("http://10.0.0.3:8086", "http://me:SECRET-url@10.0.0.3:8086"),
            ("db=telegraf", "db=telegraf&u=me&p=SECRET-query"),
            ("http://10.0.0.3:8086", "http://10.0.0.3:8086/write?u=me&p=SECRET-query"),
        ):
            code, _, _ = self.exit("--config", write_config(self, WHOLE.replace(old, new)))
            self.assertTrue(code.startswith("influxrelay: "), code)
            self.assertNotIn("SECRET", code)

    def test_unusable_pem(self) -> None:
        """A PEM file that only looks like one is one line, from --check and from a start."""
        pem = write_config(self, BROKEN_PEM)
        path = write_config(self, WHOLE.replace('name = "b"', f'name = "b"\nclient-certificate = "{pem}"'))
        code, out, _ = self.exit("--config", path, "--check")
        self.assertTrue(code.startswith(f"influxrelay: {pem}: not a usable PEM file"), code)
        self.assertEqual(out, "")
        options = Options()
        options.parseOptions(["--config", path])
        error = self.assertRaises(SystemExit, makeService, options)
        self.assertEqual(error.code, code)
        self.assertEqual(len(str(code).splitlines()), 1)

    def test_unknown_option(self) -> None:
        """An unknown option is a usage error, which twistd shows."""
        self.assertRaises(UsageError, Options().parseOptions, ["--no-such-option"])

    def test_plugin(self) -> None:
        """Twisted finds the plugin, and it leads here."""
        (maker,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "influxrelay"]
        verifyObject(IServiceMaker, maker)
        self.assertIs(maker.options, Options)
        self.assertIs(maker.makeService, makeService)


class CommandTests(SynchronousTestCase):
    """The command line, as a shell sees it."""

    def run_twistd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``twistd influxrelay`` to its end."""
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, TWISTD, "--nodaemon", "--pidfile=", "influxrelay", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=False)

    def test_check(self) -> None:
        """A good configuration: exit code 0, and standard output says what it does."""
        path = write_config(self, WHOLE)
        ended = self.run_twistd("--config", path, "--check")
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, SHOWN.format(path=path), ""))

    def test_bad_config(self) -> None:
        """A bad one: another exit code, and standard error has exactly one line, which names the file."""
        path = write_config(self, "[[http]]\nbind-addr = 5\n")
        for arguments in (["--config", path], ["--config", path, "--check"]):
            ended = self.run_twistd(*arguments)
            self.assertNotEqual(ended.returncode, 0)
            self.assertEqual(ended.stdout, "")
            self.assertRegex(ended.stderr, rf"\Ainfluxrelay: {path}: [^\n]+\n\Z")

    def test_missing_config(self) -> None:
        """No --config, or a file that is not there: one line, and an exit code that is not 0."""
        for arguments in ([], ["--config", "/no/such/file"]):
            ended = self.run_twistd(*arguments)
            self.assertNotEqual(ended.returncode, 0)
            self.assertRegex(ended.stderr, r"\Ainfluxrelay: [^\n]+\n\Z")

    def test_help(self) -> None:
        """--help of twistd lists the relay with its one-line description."""
        command = [sys.executable, TWISTD, "--help"]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "200"}
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=True)
        self.assertRegex(ended.stdout, r"influxrelay +High availability for InfluxDB: relays writes to every backend")
