"""The page on recovery, followed word for word: two servers, a relay, and a client that writes all the time."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
import tempfile
import textwrap
import threading
import time
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import LOOPBACK, PROJECT, Influxd, Relay, find_program, free_port, send

PAGE = PROJECT / "docs" / "recovery.rst"
PATIENCE = 180.0  # seconds for anything that has to happen
FIXED = time.time_ns() // 10**9 * 10**9  # the timestamp of points that are overwritten again and again


def sections() -> dict[str, list[str]]:
    """Return the page's blocks of code, by the title above them."""
    found: dict[str, list[str]] = {}
    text = PAGE.read_text(encoding="utf-8")
    for part in re.split(r"\n(?=[^\n]+\n[=-]{3,}\n)", text):
        title = part.strip().splitlines()[0]
        found[title] = [
            textwrap.dedent(match[2])
            for match in re.finditer(r"(?m)^( *)\.\. code-block:: bash\n((?:\1 +\S.*\n|\n)+)", part + "\n")
        ]
    return found


class _Client(threading.Thread):
    """Writes as fast as it is answered: new points, and a few that it overwrites.

    :ivar statuses: how often it got each answer.
    """

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.statuses: dict[int, int] = {}
        self.stopped = threading.Event()

    def run(self) -> None:
        """Write until stopped."""
        for number in count():
            if self.stopped.wait(0.002):
                return
            rp = "week" if number % 3 == 0 else ""
            body = (
                f'new,part=p{number % 7} f={number}.5,i={number}i,s="text {number}",b=t\n'
                f"same,part=p{number % 5} i={number}i {FIXED + number % 10}\n"
            )
            status, _ = send("POST", f"{self.url}/write?db=telegraf&rp={rp}", body.encode(), timeout=30)
            self.statuses[status] = self.statuses.get(status, 0) + 1

    def stop(self) -> None:
        """End, and wait for that."""
        self.stopped.set()
        self.join()


