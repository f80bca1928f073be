"""``influxrelay shards``, and what ``--check`` says of shards."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from influxrelay.cli import main
from influxrelay.config.loader import load
from influxrelay.tap import describe
from testing.configuration import HTTP, OUTPUT, ConfigTestCase

SHARDS = f"""
{HTTP.replace('"a"', '"metrics"')}
shard-key = "tag:customer_id"
default-shard = "s1"
journal = "j"
[[http.shard]]
name = "s1"
output = [{{ name = "s1a", location = "http://h/write" }}]
[[http.shard]]
name = "s2"
weight = 2
output = [{{ name = "s2a", location = "http://i/write" }}]
[[http.epoch]]
shards = ["s1"]
[[http.epoch]]
since = "2026-12-01T00:00:00Z"
shards = ["s1", "s2"]
pin = {{ "acme" = "s1" }}
"""
MAP = """\
metrics: by tag:customer_id, without it in s1
  {} from the beginning: s1
  {} from 2026-12-01T00:00:00Z: s1 (weight 1), s2 (weight 2)
      acme is pinned to s1
"""


class CommandTests(ConfigTestCase):
    """The command."""

    def ask(self, *words: str, code: int = 0) -> str:
        """Return what the command says, and check its exit code."""
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            try:
                ended = main(["--config", "relay.toml", "shards", *words])
            except SystemExit as error:
                ended = int(error.code or 0)
        self.assertEqual(ended, code, said.getvalue())
        return said.getvalue()

    def test_map(self) -> None:
        """The epochs are shown with their shards and pins; a star is at that of the time."""
        Path("relay.toml").write_text(SHARDS)
        self.assertEqual(self.ask("--at", "2026-11-30T23:59:59Z"), MAP.format("*", " "))
        self.assertEqual(self.ask("--at", "2026-12-01T00:00:00Z"), MAP.format(" ", "*"))

    def test_key(self) -> None:
        """A key's shard is told for the time that is asked about; the empty key is that of lines without the tag."""
        Path("relay.toml").write_text(SHARDS)
        for key, at, expected in (
            ("beta", "2026-11-30T00:00:00Z", "  beta at 2026-11-30T00:00:00Z: s1\n"),
            ("beta", "2026-12-01T00:00:00.5Z", "  beta at 2026-12-01T00:00:00.5Z: s2\n"),
            ("acme", "2026-12-01T00:00:00Z", "  acme at 2026-12-01T00:00:00Z: s1\n"),
            ("", "2026-12-01T00:00:00Z", "  what lacks the tag at 2026-12-01T00:00:00Z: s1\n"),
        ):
            self.assertTrue(self.ask(key, "--at", at).endswith(expected), (key, at))

    def test_json(self) -> None:
        """For scripts there is JSON."""
        Path("relay.toml").write_text(SHARDS)
        (found,) = json.loads(self.ask("acme", "--json", "--listener", "metrics"))["listeners"]
        self.assertEqual((found["name"], found["shard"], found["shard_key"]), ("metrics", "s1", "tag:customer_id"))
        self.assertEqual([each["since"] for each in found["epochs"]], [None, "2026-12-01T00:00:00Z"])
        self.assertEqual(found["epochs"][1]["shards"], [{"name": "s1", "weight": 1.0}, {"name": "s2", "weight": 2.0}])
        self.assertEqual(found["epochs"][1]["pins"], {"acme": "s1"})

    def test_refused(self) -> None:
        """Without shards, with a listener that has none, with a key without a place or a wrong time it says so."""
        Path("relay.toml").write_text(HTTP + OUTPUT)
        self.assertIn("no listener has shards", self.ask(code=2))
        self.assertIn("the listener x has no shards", self.ask("--listener", "x", code=2))
        self.assertIn("--at: found 'today'; allowed: a time with an offset", self.ask("--at", "today", code=2))
        Path("relay.toml").write_text(SHARDS.replace('default-shard = "s1"\n', ""))
        self.assertIn("metrics has no default-shard: writes without the tag are refused", self.ask("", code=2))

    def test_check(self) -> None:
        """``--check`` describes shards and epochs."""
        Path("relay.toml").write_text(SHARDS)
        text = describe(load("relay.toml"))
        for line in (
            "  shards by tag:customer_id, lines without it: in s1",
            "  shard s2, weight 2",
            "    to s2a: http://i/write",
            "  data from 2026-12-01T00:00:00Z: s1, s2, 1 pinned key",
        ):
            self.assertIn(line, text)
        self.assertIn("journal in j/s2: ", text)
