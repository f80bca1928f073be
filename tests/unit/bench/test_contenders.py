"""Who is compared, and how each is configured."""

from __future__ import annotations

import argparse
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench import options
from bench.backends import make
from bench.contenders import Direct, Relay, influxrelay
from bench.proxies import HAProxy, Mirror
from bench.scenarios import RSS, scenarios
from bench.testbed import Ports, Testbed
from influxrelay.config.loader import load
from testing.certificates import Authority

ALL = {scenario.name: scenario for scenario in scenarios(quick=False)}


class RelayTests(SynchronousTestCase):
    """influxrelay itself."""

    def setUp(self) -> None:
        """Make a place for the files."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        self.testbed = Testbed(directory, Ports(), Authority(str(directory / "certificates")).issue())

    def test_configuration(self) -> None:
        """The configuration for each scenario is valid, and asks for what the scenario's name says."""
        for journal in (False, True):
            relay = influxrelay(18280, journal=journal)
            for scenario in filter(relay.takes, ALL.values()):
                backends = make(scenario.backends, self.testbed)
                file = self.testbed.directory / "relay.toml"
                text = relay.configuration(scenario, backends, self.testbed.directory / "journal")
                file.write_text(text)
                load(file)
                self.assertEqual("journal = " in text, journal, scenario.name)
                self.assertEqual("https://" in text, scenario.tls_out, scenario.name)
                self.assertEqual("ssl-combined-pem" in text, scenario.tls_in, scenario.name)
                self.assertEqual('journal-sync = "full"' in text, scenario.name == "64x1 fsync", scenario.name)


class PartsTests(SynchronousTestCase):
    """Who takes part where."""

    def rows(self, contender: Relay | Mirror | HAProxy | Direct) -> set[str]:
        """Return the scenarios that a contender takes part in."""
        return {name for name, scenario in ALL.items() if contender.takes(scenario)}

    def test_rows(self) -> None:
        """A scenario with a journal is for relays that have one, UDP for relays, the rest for all that can."""
        self.assertEqual(self.rows(influxrelay(1)), ALL.keys() - {"64x1 fsync"})
        self.assertEqual(self.rows(influxrelay(1, journal=True)), ALL.keys() - {"udp", RSS})
        self.assertEqual(self.rows(Mirror(1)), ALL.keys() - {"udp", "64x1 fsync"})
        self.assertEqual(self.rows(HAProxy(1)), ALL.keys() - {"udp", "64x1 fsync"})
        self.assertEqual(self.rows(Direct()), ALL.keys() - {"udp", "64x1 fsync", "64x1 TLS out", RSS})

    def test_peers(self) -> None:
        """A peer with a configuration of its own takes part where only the backends differ."""
        able = options.peer("a=relay {config},http://127.0.0.1:9096")
        self.assertEqual(self.rows(able), ALL.keys() - {"64x1 fsync"})
        own = options.peer("a=relay own-{backends}.toml,http://127.0.0.1:9096")
        self.assertEqual(self.rows(own), {name for name in self.rows(able) if "TLS" not in name})
        fixed = options.peer("a=relay own.toml,http://127.0.0.1:9096")
        self.assertEqual(self.rows(fixed), {n for n in self.rows(own) if ALL[n].backends == "sinks"})


class OptionsTests(SynchronousTestCase):
    """The command line."""

    def test_peer(self) -> None:
        """A peer's command may have commas and equal signs; what is no peer is refused."""
        peer = options.peer("some relay=relay -a=b,c {config}, http://127.0.0.1:9096")
        self.assertEqual(
            (peer.name, peer.command, peer.address), ("some relay", "relay -a=b,c {config}", "127.0.0.1:9096")
        )
        for wrong in ("", "a", "a=b", "a=b,http://127.0.0.1", "a=b,https://127.0.0.1:1", "=b,http://127.0.0.1:1"):
            self.assertRaises(argparse.ArgumentTypeError, options.peer, wrong)

    def test_defaults(self) -> None:
        """A quick run is one short round; what is given explicitly wins."""
        arguments = options.parse("", ["--quick"])
        self.assertEqual((arguments.seconds, arguments.rounds), (1, 1))
        arguments = options.parse("", ["--quick", "--rounds", "4"])
        self.assertEqual((arguments.seconds, arguments.rounds), (1, 4))
        arguments = options.parse("", [])
        self.assertEqual((arguments.seconds, arguments.rounds), (5, 3))
