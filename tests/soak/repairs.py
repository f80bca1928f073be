"""A campaign of kills while a server is repaired, and a comparison of both servers afterwards.

``python -m tests.soak.repairs [--rounds N] [--seed N] [--points N]``. Two influxd stand behind a relay with a journal.
In each round one of them has points that the other lacks, of every type, and a writer writes through the relay all the
time, partly to points that it has written before. ``influxrelay repair`` is started, and at random moments the command,
the relay or a server gets ``kill -9`` and is started again, until a repair comes to its end. Then both servers have to
have every point that the first one had, what was written meanwhile, and no other.

The seed fixes what is killed, and when, not how far the repair is at that moment.
"""

from __future__ import annotations

import argparse
import http.client
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from testing.servers import LOOPBACK, PROJECT, Influxd, Relay, Server, free_port

PATIENCE = 60.0  # seconds until both servers are equal once all is well
_KILLS = 3  # in a round
_START = 1_700_000_000 * 10**9
_COMMAND = (sys.executable, "-c", "import sys; from influxrelay.cli import main; sys.exit(main())", "repair", "b")
_CONFIG = """
[[http]]
name = "main"
bind-addr = "{host}:{port}"
journal = "{journal}"
output = [ {{ name = "a", location = "{a}/write" }}, {{ name = "b", location = "{b}/write" }} ]
"""


class Writer(threading.Thread):
    """Writes through the relay until told to end; each write sets a point of its own and one that all of them set.

    A write whose answer was lost with the relay may be on one server alone. The last one is acknowledged.

    :ivar taken: the numbers of the writes that were acknowledged.
    """

    def __init__(self, port: int, database: str) -> None:
        super().__init__(name="writer", daemon=True)
        self.taken: list[int] = []
        self._port = port
        self._target = f"/write?db={database}"
        self._over = threading.Event()

    def run(self) -> None:
        """Write, again and again."""
        number = 0
        while not (self._over.wait(0.005) and number in self.taken[-1:]):
            number += 1
            body = f"own v={number}i {number}\nshared v={number}i 1"
            connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=30)
            try:
                connection.request("POST", self._target, body)
                if connection.getresponse().status == http.client.NO_CONTENT:
                    self.taken.append(number)
            except (OSError, http.client.HTTPException):
                self._over.wait(0.05)
            finally:
                connection.close()

    def end(self) -> None:
        """Stop."""
        self._over.set()
        self.join()


class Repairs:
    """The servers, the relay, and what is done to them.

    :ivar counts: what was killed, and how often a repair was started.
    """

    def __init__(self, directory: Path, seed: int, points: int) -> None:
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._points = points
        self._port = free_port()
        self.a, self.b = (Influxd(directory / each) for each in "ab")
        config = _CONFIG.format(
            host=LOOPBACK, port=self._port, journal=directory / "journal", a=self.a.url, b=self.b.url
        )
        self.relay = Relay(directory / "relay", config, self._port)

    def round(self, number: int) -> str:
        """Kill and repair; return what is wrong, or nothing."""
        database, new = f"d{number}", f"new{number}"
        for server in (self.a, self.b):
            server.create_database(new)
        self.a.create_database(database)
        for first in range(0, self._points, 5000):
            last = min(first + 5000, self._points)
            assert self.a.write("\n".join(map(self._line, range(first, last))), database) == http.client.NO_CONTENT
        writer = Writer(self._port, new)
        writer.start()
        kills, tries = _KILLS, 0
        while True:
            tries += 1
            self.counts["repair started"] += 1
            command = subprocess.Popen(
                (*_COMMAND, "--database", database, "--config", str(self.relay.config)),
                cwd=PROJECT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            while kills and command.poll() is None:
                time.sleep(self._rng.uniform(0.2, 1.5))
                kills -= 1
                self._kill(command)
            said = command.communicate()[0]
            if command.returncode == 0:
                break
            if tries > 5 * _KILLS:
                writer.end()
                return f"no repair comes to its end: {said}"
        writer.end()
        return self._compare(database, new, writer.taken)

    @staticmethod
    def _line(number: int) -> str:
        host, odd = number % 20, str(number % 2 == 1).lower()
        when = _START + number // 20 * 10**10
        return f'm,host=h{host} f={number / 8},i={2**60 + number}i,b={odd},s="a \\"{number}\\"\nb" {when}'

    def _kill(self, command: subprocess.Popen[str]) -> None:
        victims: dict[str, Server | None] = {"command": None, "relay": self.relay, "a": self.a, "b": self.b}
        name = self._rng.choice(list(victims))
        self.counts[f"{name} killed"] += 1
        victim = victims[name]
        if victim is None:
            command.kill()
            return
        victim.kill()
        time.sleep(self._rng.uniform(0.0, 1.0))
        victim.start()

    def _compare(self, database: str, new: str, taken: list[int]) -> str:
        deadline = time.monotonic() + PATIENCE
        while True:
            wrong = self._differences(database, new, taken)
            if not wrong or time.monotonic() > deadline:
                return wrong
            time.sleep(0.2)

    def _differences(self, database: str, new: str, taken: list[int]) -> str:
        counts = [server.rows("SELECT count(i) FROM m", database) for server in (self.a, self.b)]
        if any(rows[0][1] != self._points for rows in counts):
            return f"{self._points} points were there, and now there are {counts}"
        for q, where in (("SELECT * FROM m GROUP BY *", database), ("SELECT v FROM shared", new)):
            first, second = (server.query(q, where)["results"] for server in (self.a, self.b))
            if first != second:
                return f"{q} has other rows on the second server"
        for server in (self.a, self.b):
            own = {row[1] for row in server.rows("SELECT v FROM own", new)}
            lost = [number for number in taken if number not in own]
            if lost:
                return f"{len(lost)} acknowledged writes are missing at {server.url}, the first is {lost[0]}"
        return ""


def main() -> int:
    """Run as many rounds as the command line says; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.repairs")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", type=int, default=50_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="influxrelay-repairs-") as name:
        repairs = Repairs(Path(name), options.seed, options.points)
        with repairs.a, repairs.b, repairs.relay:
            for number in range(1, options.rounds + 1):
                wrong = repairs.round(number)
                what = ", ".join(f"{name} {count}" for name, count in sorted(repairs.counts.items()))
                print(f"round {number}: {wrong or 'equal'} ({what})", flush=True)  # noqa: T201
                if wrong:
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
