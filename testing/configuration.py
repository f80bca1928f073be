"""Small configuration files, and a test case that loads them."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config.loader import load
from influxrelay.config.settings import Config, HTTPOutputConfig
from influxrelay.core.errors import ConfigError

SECRET = "hunter2-never-shown"

HTTP = '[[http]]\nname = "a"\nbind-addr = "127.0.0.1:9096"\n'
OUTPUT = '[[http.output]]\nlocation = "http://127.0.0.1:8086/write"\n'
UDP = '[[udp]]\nname = "u"\nbind-addr = "127.0.0.1:9096"\n'
JOURNAL = 'journal = "d"\n'
BUFFER = "buffer-size-mb = 1\n"
UDP_OUTPUT = '[[udp.output]]\nlocation = "127.0.0.1:8089"\n'

SHARED_NAME = """
[[http]]
bind-addr = "127.0.0.1:0"
output = [
    { name = "influx", location = "http://10.0.0.1:8086/write" },
    { name = "influx", location = "http://10.0.0.2:8086/write" },
]
"""

BROKEN_PEM = """-----BEGIN CERTIFICATE-----
rubbish
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
rubbish
-----END PRIVATE KEY-----
"""


def write_config(case: SynchronousTestCase, text: str) -> str:
    """Write a configuration file, and return its path."""
    path = Path(case.mktemp()).absolute()
    path.write_text(text)
    return str(path)


def at(location: str) -> str:
    """Return an HTTP listener with one output at a location."""
    return f'{HTTP}[[http.output]]\nlocation = "{location}"\n'


def udp_at(location: str) -> str:
    """Return a UDP listener with one output at a location."""
    return f'{UDP}[[udp.output]]\nlocation = "{location}"\n'


def bound(address: str, more: str = "") -> str:
    """Return an HTTP listener at an address."""
    return f'[[http]]\nbind-addr = "{address}"\n{more}\n{OUTPUT}'


class ConfigTestCase(SynchronousTestCase):
    """A directory of its own as the working directory, with a few files that configurations name."""

    def setUp(self) -> None:
        """Make the files."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(directory)
        certificate = b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
        for name, content in {
            "good": f"{SECRET}\n".encode(),
            "windows": f"{SECRET}\r\n".encode(),
            "empty": b"\n",
            "lines": f"{SECRET}\n{SECRET}\n".encode(),
            "latin": b"\xe9",
            "cert": certificate,
            "locked": certificate + b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            "pem": certificate + b"-----BEGIN RSA PRIVATE KEY-----\n",
        }.items():
            Path(name).write_bytes(content)

    def load(self, text: str) -> Config:
        """Load a configuration from its text."""
        Path("relay.toml").write_text(text, encoding="utf-8")
        return load("relay.toml")

    def output(self, location: str, more: str = "") -> HTTPOutputConfig:
        """Load the one output of an HTTP listener."""
        return self.load(at(location) + more).http[0].outputs[0]

    def error(self, path: str | Path = "relay.toml") -> str:
        """Return the line that refuses a file."""
        return str(self.assertRaises(ConfigError, load, path))
