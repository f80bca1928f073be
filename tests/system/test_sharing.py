"""Two relays share a journal on three NATS servers, before two InfluxDB servers."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import send
from testing.sharing import DB, LEASE, Sharing, SharingRelay, Writers, wait_for
from testing.terminal import INFLUXRELAY

BACKENDS = {"b1", "b2"}


class SharingCase(SynchronousTestCase):
    """Has a group."""

    settings = ""

    def setUp(self) -> None:
        """Start it."""
        directory = Path(tempfile.mkdtemp(prefix="sharing-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        self.group = Sharing(directory, proxied=True, settings=self.settings)
        self.addCleanup(self.group.stop)
        self.group.__enter__()
        self.one, self.two = self.group.relays
        wait_for(lambda: self.held() == BACKENDS, what="delivery to both backends")

    def held(self) -> set[str]:
        """Return the backends to which some relay delivers."""
        return {backend for backend in BACKENDS if self.group.deliverer(backend) is not None}

    def roles(self) -> tuple[SharingRelay, SharingRelay]:
        """Return the deliverer of the first backend, and the other relay."""
        deliverer = wait_for(lambda: self.group.deliverer("b1"))
        return deliverer, self.two if deliverer is self.one else self.one

    def assert_whole(self, *writers: Writers) -> None:
        """Check that both servers come to have the same, and all that was acknowledged."""
        points: list[dict[str, Any]] = []

        def are_equal() -> bool:
            points[:] = self.group.points()
            return points[0] == points[1] and not any(each.missing(points[0]) for each in writers)

        try:
            wait_for(are_equal)
        finally:
            differing = {key for key in {*points[0], *points[1]} if points[0].get(key) != points[1].get(key)}
            missing = [value for each in writers for index in (0, 1) for value in each.missing(points[index])]
            overtaken = [pair for each in writers for pair in each.overtaken(points[0])]
            self.assertEqual((differing, missing, overtaken), (set(), [], []))

    def assert_goes_on(self, writers: Writers, seconds: float = 60) -> None:
        """Check that writes are acknowledged again."""
        before = writers.count
        wait_for(lambda: writers.count > before + 10, seconds, "more acknowledged writes")


class SharingTests(SharingCase):
    """What either relay has acknowledged both servers have, in one order."""

    def test_both_relays(self) -> None:
        """Points that are overwritten through both relays are equal, at every level of consistency."""
        for turn, consistency in enumerate(("one", "any", "quorum", "all")):
            first = 1 + turn * 1_000_000  # points of an earlier turn would hide those that are still on their way
            with Writers(self.group.relays, first=first, consistency=consistency) as writers:
                self.assert_goes_on(writers)
            self.assertEqual(set(writers.statuses), {204})
            self.assert_whole(writers)

    def test_answers(self) -> None:
        """A client learns from either relay what the servers say, and nothing of what is refused is kept."""
        for relay in (self.one, self.two):
            status, body = relay.write("m v=oops 1")
            self.assertEqual((status, b"invalid boolean" in body), (400, True))
            status, body = relay.write("m v=1i 1", db="nowhere")
            self.assertEqual((status, b"database not found" in body), (404, True))
        self.assertEqual(self.one.run("dead-letters list")["dead_letters"], [])
        for row in self.one.run("queues")["queues"]:
            self.assertEqual((row["writes"], row["drops"]), (0, []))

    def test_killed(self) -> None:
        """When the deliverer is killed, the other relay delivers; what was acknowledged before is not lost."""
        deliverer, other = self.roles()
        with Writers(self.group.relays) as writers:
            self.assert_goes_on(writers)
            deliverer.kill()
            wait_for(lambda: set(other.delivers()) == BACKENDS, LEASE + 10, "the other relay delivers")
            self.assert_goes_on(writers)
            shutil.rmtree(deliverer.directory)  # there is nothing in it that anybody needs
            deliverer.directory.mkdir()
            deliverer.start()
            self.assert_goes_on(writers)
        self.assert_whole(writers)

    def test_directory_lost(self) -> None:
        """What a relay has taken while a server was down survives the loss of that relay, and of all that it has."""
        deliverer, other = self.roles()
        self.group.backends[0].stop()
        with Writers([deliverer]) as writers:
            self.assert_goes_on(writers)
        deliverer.kill()
        shutil.rmtree(deliverer.directory)
        self.group.backends[0].start()
        wait_for(lambda: set(other.delivers()) == BACKENDS, what="the other relay delivers")
        self.assert_whole(writers)

    def test_stopped_and_continued(self) -> None:
        """A deliverer that is frozen for longer than its lease sends nothing more when it goes on."""
        deliverer, other = self.roles()
        with Writers(self.group.relays) as writers:
            self.assert_goes_on(writers)
            deliverer.pause()
            wait_for(lambda: set(other.delivers()) == BACKENDS, what="the other relay delivers")
            deliverer.resume()
            wait_for(lambda: not deliverer.delivers(), what="the lease is lost")
            self.assert_goes_on(writers)
        self.assert_whole(writers)

    def test_graceful_stop(self) -> None:
        """A relay that is stopped hands over at once, before its lease would have ended."""
        deliverer, other = self.roles()
        with Writers([other]) as writers:
            self.assert_goes_on(writers)
            deliverer.stop()
            wait_for(lambda: set(other.delivers()) == BACKENDS, what="the other relay delivers")
            self.assert_goes_on(writers)
        self.assertIn("influxrelay has stopped", deliverer.log.read_text())
        self.assertEqual(set(writers.statuses), {204})
        self.assert_whole(writers)

    def test_server_down(self) -> None:
        """What a server misses while it is down it gets in order, whoever delivers then."""
        self.group.backends[0].stop()
        deliverer, other = self.roles()
        with Writers(self.group.relays) as writers:
            self.assert_goes_on(writers)
            deliverer.stop()
            wait_for(lambda: set(other.delivers()) == BACKENDS, what="the other relay delivers")
            self.assert_goes_on(writers)
            self.group.backends[0].start()
            deliverer.start()
            self.assert_goes_on(writers)
        self.assert_whole(writers)

    def test_operator(self) -> None:
        """An operator sees and does the same at either relay."""
        deliverer, other = self.roles()
        self.assertEqual(other.run("queues pause", backend="b1")["paused"], True)
        states = {"b1": "paused", "b2": "up"}
        for relay in (deliverer, other):
            wait_for(lambda: self.states(relay) == states, what="the pause")
        with Writers([other], consistency="any") as writers:
            self.assert_goes_on(writers)
        for relay in (deliverer, other):
            (row,) = (each for each in relay.run("queues")["queues"] if each["backend"] == "b1")
            self.assertEqual((row["writes"], row["dead_letters"]), (writers.count, 0))
            self.assertEqual(bool(row["delivered_by"]), relay is other)
        self.assertEqual(other.run("queues resume", backend="b1")["paused"], False)
        self.assert_whole(writers)
        # What was passed of late the other relay does not know yet, and would count as dropped, too.
        wait_for(
            lambda: not any(row["writes"] for row in other.run("queues")["queues"]), what="all is known to be passed"
        )
        other.run("queues pause", backend="b2")
        wait_for(lambda: self.states(deliverer)["b2"] == "paused", what="the pause")
        with Writers([deliverer], consistency="any", first=1_000_000) as writers:
            self.assert_goes_on(writers)
        self.assertEqual(other.run("queues drop", backend="b2")["writes"], writers.count)
        other.run("queues resume", backend="b2")
        self.assertEqual(other.write("m v=oops 1", consistency="any")[0], 204)
        letters = wait_for(lambda: len(found := other.run("dead-letters list")["dead_letters"]) == 2 and found)
        self.assertEqual(deliverer.run("dead-letters list")["dead_letters"], letters)
        self.assertEqual(other.run("dead-letters drop", all=True)["dropped"], 2)
        for relay in (deliverer, other):
            (lost,) = (each for each in relay.run("queues")["queues"] if each["backend"] == "b2")
            self.assertEqual(
                [(each["reason"], each["writes"]) for each in lost["drops"]], [("operator", writers.count)]
            )

    def test_operator_elsewhere(self) -> None:
        """What goes through a backend's queue an operator may ask of either relay: replaying and repairing."""
        deliverer, other = self.roles()
        self.assertEqual(other.write("n v=1i 1", consistency="all")[0], 204)
        self.assertEqual(other.write('n v="text" 2', consistency="any")[0], 204)
        wait_for(lambda: len(other.run("dead-letters list")["dead_letters"]) == 2, what="a dead letter of each server")
        replayed = other.run("dead-letters replay", all=True)
        self.assertEqual((replayed["replayed"], len(replayed["failed"])), ([], 2))
        for each in replayed["failed"]:
            self.assertRegex(each["reason"], "^refused again: .*field type conflict")
        send("POST", f"{other.url}/query?db={DB}", b"q=DROP+MEASUREMENT+n")
        self.assertEqual(len(other.run("dead-letters replay", all=True)["replayed"]), 2)
        self.assertEqual(deliverer.run("dead-letters list")["dead_letters"], [])
        for each in self.group.backends:
            self.assertEqual([row[1] for row in each.rows("SELECT v FROM n", DB)], ["text"])
        lines = "\n".join(f"m,p=own,t={'x' * 60} v={number}i {number}" for number in range(20_000))
        send("POST", f"{self.group.backends[1].url}/write?db={DB}", lines.encode())
        done = subprocess.run(
            [*INFLUXRELAY, "repair", "b1", "--config", other.config, "--database", DB],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, "20000 points" in done.stdout), (0, True), done)
        one, two = self.group.rows()
        self.assertEqual((one, len(one)), (two, 20_000))

    def states(self, relay: SharingRelay) -> dict[str, str]:
        """Return the states of the backends, as a relay tells them."""
        return {row["backend"]: row["state"] for row in relay.run("queues")["queues"]}

    def test_changes(self) -> None:
        """Changes are executed by both servers, in one order with the writes of both relays."""
        for number, relay in enumerate((self.one, self.two, self.one)):
            self.assertEqual(relay.write(f"m,p=change v={number}i 1")[0], 204)
            status, body = send("POST", f"{relay.url}/query?db={DB}", b"q=DELETE+FROM+m")
            self.assertEqual((status, b"error" in body), (200, False))
            self.assertEqual(relay.write(f"m,p=own v={number}i {number + 2}")[0], 204)
            wait_for(lambda: [list(each.values()) for each in self.group.points()] == [[number]] * 2)
        status, body = send(
            "POST", f"{self.two.url}/query?db={DB}", b"q=CREATE+RETENTION+POLICY+x+ON+db+DURATION+1m+REPLICATION+1"
        )
        self.assertEqual((status, b"retention policy duration must be" in body), (200, True))


