"""Two relays share a journal on three NATS servers, before two InfluxDB servers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from testing.sharing import LEASE, Sharing, SharingRelay, Writers, wait_for

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
        for consistency in ("one", "any", "quorum", "all"):
            with Writers(self.group.relays, consistency=consistency) as writers:
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
