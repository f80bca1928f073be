"""Servers of shards that are killed during writes and queries: ``python -m tests.soak.shard_failures``.

Two shards have two servers each. One client writes points, two others count them; a count of less than what had been
acknowledged before the question is a part, and wrong. Each server is killed for some seconds, then both of a shard.
The goals: no wrong count, no failure while a server of each shard is up, and 503 alone while one has none.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from testing.servers import LOOPBACK, Influxd, Relay, Server, free_port, send

_OUTPUT = '{{ name = "{name}", location = "{url}/write", buffer-size-mb = 64, max-delay-interval = "500ms" }}'
_QUERIES = ("SELECT count(v) FROM m", "SELECT sum(v) FROM m", "SELECT v FROM m")
_LINES = 20


def _config(port: int, servers: dict[str, Influxd]) -> str:
    text = f'[[http]]\nname = "main"\nbind-addr = "{LOOPBACK}:{port}"\nshard-key = "tag:c"\n'
    for shard in ("s1", "s2"):
        outputs = [_OUTPUT.format(name=name, url=each.url) for name, each in servers.items() if name.startswith(shard)]
        text += f'[[http.shard]]\nname = "{shard}"\noutput = [{", ".join(outputs)}]\n'
    return text


class Clients:
    """One writes, two read.

    :ivar acknowledged: points.
    :ivar told: statuses of writes and queries; a phase of the run has its own.
    :ivar wrong: counts that are too low.
    """

    def __init__(self, url: str) -> None:
        self.acknowledged = 0
        self.told: Counter[tuple[str, Any]] = Counter()
        self.wrong: list[str] = []
        self._url = url
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._write, self._read, self._read)]
        for each in self._threads:
            each.start()

    def phase(self) -> Counter[tuple[str, Any]]:
        """Return what was told since the last phase."""
        told, self.told = self.told, Counter()
        return told

    def stop(self) -> None:
        """Return when all have ended."""
        self._stopped.set()
        for each in self._threads:
            each.join()

    def ask(self, q: str) -> tuple[Any, bytes]:
        """Ask the relay; the status is the name of an error where there is none."""
        query = urllib.parse.urlencode({"q": q, "db": "d"})
        return self._send("POST", f"{self._url}/query?{query}", b"")

    def _send(self, method: str, url: str, body: bytes) -> tuple[Any, bytes]:
        try:
            return send(method, url, body)
        except OSError as error:
            return type(error).__name__, b""

    def _write(self) -> None:
        for number in itertools.count(1):
            if self._stopped.wait(0.03):
                return
            lines = [f"m,c=k{each} v=1i {number * 1000 + each}" for each in range(_LINES)]
            status, _ = self._send("POST", f"{self._url}/write?db=d", "\n".join(lines).encode())
            self.told["write", status] += 1
            self.acknowledged += _LINES if status == 204 else 0

    def _read(self) -> None:
        for q in itertools.cycle(_QUERIES):
            if self._stopped.is_set():
                return
            before = self.acknowledged
            status, body = self.ask(q)
            self.told["query", status] += 1
            if status == 200:
                series = json.loads(body)["results"][0].get("series", [])
                rows = series[0]["values"] if series else [[0, 0]]
                found = len(rows) if q == _QUERIES[2] else rows[0][1]
                if found < before:
                    self.wrong.append(f"{q}: {found} of {before}")


def main() -> int:
    """Run it; return the exit code, which is 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description="kill servers of shards during writes and queries")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each server is away")
    seconds = parser.parse_args().seconds
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="influxrelay-shards-") as directory, ExitStack() as stack:
        servers = {name: Influxd(Path(directory) / name) for name in ("s1a", "s1b", "s2a", "s2b")}
        port = free_port()
        relay = Relay(Path(directory) / "relay", _config(port, servers), port)
        everything: list[Server] = [*servers.values(), relay]
        for each in everything:
            stack.enter_context(each)
        clients = Clients(relay.url)
        try:
            clients.ask("CREATE DATABASE d")
            time.sleep(seconds)
            clients.phase()
            for name, server in servers.items():
                server.kill()
                time.sleep(seconds)
                told = clients.phase()
                problems += [f"{name} away: {each}" for each in told if each[1] not in (200, 204)]
                print(f"{name} killed: {dict(told)}")  # noqa: T201
                server.start()
                while send("GET", f"{relay.url}/health/backends/{name}")[0] != 200:
                    time.sleep(0.3)
            for name in ("s2a", "s2b"):
                servers[name].kill()
            clients.phase()
            time.sleep(seconds)
            told = clients.phase()
            problems += [f"s2 away: {each}" for each in told if each[1] not in (200, 204, 503)]
            others = Counter(clients.ask(f"SELECT v FROM m WHERE c = 'k{each}'")[0] for each in range(_LINES))
            print(f"both of s2 killed: {dict(told)}; queries of one key: {dict(others)}")  # noqa: T201
            if set(others) != {200, 503}:
                problems.append("a shard without servers has to fail its queries, and no others")
            for name in ("s2a", "s2b"):
                servers[name].start()
        finally:
            clients.stop()
    for problem in (*problems, *clients.wrong):
        print(f"problem: {problem}")  # noqa: T201
    return 1 if problems or clients.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
