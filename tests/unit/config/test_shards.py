"""Shards and epochs in the configuration."""

from __future__ import annotations

from pathlib import Path

from influxrelay.config.loader import load
from influxrelay.config.settings import EpochConfig
from influxrelay.listeners.factory import make_shard_map
from testing.configuration import HTTP, OUTPUT, ConfigTestCase

KEY = 'shard-key = "tag:t"\n'
DECEMBER = 1_796_083_200_000_000_000


def shard(name: str, more: str = "", *, outputs: str = "") -> str:
    """Return the table of a shard."""
    outputs = outputs or f'{{ name = "{name}a", location = "http://h/write" }}'
    return f'[[http.shard]]\nname = "{name}"\noutput = [{outputs}]\n{more}\n'


TWO = KEY + shard("s1") + shard("s2")


def epoch(shards: str = '["s1"]', more: str = "") -> str:
    """Return the table of an epoch."""
    return f"[[http.epoch]]\nshards = {shards}\n{more}\n"


class LoadTests(ConfigTestCase):
    """What is allowed."""

    def test_shards(self) -> None:
        """A shard has its own outputs and the listener's settings; its journal is within the listener's."""
        text = HTTP + 'consistency = "all"\njournal = "j"\njournal-max-mb = 1\nhealth-timeout-ms = 7000\n' + TWO
        (listener,) = self.load(text).http
        self.assertEqual((listener.outputs, listener.journal, listener.shard_key), ((), None, "tag:t"))
        one, two = listener.shards
        self.assertEqual((one.name, two.name, one.weight, one.consistency), ("a/s1", "a/s2", 1.0, "all"))
        assert one.journal and two.journal
        self.assertEqual((one.journal.directory, two.journal.directory), ("j/s1", "j/s2"))
        self.assertEqual((one.journal.max_bytes, one.outputs[0].health_timeout), (1024 * 1024, 7.0))
        self.assertEqual(listener.epochs, (EpochConfig(None, ("s1", "s2")),))
        self.assertEqual([each.name for each in load("relay.toml").listeners], ["a", "a/s1", "a/s2"])

    def test_epochs(self) -> None:
        """Epochs are read in any order, with times of TOML or RFC 3339 to the nanosecond, and pins."""
        text = HTTP + TWO + epoch('["s1", "s2"]', "since = 2026-12-01T01:00:00+01:00\npin = { acme = 's2' }") + epoch()
        (listener,) = self.load(text + epoch(more='since = "2027-01-01T00:00:00.000000001Z"')).http
        self.assertEqual([each.since for each in listener.epochs], [None, DECEMBER, DECEMBER + 31 * 86400 * 10**9 + 1])
        self.assertEqual(listener.epochs[1].pins, (("acme", "s2"),))
        self.assertEqual(make_shard_map(listener).place(b"acme", DECEMBER), "s2")

    def test_weights_and_default(self) -> None:
        """Weights and the default shard are those of the map."""
        (listener,) = self.load(HTTP + 'default-shard = "s1"\n' + KEY + shard("s1", "weight = 0.5") + shard("s2")).http
        shards = make_shard_map(listener)
        self.assertEqual(shards.place(None, 0), "s1")
        self.assertEqual(shards.epochs[0].shards, (("s1", 0.5), ("s2", 1.0)))

    def test_filters(self) -> None:
        """A filter may name outputs of shards."""
        text = HTTP + TWO + '[[filter]]\noutputs = ["s2a"]\nmeasurement-expression = "^m"\n'
        one, two = self.load(text).http[0].shards
        self.assertEqual((len(one.outputs[0].filters), len(two.outputs[0].filters)), (0, 1))

    def test_unused(self) -> None:
        """A shard that gets nothing is warned of."""
        warnings = self.load(HTTP + TWO + epoch()).warnings
        self.assertEqual(warnings, ("relay.toml: http[0].shard[1]: no epoch has the shard s2, so it gets nothing",))


class RefusalTests(ConfigTestCase):
    """What does not start."""

    def test_refused(self) -> None:
        """What makes no sense is refused with the key, what was found and what is allowed."""
        odd = shard("s1").replace('"s1"', '"../s"')
        two = shard("s1") + shard("s2")
        for text, place, expected in (
            (KEY, "shard", "no shard; with shard-key, default-shard or epoch at least one is needed"),
            (epoch(), "shard", "no shard"),
            (two, "shard-key", "missing; allowed with shards"),
            ('shard-key = "customer"\n' + two, "shard-key", "found 'customer'; allowed: \"measurement\""),
            (TWO + OUTPUT, "output", "there are shards too"),
            (KEY + "[[http.shard]]\nname = 's1'\n", "shard[0].output", "no output"),
            (KEY + "[[http.shard]]\n", "shard[0].name", "missing"),
            (KEY + odd, "shard[0].name", "found '../s'; allowed: a name of at most 64"),
            (KEY + shard("s1") + shard("s1"), "shard[1].name", 'duplicate name "s1"'),
            (KEY + shard("s1") + shard("s2").replace("s2a", "s1a"), "shard[1].output[0].name", 'duplicate name "s1a"'),
            (KEY + shard("s1", "weight = 0"), "shard[0].weight", "found 0; allowed: a number above 0"),
            (KEY + shard("s1", "weight = true"), "shard[0].weight", "found true; allowed: a number above 0"),
            ('default-shard = "x"\n' + TWO, "default-shard", "found 'x'; allowed: s1, s2"),
            (
                'default-shard = "s1"\nshard-key = "measurement"\n' + two,
                "default-shard",
                "each line has a measurement",
            ),
            (TWO + "[[http.epoch]]\n", "epoch[0].shards", "missing"),
            (TWO + epoch('["s1", "s9"]'), "epoch[0].shards[1]", "found 's9'; allowed: s1, s2"),
            (TWO + epoch('["s1", "s1"]'), "epoch[0].shards[1]", "found 's1' twice"),
            (TWO + epoch(more='pin = { k = "s2" }'), "epoch[0].pin.k", "found 's2'; allowed: s1"),
            (TWO + epoch(more='pin = { "" = "s1" }'), "epoch[0].pin", "an empty key, whose place is the default"),
            (TWO + epoch(more="pin = { k = 1 }"), "epoch[0].pin", "a shard that is no name"),
            (TWO + epoch() + epoch(), "epoch[1].since", "missing; only the earliest epoch may leave it out"),
            (TWO + epoch(more='since = "2026-12-01"'), "epoch[0].since", "allowed: a time with an offset"),
            (TWO + epoch(more="since = 2026-12-01T00:00:00"), "epoch[0].since", "allowed: a time with an offset"),
            (TWO + epoch(more='since = "2026-13-01T00:00:00Z"'), "epoch[0].since", "allowed: a time with an offset"),
            (
                TWO + epoch(more='since = "2026-12-01T00:00:00Z"') + epoch(more='since = "2026-12-01T01:00:00+01:00"'),
                "epoch[1].since",
                "the same as in http[0].epoch[0]",
            ),
        ):
            Path("relay.toml").write_text(HTTP + text, encoding="utf-8")
            found = self.error()
            self.assertTrue(found.startswith(f"relay.toml: http[0].{place}: "), (text, found))
            self.assertIn(expected, found)
