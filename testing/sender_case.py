"""Tests of a sender on a Clock to a fake backend, with each kind of backlog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.backlog import Backlog, MemoryBacklog
from influxrelay.delivery.destination_queue import ENTRY_BYTES, QUEUE_BYTES
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from influxrelay.journal.records import Record
from testing.backends import OK, TIMEOUT, FakeBackend, destination, write
from testing.journals import MemoryJournal


class Client(Fate):
    """A write's fate, which notes what a sender tells of the write.

    :param on_told: is called when it has been told.
    """

    def __init__(self, number: int, submitted: float, on_told: Callable[[], object] = lambda: None) -> None:
        super().__init__(number, float(number), submitted, None, None, lambda fate: None)
        self.results: list[Reply | BackendFailure] = []
        self._on_told = on_told

    def answered(self, backend: str, reply: Reply) -> None:
        """Note an answer."""
        self.results.append(reply)
        self._on_told()

    def failed(self, backend: str, problem: BackendFailure) -> None:
        """Note a failure."""
        self.results.append(problem)
        self._on_told()

    @property
    def result(self) -> Reply | BackendFailure | None:
        """The one outcome, or None as long as there is none."""
        assert len(self.results) <= 1
        return self.results[0] if self.results else None

    @property
    def reason(self) -> str:
        """Why the write failed."""
        return self.failure.reason

    @property
    def failure(self) -> BackendFailure:
        """The outcome, which is a failure."""
        assert isinstance(self.result, BackendFailure), self.result
        return self.result


def room(lines: int, *, writes: int, queues: int = 1) -> int:
    """Return how many bytes so many bytes of lines take in memory, in so many writes and queues."""
    return lines + writes * (ENTRY_BYTES + 2 * len(b"db=db")) + queues * QUEUE_BYTES


SMALL = room(4, writes=2)  # for one write in flight, and one that waits


class SenderCase(SynchronousTestCase):
    """A sender that keeps nothing; after each story nothing may be left over."""

    number = 0  # of the last write
    usual_state = State.UNDECIDED

    def setUp(self) -> None:
        """Build the default sender."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.build()

    def make_backlog(self) -> Backlog:
        """Return the backlog of a new sender."""
        return Backlog()

    def build(self, *, jitter: Callable[[], float] = lambda: 0.0, **settings: Any) -> None:
        """Build a sender with other settings."""
        self.backend = FakeBackend()
        self.settings = SenderSettings(**{"name": "fake", "listener": "test", **settings})
        self.backlog = self.make_backlog()
        self.sender = Sender(self.backend, self.clock, self.settings, self.backlog, jitter=jitter)

    def give(self, write: Write, client: Client) -> Client:
        """Submit a write that has a fate."""
        self.taken = self.sender.submit(write, client)
        return client

    def new_client(self, on_told: Callable[[], object] = lambda: None) -> Client:
        """Return the fate of another write."""
        self.number += 1
        return Client(self.number, self.clock.seconds(), on_told)

    def submit(
        self,
        body: bytes,
        to: Destination | None = None,
        state: State | None = None,
        on_told: Callable[[], object] = lambda: None,
        **more: Any,
    ) -> Client:
        """Submit a write, of which it may be decided already what becomes of it."""
        client = self.new_client(on_told)
        state = state or self.usual_state
        if state is not State.UNDECIDED:
            client.decide(kept=state is State.KEPT)
        return self.give(write(body, to, **more), client)

    def behind(self, *bodies: bytes, **more: Any) -> list[Client]:
        """Submit a write that goes at once, and others that wait behind it; the first is answered 204."""
        head = self.submit(b"head\n")
        clients = [self.submit(body, **more) for body in bodies]
        self.answer()
        self.assertEqual(head.result, OK)
        return clients

    def answer(self, reply: Reply = OK) -> None:
        """Answer the request in flight, of which there is one."""
        (post,) = self.backend.pending
        post.answer(reply)

    def answer_all(self) -> None:
        """Answer whatever is in flight."""
        for post in self.backend.pending:
            post.answer()

    def fail_request(self, reason: str = "refused") -> None:
        """Let the request in flight fail, of which there is one."""
        (post,) = self.backend.pending
        post.fail(reason)

    def into_trouble(self) -> None:
        """Let one write fail."""
        client = self.submit(b"unlucky\n", destination(b"unlucky"))
        self.fail_request()
        self.assertEqual(client.reason, "refused")

    def drain(self) -> None:
        """Let the backend take whatever comes, until all is quiet."""
        for _ in range(1000):
            for post in self.backend.pending:
                post.answer()
            if self.sender.is_idle:
                break
            self.clock.advance(0.1)
        self.assert_idle()

    def assert_idle(self) -> None:
        """Check that the sender has forgotten everything, and that its last timers end."""
        sender = self.sender
        self.assertEqual(self.backend.pending, [])
        left = (sender.queues.memory.size, sender.requests.in_flight, len(sender.queues), len(sender.clients))
        self.assertEqual(left, (0, 0, 0, 0))
        self.successResultOf(sender.drained())
        self.clock.advance(2 * TIMEOUT)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class KeepingCase(SenderCase):
    """A sender that keeps what its backend does not take; the writes are acknowledged unless a test says otherwise."""

    usual_state = State.KEPT


class MemoryCase(KeepingCase):
    """A sender with a backlog in memory."""

    def make_backlog(self) -> Backlog:
        """Return one."""
        return MemoryBacklog()

    def build(self, **settings: Any) -> None:
        """Build a sender with other settings."""
        super().build(**{"buffer": 100_000, **settings})


class JournalCase(KeepingCase):
    """A sender whose backlog is in a journal."""

    def build(self, **settings: Any) -> None:
        """Build a sender with a new journal."""
        self.journal = MemoryJournal()
        super().build(**settings)

    def make_backlog(self) -> Backlog:
        """Return one in the journal that there is."""
        journal: Any = self.journal
        return JournalBacklog(journal, self.clock)

    def give(self, write: Write, client: Client) -> Client:
        """Submit a write that is in the journal."""
        self.journal.append(Record(client.number, client.time, write))
        return super().give(write, client)

    def restart(self, **settings: Any) -> None:
        """Go on with the same journal as another process would."""
        SenderCase.build(self, **settings)
        last = self.journal.last_number
        self.backlog.resume(self.journal.positions(), last, last)

    def assert_idle(self) -> None:
        """Check that nothing is left in the journal either."""
        super().assert_idle()
        if self.sender.why_unavailable() != "the relay is shutting down":
            self.assertEqual(self.journal.left(), [])
