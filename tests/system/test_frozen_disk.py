"""The journal's disk stops answering, under a real relay in front of real servers, and answers again.

Where this process may mount, the disk is a file system that is frozen; everywhere, it is a directory whose files hang
for the relay.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from testing.disks import Disk, FrozenDisk, HangingDisk, is_over, may_mount
from testing.servers import LOOPBACK, START_TIMEOUT, Influxd, Relay, ServerError, free_port, send

WORDS = "the disk has not answered for 2 s"
QUIET = "ready for writes"


def wait_until(holds: Callable[[], Any], what: str) -> None:
    """Wait for something to be true."""
    deadline = time.monotonic() + START_TIMEOUT
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


class DiskCase(SynchronousTestCase):
    """A relay with a journal, and another listener without one, in front of two servers."""

    def setUp(self) -> None:
        """Start all of them."""
        base = Path(tempfile.mkdtemp(prefix="disk-"))  # trial's paths are too long for the admin socket's
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        self.disk = self.make_disk(base)
        self.servers = [Influxd(base / name) for name in ("one", "two")]
        self.base = base
        self.acknowledged: list[int] = []
        for each in self.servers:
            self.addCleanup(each.kill)
            each.start()
            each.create_database("db")

    def make_disk(self, base: Path) -> Disk:
        """Return the disk."""
        raise NotImplementedError

    def start(self, on_error: str = "relay") -> Relay:
        """Start the relay."""
        port, self.other, self.admin = free_port(), free_port(), free_port()
        outputs = [
            f'[[http.output]]\nname = "{name}"\nlocation = "{server.url}/write"\nmax-delay-interval = "300ms"'
            for name, server in zip(("one", "two"), self.servers, strict=True)
        ]
        listeners = [
            f'[[http]]\nname = "main"\nbind-addr = "{LOOPBACK}:{port}"\njournal = "{self.disk.directory}/journal"',
            f'journal-timeout = "2s"\njournal-on-error = "{on_error}"',
            *outputs,
            f'[[http]]\nname = "other"\nbind-addr = "{LOOPBACK}:{self.other}"',
            outputs[0],
        ]
        top = f'shutdown-timeout = "5s"\nadmin-socket = ""\n[admin]\nbind-addr = "{LOOPBACK}:{self.admin}"'
        relay = self.disk.relay(self.base / "relay", "\n".join([top, *listeners, ""]), port)
        self.addCleanup(relay.kill)
        self.addCleanup(self.disk.thaw)
        relay.start()
        return relay

    def write(self, relay: Relay, number: int) -> int:
        """Write a point of its own and another value of a point that all writes set; return the answer's status."""
        lines = f"m n={number}i {number}\nlast n={number}i 1\n".encode()
        status, _ = send("POST", f"{relay.url}/write?db=db", lines, timeout=START_TIMEOUT)
        if status < 300:
            self.acknowledged.append(number)
        return status

    def ask(self, path: str, port: int = 0) -> tuple[int, str]:
        """Ask the admin listener."""
        status, body = send("GET", f"http://{LOOPBACK}:{port or self.admin}{path}")
        return status, body.decode()

    def health(self) -> tuple[int, str]:
        """Return what the health check says."""
        status, body = self.ask("/health")
        return status, json.loads(body)["message"]

    def trouble(self) -> str:
        """Return the metric that tells of it."""
        found = re.search(r'influxrelay_journal_trouble\{listener="main"\} (\S+)', self.ask("/metrics")[1])
        return found[1].removesuffix(".0") if found is not None else ""

    def tell(self, relay: Relay, *command: str) -> None:
        """Let an operator do something."""
        program = Path(sysconfig.get_path("scripts")) / "influxrelay"
        subprocess.run([program, *command, "--listener", "main", "--config", relay.config], check=True)

    def said(self, relay: Relay, words: str) -> int:
        """Return how many lines of the log have these words."""
        return sum(words in line for line in relay.log.read_text().splitlines())

    def check_equal(self) -> None:
        """Wait until both servers have all that was acknowledged, and the newest value of what was written often."""
        wanted = [[number, number] for number in self.acknowledged]

        def has_all(server: Influxd) -> bool:
            rows = server.rows("SELECT n FROM m", "db")
            return all(each in rows for each in wanted)

        for each in self.servers:
            wait_until(lambda each=each: has_all(each), "all that was acknowledged is there")  # type: ignore[misc]
        rows = [each.rows("SELECT n FROM last", "db") for each in self.servers]
        self.assertEqual(rows, [[[1, self.acknowledged[-1]]]] * 2)


