"""The sender that forgets nothing: order, clients, bounds, trouble, missing databases, paging and the end."""

from __future__ import annotations

import random
from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.write import Destination, Reply
from influxrelay.delivery.backlog import MAX_DEAD_LETTERS, Fate, JournalBacklog, MemoryBacklog, State
from influxrelay.delivery.buffered_sender import FIRST_DELAY, PAGE, PAGE_GAP, REREAD, BufferedQueue, BufferedSender
from influxrelay.delivery.destination_queue import Entry
from influxrelay.delivery.sender import PROBE_GAP
from influxrelay.journal.records import Drop, Record
from influxrelay.lineprotocol.filters import Filter
from testing.backends import (
    BAD,
    BROKEN,
    OK,
    TIMEOUT,
    Client,
    CreatingBackend,
    destination,
    retry_later,
    write,
)
from testing.journals import MemoryJournal

MISSING = Reply(404, (), b'{"error":"database not found: \\"db\\""}\n')
PERMANENT = Reply(500, (), b'{"error":"partial write: x"}\n')


class QueuedCase(SynchronousTestCase):
    """A sender with a queue on a Clock to a fake backend."""

    def setUp(self) -> None:
        """Build the default sender, with a queue in memory."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.seq = 0
        self.build()

    def build(self, max_bytes: int = 10_000, *, drop_oldest: bool = False, **settings: Any) -> None:
        """Build a sender with other settings."""
        self.backlog: Any = MemoryBacklog("fake", max_bytes, drop_oldest=drop_oldest)
        self.build_sender(**settings)

    def build_sender(self, **settings: Any) -> None:
        """Build the sender itself."""
        self.backend = CreatingBackend()
        settings = {"relay": "test", "jitter": lambda: 0.0, "backlog": self.backlog, **settings}
        self.sender = BufferedSender(self.backend, self.clock, **settings)

    def fate(self, body: bytes, to: Destination | None = None, **more: Any) -> Fate:
        """Return a fate for a new write."""
        self.seq += 1
        return Fate(self.seq, float(self.seq), write(body, to, **more))

    def give(self, fate: Fate) -> Client:
        """Submit a write that has a fate."""
        return Client(self.sender.submit(fate.write, fate))

    def submit(self, body: bytes, to: Destination | None = None, state: State = State.KEPT, **more: Any) -> Client:
        """Submit a write, of which it is decided already what becomes of it."""
        fate = self.fate(body, to, **more)
        if state is not State.PENDING:
            fate.settle(state)
        return self.give(fate)

    def answer(self, reply: Reply = OK) -> None:
        """Answer the request in flight, of which there is one."""
        (post,) = self.backend.pending
        post.answer(reply)

    def break_down(self, reason: str = "refused") -> None:
        """Let the request in flight fail, of which there is one."""
        (post,) = self.backend.pending
        post.fail(reason)

    def drain(self) -> None:
        """Let the backend take whatever comes, until all is quiet."""
        for _ in range(1000):
            for post in self.backend.pending:
                post.answer()
            if not self.sender._queues:
                break
            self.clock.advance(0.1)
        self.assert_idle()

    def assert_idle(self) -> None:
        """Check that the sender has forgotten everything, and that its last timers end."""
        self.assertEqual(self.backend.pending, [])
        self.assertEqual(self.sender._tally.bytes, 0)
        self.assertEqual(self.sender._in_flight, 0)
        self.assertEqual(self.sender._queues, {})
        self.assertEqual(self.sender._live, {})
        self.successResultOf(self.sender.drained())
        self.clock.advance(2 * TIMEOUT)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OrderTests(QueuedCase):
    """A new write never overtakes an older one."""

    def test_through_every_failure(self) -> None:
        """Through every kind of failure, writes arrive in order, and each arrives."""
        for outcome in ("refused", "timeout", "reset", BROKEN, Reply(503), Reply(429), Reply(302)):
            self.build()
            bodies = [b"%d\n" % number for number in range(6)]
            for body in bodies[:3]:
                self.submit(body)
            if isinstance(outcome, str):
                self.break_down(outcome)
            else:
                self.answer(outcome)
            for body in bodies[3:]:
                self.submit(body)
            self.assertEqual(self.backend.pending, [])
            self.drain()
            self.assertEqual(b"".join(self.backend.bodies), b"0\n" + b"".join(bodies), outcome)

    def test_probe_has_one_write(self) -> None:
        """A probe carries one write, and what waits behind it is merged once it has landed."""
        for number in range(4):
            self.submit(b"%d\n" % number)
        self.break_down()
        self.clock.advance(FIRST_DELAY)
        self.answer()
        self.assertEqual(self.backend.bodies, [b"0\n", b"0\n", b"1\n2\n3\n"])
        self.answer()
        self.assert_idle()

    def test_out_of_order_failures(self) -> None:
        """With two requests in flight, what comes back is in order again, whichever fails first."""
        for first in (0, 1):
            self.build(max_in_flight=2)
            self.submit(b"1\n")
            self.submit(b"2\n")
            self.submit(b"3\n")
            for index in (first, 0):
                self.backend.pending[index].fail()
            (queue,) = self.sender._queues.values()
            self.assertEqual([entry.write.body for entry in queue.waiting], [b"1\n", b"2\n", b"3\n"])
            self.assertEqual(queue.passed(), self.seq - 3)
            self.drain()

    def test_struck_is_never_sent_again(self) -> None:
        """A struck write is not sent again, at the head or in the middle of what is merged."""
        fates = [self.fate(b"%d\n" % number) for number in range(6)]
        for fate in fates:
            self.give(fate)
        self.break_down()
        for number, fate in enumerate(fates):
            fate.settle(State.STRUCK if number in (0, 1, 3) else State.KEPT)
        self.drain()
        self.assertEqual(self.backend.bodies, [b"0\n", b"2\n", b"4\n5\n"])

    def test_all_struck(self) -> None:
        """Where all that waits is struck, the sender is empty, and the next write is the probe."""
        self.submit(b"1\n", state=State.STRUCK)
        self.submit(b"2\n", state=State.STRUCK)
        self.break_down()
        self.assert_idle()
        self.submit(b"3\n")
        self.assertEqual(len(self.backend.posts), 2)
        self.answer()

    def test_struck_waits_for_nothing(self) -> None:
        """A struck write that is passed over keeps nobody waiting, at the head or in the middle."""
        self.submit(b"0\n")
        for state in (State.STRUCK, State.KEPT, State.STRUCK, State.KEPT):
            self.submit(b"1\n", state=state)
        self.answer()
        self.assertEqual((len(self.sender._live), self.backend.bodies), (0, [b"0\n", b"1\n1\n"]))
        self.answer()
        self.assert_idle()

    def test_without_a_fate(self) -> None:
        """A write without a fate is treated as on a sender without a queue."""
        client = Client(self.sender.submit(write(b"1\n")))
        waiting = Client(self.sender.submit(write(b"2\n")))
        self.break_down()
        self.assertEqual(client.reason, "refused")
        self.clock.advance(TIMEOUT)
        self.answer()
        self.assertIsNotNone(waiting.result)
        self.assert_idle()

    def test_unmerged(self) -> None:
        """A merged request that is refused is sent write by write, and each client has its own answer."""
        self.submit(b"0\n")
        clients = [self.submit(b"%d\n" % number) for number in (1, 2)]
        self.answer()
        self.answer(BAD)
        self.answer(BAD)
        self.answer()
        self.assertEqual([client.result for client in clients], [BAD, OK])
        self.assertEqual(self.backend.bodies, [b"0\n", b"1\n2\n", b"1\n", b"2\n"])
        self.assertEqual([fate.seq for fate, _ in self.backlog.dead_letters], [2])
        self.assert_idle()


class ClientTests(QueuedCase):
    """When clients are told."""

    def test_told_at_once(self) -> None:
        """When a request fails, its client and all who wait are told at once, and their writes are kept."""
        clients = [self.submit(b"%d\n" % number, destination(b"%d" % (number % 2))) for number in range(4)]
        self.backend.pending[0].fail("reset")
        self.assertEqual([client.result is not None for client in clients], [True, False, True, True])
        self.backend.pending[0].answer()
        self.assertEqual(clients[1].result, OK)
        self.drain()

    def test_not_held_until_the_drain(self) -> None:
        """A client waits for its backend's timeout at the most, however long its write is kept."""
        self.submit(b"1\n")
        client = self.submit(b"2\n")
        self.clock.advance(TIMEOUT)
        self.assertEqual(client.reason, "timeout")
        self.break_down("timeout")
        self.clock.advance(100)
        self.drain()

    def test_timers_rest(self) -> None:
        """What is kept for longer than any client waits keeps no timer busy."""
        self.submit(b"1\n")
        self.break_down()
        self.submit(b"2\n")
        calls = 0
        call_later = self.clock.callLater

        def count(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            self.assertLess(calls, 100)
            return call_later(*arguments)

        self.patch(self.clock, "callLater", count)
        self.clock.advance(PROBE_GAP)
        self.clock.advance(3 * TIMEOUT)
        self.break_down("timeout")
        self.drain()

    def test_client_of_a_probe(self) -> None:
        """Clients that come in trouble are told when the probe fails, or get their answer when it lands."""
        self.submit(b"1\n")
        self.break_down()
        clients = [self.submit(b"2\n"), self.submit(b"3\n")]
        self.clock.advance(PROBE_GAP)
        self.break_down()
        self.assertEqual([client.reason for client in clients], ["refused"] * 2)
        client = self.submit(b"4\n")
        self.clock.advance(PROBE_GAP)
        self.answer()
        self.answer()
        self.assertEqual(client.result, OK)
        self.assert_idle()


class DelayTests(QueuedCase):
    """When a backend in trouble is asked again."""

    def failures_at(self, count: int) -> list[float]:
        """Let probes fail; return the pauses between them."""
        pauses = []
        for _ in range(count):
            self.break_down()
            before = self.clock.seconds()
            while not self.backend.pending:
                self.clock.advance(0.05)
                self.assertLess(self.clock.seconds() - before, 100)
            pauses.append(self.clock.seconds() - before)
        return pauses

    def test_back_off(self) -> None:
        """While nobody waits, the pauses double from half of 0.5 s up to the maximum, by the jitter."""
        for jitter, factor in ((0.0, 0.5), (0.999, 0.9995)):
            self.build(max_delay=4.0, jitter=lambda jitter=jitter: jitter)
            self.submit(b"1\n")
            pauses = self.failures_at(6)
            for pause, full in zip(pauses, (0.5, 1, 2, 4, 4, 4), strict=True):
                self.assertLess(abs(pause - full * factor), 0.06)
            self.answer()
            self.assert_idle()

    def test_forgotten_when_well(self) -> None:
        """After the backend was well, the pauses begin anew."""
        self.submit(b"1\n")
        self.failures_at(4)
        self.answer()
        self.submit(b"2\n")
        self.assertLess(self.failures_at(1)[0], 0.4)
        self.answer()
        self.assert_idle()

    def test_clients_make_it_sooner(self) -> None:
        """While a client waits the gap is all there is to wait for."""
        self.submit(b"1\n")
        self.failures_at(5)
        self.break_down()
        self.submit(b"2\n")
        self.clock.advance(PROBE_GAP)
        self.answer()
        self.answer()
        self.assert_idle()

    def test_retry_after(self) -> None:
        """A Retry-After is obeyed, whoever waits."""
        self.submit(b"1\n")
        self.answer(retry_later(5))
        self.submit(b"2\n")
        self.clock.advance(4.9)
        self.assertEqual(self.backend.pending, [])
        self.clock.advance(0.1)
        self.answer()
        self.answer()
        self.assert_idle()


class BoundTests(QueuedCase):
    """How much is kept in memory, and what is counted."""

    def fill(self, *states: State) -> list[Fate]:
        """Let a request of two bytes fail, and these writes of two bytes wait behind it."""
        fates = [self.fate(b"%d\n" % number) for number in range(len(states) + 1)]
        self.clients = [self.give(fates[0])]
        self.break_down()
        fates[0].settle(State.KEPT)
        for fate, state in zip(fates[1:], states, strict=True):
            self.clients.append(self.give(fate))
            if state is not State.PENDING:
                fate.settle(state)
        return fates

    def test_reject(self) -> None:
        """A write beyond the bound fails, and is counted with its time if it is acknowledged, now or later."""
        self.build(6)
        fates = self.fill(State.KEPT, State.KEPT, State.KEPT, State.STRUCK, State.PENDING)
        self.assertEqual([client.reason for client in self.clients[3:]], ["full"] * 3)
        self.assertEqual(self.backlog.drops, {"full": Drop("fake", "full", 1, 2, 4.0, 4.0)})
        fates[5].settle(State.KEPT)
        self.assertEqual(self.backlog.drops, {"full": Drop("fake", "full", 2, 4, 4.0, 6.0)})
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n0\n1\n2\n")

    def test_drop_oldest(self) -> None:
        """The oldest write makes room, and is counted with its time."""
        self.build(6, drop_oldest=True)
        self.fill(*[State.KEPT] * 4)
        self.assertEqual(self.backlog.drops, {"full": Drop("fake", "full", 2, 4, 1.0, 2.0)})
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n2\n3\n4\n")

    def test_drop_the_last(self) -> None:
        """A write that takes the place of the only other one of its destination is delivered."""
        self.build(2, drop_oldest=True)
        self.fill(State.KEPT)
        self.drain()
        self.assertEqual(self.backend.bodies, [b"0\n", b"1\n"])

    def test_too_large_for_any_room(self) -> None:
        """A write larger than the queue fails, and drives nothing out."""
        self.build(6, drop_oldest=True)
        self.fill(State.KEPT)
        self.assertEqual(self.submit(b"1234567\n").reason, "full")
        self.assertEqual(self.backlog.drops["full"].writes, 1)
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n0\n1\n")

    def test_drop_oldest_while_paused(self) -> None:
        """Also where nothing may be sent, the oldest write makes room for a new one."""
        self.build(2, drop_oldest=True)
        self.sender.pause()
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.assertEqual(self.backlog.drops["full"].first, 1.0)
        self.sender.unpause()
        self.drain()
        self.assertEqual(self.backend.bodies, [b"2\n"])

    def test_dead_letters_are_bounded(self) -> None:
        """In memory only the last dead letters are kept."""
        fate = self.fate(b"1\n")
        for _ in range(MAX_DEAD_LETTERS + 5):
            self.backlog.bury(fate, fate.write, BAD)
        self.assertEqual(len(self.backlog.dead_letters), MAX_DEAD_LETTERS)
        self.assertIsNone(self.backlog.page(destination(), 0, 1))


class DeadLetterTests(QueuedCase):
    """What a backend refuses for good."""

    def test_only_what_was_acknowledged(self) -> None:
        """A refused write is a dead letter once it is acknowledged, and none when it is struck."""
        for reply in (BAD, Reply(401), PERMANENT):
            for state in State:
                self.build()
                fate = self.fate(b"1\n")
                client = self.give(fate)
                self.answer(reply)
                self.assertEqual(self.backlog.dead_letters, [])
                if state is not State.PENDING:
                    fate.settle(state)
                wanted = [(fate.seq, fate.write, reply)] if state is State.KEPT else []
                found = [(each.seq, each.write, words) for each, words in self.backlog.dead_letters]
                self.assertEqual(found, wanted)
                self.assertIsNotNone(client.result)
                self.assert_idle()

    def test_queued(self) -> None:
        """A write that is refused when it was kept for long is a dead letter, and the next one goes on."""
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.break_down()
        self.clock.advance(1)
        self.answer(PERMANENT)
        self.answer()
        self.assertEqual([(fate.seq, reply) for fate, reply in self.backlog.dead_letters], [(1, PERMANENT)])
        self.assert_idle()


class MissingDatabaseTests(QueuedCase):
    """A backend that is back but not ready."""

    def test_waits(self) -> None:
        """The queue waits and is tried again, other queues go on, and clients have the backend's answer."""
        clients = [self.submit(b"1\n"), self.submit(b"2\n")]
        self.answer(MISSING)
        self.assertEqual([client.result for client in clients], [MISSING] * 2)
        self.assertEqual(self.sender.missing(), {b"db"})
        self.assertTrue(self.sender.is_behind())
        self.assertEqual(self.submit(b"3\n").reason, "not ready")
        other = self.submit(b"4\n", destination(b"other"))
        self.answer()
        self.assertEqual(other.result, OK)
        self.clock.advance(FIRST_DELAY)
        self.answer(MISSING)
        self.clock.advance(2 * FIRST_DELAY)
        self.answer()
        self.assertEqual(b"".join(self.backend.bodies), b"1\n4\n1\n2\n3\n1\n2\n3\n")
        self.assertEqual(self.backlog.dead_letters, [])
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
        replayed = Client(self.sender.submit(write(b"1\n")))
        kept = self.submit(b"2\n")
        self.answer(MISSING)
        self.assertEqual((replayed.result, kept.result), (MISSING, None))
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
            self.sender.reconfigure(self.backend, relay="test", max_batch=1000, max_in_flight=1, max_waiting=1000)
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
        self.break_down()
        self.clock.advance(PROBE_GAP)
        self.drain()

    def test_closed(self) -> None:
        """An answer after the end sets no timer, and what is lost is counted."""
        self.submit(b"1\n")
        self.sender.close()
        self.answer(MISSING)
        self.assertEqual(self.backlog.drops["stopped"].writes, 1)
        self.assert_idle()


class OperatorTests(QueuedCase):
    """Pause, and giving up."""

    def test_pause(self) -> None:
        """A paused sender sends nothing, new destinations neither, and goes on in order."""
        self.submit(b"0\n")
        self.sender.pause()
        self.answer()
        client = self.submit(b"1\n")
        self.submit(b"2\n", destination(b"other"))
        self.clock.advance(TIMEOUT)
        self.assertEqual(client.reason, "timeout")
        self.assertEqual(self.backend.bodies, [b"0\n"])
        self.assertEqual(self.sender.waiting(), (2, 4))
        self.assertEqual(self.sender.oldest(), 2.0)
        self.sender.unpause()
        self.drain()

    def test_pause_in_trouble(self) -> None:
        """A paused sender is not probed."""
        self.submit(b"1\n")
        self.break_down()
        self.sender.pause()
        self.clock.advance(100)
        self.assertEqual(self.backend.pending, [])
        self.sender.unpause()
        self.drain()

    def test_give_up(self) -> None:
        """What waits is forgotten, counted, and its clients are told; what is in flight goes on."""
        first = self.submit(b"1\n")
        client = self.submit(b"2\n")
        self.sender.give_up()
        self.assertEqual(client.reason, "operator")
        self.assertEqual(self.backlog.drops, {"operator": Drop("fake", "operator", 1, 2, 2.0, 2.0)})
        self.answer()
        self.assertEqual(first.result, OK)
        self.assertIsNone(self.sender.oldest())
        self.assert_idle()


class EndTests(QueuedCase):
    """How a sender with a queue in memory ends."""

    def test_drained(self) -> None:
        """It is drained when all that is kept is delivered."""
        self.submit(b"1\n")
        drained = self.sender.drained()
        self.break_down()
        self.assertNoResult(drained)
        self.clock.advance(FIRST_DELAY)
        self.answer()
        self.successResultOf(drained)
        self.assert_idle()

    def test_close(self) -> None:
        """What is lost at the end is counted: what waits and what is in flight, if it is acknowledged."""
        fates = [self.fate(b"%d\n" % number) for number in range(4)]
        clients = [self.give(fate) for fate in fates]
        fates[0].settle(State.KEPT)
        fates[1].settle(State.KEPT)
        self.sender.close()
        self.backend.abort()
        fates[2].settle(State.KEPT)
        fates[3].settle(State.STRUCK)
        self.assertEqual([client.reason for client in clients], ["stopped"] * 4)
        self.assertEqual(self.backlog.drops, {"stopped": Drop("fake", "stopped", 3, 6, 1.0, 3.0)})
        self.assertEqual(self.submit(b"late\n", destination(b"other")).reason, "stopped")
        self.assert_idle()

    def test_refused_after_close(self) -> None:
        """A merged request that is refused after the end is lost, and counted."""
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.answer()
        self.sender.close()
        self.answer(BAD)
        self.assertEqual(self.backlog.drops["stopped"].writes, 2)
        self.assert_idle()

    def test_closed_while_paused(self) -> None:
        """A paused sender that is closed refuses what comes."""
        self.sender.pause()
        self.submit(b"1\n")
        self.sender.close()
        self.assertEqual(self.submit(b"2\n").reason, "stopped")
        self.assert_idle()


class JournalCase(QueuedCase):
    """A sender whose backlog is in a journal."""

    def build(self, **settings: Any) -> None:  # type: ignore[override]
        """Build a sender with a new journal."""
        self.writer = MemoryJournal()
        self.backlog = JournalBacklog(self.writer)  # type: ignore[arg-type]
        self.build_sender(**settings)

    def give(self, fate: Fate) -> Client:
        """Submit a write that is in the journal."""
        self.writer.append(Record(fate.seq, fate.time, fate.write))
        return super().give(fate)

    def restart(self, **settings: Any) -> None:
        """Go on with the same journal as another process would."""
        self.build_sender(**settings)
        self.sender.resume(self.writer.positions(), self.writer.last_number)

    def assert_idle(self) -> None:
        """Check that nothing is left on disk either."""
        super().assert_idle()
        if self.sender._closed is None:
            self.assertEqual(self.writer.left(), [])


class PagingTests(JournalCase):
    """A queue whose backlog is larger than memory."""

    def test_order_across_the_switch(self) -> None:
        """From live to behind and back to live, everything arrives once and in order."""
        self.build(max_waiting=6, max_batch=4)
        clients = [self.submit(b"%02d\n" % number) for number in range(20)]
        self.assertTrue(self.sender.is_behind())
        self.assertLessEqual(self.sender.waiting()[1], 6)
        for number in range(20, 40):
            self.clock.advance(PAGE_GAP)
            self.answer()
            clients.append(self.submit(b"%02d\n" % number))
            self.assertLessEqual(self.sender.waiting()[1], 9)
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"".join(b"%02d\n" % number for number in range(40)))
        self.assertEqual([client.result for client in clients], [OK] * 40)
        self.assertFalse(self.sender.is_behind())

    def test_trouble_while_behind(self) -> None:
        """A queue that is behind keeps order through trouble, and memory within its bound."""
        self.build(max_waiting=6, max_batch=4)
        for number in range(10):
            self.submit(b"%d\n" % number)
        self.break_down()
        for number in range(10, 20):
            self.submit(b"%d\n" % number)
            self.assertLessEqual(self.sender.waiting()[1], 9)
        self.drain()
        seen = b"".join(self.backend.bodies).split()
        self.assertEqual(seen[seen.index(b"1") :], [b"%d" % number for number in range(1, 20)])

    def test_many_queues(self) -> None:
        """Many queues with a backlog share the memory: none has more than a write beyond the bound."""
        body = b"x" * (PAGE // 4) + b"\n"
        for number in range(12):
            for _ in range(3):
                self.seq += 1
                self.writer.append(Record(self.seq, 1.0, write(body, destination(b"%d" % number))))
        self.restart(max_waiting=PAGE, max_batch=1)
        self.sender.pause()
        self.assertLessEqual(self.sender.waiting()[1], PAGE + 13 * len(body))
        self.sender.unpause()
        self.drain()
        self.assertEqual(len(self.backend.posts), 36)

    def test_page_under_way(self) -> None:
        """Writes that come while a page is read are neither lost nor sent twice nor out of order."""
        self.build(max_waiting=2)
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.writer.held = []
        self.submit(b"2\n")
        self.answer()
        struck = self.fate(b"3\n")
        self.give(struck)
        self.submit(b"4\n")
        self.assertEqual(len(self.writer.held), 1)
        held, self.writer.held = self.writer.held, None
        read, result = held[0]
        page = read()  # it holds what came after it was asked for, and is struck after it was read
        struck.settle(State.STRUCK)
        self.writer.strike(struck.seq)
        result.callback(page)
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n1\n2\n4\n")

    def test_page_errors(self) -> None:
        """A page that cannot be read is tried again."""
        self.build(max_waiting=2)
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.writer.problems = [JournalError("disk"), ZeroDivisionError()]
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n1\n2\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_page_errors_after_the_end(self) -> None:
        """A page that comes or fails after the end changes nothing."""
        for outcome in (([], 9), Failure(JournalError("x"))):
            self.build(max_waiting=2)
            for _ in range(3):
                self.submit(b"1\n")
            self.writer.held = []
            self.answer()
            self.sender.close()
            self.writer.held[0][1].callback(outcome)
            self.backend.abort()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assert_idle()
            self.assertEqual(REREAD, 1.0)

    def test_settled_while_behind(self) -> None:
        """A write whose client is told by another backend is delivered from disk, and nobody waits for it."""
        self.build(max_waiting=2)
        self.submit(b"0\n")
        self.submit(b"1\n")
        fate = self.fate(b"2\n")
        client = self.give(fate)
        fate.settle(State.KEPT)
        self.assertEqual(len(self.sender._live), 1)
        self.drain()
        self.assertIsNone(client.result)
        self.assertEqual(b"".join(self.backend.bodies), b"0\n1\n2\n")

    def test_forget(self) -> None:
        """To forget what the journal has dropped costs no more than there is of it, however much waits."""
        clients = [self.submit(b"%d\n" % number) for number in range(100)]
        self.break_down()
        popped: list[Entry] = []
        pop = BufferedQueue._pop

        def count(queue: BufferedQueue) -> Entry:
            popped.append(pop(queue))
            return popped[-1]

        self.patch(BufferedQueue, "_pop", count)
        self.sender.forget(destination(), 3)
        self.assertEqual([entry.write.body for entry in popped], [b"0\n", b"1\n", b"2\n"])
        self.drain()
        self.assertEqual({client.reason for client in clients}, {"refused"})
        self.assertEqual(b"".join(self.backend.bodies[1:]), b"".join(b"%d\n" % number for number in range(3, 100)))

    def test_not_on_disk(self) -> None:
        """A write that is neither in memory nor on disk fails, and is counted if it is acknowledged."""
        self.build(max_waiting=2)
        self.submit(b"0\n")
        self.submit(b"1\n")
        fate = self.fate(b"2\n")
        client = self.give(fate)
        self.writer.strike(fate.seq)
        self.assertEqual(fate.absent, [self.sender])
        self.sender.not_on_disk(fate)
        self.assertEqual(client.reason, "full")
        fate.settle(State.KEPT)
        self.assertEqual([(drop.reason, drop.writes) for drop in self.writer.drops()], [("full", 1)])
        self.drain()
        lost = self.fate(b"3\n", destination(b"gone"))
        lost.settle(State.KEPT)
        self.sender.not_on_disk(lost)
        self.assertEqual(self.writer.drops()[0].writes, 2)

    def test_struck_on_disk(self) -> None:
        """A client whose write is no longer in the journal is told, and not held."""
        self.build(max_waiting=2)
        self.submit(b"0\n")
        self.submit(b"1\n")
        fate = self.fate(b"2\n")
        client = self.give(fate)
        self.writer.strike(fate.seq)
        self.drain()
        self.assertEqual(client.reason, "struck")

    def test_damaged(self) -> None:
        """A damaged write is passed over and counted."""
        self.build(max_waiting=2)
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.submit(b"3\n")
        self.writer.damaged.add(3)
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n1\n3\n")
        self.assertEqual(self.writer.drops(), [Drop("fake", "damaged", 1, 2, 3.0, 3.0)])


class CursorTests(JournalCase):
    """The cursor never passes what is not delivered."""

    def assert_left(self, *bodies: bytes) -> None:
        """Check what another process would deliver."""
        self.assertEqual(self.writer.left(), list(bodies))

    def test_live(self) -> None:
        """The cursor moves with what is delivered, and stays before what is not."""
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.assert_left(b"1\n", b"2\n")
        self.answer()
        self.assert_left(b"2\n")
        self.break_down()
        self.submit(b"3\n")
        self.assert_left(b"2\n", b"3\n")
        self.drain()

    def test_two_in_flight(self) -> None:
        """With two requests in flight the older one holds the cursor, whichever lands, fails or is refused first."""
        for how in ("land", "fail", "refuse"):
            self.build(max_in_flight=2)
            self.seq = 0
            for number in range(4):
                self.submit(b"%d\n" % number)
            first, second = self.backend.pending
            if how == "land":
                second.answer()
            elif how == "fail":
                second.fail()
                first.fail()
            else:
                second.answer(BAD)
            self.assertIn(b"0\n", self.writer.left())
            self.drain()

    def test_back_in_the_wrong_order(self) -> None:
        """Where the older request fails first, the cursor does not pass it when the newer one fails."""
        self.build(max_in_flight=2)
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.backend.pending[0].fail()
        self.backend.pending[0].fail()
        self.assert_left(b"0\n", b"1\n")
        self.drain()

    def test_unmerge(self) -> None:
        """The cursor waits for each write of a merged request that was refused; the refused ones are dead letters."""
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.answer()
        self.answer(BAD)
        self.assert_left(b"1\n", b"2\n")
        self.answer(BAD)
        self.assert_left(b"2\n")
        (letter,) = self.writer.letters
        self.assertEqual((letter.status, letter.write.body, letter.time), (400, b"1\n", 2.0))
        self.answer()
        self.assert_idle()

    def test_not_ready(self) -> None:
        """A queue that waits for its database holds its own cursor and no other."""
        self.submit(b"1\n")
        self.answer(MISSING)
        self.submit(b"2\n", destination(b"other"))
        self.answer()
        self.assert_left(b"1\n")
        self.drain()

    def test_close(self) -> None:
        """The end moves no cursor: what waits, is in flight, or is only on disk, is delivered after a restart."""
        self.build(max_waiting=2)
        clients = [self.submit(b"%d\n" % number) for number in range(5)]
        self.sender.close()
        self.assert_left(*[b"%d\n" % number for number in range(5)])
        self.backend.abort()
        self.assert_left(*[b"%d\n" % number for number in range(5)])
        self.assertEqual([client.reason for client in clients], ["stopped"] * 5)
        self.assertEqual(self.writer.drops(), [])
        self.assert_idle()
        self.restart()
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n1\n2\n3\n4\n")

    def test_close_with_a_merged_refusal(self) -> None:
        """A merged request that is refused after the end stays in the journal."""
        for number in range(3):
            self.submit(b"%d\n" % number)
        self.answer()
        self.sender.close()
        self.answer(BAD)
        self.assert_left(b"1\n", b"2\n")
        self.assert_idle()

    def test_resume(self) -> None:
        """After a restart old writes go before new ones."""
        for number in range(3):
            self.submit(b"%d\n" % number)
        self.answer()
        self.writer.held = []
        self.restart()
        client = self.submit(b"3\n")
        self.writer.release()
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"1\n2\n3\n")
        self.assertEqual(client.result, OK)

    def test_drained(self) -> None:
        """What is on disk can wait: the sender is drained when nothing is in flight and no client waits."""
        self.submit(b"1\n")
        client = self.submit(b"2\n")
        drained = self.sender.drained()
        self.assertNoResult(drained)
        self.break_down()
        self.assertEqual(client.reason, "refused")
        self.successResultOf(drained)
        self.drain()

    def test_give_up(self) -> None:
        """What waits on disk is passed, and the journal does the counting."""
        self.build(max_waiting=2)
        self.submit(b"0\n")
        clients = [self.submit(b"%d\n" % number) for number in range(1, 4)]
        self.sender.give_up()
        self.assertEqual([client.reason for client in clients], ["dropped"] * 3)
        self.assertEqual(self.writer.drops(), [])
        self.answer()
        self.assert_idle()