class RecoveryTests(SynchronousTestCase):
    """Every command of the page."""

    def setUp(self) -> None:
        """Start the servers and the relay, and let the client write."""
        find_program("curl", "curl")
        self.base = Path(tempfile.mkdtemp(prefix="recovery-"))
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.good, self.bad = Influxd(self.base / "good"), Influxd(self.base / "bad")
        for server in (self.good, self.bad):
            server.start()
            self.addCleanup(server.stop)
            server.create_database("telegraf")
            server.query('CREATE RETENTION POLICY "week" ON telegraf DURATION 7d REPLICATION 1')
        port = free_port()
        outputs = "".join(
            f'[[http.output]]\nname = "{name}"\nlocation = "{server.url}/write"\nmax-delay-interval = "500ms"\n'
            for name, server in (("east", self.good), ("west", self.bad))
        )
        listener = f'[[http]]\nbind-addr = "{LOOPBACK}:{port}"\njournal = "{self.base}/journal"\n'
        listener += 'journal-max-mb = 4\njournal-full = "drop-oldest"\n'
        self.relay = Relay(self.base / "relay", listener + outputs, port)
        self.relay.start()
        self.addCleanup(self.relay.stop)
        self.client = _Client(self.relay.url)
        self.client.start()
        self.addCleanup(self.client.stop)
        self.values = {
            "GOOD": self.good.url,
            "GOOD_RPC": f"{LOOPBACK}:{self.good.rpc_port}",
            "GOOD_NAME": "east",
            "BAD": self.bad.url,
            "BAD_RPC": f"{LOOPBACK}:{self.bad.rpc_port}",
            "BAD_NAME": "west",
            "RELAY": self.relay.url,
            "CONFIG": str(self.relay.config),
            "RPS": '"autogen week"',
            "BACKUP": str(self.base / "backup"),
        }
        self.sections = sections()
        (self.top,) = self.sections.pop("Recovering a server")

    def bash(self, *blocks: str) -> str:
        """Run blocks in one shell behind the one at the top, with the test's own values in that."""
        top = self.top
        for name, value in self.values.items():
            top, changed = re.subn(rf"(?m)^{name}=\S+", f"{name}={value}", top)
            self.assertEqual(changed, 1, name)
        script = "\n".join(["set -eu -o pipefail", f'PATH="{sysconfig.get_path("scripts")}:$PATH"', top, *blocks])
        found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertEqual(found.returncode, 0, f"{blocks}\n{found.stdout}\n{found.stderr}")
        return found.stdout

    def some_writes(self, number: int = 60) -> None:
        """Wait until the client has written some more."""
        wanted = sum(self.client.statuses.values()) + number
        deadline = time.monotonic() + PATIENCE
        while sum(self.client.statuses.values()) < wanted:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def stored(self, server: Influxd) -> Any:
        """Return every point of a server; of the bulk only how many there are."""
        found = [server.query(f'SELECT * FROM telegraf."{rp}"./new|same/ GROUP BY *') for rp in ("autogen", "week")]
        found.append(server.query("SELECT COUNT(s) FROM telegraf.autogen.bulk GROUP BY *"))
        found.append(server.query("SHOW RETENTION POLICIES ON telegraf"))
        return json.dumps(found, sort_keys=True)

    def count_new(self, server: Influxd) -> int:
        """Return how many of the client's new points a server has."""
        found = server.rows('SELECT COUNT(i) FROM telegraf.autogen."new", telegraf.week."new"', "telegraf")
        return sum(row[1] for row in found)

    def assert_equal(self) -> None:
        """Stop the client, and wait until both servers have the same points; no write has failed."""
        self.some_writes()
        self.client.stop()
        self.assertEqual(self.client.statuses.keys(), {204})
        deadline = time.monotonic() + PATIENCE
        while self.stored(self.good) != self.stored(self.bad):
            self.assertLess(time.monotonic(), deadline, "the servers differ")
            time.sleep(0.1)
        self.assertEqual(self.count_new(self.good), self.client.statuses[204])

    def test_lost_disk(self) -> None:
        """A server whose disk was lost has everything again, with what was written during the recovery."""
        pause, look, *rest = self.sections["A server that has lost its disk"]
        self.some_writes()
        self.bad.kill()
        for name in ("meta", "data", "wal"):
            shutil.rmtree(self.bad.directory / name)
        self.some_writes()
        self.bash(pause)
        self.bad.start()
        self.assertNotIn("telegraf", self.bash(look))
        check, copy, users, resume, compare = rest
        self.bash(check)
        self.some_writes()
        self.bash(copy)
        self.some_writes()
        self.bash(users)
        self.assertEqual(self.bash(resume, compare).count(": equal\n"), 2)
        self.assert_equal()

    def test_gap(self) -> None:
        """What was dropped from a queue is there again, and no old value comes after a newer one."""
        look, times, *rest = self.sections["A server with a gap"]
        self.some_writes()
        self.bad.kill()
        self.some_writes()
        for number in range(100):
            body = f'bulk,number={number} s="{"x" * 60_000}"'
            self.assertEqual(send("POST", f"{self.relay.url}/write?db=telegraf", body.encode(), timeout=30)[0], 204)
        self.some_writes()
        self.bad.start()
        self.bash('until influxrelay --config "$CONFIG" queues | grep "$BAD_NAME *up"; do sleep 0.1; done')
        has, lacks = (self.count_new(server) for server in (self.good, self.bad))
        self.assertLess(lacks, has)
        shown = re.search(
            r"from (\S+Z) to (\S+Z): copy them from another backend with: influxrelay repair west",
            re.sub(r"\s+", " ", self.bash(look)),
        )
        assert shown is not None
        times = _replace_times(times, shown[1], shown[2])
        pause, *more = rest
        self.bash(pause)
        self.some_writes()
        copy, move, finish = more
        self.bash(times, copy, move)
        self.assertEqual(self.bash(finish).count(": equal\n"), 2)
        self.assert_equal()
        self.assertEqual(self.bad.rows("SHOW DATABASES", "telegraf"), [["telegraf"]])


def _replace_times(block: str, start: str, end: str) -> str:
    """Put the times of a gap in the page's places, a little wider."""
    first, last = datetime.fromisoformat(start) - timedelta(seconds=2), datetime.fromisoformat(end)
    for name, moment in (("START", first), ("END", last + timedelta(seconds=2))):
        block, changed = re.subn(rf"(?m)^{name}=\S+", f"{name}={moment:%Y-%m-%dT%H:%M:%SZ}", block)
        assert changed == 1
    return block
