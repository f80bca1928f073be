"""The keys of journals that several relays share."""

from __future__ import annotations

from influxrelay.config.diff import compare
from influxrelay.config.settings import JournalConfig, StreamConfig
from influxrelay.core.errors import ConfigError
from influxrelay.operations.views import socket_path
from testing.configuration import HTTP, OUTPUT, UDP, ConfigTestCase

SHARED = 'journal = "nats://n1,n2:4223,[::1]/Relay_1"\n'
SECURE = SHARED.replace("nats:", "tls:")
WEB_OUTPUT = '[[udp.output]]\nlocation = "http://h/write?db=x"\n'


class SharedJournalTests(ConfigTestCase):
    """What is read, and what is refused."""

    def journal(self, text: str) -> JournalConfig:
        """Return the journal of a listener with these keys."""
        found = self.load(f"{HTTP}{text}{OUTPUT}").http[0].journal
        assert found is not None
        return found

    def test_defaults(self) -> None:
        """A URL is a shared journal, which has other defaults."""
        found = self.journal(SHARED)
        self.assertEqual(found.shared, StreamConfig(("n1:4222", "n2:4223", "[::1]:4222"), "Relay_1"))
        self.assertEqual((found.on_error, found.timeout), ("refuse", 10.0))
        given = self.journal(f'{SHARED}journal-on-error = "relay"\njournal-timeout = "3s"\n')
        self.assertEqual((given.on_error, given.timeout), ("relay", 3.0))

    def test_all_keys(self) -> None:
        """Everything that is about the connection and the lease."""
        keys = 'journal-ca-file = "cert"\njournal-credentials-file = "good"\njournal-lease = "2s"\n'
        found = self.journal(SECURE + keys).shared
        assert found is not None
        self.assertEqual((found.tls, found.ca_file, found.credentials_file, found.lease), (True, "cert", "good", 2.0))

    def test_refused(self) -> None:
        """One line says what is wrong, and shows no secret."""
        for keys, key, message in (
            ('journal = "nats://n1"\n', "journal", "the name of a stream"),
            ('journal = "nats://n1/a.b"\n', "journal", "the name of a stream"),
            ('journal = "nats://n1/a-letters"\n', "journal", "not -letters"),
            ('journal = "nats:///a"\n', "journal", "a list of servers"),
            ('journal = "nats://n1,/a"\n', "journal", "a list of servers"),
            ('journal = "nats://n1:0/a"\n', "journal", "a list of servers"),
            ('journal = "nats://n1,n1:4222/a"\n', "journal", "each server once"),
            ('journal = "nats://me:hunter2-never-shown@n1/a"\n', "journal", "journal-credentials-file"),
            ('journal = "http://n1/a"\n', "journal", "nats://"),
            ('journal = "d"\njournal-lease = "5s"\n', "journal-lease", "without a shared journal"),
            (f'{SHARED}journal-lease = "10ms"\n', "journal-lease", "at least 1s"),
            (f'{SHARED}journal-ca-file = "cert"\n', "journal-ca-file", "tls://"),
            (f'{SECURE}journal-ca-file = "good"\n', "journal-ca-file", "certificate"),
            (f'{SHARED}journal-credentials-file = "empty"\n', "journal-credentials-file", "holds a secret"),
            (f'{SHARED}journal-credentials-file = "gone"\n', "journal-credentials-file", "gone"),
            ('journal-lease = "5s"\n', "journal-lease", "set without journal"),
        ):
            with self.subTest(keys):
                line = str(self.assertRaises(ConfigError, self.load, f"{HTTP}{keys}{OUTPUT}"))
                self.assertTrue(line.startswith(f"relay.toml: http[0].{key}: "), line)
                self.assertIn(message, line)
                self.assertNotIn("hunter2", line)

    def test_one_stream_each(self) -> None:
        """Two listeners cannot have the same stream, in whatever order its servers are named."""
        other = SHARED.replace("n1,n2:4223", "n2:4223,n1")
        line = str(self.assertRaises(ConfigError, self.load, f"{HTTP}{SHARED}{OUTPUT}{UDP}{other}{WEB_OUTPUT}"))
        self.assertIn("duplicate journal", line)

    def test_shards(self) -> None:
        """Each shard has a stream of its own."""
        shards = "".join(
            f'[[http.shard]]\nname = "{name}"\n[[http.shard.output]]\nlocation = "http://{name}/write"\n'
            for name in ("a.1", "b")
        )
        found = self.load(f'{HTTP}{SHARED}shard-key = "measurement"\n{shards}')
        journals = [each.journal for each in found.shards]
        self.assertEqual(
            [each and each.shared and each.shared.stream for each in journals], ["Relay_1-a_1", "Relay_1-b"]
        )
        self.assertEqual([each and each.directory[-5:] for each in journals], ["1-a_1", "y_1-b"])

    def test_no_admin_socket(self) -> None:
        """A shared journal has no directory in which the admin socket could be."""
        self.assertEqual(socket_path(self.load(f"{HTTP}{SHARED}{OUTPUT}")), "")

    def test_reload(self) -> None:
        """What the connection and the lease are made of needs a restart; the rest does not."""
        old = self.load(f"{HTTP}{SHARED}{OUTPUT}")
        for keys, named in (
            ('journal-lease = "3s"\n', "journal-lease"),
            ('journal-credentials-file = "good"\n', "journal-credentials-file"),
        ):
            new = self.load(f"{HTTP}{SHARED}{keys}{OUTPUT}")
            line = str(self.assertRaises(ConfigError, compare, old, new))
            self.assertIn(f"http[0].{named}: another value needs a restart", line)
        new = self.load(f"{HTTP}{SHARED}journal-max-mb = 5\n{OUTPUT}")
        self.assertEqual(compare(old, new).changes, ("a: journal-max-mb",))