class RandomTests(JournalCase):
    """Order and completeness, whatever happens."""

    def story(self, seed: int) -> None:  # noqa: C901, PLR0912, PLR0915 (one loop of many events)
        """Let random things happen on a journal with little memory, and check what the backend has in the end."""
        rng = random.Random(seed)
        settings: dict[str, Any] = {"max_waiting": rng.choice((2, 6, 20, 1000)), "max_batch": rng.choice((5, 9, 100))}
        self.build(**settings)
        self.seq = 0
        places = [destination(b"%d" % number) for number in range(rng.choice((1, 2)))]
        pending: list[Fate] = []
        kept: dict[Destination, list[int]] = {place: [] for place in places}
        taken: dict[Destination, list[int]] = {place: [] for place in places}
        struck_at: dict[int, int] = {}
        restarted = False

        def take(post: Any) -> None:
            taken[post.write.destination] += [int(line) for line in post.body.split()]
            post.answer()

        def settle(fate: Fate) -> None:
            if rng.random() < 0.7:
                kept[fate.write.destination].append(fate.seq)
                fate.settle(State.KEPT)
            else:
                struck_at[fate.seq] = len(self.backend.posts)
                fate.settle(State.STRUCK)
                self.writer.strike(fate.seq)

        for _ in range(120):
            action = rng.random()
            if action < 0.4:
                fate = self.fate(b"%d\n" % (self.seq + 1), rng.choice(places))
                self.give(fate)
                pending.append(fate)
            elif action < 0.55 and self.backend.pending:
                take(rng.choice(self.backend.pending))
            elif action < 0.7 and self.backend.pending:
                post = rng.choice(self.backend.pending)
                if rng.random() < 0.3:
                    post.answer(rng.choice((BROKEN, MISSING)))
                else:
                    post.fail("reset")
            elif action < 0.85 and pending:
                settle(pending.pop(rng.randrange(len(pending))))
            elif action < 0.9:
                self.clock.advance(rng.random())
            elif action < 0.95:
                if self.writer.held is None:
                    self.writer.held = []
                else:
                    self.writer.release()
            elif action < 0.96:
                self.writer.held = None
                self.sender.close()
                self.backend.abort()
                self.check_struck(struck_at)
                struck_at.clear()
                while pending:
                    settle(pending.pop())
                struck_at.clear()
                restarted = True
                self.restart(**settings)
        if self.writer.held is not None:
            self.writer.release()
        while pending:
            settle(pending.pop())
        for _ in range(1000):
            if not self.sender._queues:
                break
            for post in self.backend.pending:
                take(post)
            self.clock.advance(0.5)
        self.assert_idle()
        self.check_struck(struck_at)
        for place in places:
            self.assertLessEqual(set(kept[place]), set(taken[place]))
            if not restarted:
                self.assertEqual(taken[place], sorted(set(taken[place])))

    def check_struck(self, struck_at: dict[int, int]) -> None:
        """Check that no struck write was sent after it was struck."""
        for seq, posts in struck_at.items():
            for body in self.backend.bodies[posts:]:
                self.assertNotIn(b"%d" % seq, body.split())

    def test_stories(self) -> None:
        """What is kept arrives, in order and once, and what is struck does not, in many random stories."""
        for seed in range(150):
            with self.subTest(seed=seed):
                self.story(seed)


