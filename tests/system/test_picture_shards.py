"""``make picture OPTIONS=--shards``: what its table says, and the whole of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from testing.directories import short_directory
from testing.servers import PROJECT
from testing.shard_picture import FRONTS, PAIRS, SERVERS, ShardPicture
from tools.picture_shards import Facts, Front, ShardWatch, find_trouble, table

LIMIT = 120.0  # seconds; only what hangs takes as long, also on a busy machine
WELL = Facts(
    clock="12:00:00",
    states=dict.fromkeys((*FRONTS, *PAIRS.values(), *SERVERS), "up"),
    fronts=[Front(name, 100, 20.0, 0, failing=False, counted="2000") for name in FRONTS],
    lags={name: [] for name in SERVERS},
    chosen="s1a",
)


class TableTests(SynchronousTestCase):
    """Facts in, lines out."""

    def test_well(self) -> None:
        """When nothing is wrong the table says so, and what each part is."""
        text = "\n".join(table(WELL))
        for words in (
            "OK: every write is acknowledged",
            "writes through servers    20/s, 100 in all, 0 failed",
            "points by a query over both shards: 2000",
            "  2 relays   up        its shards are the relays pair1 and pair2",
            "  3 pair1    up        writes to s1a and s1b",
            "> 5 s1a      up        of shard s1, has everything",
        ):
            self.assertIn(words, text)

    def test_trouble(self) -> None:
        """Each thing that is wrong is a sentence of its own."""
        failing = [attrs.evolve(WELL.fronts[0], failing=True), WELL.fronts[1]]
        changes: tuple[tuple[dict[str, Any], list[str]], ...] = (
            ({}, []),
            ({"states": {**WELL.states, "s2b": "killed"}}, ["s2b is killed"]),
            ({"lags": {**WELL.lags, "s1b": ["pair1: behind: 5 writes"]}}, ["s1b is behind"]),
            ({"fronts": failing}, ["writes through servers fail"]),
        )
        for change, trouble in changes:
            facts = attrs.evolve(WELL, **change)
            self.assertEqual(find_trouble(facts), trouble)
            self.assertIn("PROBLEM" if trouble else "OK: every write", "\n".join(table(facts)))


class WholeTests(SynchronousTestCase):
    """All parts."""

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Return when the condition holds."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.1)

    def test_killed(self) -> None:
        """A server of each shard is killed with a key, and started: writes in both ways go on, and it catches up."""
        with ShardPicture(short_directory(self)) as picture:
            watch = ShardWatch(picture)
            self.addCleanup(watch.stop)
            watch.begin()
            self.wait(lambda: all(each.counted.isdigit() for each in watch.facts().fronts), "queries are answered")
            for key in "5k8k":
                watch.press(key)
            self.wait(lambda: {"s1a is killed", "s2b is killed"} <= {*find_trouble(watch.facts())}, "they are killed")
            before = [each.written for each in watch.facts().fronts]
            self.wait(
                lambda: all(each.written > was + 5 for each, was in zip(watch.facts().fronts, before, strict=True)),
                "writes go on",
            )
            for key in "5r8r":
                watch.press(key)
            self.wait(lambda: not find_trouble(watch.facts()), "all is well")
            self.assertEqual([each.failed for each in watch.facts().fronts], [0, 0])

    def test_program(self) -> None:
        """Without a terminal the table is printed, until the time is over."""
        command = [sys.executable, "-m", "tools.picture", "--shards", "--seconds", "2"]
        done = subprocess.run(
            command, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("OK: every write is acknowledged, no server is behind", done.stdout)
