"""The files in ``etc`` that send everything to the relays, run by HAProxy and nginx before scripted relays."""

from __future__ import annotations

import http.client
import json
import subprocess

from testing.balancer_case import CLOSE, CUT, HANG, LIMIT, ScriptedCase, ask, wait_until
from testing.balancers import HAProxy, Nginx
from testing.directories import short_directory
from testing.servers import LOOPBACK, PROJECT, find_program, free_port, send

OTHER = "^(relay1, )?relay2$"  # whether or not the first one was asked
QUERIES = ("/query?q=SELECT", "/api/v1/prom/read")


class BalancerCase(ScriptedCase):
    """Two scripted relays behind a balancer at :attr:`port`."""

    port: int

    def setUp(self) -> None:
        """Let the relays answer Prometheus, too."""
        super().setUp()
        for relay in self.relays:
            relay.answers["/api/v1/prom/read"] = 200

    def where(self, method: str, path: str, source: str) -> str:
        """Return the name of the relay that has answered; the status before it if it is no 2xx."""
        before = [relay.seen.copy() for relay in self.relays]
        status, _ = ask(self.port, method, path, source=source, body=b"m v=1 1\n" if method == "POST" else None)
        name = path.partition("?")[0]
        asked = [relay.name for relay, seen in zip(self.relays, before, strict=True) if relay.seen[name] > seen[name]]
        words = "" if 200 <= status < 300 else f"{status} "
        return words + ", ".join(asked)

    def write(self, source: str) -> str:
        """Write, and return whose answer it is."""
        return self.where("POST", "/write?db=d", source)

    def query(self, source: str, path: str = QUERIES[0]) -> str:
        """Ask, and return whose answer it is."""
        return self.where("GET", path, source)

    def find_client(self, relay: str) -> str:
        """Return the address of a client whose writes this relay gets."""
        return next(each for number in range(1, 50) if self.write(each := f"127.1.1.{number}") == relay)

    def check_cut(self) -> None:
        """Check that a client notices when a relay's answer is cut behind its first byte, and nobody repeats it."""
        client = self.find_client("relay1")
        self.relays[0].answers["/query"] = CUT
        self.assertRaises((http.client.IncompleteRead, OSError), ask, self.port, "GET", QUERIES[0], source=client)
        self.assertEqual(self.relays[1].seen["/query"], 0)

    def check_other_answers(self, *, until: str) -> None:
        """Check that a query whose relay is dead, breaks the connection or says 503 is answered by the other one."""
        client = self.find_client("relay1")
        for answer in (503, CLOSE):
            self.relays[0].answers["/query"] = answer
            self.assertRegex(self.query(client), OTHER)
        self.relays[0].answers["/query"] = 200
        wait_until(lambda: self.query(client) == "relay1", until)
        self.assertEqual(self.write(client), "relay1")
        self.relays[0].end()
        self.assertRegex(self.query(client), OTHER)