class FrozenDiskMixin:
    """What holds for either kind of disk."""

    def test_relay(self: Any) -> None:
        """Clients are answered without the journal, and everybody is told; in the end both servers have everything."""
        relay = self.start()
        self.assertEqual([self.write(relay, number) for number in range(1, 4)], [204] * 3)
        self.servers[1].stop()
        self.assertEqual([self.write(relay, number) for number in range(4, 8)], [204] * 4)
        self.disk.freeze()
        self.assertEqual([self.write(relay, number) for number in range(8, 12)], [204] * 4)
        self.assertEqual(self.health(), (200, f"{QUIET}, but the journal does not work: main: {WORDS}"))
        self.assertEqual(self.ask("/health", self.other)[0], 200)
        self.assertIn(WORDS, self.ask("/status")[1])
        self.assertEqual(self.trouble(), "1")
        for command in ("pause", "resume"):
            self.tell(relay, "queues", command, "two")
        lines = b"other n=1i 1"
        self.assertEqual(send("POST", f"http://{LOOPBACK}:{self.other}/write?db=db", lines)[0], 204)
        self.servers[1].start()
        self.assertEqual([self.write(relay, number) for number in range(12, 15)], [204] * 3)
        self.disk.thaw()
        wait_until(lambda: self.health() == (200, QUIET), "the journal works again")
        self.assertEqual([self.write(relay, number) for number in range(15, 18)], [204] * 3)
        self.check_equal()
        wait_until(lambda: self.said(relay, "works again") == 1, "the log has a line on that")
        self.assertEqual((self.said(relay, WORDS), self.trouble()), (1, "0"))
        self.assertEqual(self.said(relay, "Traceback"), 0, relay.log.read_text())
        self.assertEqual(self.ask("/health/backends/two")[0], 200)

    def test_refuse(self: Any) -> None:
        """Where that is wanted, clients are refused as long as the disk does not answer."""
        relay = self.start("refuse")
        self.assertEqual(self.write(relay, 1), 204)
        self.disk.freeze()
        self.assertEqual([self.write(relay, number) for number in range(2, 4)], [503] * 2)
        status, message = self.health()
        self.assertEqual((status, WORDS in message, self.trouble()), (503, True, "1"))
        self.disk.thaw()
        wait_until(lambda: self.health() == (200, QUIET), "the journal works again")
        self.assertEqual(self.write(relay, 4), 204)
        self.check_equal()

    def test_stop(self: Any) -> None:
        """The relay ends although the disk does not answer, and what it had journaled is delivered by the next one."""
        relay = self.start()
        self.servers[1].stop()
        self.assertEqual([self.write(relay, number) for number in range(1, 6)], [204] * 5)
        self.disk.freeze()
        os.kill(relay.pid, signal.SIGTERM)
        wait_until(lambda: is_over(relay.pid), "the relay has ended")
        self.disk.thaw()
        relay.stop()
        self.assertEqual(self.said(relay, "influxrelay has stopped"), 1, relay.log.read_text())
        self.assertEqual(self.said(relay, "Traceback"), 0, relay.log.read_text())
        self.servers[1].start()
        relay = self.start()
        self.assertEqual(self.write(relay, 6), 204)
        self.check_equal()


class HangingDiskTests(FrozenDiskMixin, DiskCase):
    """The files hang for the relay."""

    def make_disk(self, base: Path) -> Disk:
        """Return the disk."""
        return HangingDisk(self, base)

    def test_start(self) -> None:
        """A relay whose disk does not answer does not start, and says why in one line."""
        self.disk.freeze()
        with self.assertRaises(ServerError) as caught:
            self.start()
        self.assertIn(f"main: {self.disk.directory}/journal: {WORDS}\n", str(caught.exception))
        self.disk.thaw()
        self.assertEqual(self.write(self.start(), 1), 204)


if may_mount():

    class FrozenDiskTests(FrozenDiskMixin, DiskCase):
        """The file system is frozen."""

        def make_disk(self, base: Path) -> Disk:
            """Return the disk."""
            return FrozenDisk(self, base)
