"""``make picture``: what its table says, and the whole of it at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from testing.servers import PROJECT
from tools.picture_table import Facts, SenderFacts, describe_part, find_trouble, fit, keys, table

LIMIT = 300.0  # seconds; only what hangs takes as long, also on a busy machine
PROGRAM = """
import faulthandler, fcntl, runpy, signal, termios
faulthandler.register(signal.SIGUSR1, all_threads=True)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C there is a signal here
runpy.run_module("tools.picture", run_name="__main__")
"""
WELL = Facts(
    clock="12:00:00",
    parts={"relay1": "up", "relay2": "up", "influx1": "up", "influx2": "up"},
    votes={
        (relay, server): (200, "up and in sync") for relay in ("relay1", "relay2") for server in ("influx1", "influx2")
    },
    states={f"{each}": "UP" for each in ("relays/relay1", "relays/relay2", "influxdb/influx1", "influxdb/influx2")},
    senders=[SenderFacts("north-main", "haproxy", 10, 5.0, 0, 0, 0.0, "relay1")],
    answers={"influx1": 2.0, "influx2": 2.0},
    datagrams=20.0,
    alerts=[],
    events=["11:59:00 relay1 was started"],
)


def but(**changes: Any) -> Facts:
    """Return facts that differ from all being well; dictionaries are merged."""
    merged: dict[str, Any] = {
        name: {**getattr(WELL, name), **change} if isinstance(change, dict) else change
        for name, change in changes.items()
    }
    return attrs.evolve(WELL, **merged)


class TableTests(SynchronousTestCase):
    """Facts in, lines out."""

    def test_well(self) -> None:
        """When nothing is wrong the table says so, and shows who writes where and who answers."""
        text = "\n".join(table(WELL))
        self.assertIn("OK: every write", text)
        self.assertIn("relay1   up        accepts writes of north-main", text)
        self.assertIn("influx2  up        in sync, answers queries", text)
        self.assertIn("2/s answered by influx1, 2/s answered by influx2", text)
        self.assertIn("11:59:00 relay1 was started", text)

    def test_trouble(self) -> None:
        """Each thing that is wrong is a sentence of its own."""
        waiting = [attrs.evolve(WELL.senders[0], waits=2.5, failed=3, failing=True)]
        behind = {"influx1_is_behind/relay1": "UP", "influx2_is_behind/relay1": "UP"}
        for facts, trouble in (
            (WELL, []),
            (but(parts={"relay1": "killed"}), ["relay1 is killed"]),
            (but(votes={("relay2", "influx1"): (503, "behind: 5 writes")}), ["influx1 is behind"]),
            (but(votes={("relay2", "influx1"): (0, "")}), []),
            (but(states=behind), ["no server is in sync and up: queries are answered 503"]),
            (but(senders=waiting), ["writes wait: north-main", "writes fail: north-main"]),
        ):
            self.assertEqual(find_trouble(facts), trouble)
            self.assertIn("PROBLEM" if trouble else "OK: every write", "\n".join(table(facts)))

    def test_parts(self) -> None:
        """Each state of a part is told with what it means for others."""
        lag = {("relay1", "influx1"): (503, "behind: 5 writes")}
        for facts, name, words in (
            (but(parts={"relay1": "frozen"}), "relay1", "its clients write to relay2 when HAProxy notices"),
            (but(parts={"relay2": "frozen"}), "relay2", "does not answer; its clients write to relay1"),
            (but(parts={"relay1": "killed", "relay2": "killed"}), "relay1", "its clients cannot write; what"),
            (but(parts={"relay2": "killed"}), "relay2", "its clients write to relay1"),
            (but(states={"relays/relay1": "DOWN"}), "relay1", "HAProxy does not send it writes yet"),
            (WELL, "relay2", "no clients now"),
            (but(parts={"influx1": "killed"}, votes=lag), "influx1", "keep what it misses (relay1: behind: 5 writes)"),
            (but(votes=lag), "influx1", "behind, so it gets no queries (relay1: behind: 5 writes)"),
            (but(states={"influxdb/influx1": "DOWN"}), "influx1", "gets queries soon"),
        ):
            self.assertIn(words, describe_part(facts, name))

    def test_shared(self) -> None:
        """With a shared journal two of three NATS servers are needed."""
        nats = {"nats1": "up", "nats2": "up", "nats3": "up"}
        self.assertEqual(find_trouble(but(parts=nats)), [])
        one, two = but(parts={**nats, "nats2": "killed"}), but(parts={**nats, "nats2": "killed", "nats3": "frozen"})
        self.assertEqual(find_trouble(one), ["nats2 is killed"])
        self.assertIn("two of three NATS servers are down: writes are answered 503", find_trouble(two))
        for facts, name, words in (
            (one, "nats1", "keeps the log"),
            (one, "nats2", "the two others keep the log"),
            (two, "nats1", "waits for another"),
            (two, "nats2", "two of three are needed"),
            (but(parts={**nats, "relay1": "killed"}), "relay1", "is in the shared log, and delivered from there"),
        ):
            self.assertIn(words, describe_part(facts, name))

    def test_fit(self) -> None:
        """In a terminal of 80 x 24 everything up to the senders can be read, the keys and what is wrong among it."""
        refused = "down: refused: Connection refused"
        lag = (503, f"http: {refused}; udp: {refused}")
        facts = but(parts={"influx1": "killed"}, votes={(relay, "influx1"): lag for relay in ("relay1", "relay2")})
        shown = fit([keys(4), *table(facts)], 80, 24)
        self.assertLessEqual((len(shown), max(map(len, shown))), (24, 79))
        self.assertEqual(shown[0], keys(4))
        words, told = " ".join(" ".join(shown).split()), "http: down: refused; udp: down: refused"
        for part in (*facts.parts, "north-main"):
            self.assertIn(part, words)
        self.assertIn(f"keep what it misses (relay1: {told}; relay2: {told})", words)


class TerminalTests(SynchronousTestCase):
    """All parts, and a person at the keys."""

    def start(self, *options: str) -> None:
        """Start it at a terminal."""
        self.terminal, inside = pty.openpty()
        self.addCleanup(os.close, self.terminal)
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        command = [sys.executable, "-c", PROGRAM, *options]
        self.process = subprocess.Popen(
            command,
            cwd=PROJECT,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            env=dict(os.environ),  # not what readline has added to it in C: LINES and COLUMNS of another terminal
        )
        os.close(inside)
        self.addCleanup(self.end)
        self.written = b""

    def end(self) -> None:
        """End it, if it has not."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(LIMIT)

    def read(self) -> None:
        """Take what it has written."""
        while select.select([self.terminal], [], [], 0.1)[0]:
            try:
                self.written += os.read(self.terminal, 65536)
            except OSError:  # it has ended
                return

    def see(self, *words: str) -> None:
        """Wait until the table has all these words at once; events leave it when others have followed."""
        deadline = time.monotonic() + LIMIT
        while True:
            self.read()
            frames = self.written.decode(errors="replace").split("\x1b[H")
            if len(frames) > 2 and all(each in frames[-2] for each in words):
                return
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"{words} are not in: {frames[-2:]}")

    def wait(self) -> int:
        """Return its exit code, and what it writes until then is taken."""
        deadline = time.monotonic() + LIMIT
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read()
        self.read()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)  # it tells where it stands
            self.read()
            raise AssertionError(f"it has not ended: {self.written[-20000:].decode(errors='replace')}")
        return self.process.returncode

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self.terminal, keys.encode())

    def test_kill_and_freeze(self) -> None:
        """A person kills a server and freezes a relay, reads what is wrong and what follows, and puts it right."""
        self.start()
        self.see("OK: every write", "answered by influx1", "north-main", "1-4 select")
        self.press("3k")
        self.see("influx1 was killed")
        self.see("PROBLEM: influx1 is killed", "influx1  KILLED    gets no queries", "answered by influx2")
        self.press("3r")
        self.see("influx1 was started")
        self.see("OK: every write")
        self.press("1f")
        self.see("PROBLEM: relay1 is frozen", "relay1   FROZEN    does not answer")
        self.press("1r")
        self.see("relay1 was resumed")
        self.see("OK: every write")
        self.press("q")
        self.assertEqual(self.wait(), 0)

    def test_shared(self) -> None:
        """With a shared journal a relay that is killed is missed by nobody, and so is a NATS server."""
        self.start("--shared")
        self.see("OK: every write", "answered by influx1", "north-main", "1-7 select")
        self.press("5k")
        self.see("PROBLEM: nats1 is killed", "nats1    KILLED    the two others keep the log")
        self.press("5r")
        self.see("nats1 was started")
        self.see("OK: every write")
        self.press("1k")
        self.see("PROBLEM: relay1 is killed", "in the shared log")
        self.press("1r")
        self.see("relay1 was started")
        self.see("OK: every write")
        self.press("q")
        self.assertEqual(self.wait(), 0)

    def test_interrupt(self) -> None:
        """Ctrl-C ends everything, and leaves the terminal as it was."""
        self.start()
        self.see("OK: every write")
        before = self.written.count(b"\x1b[?1049l")
        self.press("\x03")
        self.assertEqual((self.wait(), before), (0, 0))
        self.assertIn(b"\x1b[?1049l", self.written)
