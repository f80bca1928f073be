"""Files of InfluxDB Relay and of its Veepee fork, converted."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import attrs

from influxrelay.config.conversion import convert
from influxrelay.config.loader import load
from influxrelay.config.settings import Config
from influxrelay.core.errors import ConfigError
from testing.configuration import ConfigTestCase
from testing.servers import PROJECT

FORK = """\
# our relay
[[http]]
name = "web"  # the name
bind-addr = "127.0.0.1:9096"
default-retention-policy = ""
verbose = true

# the servers
[[http.output]]
name = "same"
location = "http://10.0.0.1:8086/"  # first
endpoints = { write = "/write", ping = "/ping", query = "/query" }
timeout = ""

[[http.output]]
name = "same"
location = "http://10.0.0.2:8086/"
endpoints = { write = "/write", ping = "/" }

[[filter]]
type = "x"
tag-expression = "^a"
outputs = ["same"]
"""
CONVERTED = """\
# our relay
[[http]]
name = "web"  # the name
bind-addr = "127.0.0.1:9096"

# the servers
[[http.output]]
name = "same@10.0.0.1:8086"
location = "http://10.0.0.1:8086/write"  # first

[[http.output]]
name = "same@10.0.0.2:8086"
location = "http://10.0.0.2:8086/write"
endpoints = { ping = "/" }

[[filter]]
tag-expression = "^a"
outputs = ["same@10.0.0.1:8086", "same@10.0.0.2:8086"]
"""
BUFFERED = """\
[[http]]
name = "web / main"
bind-addr = ":9096"
output = [
    { name = "a", location = "http://10.0.0.1:8086/write", buffer-size-mb = 100, timeout = "2s" },  # near
    { name = "b", location = "http://10.0.0.2:8086/write", buffer-size-mb = 100, buffer-full = "reject" },
]

[[udp]]
name = "datagrams"
bind-addr = ":8089"
output = [ { location = "10.0.0.1:8089" } ]
"""


def meaning(config: Config) -> Config:
    """Return a configuration without what two files of one meaning may differ in."""
    listeners = tuple(
        attrs.evolve(each, outputs=tuple(attrs.evolve(output, location="", filters=()) for output in each.outputs))
        for each in config.http
    )
    return attrs.evolve(config, path="", warnings=(), http=listeners)


class ConversionTests(ConfigTestCase):
    """:func:`convert`."""

    def converted(self, text: str, journal: str = "") -> tuple[str, tuple[str, ...]]:
        """Convert a text, and check that nothing is left to be converted."""
        Path("old.toml").write_text(text, encoding="utf-8", newline="")
        found = convert("old.toml", journal=journal)
        Path("new.toml").write_text(found.text, encoding="utf-8", newline="")
        self.assertEqual(convert("new.toml", journal=journal).changes, ())
        return found.text, found.changes

    def test_fork(self) -> None:
        """Endpoints become locations, shared names differ, what is ignored goes, and comments stay."""
        text, changes = self.converted(FORK)
        self.assertEqual(text, CONVERTED)
        self.assertEqual(
            [each.partition(":")[0] for each in changes],
            [
                "http[0].default-retention-policy",
                "http[0].verbose",
                "http[0].output[0].timeout",
                "filter[0].type",
                "http[0].output[0].location",
                "http[0].output[1].location",
                "http[0].output[0].name",
                "http[0].output[1].name",
                "filter[0].outputs",
            ],
        )

    def test_same_meaning(self) -> None:
        """A converted file means what it meant, in every dialect."""
        for path in (*sorted((PROJECT / "testing" / "configs").glob("*.toml")), PROJECT / "etc" / "relay.toml"):
            with self.subTest(path.name):
                text, _ = self.converted(path.read_text(encoding="utf-8"))
                self.assertEqual(meaning(load("old.toml")), meaning(load("new.toml")))
                if path.parent.name == "etc":
                    self.assertEqual(text, path.read_text(encoding="utf-8"))

    def test_journal(self) -> None:
        """With a directory, buffers in memory become journals in it; datagrams have none."""
        text, changes = self.converted(BUFFERED, "/var/lib/relay")
        self.assertIn('{ name = "a", location = "http://10.0.0.1:8086/write", timeout = "2s" },  # near\n', text)
        loaded = load("new.toml")
        journal = loaded.http[0].journal
        assert journal is not None
        self.assertEqual((journal.directory, loaded.udp[0].journal), ("/var/lib/relay/web-main", None))
        self.assertNotIn("buffer", text)
        self.assertIn('http[0].journal: added: "/var/lib/relay/web-main"', changes)
        self.assertEqual(self.converted(BUFFERED)[0], BUFFERED)

    def test_left_alone(self) -> None:
        """Environment variables, CRLF and endpoints of another API stay as they are."""
        text = (
            '[[http]]\r\nbind-addr = ":9096"\r\n\r\n[[http.output]]\r\nname = "${PLACE}"\r\nlocation = "${SERVER}/"\r\n'
            'endpoints = { write = "/write" }\r\n\r\n[[http.output]]\r\nname = "v2"\r\n'
            'location = "http://10.0.0.2:8086"\r\nendpoints = { write = "/api/v2/write" }\r\n'
        )
        with patch.dict(os.environ, {"SERVER": "http://10.0.0.1:8086", "PLACE": "here"}):
            self.assertEqual(self.converted(text), (text, ()))

    def test_refused(self) -> None:
        """A file with another mistake is refused with the line that the relay would give."""
        for text, words in (
            ("[", "not valid TOML"),
            (FORK.replace("127.0.0.1:9096", "nowhere"), r"old.toml: http\[0\].bind-addr: found 'nowhere'"),
            (FORK.replace('outputs = ["same"]', 'outputs = ["other"]'), "no output is named 'other'"),
        ):
            Path("old.toml").write_text(text, encoding="utf-8")
            with self.assertRaisesRegex(ConfigError, words):
                convert("old.toml")