class FilterTests(JournalCase):
    """A filtered backend of a journal, and whatever may happen to it."""

    def test_schedules(self) -> None:
        """Through failures, a backlog on disk and restarts its lines arrive in order, and nothing stays on disk."""
        for seed in range(40):
            rng = Random(seed)
            self.build(max_waiting=rng.choice((20, 60, 10_000)), max_batch=rng.choice((10, 100)))
            self.sender.filter = Filter(["^a$"], [])
            wanted: list[bytes] = []
            taken: list[bytes] = []
            for number in range(60):
                self.act(rng, taken)
                names = rng.choice((b"a", b"b", b"ab", b"ba", b"bb", b"aa"))
                lines = [b"%c v=1 %d%d" % (name, number, index) for index, name in enumerate(names)]
                wanted += [line for line in lines if line.startswith(b"a")]
                self.submit_part(b"\n".join(lines) + b"\n")
            for _ in range(1000):
                for post in self.backend.pending:
                    post.answer()
                    taken += post.body.split(b"\n")[:-1]
                if not self.sender._queues:
                    break
                self.clock.advance(0.1)
            self.assert_idle()
            self.assertEqual(taken, wanted, f"seed {seed}")

    def act(self, rng: Random, taken: list[bytes]) -> None:
        """Let something happen, or nothing."""
        what = rng.random()
        posts = self.backend.pending
        if what < 0.4:
            for post in posts:
                taken += post.body.split(b"\n")[:-1]
                post.answer()
        elif what < 0.6:
            for post in posts:
                post.fail()
        elif what < 0.9:
            self.clock.advance(rng.random())
        elif what < 0.95:
            self.sender.close()
            for post in posts:
                post.fail("stopped")
            filtered = self.sender.filter
            self.build_sender()
            self.sender.filter = filtered
            self.sender.resume(self.writer.positions(), self.writer.last_number)

    def submit_part(self, body: bytes) -> None:
        """Submit an acknowledged write as a relay does."""
        fate = self.fate(body)
        fate.settle(State.KEPT)
        self.writer.append(Record(fate.seq, fate.time, fate.write))
        part = self.sender.part_of(fate.write)
        if part is None:
            self.sender.skip(fate)
        else:
            Client(self.sender.submit(part, fate))