class NatsTests(SharingCase):
    """When NATS servers fail."""

    def test_one_killed(self) -> None:
        """The loss of one server, of its leader as well, costs nothing that was acknowledged."""
        with Writers(self.group.relays) as writers:
            self.assert_goes_on(writers)
            leader = wait_for(lambda: self.group.nats.leader("shared"))
            leader.kill()
            self.assert_goes_on(writers)
            leader.start()
        self.assert_whole(writers)

    def test_no_quorum(self) -> None:
        """Without a quorum writes are refused, and all goes on by itself as soon as there is one."""
        with Writers(self.group.relays) as writers:
            self.assert_goes_on(writers)
            for server in self.group.nats.servers[:2]:
                server.kill()
            wait_for(lambda: writers.statuses.get(503), what="a refusal")
            status, body = self.one.write("m v=1i 1")
            self.assertEqual((status, b"unable to journal the write" in body), (503, True))
            health = wait_for(lambda: "journal" in str(self.one.asked("/health")) and self.one.asked("/health"))
            self.assertEqual(health["status"], "fail")
            self.group.nats.servers[0].start()
            self.assert_goes_on(writers, 120)
        self.assert_whole(writers)

    def test_cut_off(self) -> None:
        """A leader that is cut off from the other servers and from relays costs nothing, and is used again later."""
        with Writers(self.group.relays) as writers:
            self.assert_goes_on(writers)
            leader = wait_for(lambda: self.group.nats.leader("shared"))
            self.group.nats.isolate(leader)
            self.assert_goes_on(writers)
            self.group.nats.rejoin(leader)
            self.assert_goes_on(writers)
        self.assert_whole(writers)