class HAProxyTests(BalancerCase):
    """``etc/haproxy-relays.cfg``."""

    def setUp(self) -> None:
        """Start HAProxy, and wait until it knows that all is well."""
        super().setUp()
        self.haproxy = HAProxy(short_directory(self), self.places(self.relays))
        self.run_server(self.haproxy)
        self.port = self.haproxy.port
        self.wait_for({"relays/relay1": "UP", "relays/relay2": "UP", "in_sync/relay1": "UP", "in_sync/relay2": "UP"})

    def wait_for(self, wanted: dict[str, str]) -> None:
        """Wait until HAProxy says this of relays."""
        wait_until(lambda: wanted.items() <= self.haproxy.states().items(), f"{wanted}: {self.haproxy.states()}")

    def test_check(self) -> None:
        """``haproxy -c`` takes the file as it is, without a warning."""
        command = [find_program("haproxy", "haproxy"), "-c", "-dW", "-f", str(PROJECT / "etc/haproxy-relays.cfg")]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertEqual((checked.returncode, checked.stdout), (0, "Configuration file is valid\n"), checked.stderr)

    def test_reads_where_it_writes(self) -> None:
        """A client's queries go to the relay that gets its writes, also when that has become another one."""
        for relay in ("relay1", "relay2"):
            client = self.find_client(relay)
            self.assertEqual({self.query(client, path) for path in QUERIES for _ in range(3)}, {relay})
        client = self.find_client("relay1")
        self.relays[0].answers["/health"] = 503
        wait_until(lambda: self.write(client) == "relay2", "its writes go to the other relay")
        self.assertEqual(self.query(client), "relay2")
        self.relays[0].answers["/health"] = 200
        self.wait_for({"relays/relay1": "UP", "queries/relay1": "UP"})
        self.assertEqual((self.write(client), self.query(client)), ("relay2", "relay2"))

    def test_in_sync(self) -> None:
        """While only one relay has a server in sync it gets all queries; writes stay where they are."""
        first, second = self.find_client("relay1"), self.find_client("relay2")
        for relay, other in (("relay1", "relay2"), ("relay2", "relay1")):
            answers = self.relays[0 if relay == "relay1" else 1].answers
            answers["/health/queries"] = 503
            self.wait_for({f"in_sync/{relay}": "DOWN"})
            self.assertEqual({self.query(first), self.query(second)}, {other})
            self.assertEqual((self.write(first), self.write(second)), ("relay1", "relay2"))
            answers["/health/queries"] = 200
            self.wait_for({f"in_sync/{relay}": "UP"})
        for each in self.relays:
            each.answers["/health/queries"] = 503
        self.wait_for({"in_sync/relay1": "DOWN", "in_sync/relay2": "DOWN"})
        self.assertEqual((self.query(first), self.query(second)), ("relay1", "relay2"))

    def test_other_answers(self) -> None:
        """A query whose relay is dead, breaks the connection or says 503 is answered by the other one."""
        self.check_other_answers(until="the first relay is asked again")

    def test_cut(self) -> None:
        """An answer that is cut off never looks complete, and is not asked for again."""
        self.check_cut()

    def test_frozen(self) -> None:
        """A query that waits for a relay that hangs is given back when that is noticed; later ones go to the other."""
        client = self.find_client("relay1")
        for path in self.relays[0].answers:
            self.relays[0].answers[path] = HANG
        self.assertRegex(self.query(client), "^(50[23] )?relay1|relay2$")
        self.assertEqual((self.query(client), self.write(client)), ("relay2", "relay2"))

    def test_none_is_well(self) -> None:
        """When both relays say that they take no writes they are asked nevertheless; when both are dead it is 503."""
        for relay in self.relays:
            relay.answers["/health"] = 503
        self.wait_for({"relays/BACKEND": "DOWN"})
        self.assertRegex(self.query("127.1.1.1"), "^relay[12]$")
        self.assertRegex(self.write("127.1.1.1"), "^relay[12]$")
        for relay in self.relays:
            relay.end()
        status, body = send("GET", f"{self.haproxy.url}/query?q=SELECT")
        self.assertEqual((status, json.loads(body)), (503, {"error": "no relay is available"}))


class NginxTests(BalancerCase):
    """``etc/nginx-relays.conf``."""

    def setUp(self) -> None:
        """Start nginx."""
        super().setUp()
        places = self.places(self.relays), [f"{LOOPBACK}:{free_port('udp')}" for _ in range(2)]
        self.nginx = Nginx(short_directory(self), *places, "nginx-relays.conf")
        self.run_server(self.nginx)
        self.port = self.nginx.port

    def test_check(self) -> None:
        """``nginx -t`` takes the file, without a warning."""
        said = self.nginx.check()
        self.assertIn("test is successful", said)
        self.assertNotIn("[warn]", said)

    def test_reads_where_it_writes(self) -> None:
        """A client's queries go to the relay that gets its writes."""
        for relay in ("relay1", "relay2"):
            client = self.find_client(relay)
            self.assertEqual({self.query(client, path) for path in QUERIES for _ in range(3)}, {relay})

    def test_other_answers(self) -> None:
        """A query whose relay is dead, breaks the connection or says 503 is answered by the other one."""
        self.check_other_answers(until="a second has passed")

    def test_again(self) -> None:
        """When both relays have failed lately they are tried again, and where one breaks off, the other one is."""
        for ask_again, path in ((self.write, "/write"), (self.query, "/query")):
            for relay in self.relays:
                relay.answers[path] = CLOSE
            self.assertTrue(ask_again("127.1.1.1").startswith("503 "))
            self.relays[1].answers[path] = 204 if path == "/write" else 200
            for _ in range(4):
                self.assertRegex(ask_again("127.1.1.1"), OTHER)
            self.relays[0].answers[path] = self.relays[1].answers[path]
            self.nginx.restart()

    def test_cut(self) -> None:
        """An answer that is cut off never looks complete, and is not asked for again."""
        self.check_cut()

    def test_answers(self) -> None:
        """What a relay says is passed on, when both say 503, too; without any relay there is a 503 with JSON."""
        for relay in self.relays:
            relay.answers["/query"] = 503
        for _ in range(2):
            status, body = send("GET", f"{self.nginx.url}/query?q=SELECT")
            self.assertEqual((status, set(json.loads(body))), (503, {"by"}))
        for relay in self.relays:
            relay.end()
        status, body = send("GET", f"{self.nginx.url}/query?q=SELECT")
        self.assertEqual((status, json.loads(body)), (503, {"error": "no relay is available"}))
