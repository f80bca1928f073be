"""Two relays deliver what either of them has accepted, from one log."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply, Write
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.fate import Fate
from influxrelay.delivery.from_log import FromLog
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.origin import GRACE
from influxrelay.delivery.queries import Question
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from influxrelay.delivery.standing import standing
from influxrelay.delivery.statements import Change, Refusal, Result, Scope, as_write, read_result
from influxrelay.journal.records import Record
from influxrelay.lineprotocol.filters import Filter
from testing.backends import BAD, BROKEN, MISSING, OK, TIMEOUT, FakeBackend, destination, write
from testing.shared_log import Group, GroupLog

RESULT = b'{"results":[{"statement_id":0}]}\n'
ERROR = b'{"results":[{"statement_id":0,"error":"user already exists"}]}\n'
CHANGE = as_write(
    Change(Question(b"POST", b"q=x", (), b""), Scope("DROP MEASUREMENT", frozenset((b"db",))), "DROP MEASUREMENT m")
)


class Relay:
    """The delivery of one relay."""

    def __init__(self, group: Group, name: str, clock: Clock, wanted: dict[str, Filter]) -> None:
        self.log = GroupLog(group, name)
        self.backends = {each: FakeBackend() for each in ("b1", "b2")}
        self.senders: dict[str, Sender] = {}
        log: Any = self.log
        for each, backend in self.backends.items():
            backlog = JournalBacklog(log, clock)
            settings = SenderSettings(each, name, filter=wanted.get(each))
            self.senders[each] = Sender(backend, clock, settings, backlog, jitter=float)
            self.log.keys[each] = backlog
        self.hand_out = FromLog(log, clock)
        self.log.follower = self.hand_out.follower
        self.hand_out.begin()
        self.fan_out = FanOut(name, list(self.senders.values()), self.hand_out)


class FromLogTests(SynchronousTestCase):
    """Order, answers, decisions and hand-over."""

    def setUp(self) -> None:
        """Let each relay deliver to one backend."""
        self.build({})

    def build(self, wanted: dict[str, Filter]) -> None:
        """Have two relays."""
        self.clock = Clock()
        self.group = Group()
        self.one, self.two = (Relay(self.group, name, self.clock, wanted) for name in ("one", "two"))
        self.group.move("b1", "one")
        self.group.move("b2", "two")

    def submit(self, relay: Relay, body: bytes | Write = b"a v=1 1", consistency: str = "") -> list[Reply]:
        """Submit a write; return where the answer will be."""
        told: list[Reply] = []
        made = body if isinstance(body, Write) else write(body)
        relay.fan_out.submit(made, consistency).addCallback(told.append)
        return told

    def pending(self, backend: str) -> list[bytes]:
        """Return the bodies of the requests in flight to a backend, from whichever relay."""
        return [post.body for relay in (self.one, self.two) for post in relay.backends[backend].pending]

    def answer(self, backend: str, reply: Reply = OK) -> None:
        """Answer the requests in flight to a backend."""
        for relay in (self.one, self.two):
            for post in relay.backends[backend].pending:
                post.answer(reply)

    def refuse(self, backend: str) -> None:
        """Fail the requests in flight to a backend."""
        for relay in (self.one, self.two):
            for post in relay.backends[backend].pending:
                post.fail()

    def settle(self) -> None:
        """Answer all that is asked until nothing is."""
        for _ in range(10):
            self.answer("b1")
            self.answer("b2")
            self.clock.advance(1)

    def test_one_order(self) -> None:
        """Each backend gets the writes of both relays from its deliverer alone, in the order of the log."""
        self.submit(self.one, b"a v=1 1")
        self.submit(self.two, b"a v=2 2")
        self.submit(self.one, b"a v=3 3")
        for backend, relay, other in (("b1", self.one, self.two), ("b2", self.two, self.one)):
            self.answer(backend)
            bodies = [post.body for post in relay.backends[backend].posts]
            self.assertEqual(bodies, [b"a v=1 1", b"a v=2 2\na v=3 3\n"])
            self.assertEqual(other.backends[backend].posts, [])

    def test_together(self) -> None:
        """What the log hands out together travels together."""
        other = destination(b"other")
        records = [
            Record(number, 0.0, write(b"a v=%d 1" % number, to)) for number, to in ((1, None), (2, other), (3, None))
        ]
        for log in (self.one.log, self.two.log):
            log.follower.hand_out(records, "three")
        self.assertEqual(self.pending("b1"), [b"a v=1 1\na v=3 1\n", b"a v=2 1"])

    def test_answer_of_the_other(self) -> None:
        """A client is told what a backend says to which another relay delivers."""
        told = self.submit(self.one)
        self.answer("b2")
        self.assertEqual(told, [OK])
        self.assertEqual(self.group.struck, [])
        self.settle()
        told = self.submit(self.two)
        self.answer("b1", BAD)
        self.assertEqual((told, self.group.struck), ([BAD], [2]))

    def test_consistency(self) -> None:
        """Levels count backends, whoever delivers to them; any is answered by the log."""
        self.assertEqual(self.submit(self.one, consistency="any"), [OK])
        self.settle()
        for level in ("quorum", "all"):
            told = self.submit(self.one, consistency=level)
            self.answer("b2")
            self.assertEqual(told, [])
            self.answer("b1")
            self.assertEqual(told, [OK])
        told = self.submit(self.one, consistency="all")
        self.answer("b2", BAD)
        self.assertEqual(told, [BAD])

    def test_all_fail(self) -> None:
        """When all backends have failed, the write is struck before its client is told, and delivered to none."""
        told = self.submit(self.one)
        self.answer("b1", BROKEN)
        self.assertEqual(told, [])
        self.answer("b2", BROKEN)
        self.assertEqual((told, self.group.struck), ([BROKEN], [1]))
        self.settle()
        self.assertEqual(
            [len(relay.backends[name].posts) for relay, name in ((self.one, "b1"), (self.two, "b2"))], [1, 1]
        )

    def test_no_word(self) -> None:
        """If there is no word of a backend in time, the client is told 503, and the write is delivered."""
        self.two.log.is_cut = True
        told = self.submit(self.one)
        self.refuse("b1")
        self.assertEqual(told, [])
        self.clock.advance(TIMEOUT + GRACE)
        self.assertEqual([reply.status for reply in told], [503])
        self.assertEqual(self.group.struck, [])
        self.settle()
        self.assertEqual(self.pending("b1"), [])
        self.assertEqual(self.group.passed["b1"], self.group.passed["b2"])

    def test_log_fails(self) -> None:
        """A write that the log does not take is answered 503, and given to nobody."""
        self.one.log.failing = "no quorum"
        told = self.submit(self.one)
        self.assertEqual([(reply.status, b"no quorum" in reply.body) for reply in told], [(503, True)])
        self.assertEqual(self.pending("b1") + self.pending("b2"), [])

    def test_relayed_unjournaled(self) -> None:
        """What the log does not take is relayed as without a journal, if that is wanted, and lost where it fails."""
        plain = {name: Sender(FakeBackend(), self.clock, SenderSettings(name)) for name in ("b1", "b2")}
        for name, beside in plain.items():
            self.one.senders[name].backlog.relay_beside(beside.backlog)
        self.one.hand_out.relay_by(plain)
        self.one.fan_out.reconfigure("one", list(self.one.senders.values()), consistency="one")
        self.one.log.failing = "no quorum"
        for level in ("one", "any"):
            told = self.submit(self.one, consistency=level)
            for name, reply in (("b1", OK), ("b2", BROKEN)):
                backend: Any = plain[name].backend
                backend.pending[0].answer(reply)
                self.clock.advance(20)
            self.assertEqual(told, [OK])
        losses = [sum(each.writes for each in sender.backlog.losses()) for sender in self.one.senders.values()]
        self.assertEqual(losses, [0, 2])
        self.one.senders["b2"].backlog.forget_losses()
        self.assertEqual(standing(self.one.senders["b2"]).lacks, "")
        self.assertEqual([reply.status for reply in self.submit(self.one, CHANGE)], [503])

    def test_dead_letters(self) -> None:
        """Only a write that its origin keeps becomes a dead letter of a backend elsewhere."""
        told = self.submit(self.one)
        self.answer("b2", BAD)
        self.assertEqual(told, [BAD])
        self.settle()
        told = self.submit(self.one, consistency="any")
        self.answer("b2", BAD)
        self.assertEqual((told, len(self.two.log.letters)), ([OK], 1))
        self.answer("b1")
        told = self.submit(self.one)
        self.answer("b1")
        self.assertEqual(told, [OK])
        self.answer("b2", BAD)
        self.assertEqual(len(self.two.log.letters), 2)

    def test_origin_gone(self) -> None:
        """A write of which its origin says nothing more is kept after a while."""
        self.one.log.is_cut = True
        self.submit(self.one)
        self.answer("b1")
        self.answer("b2", BAD)
        self.assertEqual(self.two.log.letters, [])
        self.clock.advance(2 * (TIMEOUT + GRACE))
        self.assertEqual(len(self.two.log.letters), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hand_over(self) -> None:
        """The next deliverer goes on in order, and what it delivers is told to a client that still waits here."""
        told = self.submit(self.two)
        self.submit(self.one, b"a v=2 2")
        self.group.move("b1", "two")
        self.clock.advance(1)
        self.assertEqual(self.pending("b1"), [b"a v=1 1\na v=2 2\n"])
        self.assertEqual(self.one.backends["b1"].pending, [])
        self.answer("b1")
        self.assertEqual(told, [OK])
        self.submit(self.one, b"a v=3 3")
        self.assertEqual(self.pending("b1"), [b"a v=3 3"])

    def test_nobody_delivers(self) -> None:
        """Without a deliverer what comes waits in the log."""
        self.group.move("b1", "")
        told = self.submit(self.one)
        self.answer("b2")
        self.assertEqual(told, [OK])
        self.group.move("b1", "one")
        self.assertEqual(self.pending("b1"), [b"a v=1 1"])

    def test_struck_after_hand_over(self) -> None:
        """What is struck while it waits at a deliverer that did not see it coming is not sent."""
        self.group.move("b2", "one")
        self.refuse("b1")
        told = self.submit(self.two)
        self.refuse("b1")
        self.refuse("b2")
        self.assertEqual(len(told), 1)
        self.group.move("b1", "two")
        self.group.move("b2", "two")
        self.settle()
        self.assertEqual(self.two.backends["b1"].posts, [])

    def test_change(self) -> None:
        """A change is answered by a backend elsewhere; its answer is that of the transport here."""
        told = self.submit(self.one, CHANGE)
        self.clock.advance(1)
        (post,) = self.two.backends["b2"].pending
        post.answer(read_result(Reply(200, (), RESULT), self.two.backends["b2"]))
        (reply,) = told
        self.assertIsInstance(reply, Result)
        self.assertIs(getattr(reply, "source", None), self.one.backends["b2"])

    def test_change_refused(self) -> None:
        """A change that a backend elsewhere refuses is refused as it would be here."""
        told = self.submit(self.one, CHANGE)
        self.clock.advance(1)
        (post,) = self.two.backends["b2"].pending
        post.answer(read_result(Reply(200, (), ERROR), self.two.backends["b2"]))
        self.assertEqual([(type(reply), reply.status, reply.body) for reply in told], [(Refusal, 400, ERROR)])

    def test_slow_change(self) -> None:
        """A change may take any time, as long as somebody delivers to the backend."""
        told = self.submit(self.one, CHANGE)
        self.clock.advance(1)
        self.clock.pump([TIMEOUT] * 5)
        self.assertEqual(told, [])
        for backend in ("b1", "b2"):
            self.group.move(backend, "")
        self.clock.pump([TIMEOUT] * 3)
        self.assertEqual([reply.status for reply in told], [503])

    def test_filters(self) -> None:
        """Each deliverer applies its filters; what is large is divided when it is read."""
        for size in (1, 5000):
            self.build({"b2": Filter(["^b$"], [])})
            lines = b"a v=1 1\n" * size + b"b v=2 2\n"
            told = self.submit(self.one, lines)
            self.clock.advance(1)
            self.assertEqual((self.pending("b1"), self.pending("b2")), ([lines], [b"b v=2 2\n"]))
            self.answer("b2")
            self.assertEqual(told, [OK])
            self.answer("b1")
            self.submit(self.one, b"a v=3 3\n")
            self.settle()
            self.assertEqual(self.group.passed["b1"], self.group.passed["b2"])

    def test_missing_database(self) -> None:
        """A kept write waits for its database; its client is told what the backend says."""
        told = self.submit(self.one)
        self.answer("b1", MISSING)
        self.answer("b2", MISSING)
        self.assertEqual((told, self.group.struck), ([MISSING], [1]))

    def test_elsewhere(self) -> None:
        """A sender that stands by tells what the log knows of its backend."""
        sender = self.two.senders["b1"]
        self.assertEqual((sender.state, standing(sender).in_sync), ("up", True))
        self.submit(self.one)
        is_past = sender.barrier()
        for age, state in ((1.0, "up"), (10.0, "behind")):
            self.group.age = age
            self.assertEqual((sender.state, standing(sender).in_sync), (state, state == "up"))
        self.assertFalse(is_past())
        self.answer("b1")
        self.assertTrue(is_past())
        self.group.paused.add("b1")
        self.assertEqual((sender.state, sender.paused), ("paused", True))
        problem = self.failureResultOf(sender.resend(write(b"a v=1 1")), BackendFailure).value
        self.assertEqual((problem.reason, problem.detail), ("elsewhere", "relay one delivers to it"))

    def test_lease_lost_in_the_middle(self) -> None:
        """A sender that stands down while writes are handed out has passed none of them when it delivers again."""
        self.submit(self.one)
        sender = self.one.senders["b1"]
        self.group.owners["b1"] = ""
        sender.stand_down()
        late = write(b"a v=9 9")
        sender.gather(late, Fate.restored(9, 0.0))
        sender.backlog.skip(late.destination, 10)
        self.group.last = 10
        self.group.move("b1", "one")
        self.assertEqual(self.group.passed["b1"], {})
        self.settle()
        self.assertEqual(self.one.backends["b1"].posts[-1].body, b"a v=1 1")

    def test_resent(self) -> None:
        """Who has sent a write once more is told if another relay delivers before it is answered."""
        for answers in (False, True):
            resent = self.one.senders["b1"].resend(write(b"a v=1 1"))
            self.group.move("b1", "two")
            problem = self.failureResultOf(resent, BackendFailure).value
            self.assertEqual((problem.reason, problem.detail), ("elsewhere", "another relay is about to deliver to it"))
            if answers:
                self.answer("b1")
            self.group.move("b1", "one")

    def test_stop(self) -> None:
        """A relay that stops finishes what is in flight, sends nothing more, and tells nobody of what waits."""
        told = self.submit(self.two, consistency="all")
        self.submit(self.two, b"a v=2 2")
        sender = self.one.senders["b1"]
        drained = sender.drained()
        self.assertNoResult(drained)
        self.answer("b1")
        self.successResultOf(drained)
        sender.close()
        self.submit(self.two, b"a v=3 3")
        self.assertEqual((self.pending("b1"), told), ([], []))
        self.group.move("b1", "two")
        self.assertEqual(self.pending("b1"), [b"a v=2 2\na v=3 3\n"])
        self.answer("b2")
        self.assertEqual(told, [OK])
