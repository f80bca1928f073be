"""Backlogs in memory: missing databases, wrong paths, dead letters."""

from __future__ import annotations

from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery.back_off import FIRST_DELAY, PROBE_GAP
from influxrelay.delivery.fate import State
from testing.backends import BAD, MISSING, OK, PERMANENT, TIMEOUT, destination, write
from testing.sender_case import MemoryCase


class DeadLetterTests(MemoryCase):
    """What a backend refuses for good."""

    def test_only_what_was_acknowledged(self) -> None:
        """A refused write is a dead letter once it is acknowledged, and none when it is struck."""
        for reply in (BAD, Reply(401), PERMANENT):
            for state in State:
                self.build()
                client = self.submit(b"1\n", state=State.UNDECIDED)
                self.answer(reply)
                self.assertEqual(self.backlog.dead_letters(), [])
                if state is not State.UNDECIDED:
                    client.decide(kept=state is State.KEPT)
                wanted = [(client.number, b"1\n", reply.status)] if state is State.KEPT else []
                found = [(each.id, each.write.body, each.status) for each in self.backlog.dead_letters()]
                self.assertEqual(found, wanted)
                self.assertIsNotNone(client.result)
                self.assert_idle()

    def test_queued(self) -> None:
        """A write that is refused when it was kept for long is a dead letter, and the next one goes on."""
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.fail_request()
        self.clock.advance(1)
        self.answer(PERMANENT)
        self.answer()
        self.assertEqual([(letter.id, letter.status) for letter in self.backlog.dead_letters()], [(1, 500)])
        self.assert_idle()


class MissingDatabaseTests(MemoryCase):
    """A backend that is back but not ready."""

    def test_waits(self) -> None:
        """The queue waits and is tried again, other queues go on, and clients have the backend's answer."""
        clients = [self.submit(b"1\n"), self.submit(b"2\n")]
        self.answer(MISSING)
        self.assertEqual([client.result for client in clients], [MISSING] * 2)
        self.assertEqual(self.sender.queues.missing_databases(), {b"db"})
        self.assertTrue(self.sender.queues.are_behind())
        self.assertEqual(self.submit(b"3\n").reason, "not ready")
        other = self.submit(b"4\n", destination(b"other"))
        self.answer()
        self.assertEqual(other.result, OK)
        self.clock.advance(FIRST_DELAY)
        self.answer(MISSING)
        self.clock.advance(2 * FIRST_DELAY)
        self.answer()
        self.assertEqual(b"".join(self.backend.bodies), b"1\n4\n1\n2\n3\n1\n2\n3\n")
        self.assertEqual(self.backlog.dead_letters(), [])
        self.assert_idle()

    def test_struck(self) -> None:
        """Where nobody needs what is refused so, nothing waits."""
        self.submit(b"1\n", state=State.STRUCK)
        self.answer(MISSING)
        self.assert_idle()

    def test_created(self) -> None:
        """The database is created and the write sent again before its client is told."""
        self.build(create_databases=True)
        client = self.submit(b"1\n")
        self.answer(MISSING)
        late = self.submit(b"2\n")
        ((asked, created),) = self.backend.created
        self.assertEqual(asked.body, b"1\n")
        self.assertEqual((client.result, late.result), (None, None))
        created.callback(Reply(200))
        self.answer()
        self.assertEqual((client.result, late.result), (OK, OK))
        self.assert_idle()

    def test_not_created(self) -> None:
        """Where it cannot be created the client is told, and the queue waits."""
        self.build(create_databases=True)
        client = self.submit(b"1\n")
        self.answer(MISSING)
        self.backend.created[0][1].errback(Failure(BackendFailure("refused", "x")))
        self.answer(MISSING)
        self.assertEqual(client.result, MISSING)
        self.assertEqual(self.submit(b"2\n").reason, "not ready")
        self.assertEqual(len(self.backend.created), 1)
        self.drain()

    def test_created_for_others(self) -> None:
        """What is not kept has its answer at once, though the database is created for what waits behind it."""
        self.build(create_databases=True)
        replayed = self.sender.resend(write(b"1\n"))
        kept = self.submit(b"2\n")
        self.answer(MISSING)
        self.assertEqual((self.successResultOf(replayed), kept.result), (MISSING, None))
        self.backend.created[0][1].callback(Reply(200))
        self.answer()
        self.assertEqual(kept.result, OK)
        self.assert_idle()

    def test_slowly_created(self) -> None:
        """A client waits for the database no longer than for anything else."""
        self.build(create_databases=True)
        client = self.submit(b"1\n")
        self.answer(MISSING)
        self.clock.advance(TIMEOUT)
        self.assertEqual(client.reason, "timeout")
        self.backend.created[0][1].callback(Reply(200))
        self.answer()
        self.assert_idle()

    def test_reloaded(self) -> None:
        """However often the configuration changes meanwhile, there is one next time to ask again."""
        self.submit(b"1\n")
        self.answer(MISSING)
        for _ in range(10):
            self.sender.reconfigure(self.backend, self.settings)
            self.answer(MISSING)
            self.clock.advance(0.04)
        before = len(self.backend.posts)
        for _ in range(1000):
            self.clock.advance(0.1)
            for post in self.backend.pending:
                post.answer(MISSING)
        self.assertLess(len(self.backend.posts) - before, 30)
        self.drain()

    def test_heals_trouble(self) -> None:
        """The answer is a sign of life: the trouble is over for the other queues."""
        self.submit(b"1\n")
        self.submit(b"2\n", destination(b"other"))
        self.backend.pending[0].fail()
        self.backend.pending[0].fail()
        self.clock.advance(FIRST_DELAY)
        self.answer(MISSING)
        self.answer()
        self.drain()

    def test_trouble_while_it_waits(self) -> None:
        """A queue that waits for its database is not probed, and is tried again in trouble too."""
        self.submit(b"1\n")
        self.answer(MISSING)
        self.submit(b"2\n", destination(b"other"))
        self.fail_request()
        self.clock.advance(PROBE_GAP)
        self.drain()

    def test_closed(self) -> None:
        """An answer after the end sets no timer, and what is lost is counted."""
        self.submit(b"1\n")
        self.sender.close()
        self.answer(MISSING)
        self.assertEqual(self.backlog.losses()[0].writes, 1)
        self.assert_idle()


class MisdirectedTests(MemoryCase):
    """A 404 or 405 that is not InfluxDB's."""

    def test_holds(self) -> None:
        """The client is told, the write is no dead letter, the alarm is raised, and the queue waits until it works."""
        for reply in (Reply(404, (), b"<html>not here</html>"), Reply(405, (), b"Method Not Allowed")):
            self.build()
            clients = [self.submit(b"%d\n" % number) for number in range(3)]
            self.answer(reply)
            self.assertIs(clients[0].result, reply)
            self.assertEqual([client.reason for client in clients[1:]], [str(reply.status)] * 2)
            self.assertIn(f"down: {reply.status}: answered", self.sender.why_unavailable())
            self.assertEqual((self.sender.state, self.sender.queues.waiting()), ("trouble", (3, 6)))
            self.clock.advance(FIRST_DELAY)
            self.answer(reply)
            self.drain()
            self.assertEqual(self.backlog.dead_letters(), [])
            self.assertEqual(b"".join(self.backend.bodies), b"0\n0\n0\n1\n2\n")
            self.assertEqual(self.sender.why_unavailable(), "")
