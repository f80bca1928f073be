"""What is known of backends and of the relay: in sync or not, able to take writes or not, and pings."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.backlog import Backlog, MemoryBacklog
from influxrelay.delivery.destination_queue import Entry
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.fate import Fate
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from influxrelay.journal.records import JournalLimits, Record
from influxrelay.journal.worker import InlineWorker
from influxrelay.journal.writer import JournalWriter
from influxrelay.operations.health import PATIENCE, Check, Health, LocalExaminer
from testing.backends import FakeBackend, destination, write
from testing.failing_disk import break_disk
from testing.fanout import make_hand_out
from testing.journals import MemoryJournal
from testing.sender_case import Client, room
from tests.simulation.health import FakeListener

OK = Reply(204)
REFUSED = BackendFailure("refused", "Connection refused.")
BUSY = BackendFailure("503", "answered 503: busy", Reply(503))
TIMEOUT = 10.0
LINE = b"m f=1 1\n"
BIG = b"x" * 90


class ExamineTests(SynchronousTestCase):
    """One sender on a Clock, and questions about it."""

    number = 0  # of the last write

    def setUp(self) -> None:
        """Build the sender, which has been heard of."""
        self.clock = Clock()
        self.backend = FakeBackend()
        self.build()

    def build(self, backlog: Backlog | None = None, *, known: bool = True) -> None:
        """Build the sender anew."""
        settings = SenderSettings("fake", "test", buffer=100_000)
        self.sender = Sender(self.backend, self.clock, settings, backlog, jitter=lambda: 0.0)
        if known:
            self.sender.pinged(None)
        self.listener = FakeListener([self.sender])
        self.examiner = LocalExaminer(lambda: [self.listener], self.clock)

    def submit(self, body: bytes = b"m f=1 1\n") -> None:
        """Submit a write that was taken elsewhere."""
        self.number += 1
        self.sender.submit(write(body), Fate.restored(self.number, 0.0))

    def ask(self, name: str = "fake") -> list[Health | None]:
        """Ask, and return where the answer will be."""
        told: list[Health | None] = []
        Deferred.fromCoroutine(self.examiner.backend(name)).addCallback(told.append)
        return told

    def message(self) -> str:
        """Ask, wait as long as it takes, and return what is wrong."""
        told = self.ask()
        self.clock.pump([PATIENCE / 10] * 12)
        (health,) = told
        assert health is not None
        self.assertEqual(health.passed, health.message == "up and in sync")
        return health.message

    def test_slow_journal(self) -> None:
        """What the journal is at, and the senders do not have, is waited for as long as what is under way."""
        handed: Deferred[None] = Deferred()
        self.listener.hand_over = lambda: handed
        self.assertIn("the journal is slow", self.message())
        told = self.ask()
        self.assertEqual(told, [])
        handed.callback(None)
        self.assertTrue(told[0] is not None and told[0].passed)

    def test_risk(self) -> None:
        """A relay whose journal works, and may lose writes all the same, says so."""
        journal = MemoryJournal()
        self.listener.writer = journal
        lossy = ", but the loss of a server or of power may cost acknowledged writes: simulation: n2 is old"
        for risk, message in (("", "ready for writes"), ("n2 is old", f"ready for writes{lossy}")):
            journal.risk = risk
            told: list[Health] = []
            Deferred.fromCoroutine(self.examiner.health()).addCallback(told.append)
            self.assertEqual([(each.passed, each.message) for each in told], [(True, message)])

    def test_idle(self) -> None:
        """A backend without work is in sync."""
        self.assertEqual(
            self.ask(), [Health("fake", True, "up and in sync", (Check("fake", "simulation", True, "up and in sync"),))]
        )
        self.assertEqual(self.ask("other"), [None])

    def test_later_writes(self) -> None:
        """Under constant load a question waits only for the writes before it, in every queue, also with a queue."""
        for backlog in (None, MemoryBacklog()):
            self.build(backlog)
            self.submit()
            self.submit()
            told = self.ask()
            self.submit()
            for _ in range(2):
                self.assertEqual(told, [])
                self.backend.pending[0].answer(OK)
                self.clock.advance(0.02)
                self.submit()
            self.assertEqual([each.passed for each in told if each], [True])
            while self.backend.pending:
                self.backend.pending[0].answer(OK)

    def test_unknown(self) -> None:
        """A backend that was never heard of is not in sync before its first ping, which may come meanwhile."""
        self.build(known=False)
        self.assertEqual(self.message(), "not heard of yet")
        told = self.ask()
        self.sender.pinged(None)
        self.clock.advance(0.02)
        self.assertEqual([each.passed for each in told if each], [True])

    def test_words(self) -> None:
        """Each reason is told in words."""
        self.patch(time, "time", lambda: 200.0)
        self.submit(b"m f=1 1\n")
        self.submit(b"m f=2 2\n")
        self.assertEqual(self.message(), "behind: 2 writes (16 B) are under way or wait, the oldest for 3m20s")
        self.backend.pending[0].fail(error=REFUSED)
        self.assertEqual(self.message(), "down: refused: Connection refused")
        self.build(MemoryBacklog())
        self.submit()
        self.assertEqual(self.message(), "behind: 1 write (8 B) is under way or waits, the oldest for 3m20s")
        self.backend.pending[-1].answer(Reply(404, (), b'{"error":"database not found: \\"db\\""}'))
        self.assertRegex(self.message(), r'^behind: 1 write .* for 3m20s; it has no database "db"')
        self.sender.pause()
        self.assertEqual(self.message(), "paused by an operator")
        self.sender.close()
        self.assertEqual(self.message(), "the relay is shutting down")

    def test_losses(self) -> None:
        """What is lost is told until it is copied; not so what an operator has dropped, and dead letters."""
        backlog = MemoryBacklog()
        self.build(backlog)
        entry = Entry(write(b"m f=1 1\n"), Fate.restored(1, 60.0))
        backlog.lost(entry, "operator")
        backlog.refused(self.sender.queues.open(destination()), entry, Reply(400))
        self.assertEqual(self.message(), "up and in sync")
        backlog.lost(entry, "full")
        self.assertEqual(
            self.message(),
            "misses 1 write (8 B) accepted from 1970-01-01T00:01:00Z to 1970-01-01T00:01:00Z (full): copy them from"
            " another backend with: influxrelay repair fake --listener simulation --lost",
        )
        backlog.forget_losses()
        self.assertEqual(self.message(), "up and in sync")

    def test_senders_of_the_moment(self) -> None:
        """The senders are those that the listener has when it is asked."""
        self.listener.senders = []
        self.assertEqual(self.ask(), [None])

    def test_json(self) -> None:
        """A health can be shown and read again."""
        health = Health("relay", False, "x: down", (Check("a/b", "x", False, "down"), Check("c", "y", True, "up")))
        self.assertEqual(Health.parse(health.show()), health)
        self.assertEqual(
            health.show()["checks"][0], {"name": "a/b", "listener": "x", "status": "fail", "message": "down"}
        )


# -- whether the relay can take writes


class StateBackend:
    """A backend that is up or down, or hangs."""

    def __init__(self, name: str, state: str, clock: Clock) -> None:
        self.name, self.state, self.timeout, self._clock = name, state, TIMEOUT, clock

    def post(self, _: Write, __: Sequence[bytes]) -> Deferred[Reply]:
        """Behave as it is."""
        answered: Deferred[Reply] = Deferred()
        if self.state == "down":
            self._clock.callLater(0.01, answered.errback, Failure(REFUSED))
        elif self.state != "full":
            self._clock.callLater(0.01, answered.callback, OK)
        return answered


class AbleTests(SynchronousTestCase):
    """``why_unavailable()`` against what really becomes of a write."""

    def relay(self, states: tuple[str, ...], queue: str, consistency: str, disk: str, on_error: str) -> FanOut:
        """Build a relay whose backends and disk are in these states, and known to be."""
        self.clock = Clock()
        writer = None
        if queue == "journal":
            limits = JournalLimits(max_bytes=1 if disk == "full" else 0)
            writer = JournalWriter(self.clock, self.mktemp(), limits, make_worker=InlineWorker)
            writer.open({"removed": ("removed", "http://removed")})
            self.addCleanup(writer.stop)
            writer.start()
            if disk == "full":
                self.successResultOf(writer.append(Record(writer.next_number(), 0.0, write(LINE))))
            elif disk == "broken":
                break_disk(self)
                self.failureResultOf(writer.probe(), JournalError)
        senders = [self.sender(f"b{number}", state, queue, writer) for number, state in enumerate(states)]
        refuses = on_error == "refuse"
        hand_out = make_hand_out(self.clock, writer)
        return FanOut("test", senders, hand_out, consistency=consistency, refuse_unjournaled=refuses)

    def sender(self, name: str, state: str, queue: str, writer: JournalWriter | None) -> Sender:
        """Build a sender whose backend is in this state."""
        backend: Any = StateBackend(name, state, self.clock)
        limit = room(2 * len(BIG), writes=2)  # for one under way, and one that waits
        settings = SenderSettings(name, "test", max_waiting=limit, buffer=limit)
        backlog: Backlog = MemoryBacklog() if queue == "memory" else Backlog()
        if writer is not None:
            backlog = JournalBacklog(writer, self.clock)
        sender = Sender(backend, self.clock, settings, backlog, jitter=lambda: 0.0)
        if state == "down":
            sender.submit(write(LINE), Fate.restored(0, 0.0))
            self.clock.advance(0.01)
        elif state == "pinged":
            backend.state = "down"
            sender.pinged(REFUSED)
        elif state == "paused":
            sender.pause()
        elif state == "full":
            place = Destination(b"other", b"", b"ns", (b"", b"", b""))
            for _ in range(3):  # one under way, one that waits, one for which there is no room
                sender.submit(Write(place, b"db=db", b"", BIG), Client(0, 0.0))
        return sender

    def test_table(self) -> None:
        """It objects exactly where a write is answered 5xx."""
        seen = {True: 0, False: 0}
        queues = {
            "none": (("up", "down", "pinged"), ("",), ("relay",)),
            "memory": (("up", "down", "pinged", "paused", "full"), ("",), ("relay",)),
            "journal": (("up", "down", "paused"), ("", "broken", "full"), ("relay", "refuse")),
        }
        for queue, (states, disks, on_errors) in queues.items():
            backends = [each for size in (1, 2, 3) for each in itertools.combinations_with_replacement(states, size)]
            for case in itertools.product(backends, [queue], ("any", "one", "quorum", "all"), disks, on_errors):
                relay = self.relay(*case)
                reason = relay.why_unavailable()
                big = "full" in case[0]
                place = destination(b"other" if big else b"db")
                told: list[Reply] = []
                relay.submit(Write(place, b"db=db", b"", BIG if big else b"m f=1 1\n")).addCallback(told.append)
                for _ in range(40):
                    self.clock.advance(TIMEOUT / 20)
                (reply,) = told
                self.assertEqual(bool(reason), reply.status >= 500, f"{case}: {reason!r}, but {reply}")
                seen[bool(reason)] += 1
                for sender in relay.senders:
                    sender.close()
                self.doCleanups()
        self.assertGreater(min(seen.values()), 100, seen)

    def test_words(self) -> None:
        """It is told what is lacking."""
        for case, words in (
            (
                (("up", "down"), "none", "all", "", "relay"),
                "1 of 2 backends can take writes, and consistency all needs 2",
            ),
            ((("up",), "journal", "one", "broken", "refuse"), "the journal does not work: disk full"),
            ((("up",), "journal", "one", "full", "refuse"), "the journal is full (1 bytes)"),
        ):
            self.assertEqual(self.relay(*case).why_unavailable(), words)
            self.doCleanups()