class RelayingTests(SharingCase):
    """With ``journal-on-error = "relay"``."""

    settings = 'journal-on-error = "relay"\njournal-timeout = "2s"'

    def test_no_quorum(self) -> None:
        """Without a quorum writes are relayed as without a journal, and what a server misses then is counted."""
        for server in self.group.nats.servers[:2]:
            server.kill()
        for value in range(1, 4):
            self.assertEqual(self.one.write(f"m,p=own v={value}i {value}")[0], 204)
        wait_for(lambda: [sorted(each.values()) for each in self.group.points()] == [[1, 2, 3]] * 2)
        self.group.backends[1].stop()
        self.assertEqual(self.one.write("m,p=own v=4i 4")[0], 204)
        self.group.backends[1].start()
        (row,) = (each for each in self.one.asked("/status")["queues"] if each["backend"] == "b2")
        self.assertIn("does not work", " ".join(row["advice"]))
        for server in self.group.nats.servers[:2]:
            server.start()
        wait_for(lambda: self.one.write("m,p=own v=5i 5", consistency="all")[0] == 204, 90, "the journal works again")
        if sorted(self.group.points()[1].values()) == [1, 2, 3, 5]:  # else the log had it, and has delivered it since
            wait_for(lambda: self.drops("b2") == [("unqueued", 1)], what="the loss is counted")

    def drops(self, backend: str) -> list[tuple[str, int]]:
        """Return what a backend has lost, as the relay tells it."""
        (row,) = (each for each in self.one.run("queues")["queues"] if each["backend"] == backend)
        return [(each["reason"], each["writes"]) for each in row["drops"]]
