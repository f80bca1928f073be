"""Shards of real servers: writes while one of each is killed, and a shard without any server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config.loader import load
from influxrelay.listeners.factory import make_shard_map
from testing.directories import short_directory
from testing.servers import LOOPBACK, send
from testing.shard_picture import CUSTOMERS, DATABASE, FRONTS, SHARDS, Client, ShardPicture

LIMIT = 120.0  # seconds; only what hangs takes as long, also on a busy machine


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {LIMIT:g} s")
        time.sleep(0.1)


class ShardTests(SynchronousTestCase):
    """Two shards of two servers each, reached in one layer and in two."""

    def setUp(self) -> None:
        """Start everything."""
        picture = ShardPicture(short_directory(self))
        self.picture = picture.__enter__()
        self.addCleanup(picture.__exit__, None, None, None)

    def test_killed_servers(self) -> None:
        """A server of each shard is killed during writes: none fails, and each server ends with what is its shard's."""
        clients = {front: Client(front, self.picture.relays[front].url) for front in FRONTS}
        for client in clients.values():
            client.start()
            self.addCleanup(client.stop)
        self.go_on(clients, 20)
        for killed in (("s1a", "s2b"), ("s1b", "s2a")):
            for name in killed:
                self.picture.servers[name].kill()
            self.go_on(clients, 20)
            for name in killed:
                self.picture.servers[name].restart()
            self.go_on(clients, 20)
        for client in clients.values():
            client.stop()
            self.assertEqual(client.failed, [])
        (listener, _) = load(self.picture.relays["servers"].config).http
        shards = make_shard_map(listener)
        for front, client in clients.items():
            for shard, servers in SHARDS.items():
                its = [each for each in CUSTOMERS if shards.place(each.encode(), time.time_ns()) == shard]
                self.assertTrue(its)
                expected = {(customer, number) for customer in its for number in client.acknowledged}
                for server in servers:
                    wait_until(lambda: set(self.picture.values(server, front)) == expected, f"{front} on {server}")

    def go_on(self, clients: dict[str, Client], writes: int) -> None:
        """Wait until each client has written so often."""
        before = {front: len(client.acknowledged) + len(client.failed) for front, client in clients.items()}
        for front, client in clients.items():
            wait_until(lambda: len(client.acknowledged) + len(client.failed) >= before[front] + writes, front)

    def test_shard_without_a_server(self) -> None:
        """Without a server for a shard its writes are answered 503 and nobody else's; health says which shard it is."""
        for name in SHARDS["s1"]:
            self.picture.servers[name].kill()
        (_, listener) = load(self.picture.relays["servers"].config).http
        shards = make_shard_map(listener)
        place = {each: shards.place(each.encode(), time.time_ns()) for each in CUSTOMERS}
        for customer, shard in place.items():
            line = f"m,customer_id={customer} v=1 1\n".encode()
            status, _ = send("POST", f"{self.picture.unkept}/write?db={DATABASE}", line, timeout=30)
            self.assertEqual(status, 503 if shard == "s1" else 204, customer)
        every = "".join(f"m,customer_id={each} v=2 2\n" for each in CUSTOMERS).encode()
        self.assertEqual(send("POST", f"{self.picture.unkept}/write?db={DATABASE}", every, timeout=30)[0], 503)
        status, body = send("GET", f"{self.picture.unkept}/health", timeout=30)
        self.assertEqual(status, 200)
        self.assertIn("ready for writes, but not to all shards: unkept/s1: ", json.loads(body)["message"])
        status, body = send("GET", f"http://{LOOPBACK}:{self.picture.admin['servers']}/metrics", timeout=30)
        self.assertIn(b'influxrelay_healthy{listener="unkept/s1"} 0.0', body)
        self.assertIn(b'influxrelay_healthy{listener="unkept/s2"} 1.0', body)
        for name in SHARDS["s1"]:
            self.picture.servers[name].restart()
        wait_until(
            lambda: send("POST", f"{self.picture.unkept}/write?db={DATABASE}", every, timeout=30)[0] == 204,
            "s1 is back",
        )
