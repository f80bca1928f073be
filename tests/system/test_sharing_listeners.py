"""Listeners of every kind share their journals, on one server of NATS."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from testing.nats import NatsServer
from testing.servers import LOOPBACK, Influxd, Relay, free_port, send
from testing.sharing import DB, wait_for


class ListenerTests(SynchronousTestCase):
    """UDP, TCP and shards."""

    def setUp(self) -> None:
        """Start a server of NATS, and two of InfluxDB."""
        self.directory = Path(tempfile.mkdtemp(prefix="sharing-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.nats = NatsServer(self.directory / "nats")
        self.backends = [Influxd(self.directory / f"influxd{number}") for number in (1, 2)]
        for server in (self.nats, *self.backends):
            self.addCleanup(server.kill)
            server.start()
        for each in self.backends:
            each.create_database(DB)

    def outputs(self, table: str) -> str:
        """Return the tables of both outputs."""
        return "".join(
            f'[[{table}]]\nname = "b{number}"\nlocation = "{each.url}/write?db={DB}"\n'
            for number, each in enumerate(self.backends, 1)
        )

    def journal(self, stream: str) -> str:
        """Return the key of a journal."""
        return f'journal = "nats://{LOOPBACK}:{self.nats.port}/{stream}"\njournal-lease = "1s"\n'

    def start(self, text: str, port: int) -> Relay:
        """Start a relay."""
        relay = Relay(self.directory / f"relay{port}", text, port)
        self.addCleanup(relay.kill)
        relay.start()
        wait_for(lambda: send("GET", f"{relay.url}/ready")[0] == 200, what="a relay that is ready")
        return relay

    def assert_stored(self, measurement: str, *values: int) -> None:
        """Check that both servers come to have these values."""

        def are_there() -> bool:
            return all(
                [row[1] for row in each.rows(f'SELECT v FROM "{measurement}"', DB)] == list(values)
                for each in self.backends
            )

        wait_for(are_there, what=f"{measurement}: {values}")

    def test_lines(self) -> None:
        """Lines over UDP and TCP reach both servers in order, also those that wait when the relay is stopped."""
        port, udp, tcp = free_port(), free_port("udp"), free_port()
        text = (
            f'admin-socket = ""\n[admin]\nbind-addr = "{LOOPBACK}:{port}"\n'
            f'[[udp]]\nname = "udp"\nbind-addr = "{LOOPBACK}:{udp}"\n{self.journal("udp")}{self.outputs("udp.output")}'
            f'[[tcp]]\nname = "tcp"\nbind-addr = "{LOOPBACK}:{tcp}"\n{self.journal("tcp")}{self.outputs("tcp.output")}'
        )
        relay = self.start(text, port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for value in range(20):
                sender.sendto(b"udp v=%di 1" % value, (LOOPBACK, udp))
        with socket.create_connection((LOOPBACK, tcp)) as connection:
            connection.sendall(b"".join(b"tcp v=%di 1\n" % value for value in range(20)))
        self.assert_stored("udp", 19)
        self.assert_stored("tcp", 19)
        self.backends[0].stop()
        with socket.create_connection((LOOPBACK, tcp)) as connection:
            connection.sendall(b"tcp v=20i 2\n")
        wait_for(lambda: len(self.backends[1].rows("SELECT v FROM tcp", DB)) == 2)
        relay.stop()
        self.backends[0].start()
        relay.start()
        self.assert_stored("tcp", 19, 20)

    def test_shards(self) -> None:
        """Each shard has a journal of its own, and writes to both are answered when both have them."""
        port = free_port()
        shards = "".join(
            f'[[http.shard]]\nname = "s{number}"\n[[http.shard.output]]\nname = "b{number}"\nlocation = "{each.url}"\n'
            for number, each in enumerate(self.backends, 1)
        )
        text = (
            f'admin-socket = ""\n[[http]]\nname = "sharded"\nbind-addr = "{LOOPBACK}:{port}"\nshard-key = "tag:host"\n'
            f"{self.journal('sharded')}{shards}"
        )
        relay = self.start(text, port)
        lines = b"".join(b"m,host=h%d v=%di %d\n" % (number, number, number + 1) for number in range(40))
        self.assertEqual(send("POST", f"{relay.url}/write?db={DB}", lines)[0], 204)
        counts = [len(each.rows("SELECT v FROM m", DB)) for each in self.backends]
        self.assertEqual((sum(counts), 0 in counts), (40, False))
        streams = [
            detail["name"]
            for account in self.nats.asked("jsz?streams=true&accounts=true")["account_details"]
            for detail in account["stream_detail"]
        ]
        self.assertTrue({"sharded-s1", "sharded-s2"} <= set(streams), streams)

    def test_reload(self) -> None:
        """Backends come and go while the relay runs; one that is new gets what is written from then on."""
        port = free_port()
        head = f'admin-socket = "{self.directory}/admin"\n[[http]]\nname = "main"\nbind-addr = "{LOOPBACK}:{port}"\n'
        one, two = (
            f'[[http.output]]\nname = "b{number}"\nlocation = "{each.url}/write"\n'
            for number, each in enumerate(self.backends, 1)
        )
        relay = self.start(f"{head}{self.journal('main')}{one}", port)

        def reload(outputs: str) -> None:
            relay.config.write_text(f"{head}{self.journal('main')}{outputs}")
            before = relay.log.read_text().count("] reloaded: ")
            os.kill(relay.pid, signal.SIGHUP)
            wait_for(lambda: relay.log.read_text().count("] reloaded: ") > before, what="the reload")

        write = f"{relay.url}/write?db={DB}"
        self.assertEqual(send("POST", write, b"m v=1i 1")[0], 204)
        reload(one + two)
        self.assertEqual(send("POST", f"{write}&consistency=all", b"m v=2i 2")[0], 204)
        reload(two)
        self.assertEqual(send("POST", write, b"m v=3i 3")[0], 204)
        found = [[row[1] for row in each.rows("SELECT v FROM m", DB)] for each in self.backends]
        self.assertEqual(found, [[1, 2], [2, 3]])
