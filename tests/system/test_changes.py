"""Statements that change something, before two real servers that are killed, as the relay is."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import LOOPBACK, Influxd, Relay, ServerError, free_port, send

PATIENCE = 120.0  # seconds for anything that has to happen
KILLS = 12
FROZEN = 0.3  # of the servers are not killed, but frozen
SCHEMA = (
    "CREATE DATABASE kept",
    "CREATE DATABASE gone WITH DURATION 2d",
    'CREATE RETENTION POLICY "week" ON kept DURATION 7d REPLICATION 1',
    'ALTER RETENTION POLICY "week" ON kept DURATION 14d DEFAULT',
    "CREATE USER reader WITH PASSWORD 'one'",
    "CREATE USER admin WITH PASSWORD 'two' WITH ALL PRIVILEGES",
    "CREATE USER left WITH PASSWORD 'three'",
    "GRANT READ ON kept TO reader",
    "GRANT WRITE ON gone TO reader",
    "SET PASSWORD FOR reader = 'four'",
    "CREATE CONTINUOUS QUERY cq ON kept BEGIN SELECT mean(v) INTO kept.week.n FROM kept.week.m GROUP BY time(1h) END",
    "DROP USER left",
    "DROP DATABASE gone",
    "CREATE DATABASE gone",
    "DROP DATABASE gone",
)
SHOWN = (
    "SHOW DATABASES",
    "SHOW USERS",
    "SHOW RETENTION POLICIES ON kept",
    "SHOW GRANTS FOR reader",
    "SHOW CONTINUOUS QUERIES",
)


class _Client(threading.Thread):
    """Writes and deletes, and repeats each until it is taken.

    :ivar points: what should be there in the end: value by measurement, part and time.
    :ivar deletions: how many were taken.
    """

    def __init__(self, url: str, database: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.points: dict[tuple[str, str, int], int] = {}
        self.deletions = 0
        self.stopped = threading.Event()
        self._url = url
        self._database = database
        self._rng = random.Random(seed)

    def run(self) -> None:
        """Work until stopped."""
        number = 0
        while not self.stopped.is_set():
            number += 1
            part, when = self._rng.choice("abc"), self._rng.randrange(1, 50)
            if self._rng.random() < 0.85:
                measurement = self._rng.choice("mn")
                self._repeat("/write?db=" + self._database, f"{measurement},part={part} v={number}i {when}".encode())
                self.points[measurement, part, when] = number
            else:
                self._delete_some(part, when)

    def _delete_some(self, part: str, when: int) -> None:
        statement, is_gone = self._rng.choice(
            (
                ("DELETE FROM m", lambda key: key[0] == "m"),
                (f"DELETE FROM n WHERE part = '{part}'", lambda key: key[:2] == ("n", part)),
                (f"DELETE WHERE time < {when}", lambda key: key[2] < when),
                ("DROP MEASUREMENT n", lambda key: key[0] == "n"),
            )
        )
        self._repeat("/query?" + urllib.parse.urlencode({"db": self._database, "q": statement}), b"")
        self.points = {key: value for key, value in self.points.items() if not is_gone(key)}
        self.deletions += 1

    def _repeat(self, path: str, body: bytes) -> None:
        while True:
            try:
                status, answer = send("POST", self._url + path, body, timeout=30)
            except (OSError, ServerError):
                status, answer = 0, b""
            is_done = b'"error"' not in answer or b"measurement not found" in answer
            if 200 <= status < 300 and is_done:
                return
            time.sleep(0.05)

    def stop(self) -> None:
        """End, and wait for that."""
        self.stopped.set()
        self.join()


class ChangeTests(SynchronousTestCase):
    """Two servers behind a relay with a journal."""

    def setUp(self) -> None:
        """Start everything."""
        self.base = Path(tempfile.mkdtemp(prefix="changes-"))
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.servers = [Influxd(self.base / name) for name in "ab"]
        port = free_port()
        outputs = "".join(
            f'[[http.output]]\nname = "{name}"\nlocation = "{server.url}/write"\nmax-delay-interval = "300ms"\n'
            for name, server in zip("ab", self.servers, strict=True)
        )
        listener = f'[[http]]\nbind-addr = "{LOOPBACK}:{port}"\njournal = "{self.base}/journal"\n'
        self.relay = Relay(self.base / "relay", listener + outputs, port)
        for each in (*self.servers, self.relay):
            each.start()
            self.addCleanup(each.stop)

    def change(self, statement: str) -> None:
        """Have a statement executed."""
        url = f"{self.relay.url}/query?" + urllib.parse.urlencode({"q": statement})
        status, body = send("POST", url, b"", timeout=30)
        self.assertEqual((status, json.loads(body)), (200, {"results": [{"statement_id": 0}]}), statement)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def schema(self, server: Influxd) -> list[str]:
        """Return what a server has, or why it does not say."""
        found = []
        for each in SHOWN:
            try:
                found.append(json.dumps(server.query(each)))
            except ServerError as error:
                found.append(str(error))
        return found

    def test_schema(self) -> None:
        """What was changed while a server was down is the same there when it is up, also if the relay was killed."""
        self.servers[1].kill()
        for number, statement in enumerate(SCHEMA):
            if number == len(SCHEMA) // 2:
                self.relay.kill()
                self.relay.start()
            self.change(statement)
        self.relay.kill()
        self.relay.start()
        self.servers[1].start()
        self.assertNotIn("left", self.schema(self.servers[0])[1])
        self.wait_until(lambda: self.schema(self.servers[0]) == self.schema(self.servers[1]))

    def test_deletions(self) -> None:
        """Whoever is killed or frozen, both servers have what was written, less what was deleted behind that."""
        databases = ("one", "two")
        for each in databases:
            self.change(f"CREATE DATABASE {each}")
        clients = [_Client(self.relay.url, each, seed) for seed, each in enumerate(databases)]
        for client in clients:
            client.start()
            self.addCleanup(client.stop)
        rng = random.Random(1)
        for _ in range(KILLS):
            victim = rng.choice((*self.servers, self.relay))
            is_frozen = victim is not self.relay and rng.random() < FROZEN
            (victim.pause if is_frozen else victim.kill)()
            time.sleep(rng.random() * (6 if is_frozen else 1))  # a while in which it is missed
            wanted = sum(each.deletions for each in clients) + 20
            (victim.resume if is_frozen else victim.start)()
            self.wait_until(partial(_have_deleted, clients, wanted))
        for client in clients:
            client.stop()
        for client, database in zip(clients, databases, strict=True):
            self.wait_until(
                partial(self.have_points, database, {(*key, value) for key, value in client.points.items()})
            )

    def have_points(self, database: str, wanted: set[tuple[Any, ...]]) -> bool:
        """Tell whether both servers have just these."""
        for server in self.servers:
            found = server.query("SELECT v FROM m, n GROUP BY part", database)["results"][0].get("series", [])
            if wanted != {(each["name"], each["tags"]["part"], *row) for each in found for row in each["values"]}:
                return False
        return True


def _have_deleted(clients: Sequence[_Client], number: int) -> bool:
    return sum(each.deletions for each in clients) >= number
