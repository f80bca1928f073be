"""The ``[[tcp]]`` tables of the configuration file."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config.loader import load
from influxrelay.config.settings import Config
from influxrelay.core.errors import ConfigError

OUTPUT = '[[tcp.output]]\nlocation = "http://h/write?db=db"\n'


class TCPTests(SynchronousTestCase):
    """What is read and what is refused."""

    def load(self, text: str) -> Config:
        """Load a file with this text."""
        path = Path(self.mktemp())
        path.write_text(text)
        return load(path)

    def test_read(self) -> None:
        """Addresses, unix sockets and batches are read; a name is made of the address."""
        first, second = self.load(
            f'[[tcp]]\nbind-addr = ":8094"\nbatch-kb = 2\n{OUTPUT}\n'
            f'[[tcp]]\nname = "s"\nbind-addr = "unix:/run/s"\n{OUTPUT}'
        ).tcp
        self.assertEqual((first.name, first.endpoint, first.batch_bytes), ("tcp :8094", "tcp:8094", 2048))
        self.assertEqual((second.name, second.endpoint), ("s", "unix:/run/s"))
        self.assertEqual((first.outputs[0].write_url, first.outputs[0].query), ("http://h/write", "db=db"))

    def test_refused(self) -> None:
        """One line says what is wrong."""
        two = OUTPUT.replace("db=db", "db=other")
        http = '[[http]]\nbind-addr = "127.0.0.1:8094"\n[[http.output]]\nlocation = "http://h/write"\n'
        for text, message in (
            ('[[tcp]]\nbind-addr = ":1"\n', "tcp[0].output: no output; at least one is needed"),
            (
                f'[[tcp]]\nbind-addr = ":1"\n{OUTPUT}{two}',
                "its query differs from tcp[0].output[0]'s; all outputs of a TCP listener need the same query",
            ),
            (f'[[tcp]]\nbind-addr = "127.0.0.1:8094"\n{OUTPUT}{http}', "each listener needs an address of its own"),
            (f'[[tcp]]\nbind-addr = ":1"\n{OUTPUT}'.replace("?db=db", ""), "a URL with a database"),
            (f'[[tcp]]\nbind-addr = ":1"\nmtu = 3\n{OUTPUT}', "tcp[0].mtu: unknown key"),
            ("", "no listener; at least one [[http]], [[udp]] or [[tcp]] is needed"),
        ):
            error = self.assertRaises(ConfigError, self.load, text)
            self.assertIn(message, str(error))
            self.assertNotIn("\n", str(error))
