"""A sender stands by while another process delivers to its backend."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import CHANGES, Reply
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.queries import Question
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from influxrelay.delivery.statements import Change, Scope, as_write
from influxrelay.journal.records import Record
from testing.backends import BAD, FakeBackend, destination, write
from testing.journals import MemoryJournal


class StandingByTests(SynchronousTestCase):
    """What is forgotten, what is told, and where it goes on."""

    def setUp(self) -> None:
        """Have a sender with a journal that others share."""
        self.clock = Clock()
        self.journal: Any = MemoryJournal()
        self.backend = FakeBackend()
        self.told: list[Any] = []
        journal: Any = self.journal
        backlog = JournalBacklog(journal, self.clock)
        self.sender = Sender(self.backend, self.clock, SenderSettings("fake"), backlog, jitter=float)
        self.is_ours = True
        self.sender.guard(lambda: self.is_ours)

    def submit(self, body: bytes, *, change: bool = False) -> Fate:
        """Submit a write that the journal has."""
        number = self.journal.next_number()
        made = write(body)
        if change:
            question = Question(b"POST", b"q=x", (), b"")
            made = as_write(Change(question, Scope("DROP MEASUREMENT", frozenset((b"db",))), "x"))
        self.journal.append(Record(number, 0.0, made))
        tell: Any = type("Rule", (), {"answered": self.tell, "failed": self.tell})()
        fate = Fate(number, 0.0, self.clock.seconds(), None, tell, lambda _: None)
        fate.is_journaled = True
        self.sender.submit(made, fate)
        return fate

    def tell(self, backend: str, outcome: Any) -> None:
        """Note an outcome."""
        self.told.append(outcome)

    def stand_up(self) -> None:
        """Go on where the journal says."""
        self.sender.stand_up(self.journal.positions(), self.journal.last_number)
        self.clock.advance(1)

    def bodies(self) -> list[bytes]:
        """Return the bodies of the requests in flight, and answer them until there are no more."""
        bodies = []
        while self.backend.pending:
            (post,) = self.backend.pending
            bodies.append(post.body)
            post.answer()
            self.clock.advance(1)
        return bodies

    def test_forgets(self) -> None:
        """What is in flight or waits is forgotten, nobody is told, nothing is counted, and the memory is free."""
        for body in (b"a v=1 1", b"a v=2 2"):
            self.submit(body)
        self.sender.stand_down()
        self.clock.advance(100)
        self.assertEqual((self.told, self.journal.drops(), self.journal.letters), ([], [], []))
        self.assertEqual((self.sender.queues.memory.size, self.sender.is_idle), (0, True))
        self.assertEqual((self.sender.requests.in_flight, dict(self.sender.requests.failures)), (0, {"stopped": 1}))
        self.assertEqual((self.sender.why_unavailable(), self.journal.cursors), ("", []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_goes_on(self) -> None:
        """What nobody has delivered is read again, in its order, and comes before what is submitted then."""
        self.submit(b"a v=1 1")
        self.bodies()
        self.submit(b"a v=2 2")
        self.submit(b"a v=3 3")
        self.sender.stand_down()
        self.stand_up()
        self.submit(b"a v=4 4")
        self.assertEqual(b"\n".join(self.bodies()).split(), b"a v=2 2 a v=3 3 a v=4 4".split())
        self.assertEqual(self.journal.position(destination()), 4)

    def test_again_and_again(self) -> None:
        """It may stand down while it reads what it has to go on with."""
        self.submit(b"a v=1 1")
        for _ in range(3):
            self.sender.stand_down()
            self.journal.held = []
            self.sender.stand_up(self.journal.positions(), self.journal.last_number)
        self.sender.stand_down()
        self.journal.release()
        self.assertEqual(self.backend.pending, [])
        self.stand_up()
        self.assertEqual(self.bodies(), [b"a v=1 1"])

    def test_gate(self) -> None:
        """A request that is no longer this process's is not sent, is no trouble, and ends the delivery."""
        self.submit(b"a v=1 1")
        self.submit(b"a v=2 2")
        self.is_ours = False
        self.backend.pending[0].answer()
        self.assertTrue(self.sender.stands_by)
        self.assertEqual((len(self.told), self.sender.status.trouble), (1, None))
        self.assertEqual(self.sender.queues.memory.size, 0)
        self.is_ours = True
        self.stand_up()
        self.assertEqual(self.bodies(), [b"a v=1 1\na v=2 2\n"])

    def test_refused_before(self) -> None:
        """A refusal of which it was not certain whether it matters is not counted by one who stands by."""
        fate = self.submit(b"bad")
        self.backend.pending[0].answer(BAD)
        self.sender.stand_down()
        fate.decide(kept=True)
        self.assertEqual((self.journal.letters, self.journal.left()), ([], [b"bad"]))

    def test_undecided(self) -> None:
        """A write that is read again may have a client still, who is told."""
        fate = self.submit(b"a v=1 1")
        self.sender.backlog.restore_by(lambda number, when: fate)
        self.sender.stand_down()
        self.stand_up()
        self.bodies()
        self.assertEqual(self.told, [Reply(204)])
        self.assertEqual(fate.state, State.UNDECIDED)

    def test_change(self) -> None:
        """A change is executed again if it is not known to be passed; it may have been, and holds later writes back."""
        self.submit(b"", change=True)
        self.clock.advance(1)
        self.submit(b"a v=1 1")
        (post,) = self.backend.pending
        self.assertEqual(post.write.destination, CHANGES)
        self.sender.stand_down()
        self.stand_up()
        self.assertEqual([each.write.destination for each in self.backend.pending], [CHANGES])
        self.assertEqual(self.bodies()[1:], [b"a v=1 1"])

    def test_left(self) -> None:
        """What only the journal has for the backend is read when its turn comes."""
        self.submit(b"a v=1 1")
        number = self.journal.next_number()
        self.journal.append(Record(number, 0.0, write(b"a v=2 2")))
        self.sender.backlog.leave(destination(), number)
        self.assertEqual(self.bodies(), [b"a v=1 1", b"a v=2 2"])
