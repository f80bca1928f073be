"""The load balancers' files in ``etc``, run by HAProxy and nginx before scripted relays and servers."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import time
import tomllib
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from testing.balancer_case import CLOSE, HANG, LIMIT, ScriptedCase, ask, wait_until
from testing.balancers import HAProxy, Nginx
from testing.directories import short_directory
from testing.servers import LOOPBACK, PROJECT, find_program, free_port, send


class HAProxyTests(ScriptedCase):
    """``etc/haproxy.cfg``."""

    def setUp(self) -> None:
        """Start HAProxy, and wait until it knows that all is well."""
        super().setUp()
        places = self.places(self.relays), self.places(self.servers)
        self.haproxy = HAProxy(short_directory(self), *places)
        self.run_server(self.haproxy)
        self.wait_for("influx1", "influx2")

    def wait_for(self, *in_sync: str) -> None:
        """Wait until queries go to these servers and to no other."""

        def holds() -> bool:
            return {self.query() for _ in range(6)} == (set(in_sync) or {"503"})

        wait_until(holds, f"only {in_sync} are asked; {self.haproxy.states()}")

    def query(self) -> str:
        """Ask for something, and return who answered, or the status if nobody did."""
        status, who = ask(self.haproxy.port, "GET", "/query?q=SELECT")
        return who or str(status)

    def write(self, source: str, body: bytes = b"m v=1 1\n") -> str:
        """Write something, and return whose answer it is; the status with it if it is no 204."""
        status, who = ask(self.haproxy.port, "POST", "/write?db=d", source=source, body=body)
        return who if status == 204 else f"{status} {who}"

    def find_client(self, relay: str) -> str:
        """Return the address of a client that has this relay."""
        return next(each for number in range(1, 50) if self.write(each := f"127.1.1.{number}") == relay)

    def forget_clients(self) -> None:
        """Make all clients new ones."""
        self.haproxy.tell("clear table relays")

    def test_check(self) -> None:
        """``haproxy -c`` takes the file as it is, without a warning."""
        file = PROJECT / "etc" / "haproxy.cfg"
        command = [find_program("haproxy", "haproxy"), "-c", "-dW", "-f", str(file)]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertEqual((checked.returncode, checked.stdout), (0, "Configuration file is valid\n"), checked.stderr)

    def test_one_relay_for_a_client(self) -> None:
        """A client keeps its relay, also the one that it was given when its first had failed; clients are spread."""
        client = self.find_client("relay1")
        other = self.find_client("relay2")
        self.assertEqual({self.write(client) for _ in range(5)}, {"relay1"})
        self.relays[0].answers["/health"] = 503
        wait_until(lambda: self.write(client) == "relay2", "the client has found another relay")
        self.relays[0].answers["/health"] = 200
        wait_until(lambda: self.haproxy.states()["relays/relay1"] == "UP", "the first relay is back")
        self.assertEqual({self.write(client) for _ in range(5)}, {"relay2"})
        self.assertEqual(self.write(other), "relay2")
        wait_until(lambda: self.find_client("relay1"), "new clients get the first relay")

    def test_repeats(self) -> None:
        """A write, small or large, whose relay breaks the connection or says 503 is taken by the other one."""
        small, large = b"m v=1 1\n", b"m v=1 1\n" * 25_000
        for answer in (CLOSE, 503):
            for body in (small, large):
                client = self.find_client("relay1")
                self.relays[0].answers["/write"] = answer
                self.assertEqual(self.write(client, body), "relay2")
                self.relays[0].answers["/write"] = 204
                self.forget_clients()

    def test_dead_at_once(self) -> None:
        """A relay that nobody can connect to costs no write, before it is noticed as well."""
        clients = [self.find_client("relay1")]
        self.relays[0].end()
        self.assertEqual({self.write(client) for client in clients}, {"relay2"})

    def test_answers_unchanged(self) -> None:
        """What a relay says of a write that it cannot take is what the client gets."""
        client = self.find_client("relay1")
        for relay in self.relays:
            relay.answers["/write"] = 400
        self.assertEqual(self.write(client), "400 relay1")
        for relay in self.relays:
            relay.answers["/write"] = 503
        self.assertRegex(self.write(client), "503 relay[12]")

    def test_none_is_well(self) -> None:
        """When both relays say that they cannot take writes they are asked nevertheless."""
        for relay in self.relays:
            relay.answers["/health"] = 503
        wait_until(lambda: self.haproxy.states()["relays/BACKEND"] == "DOWN", "both are out")
        self.assertRegex(self.write("127.1.1.1"), "^relay[12]$")

    def test_frozen(self) -> None:
        """A write that waits for a relay that hangs goes to the other one when that is noticed, or is given back."""
        client = self.find_client("relay1")
        for path in self.relays[0].answers:
            self.relays[0].answers[path] = HANG
        first = self.write(client)
        self.assertRegex(first, "^(relay2$|50[23] )")
        self.assertEqual(self.write(client), "relay2")

    def test_lagging(self) -> None:
        """A server that one relay calls behind gets no queries, and gets them again when none does."""
        for relay in self.relays:
            relay.answers["/health/backends/influx1"] = 503
            self.wait_for("influx2")
            relay.answers["/health/backends/influx1"] = 200
            self.wait_for("influx1", "influx2")

    def test_nobody_in_sync(self) -> None:
        """When each server is behind in the eyes of some relay, queries are answered 503, with JSON."""
        self.relays[0].answers["/health/backends/influx1"] = 503
        self.relays[1].answers["/health/backends/influx2"] = 503
        self.wait_for()
        status, body = send("GET", f"{self.haproxy.url}/query?q=SELECT")
        self.assertEqual((status, json.loads(body)), (503, {"error": "no server is in sync"}))
        self.relays[1].answers["/health/backends/influx2"] = 200
        self.wait_for("influx2")

    def test_dead_relay_has_no_vote(self) -> None:
        """What a relay has said counts no more when it is down, whether it is dead or hangs."""
        self.relays[0].answers["/health/backends/influx1"] = 503
        self.relays[1].answers["/health/backends/influx2"] = 503
        self.wait_for()
        self.relays[0].end()
        self.wait_for("influx1")
        self.relays[1].answers["/health/backends/influx2"] = HANG
        self.wait_for("influx1", "influx2")

    def test_unknown_name(self) -> None:
        """A server whose name a relay does not know gets no queries: that is noticed sooner than old answers."""
        self.relays[0].answers["/health/backends/influx2"] = 404
        self.wait_for("influx1")

    def test_dead_server(self) -> None:
        """A query whose server is dead, or dies under it, is answered by the other one."""
        self.servers[0].answers["/query"] = CLOSE
        self.assertEqual({self.query() for _ in range(4)}, {"influx2"})
        self.servers[0].end()
        self.assertEqual({self.query() for _ in range(4)}, {"influx2"})

    def test_only_the_dead_one_in_sync(self) -> None:
        """With the one server down and the other behind there is no answer."""
        self.relays[0].answers["/health/backends/influx2"] = 503
        self.servers[0].end()
        self.wait_for()

    def test_operators(self) -> None:
        """Operators see all parts, also as metrics."""
        _, body = send("GET", f"http://{LOOPBACK}:{self.haproxy.stats_port}/metrics")
        self.assertIn(b'haproxy_server_status{proxy="influx1_is_behind",server="relay1",state="DOWN"} 1', body)
        self.assertEqual(self.haproxy.states()["relays/relay1"], "UP")


class TelegrafTests(SynchronousTestCase):
    """``etc/telegraf.conf``."""

    def test_fits(self) -> None:
        """It is TOML, writes to the ports that HAProxy and nginx have, and creates no database on one server only."""
        etc = PROJECT / "etc"
        text = (etc / "telegraf.conf").read_text()
        (output,) = tomllib.loads(text)["outputs"]["influxdb"]
        self.assertEqual((output["urls"], output["skip_database_creation"]), (["http://10.0.0.10:8086"], True))
        self.assertIn("bind :8086\n", (etc / "haproxy.cfg").read_text())
        commented = re.findall(r'# (?:urls|address) = .*"udp://10\.0\.0\.10:(\d+)"', text)
        self.assertEqual(commented, ["8089", "8089"])
        self.assertIn("listen 8089 udp", (etc / "nginx.conf").read_text())


class NginxTests(ScriptedCase):
    """``etc/nginx.conf``."""

    def setUp(self) -> None:
        """Start nginx, and sockets that take datagrams in the relays' places."""
        super().setUp()
        self.sockets = [self.open_socket(free_port("udp")) for _ in range(2)]
        udp_places = [f"{LOOPBACK}:{each.getsockname()[1]}" for each in self.sockets]
        self.nginx = Nginx(short_directory(self), self.places(self.relays), udp_places)
        self.run_server(self.nginx)

    def open_socket(self, port: int) -> socket.socket:
        """Take datagrams at a port."""
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(opened.close)
        opened.bind((LOOPBACK, port))
        opened.settimeout(1)
        return opened

    def write(self, source: str, body: bytes = b"m v=1 1\n") -> tuple[int, Counter[str]]:
        """Write over HTTP; return the status, and how often it was at which relay."""
        before = Counter({relay.name: relay.seen["/write"] for relay in self.relays})
        status, _ = ask(self.nginx.port, "POST", "/write?db=d", source=source, body=body)
        return status, Counter({relay.name: relay.seen["/write"] for relay in self.relays}) - before

    def find_client(self, relay: str) -> str:
        """Return the address of a client that has this relay."""
        return next(each for number in range(1, 50) if self.write(each := f"127.1.1.{number}") == (204, {relay: 1}))

    def test_check(self) -> None:
        """``nginx -t`` takes the file, without a warning."""
        said = self.nginx.check()
        self.assertIn("test is successful", said)
        self.assertNotIn("[warn]", said)

    def test_one_relay_for_a_client(self) -> None:
        """A client keeps its relay; clients are spread."""
        for relay in ("relay1", "relay2"):
            client = self.find_client(relay)
            for _ in range(5):
                self.assertEqual(self.write(client), (204, {relay: 1}))

    def test_repeats(self) -> None:
        """A write whose relay breaks the connection, says 503 or is dead is taken by the other one, which is kept."""
        for answer in (CLOSE, 503, None):
            client = self.find_client("relay1")
            if answer is None:
                self.relays[0].end()
            else:
                self.relays[0].answers["/write"] = answer
            for body in (b"m v=1 1\n", b"m v=1 1\n" * 50_000):
                status, where = self.write(client, body)
                self.assertEqual((status, where["relay2"]), (204, 1))
            self.relays[0].answers["/write"] = 204
            self.nginx.restart()

    def test_frozen(self) -> None:
        """A write whose relay hangs is taken by the other one, after a while."""
        client = self.find_client("relay1")
        self.relays[0].answers["/write"] = HANG
        status, where = self.write(client)
        self.assertEqual((status, where["relay2"]), (204, 1))

    def test_answers(self) -> None:
        """A relay's answers pass unchanged; without any relay there is a 503 with JSON."""
        for relay in self.relays:
            relay.answers["/write"] = 400
        self.assertEqual(self.write("127.1.1.1")[0], 400)
        for relay in self.relays:
            relay.end()
        status, body = send("POST", f"{self.nginx.url}/write?db=d", b"m v=1 1\n")
        self.assertEqual((status, json.loads(body)), (503, {"error": "no relay is available"}))

    def test_udp(self) -> None:
        """A client's datagrams go to one relay, in order; if that dies, to the other one, and few are lost."""
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sender.close)
        sender.bind(("127.1.0.1", 0))
        numbers = range(50)
        for number in numbers:
            sender.sendto(b"m v=%d 1" % number, (LOOPBACK, self.nginx.udp_port))
        got: dict[int, list[bytes]] = {0: [], 1: []}

        def collect() -> int:
            for index, each in enumerate(self.sockets):
                while each.fileno() >= 0 and select.select([each], [], [], 0)[0]:
                    got[index].append(each.recv(1000))
            return len(got[0]) + len(got[1])

        wait_until(lambda: collect() == len(numbers), f"all have come: {got}")
        first = 0 if got[0] else 1
        self.assertEqual(got[first], [b"m v=%d 1" % number for number in numbers])
        self.sockets[first].close()
        sent = 0

        def arrives() -> bool:
            nonlocal sent
            sender.sendto(b"m v=0 1", (LOOPBACK, self.nginx.udp_port))
            sent += 1
            time.sleep(0.05)
            collect()
            return len(got[1 - first]) > 20

        wait_until(arrives, "the other one gets them")
        self.assertLess(sent - len(got[1 - first]), 10)
