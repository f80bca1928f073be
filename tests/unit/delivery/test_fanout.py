"""The fan-out and the settle rule."""

from __future__ import annotations

import itertools
import json
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.replies import UNABLE, json_error
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.backlog import Fate, State
from influxrelay.delivery.buffered_sender import BufferedSender
from influxrelay.delivery.fanout import FanOut
from influxrelay.lineprotocol.filters import Filter
from testing.backends import destination, write
from testing.journals import MemoryJournal

WRITE = Write(Destination(b"db", b"", b"ns", (b"", b"", b"")), b"db=db", b"", b"m f=1 1\n")


def failure(status: int | None = None, reason: str = "refused") -> BackendFailure:
    """Return a failure, with an answer if there is a status."""
    if status is None:
        return BackendFailure(reason, "x")
    return BackendFailure(str(status), "x", Reply(status, ((b"X", b"%d" % status),), b"words of %d" % status))


class FakeSender:
    """A sender that takes writes and answers when told."""

    filter: Filter | None = None

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.taken: list[Write] = []
        self.missed: list[tuple[Write, float]] = []
        self.answer: Deferred[Reply] = Deferred()

    def submit(self, write: Write) -> Deferred[Reply]:
        """Take a write."""
        self.taken.append(write)
        return self.answer

    def miss(self, write: Write, when: float) -> None:
        """Be told that it has missed a write."""
        self.missed.append((write, when))

    def settle(self, outcome: Reply | Exception) -> None:
        """Answer."""
        if isinstance(outcome, Reply):
            self.answer.callback(outcome)
        else:
            self.answer.errback(Failure(outcome))


def expected(outcomes: list[Reply | Exception]) -> tuple[int, int]:
    """Return what the contract says: after how many outcomes the client is answered, and with which status."""
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Reply):
            return number, outcome.status
    statuses = [outcome.reply.status for outcome in outcomes if isinstance(outcome, BackendFailure) and outcome.reply]
    shown = [status for status in statuses if status >= 500] or [s for s in statuses if s in (408, 425, 429)]
    return len(outcomes), max(shown, default=503)


class SettleTests(SynchronousTestCase):
    """Which answer is the client's."""

    def settle(self, *outcomes: Reply | Exception, order: tuple[int, ...] = ()) -> tuple[int, Reply]:
        """Let senders answer in an order; return after how many of them the client was answered, and with what."""
        senders = [FakeSender() for _ in outcomes]
        relay = FanOut("test", senders)  # type: ignore[arg-type]
        told: list[Reply] = []
        when: list[int] = []
        relay.submit(WRITE).addCallback(told.append)
        for number, index in enumerate(order or range(len(outcomes)), 1):
            senders[index].settle(outcomes[index])
            if told and not when:
                when.append(number)
        for sender in senders:
            self.assertEqual(sender.taken, [WRITE])
        self.assertEqual(len(told), 1)
        return when[0], told[0]

    def test_every_order(self) -> None:
        """Whatever two or three backends answer in whatever order, the client gets one answer: the contract's."""
        kinds = [
            Reply(204),
            Reply(400, (), b"bad"),
            Reply(404, (), b"no"),
            failure(),
            failure(500),
            failure(503),
            failure(408),
            failure(429),
            failure(301),
            RuntimeError("a bug"),
        ]
        for count in (1, 2, 3):
            for outcomes in itertools.product(kinds, repeat=count):
                for order in itertools.permutations(range(count)):
                    when, reply = self.settle(*outcomes, order=order)
                    self.assertEqual((when, reply.status), expected([outcomes[index] for index in order]), outcomes)

    def test_unchanged(self) -> None:
        """An answer is shown as the backend gave it, headers and body."""
        refused = Reply(400, ((b"X-Influxdb-Error", b"bad"),), b'{"error":"bad"}\n')
        self.assertIs(self.settle(failure(500), refused, Reply(204))[1], refused)
        broken = failure(502)
        self.assertIs(self.settle(failure(), broken, failure(429))[1], broken.reply)

    def test_nobody_answers(self) -> None:
        """Where there is no answer to show, the client gets 503 with InfluxDB FanOut's words."""
        for outcome in (failure(), failure(reason="timeout"), failure(302), failure(100)):
            self.assertEqual(self.settle(outcome, outcome), (2, UNABLE))
        self.assertEqual((UNABLE.status, UNABLE.body), (503, b'{"error":"unable to write points"}\n'))

    def test_not_now_is_shown_last(self) -> None:
        """A 5xx is preferred to a 429, 425 or 408, and these to an answer of our own."""
        self.assertEqual(self.settle(failure(429), failure(500), failure())[1].status, 500)
        self.assertEqual(self.settle(failure(429), failure(), failure(301))[1].status, 429)

    def test_answered_at_once(self) -> None:
        """Senders that have answered already are as good as others, and every one gets the write."""
        for outcomes in itertools.product((Reply(204), Reply(400), failure(500)), repeat=2):
            senders = [FakeSender(), FakeSender()]
            for sender, outcome in zip(senders, outcomes, strict=True):
                sender.answer = succeed(outcome) if isinstance(outcome, Reply) else fail(outcome)
            relay = FanOut("test", senders)  # type: ignore[arg-type]
            reply = self.successResultOf(relay.submit(WRITE))
            self.assertEqual(reply.status, expected(list(outcomes))[1])
            self.assertEqual([sender.taken for sender in senders], [[WRITE], [WRITE]])

    def test_late_failures_are_no_errors(self) -> None:
        """A backend that fails after the client was answered leaves no unhandled error."""
        self.settle(Reply(204), failure(), failure(500))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_attributes(self) -> None:
        """A relay knows its name and its senders."""
        senders = [FakeSender()]
        relay = FanOut("name", senders)  # type: ignore[arg-type]
        self.assertEqual((relay.name, relay.senders), ("name", tuple(senders)))


class QuorumTests(SynchronousTestCase):
    """Consistency ``quorum`` and ``all``."""

    def expected(self, outcomes: list[tuple[str, Reply | Exception]], needed: int) -> tuple[int, int, list[str]]:
        """Return after how many outcomes there is which answer, and which backends it names."""
        good, bad, refusals = 0, [], []
        for number, (name, outcome) in enumerate(outcomes, 1):
            if isinstance(outcome, Reply) and outcome.status < 300:
                good += 1
            elif isinstance(outcome, Reply):
                bad.append(f"{name}: {outcome.status}")
                refusals.append(outcome.status)
            else:
                bad.append(f"{name}: {outcome.reason if isinstance(outcome, BackendFailure) else 'error'}")
            if good == needed:
                return number, 204, []
            if len(bad) > len(outcomes) - needed:
                return (number, refusals[0], []) if len(refusals) == len(bad) else (number, 503, bad)
        raise AssertionError

    def submit(self, outcomes: list[Reply | Exception], consistency: str, order: tuple[int, ...]) -> tuple[int, Reply]:
        """Let backends answer in an order; return after how many of them the client was answered, and with what."""
        senders = [FakeSender(f"sender{number}") for number in range(len(outcomes))]
        relay = FanOut("test", senders)  # type: ignore[arg-type]
        told: list[Reply] = []
        when: list[int] = []
        relay.submit(WRITE, consistency).addCallback(told.append)
        for number, index in enumerate(order, 1):
            senders[index].settle(outcomes[index])
            when += [number] * (len(told) - len(when))
        self.assertEqual(len(told), 1)
        return when[0], told[0]

    def test_every_order(self) -> None:
        """204 as soon as enough have it; as soon as that is impossible the 4xx, or a 503 that names the backends."""
        kinds = [
            Reply(204),
            Reply(200),
            Reply(400, (), b"bad"),
            Reply(404, (), b"no"),
            failure(),
            failure(500),
            failure(429),
            RuntimeError("a bug"),
        ]
        for count, consistency in itertools.product((1, 2, 3), ("quorum", "all")):
            needed = count if consistency == "all" else count // 2 + 1
            for outcomes in itertools.product(kinds, repeat=count):
                for order in itertools.permutations(range(count)):
                    when, reply = self.submit(list(outcomes), consistency, order)
                    in_order = [(f"sender{index}", outcomes[index]) for index in order]
                    after, status, names = self.expected(in_order, needed)
                    self.assertEqual((when, reply.status), (after, status), in_order)
                    if names:
                        words = f"unable to write points to enough backends ({', '.join(names)})"
                        self.assertEqual(json.loads(reply.body), {"error": words})

    def test_refused_by_all(self) -> None:
        """Where only 4xx stand in the way the first of them comes back unchanged, and nobody repeats the write."""
        bad = Reply(400, ((b"X-Influxdb-Error", b"bad"),), b'{"error":"bad"}\n')
        missing = Reply(404, (), b'{"error":"database not found: \\"db\\""}\n')
        waiting = BackendFailure("not ready", "answered 404", missing)
        table: list[tuple[list[Reply | Exception], str, Reply | None]] = [
            ([bad, Reply(404)], "all", bad),
            ([Reply(204), bad], "all", bad),
            ([bad, Reply(204), Reply(403)], "quorum", bad),
            ([missing, missing], "all", missing),
            ([waiting, waiting], "quorum", missing),
            ([bad, failure(), Reply(400)], "quorum", None),
            ([failure(429), bad], "quorum", None),
            ([failure(500), failure(500)], "all", None),
        ]
        for outcomes, consistency, wanted in table:
            _, reply = self.submit(outcomes, consistency, tuple(range(len(outcomes))))
            if wanted is None:
                self.assertEqual(reply.status, 503, outcomes)
            else:
                self.assertIs(reply, wanted, outcomes)

    def test_of_the_listener(self) -> None:
        """The listener's consistency is for writes that ask for none."""
        for asked, status in (("", 503), ("one", 204), ("all", 503), ("any", 204)):
            senders = [FakeSender(), FakeSender()]
            relay = FanOut("test", senders, consistency="all")  # type: ignore[arg-type]
            answered = relay.submit(WRITE, asked)
            senders[0].settle(Reply(204))
            senders[1].settle(failure())
            self.assertEqual(self.successResultOf(answered).status, status)


class MissedTests(SynchronousTestCase):
    """Who is told that its backend will not get a write."""

    def missed(self, *outcomes: Reply | Exception, consistency: str = "one") -> set[frozenset[int]]:
        """Return, for every order of these outcomes, which senders were told."""
        told = set()
        for order in itertools.permutations(range(len(outcomes))):
            senders = [FakeSender(f"sender{number}") for number in range(len(outcomes))]
            relay = FanOut("test", senders, clock=lambda: 7.0)  # type: ignore[arg-type]
            relay.submit(WRITE, consistency)
            for index in order:
                senders[index].settle(outcomes[index])
            for sender in senders:
                self.assertIn(sender.missed, ([], [(WRITE, 7.0)]))
            told.add(frozenset(index for index, sender in enumerate(senders) if sender.missed))
        return told

    def test_every_order(self) -> None:
        """A sender that failed is told if the client got 204, whoever was first; one that refused the write is not."""
        ok, no_database = Reply(204), Reply(404, (), b'{"error":"database not found: \\"db\\""}')
        partial = BackendFailure("500", "x", Reply(500, (), b"partial write: x"))
        nobody: frozenset[int] = frozenset()
        self.assertEqual(self.missed(ok, failure(), failure(503)), {frozenset((1, 2))})
        self.assertEqual(self.missed(failure(), failure(503)), {nobody})
        self.assertEqual(self.missed(ok, partial), {nobody})
        self.assertEqual(self.missed(ok, Reply(400)), {nobody})
        self.assertEqual(self.missed(Reply(400), failure()), {nobody})
        self.assertEqual(self.missed(ok, no_database), {nobody, frozenset((1,))})
        for level, told in (("all", nobody), ("quorum", frozenset((2,)))):
            self.assertEqual(self.missed(ok, ok, failure(), consistency=level), {told})
            self.assertEqual(self.missed(ok, ok, partial, consistency=level), {nobody})
            self.assertEqual(self.missed(ok, ok, no_database, consistency=level), {told})


class FakeBufferedSender(BufferedSender):
    """A sender with a queue, that answers when told."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.fates: list[Fate] = []
        self.absent: list[Fate] = []
        self.answer: Deferred[Reply] = Deferred()
        self.behind = False
        self.buried: list[Fate] = []

    def submit(self, write: Write, fate: Fate | None = None) -> Deferred[Reply]:
        """Take a write."""
        assert fate is not None
        self.fates.append(fate)
        if self.behind:
            fate.absent.append(self)
        return self.answer

    def not_on_disk(self, fate: Fate) -> None:
        """Note it."""
        self.absent.append(fate)

    def settled(self, fate: Fate) -> None:
        """Nothing to do."""

    settle = FakeSender.settle


class KeptTests(SynchronousTestCase):
    """What is kept, and when the client is told, with queues."""

    def build(self, count: int = 2, *, journal: bool = True, **settings: Any) -> None:
        """Build a relay with queues."""
        self.senders = [FakeBufferedSender(f"sender{number}") for number in range(count)]
        self.writer = MemoryJournal(41, commits_at_once=False)
        writer: Any = self.writer if journal else None
        self.relay = FanOut("test", self.senders, writer=writer, clock=lambda: 7.0, **settings)

    def submit(self, consistency: str = "") -> list[Reply]:
        """Submit a write; return where the answers will be."""
        told: list[Reply] = []
        self.relay.submit(WRITE, consistency).addCallback(told.append)
        return told

    def state(self) -> State:
        """Return what is decided of the last write."""
        return self.senders[0].fates[-1].state

    def test_in_memory(self) -> None:
        """Without a journal the write is kept or struck in the moment in which the client is told."""
        for outcome, state in ((Reply(204), State.KEPT), (Reply(400), State.STRUCK)):
            self.build(journal=False)
            told = self.submit()
            self.assertEqual(self.state(), State.PENDING)
            self.senders[1].settle(outcome)
            self.assertEqual((told, self.state()), ([outcome], state))
        self.senders[1].answer = Deferred()
        self.submit()
        self.assertEqual([fate.seq for fate in self.senders[0].fates], [1, 2])
        self.assertIs(self.senders[0].fates[0].write, WRITE)

    def test_taken(self) -> None:
        """A 204 is given when a backend has the write and it is committed, whichever is first."""
        for commit_first in (False, True):
            self.build()
            told = self.submit()
            steps = [lambda: self.senders[0].settle(Reply(204)), self.writer.commit]
            for step in reversed(steps) if commit_first else steps:
                self.assertEqual(told, [])
                step()
            self.assertEqual((told, self.state()), ([Reply(204)], State.KEPT))
            (record,) = self.writer.appended
            self.assertEqual((record.seq, record.time, record.write), (42, 7.0, WRITE))
            self.assertEqual((self.writer.last_number, self.writer.struck), (42, []))

    def test_refused(self) -> None:
        """A 4xx or 5xx is given when the write is struck from the journal for certain, or that has failed."""
        for problem in (None, JournalError("disk")):
            for outcome in (Reply(400), failure(500)):
                self.build(1)
                told = self.submit()
                self.senders[0].settle(outcome)
                self.assertEqual((told, self.writer.struck), ([], []))
                self.writer.commit()
                self.assertEqual((told, self.writer.struck, self.state()), ([], [42], State.STRUCK))
                self.writer.commit(problem)
                self.assertEqual(len(told), 1)

    def test_dead_letter_first(self) -> None:
        """A dead letter of another backend is with the journal before the 204 is given."""
        self.build()
        told = self.submit()
        sender = self.senders[1]
        sender.fates[0].when_kept(lambda: sender.buried.append(sender.fates[0]))
        self.senders[0].settle(Reply(204))
        self.writer.commit()
        self.assertEqual((told, len(sender.buried)), ([Reply(204)], 1))

    def test_submitted_within_a_submission(self) -> None:
        """A client that writes again when it is told, within another write's submission, comes behind that one."""
        self.build()
        order: list[bytes] = []
        first = self.senders[0].submit

        def submit(write: Write, fate: Fate | None = None) -> Deferred[Reply]:
            if write.body == b"outer 1\n":
                self.relay.submit(Write(write.destination, write.query, b"", b"inner 1\n"))
            order.append(write.body)
            return first(write, fate)

        self.patch(self.senders[0], "submit", submit)
        self.relay.submit(Write(WRITE.destination, b"db=db", b"", b"outer 1\n"))
        self.assertEqual(order, [b"outer 1\n", b"inner 1\n"])

    def test_mistake_within_a_submission(self) -> None:
        """A mistake of ours in one submission fails that one, and not the next."""
        self.build()
        self.patch(self.senders[0], "submit", lambda *_: 1 / 0)
        failed = self.relay.submit(WRITE)
        self.failureResultOf(failed, ZeroDivisionError)
        self.assertEqual(len(self.relay._submitted), 0)

    def test_journal_fails(self) -> None:
        """Where the journal fails, a write that a backend has is acknowledged; who counted on the disk is told."""
        self.build()
        self.senders[1].behind = True
        told = self.submit()
        self.writer.commit(JournalError("disk"))
        self.assertEqual((self.senders[0].absent, self.senders[1].absent), ([], self.senders[1].fates))
        self.senders[0].settle(Reply(204))
        self.assertEqual((told, self.state(), self.writer.struck), ([Reply(204)], State.KEPT, []))

    def test_journal_fails_and_refuses(self) -> None:
        """Where writes must be journaled, one that cannot be is answered 503, and struck."""
        self.build(refuse_unjournaled=True)
        told = self.submit()
        self.senders[0].settle(Reply(204))
        self.writer.commit(JournalError("disk"))
        self.assertEqual((told[0].status, self.state()), (503, State.STRUCK))
        self.assertEqual(json.loads(told[0].body), {"error": "unable to journal the write: disk"})

    def test_journal_fails_and_backends_too(self) -> None:
        """Where the journal and the backends fail, the client gets the backends' answer."""
        for settings in ({}, {"refuse_unjournaled": True}):
            self.build(1, **settings)
            told = self.submit()
            self.senders[0].settle(Reply(400))
            self.writer.commit(JournalError("disk"))
            self.assertEqual((told, self.state()), ([Reply(400)], State.STRUCK))

    def test_journal_first(self) -> None:
        """Where the journal comes first, no backend gets a write before its commit, nor out of order."""
        self.build(consistency="any", journal_first=True)
        told = [self.submit(), self.submit()]
        handed = self.relay.handed_out()
        self.assertEqual((self.senders[0].fates, told, len(self.writer.appended)), ([], [[], []], 2))
        self.writer.commit()
        self.assertEqual(([fate.seq for fate in self.senders[1].fates], told), ([42], [[Reply(204)], []]))
        self.assertNoResult(handed)
        self.writer.commit()
        self.assertEqual(([fate.seq for fate in self.senders[1].fates], told), ([42, 43], [[Reply(204)]] * 2))
        self.successResultOf(handed)
        self.successResultOf(self.relay.handed_out())

    def test_journal_first_fails(self) -> None:
        """Where the journal comes first and fails, the backends get the write, and who counted on the disk is told."""
        self.build(consistency="any", journal_first=True)
        self.senders[1].behind = True
        told = self.submit()
        handed = self.relay.handed_out()
        self.writer.commit(JournalError("disk"))
        self.successResultOf(handed)
        self.assertEqual((self.senders[0].absent, self.senders[1].absent), ([], self.senders[1].fates))
        self.assertEqual((told, len(self.senders[0].fates)), ([], 1))
        self.senders[0].settle(Reply(204))
        self.assertEqual((told, self.state()), ([Reply(204)], State.KEPT))

    def test_journal_first_and_a_road_that_raises(self) -> None:
        """A sender's mistake is its write's, and keeps nothing else from going on."""
        self.build(consistency="any", journal_first=True)
        failed = self.relay.submit(WRITE)
        told = self.submit()
        self.patch(self.senders[1], "submit", lambda *_: 1 / 0)
        self.writer.commit()
        self.failureResultOf(failed, ZeroDivisionError)
        del self.senders[1].submit
        self.writer.commit()
        self.assertEqual(told, [Reply(204)])

    def test_any(self) -> None:
        """With ``any`` a committed write is acknowledged before any backend has answered."""
        self.build()
        told = self.submit("any")
        self.assertEqual(told, [])
        self.writer.commit()
        self.assertEqual((told, self.state()), ([Reply(204)], State.KEPT))
        self.senders[0].settle(Reply(400))
        self.senders[1].settle(failure())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_any_with_a_failed_commit(self) -> None:
        """With ``any`` a commit that fails acknowledges nothing: the backends decide."""
        self.build()
        told = self.submit("any")
        self.writer.commit(JournalError("disk"))
        self.assertEqual(told, [])
        self.senders[0].settle(failure())
        self.assertEqual(told, [])
        self.senders[1].settle(Reply(204))
        self.assertEqual(told, [Reply(204)])

    def test_any_and_nothing_works(self) -> None:
        """With ``any`` and neither journal nor backends the client gets 503."""
        self.build(1)
        told = self.submit("any")
        self.writer.commit(JournalError("disk"))
        self.senders[0].settle(failure())
        self.assertEqual((told, self.state()), ([UNABLE], State.STRUCK))

    def test_any_in_memory(self) -> None:
        """With ``any`` and queues in memory the client is told at once, unless one of them has refused the write."""
        self.build(journal=False)
        self.assertEqual(self.submit("any"), [Reply(204)])
        self.build(journal=False)
        self.senders[0].settle(failure(reason="full"))
        told = self.submit("any")
        self.assertEqual(told, [])
        self.senders[1].settle(failure())
        self.assertEqual((told, self.state()), ([UNABLE], State.STRUCK))

    def test_any_without_queues_everywhere(self) -> None:
        """With ``any`` and a backend that has no queue, a backend has to take the write."""
        self.build(journal=False)
        bare = FakeSender()
        bare.submit = lambda write, fate=None: bare.answer  # type: ignore[method-assign, misc]
        self.relay = FanOut("test", [*self.senders, bare])  # type: ignore[list-item]
        told = self.submit("any")
        self.assertEqual(told, [])
        bare.settle(Reply(204))
        self.assertEqual(told, [Reply(204)])

    def test_quorum_with_a_journal(self) -> None:
        """With ``all`` a write that one backend has and another has not is struck when the client is told so."""
        self.build(consistency="all")
        told = self.submit()
        self.senders[0].settle(Reply(204))
        self.senders[1].settle(failure())
        self.writer.commit()
        self.writer.commit()
        self.assertEqual(([reply.status for reply in told], self.state()), ([503], State.STRUCK))


class JsonErrorTests(SynchronousTestCase):
    """Errors of our own."""

    def test_exact(self) -> None:
        """Status, headers and bytes are InfluxDB's."""
        self.assertEqual(
            json_error(400, "database is required"),
            Reply(
                400,
                ((b"Content-Type", b"application/json"), (b"X-Influxdb-Error", b"database is required")),
                b'{"error":"database is required"}\n',
            ),
        )

    def test_more_headers(self) -> None:
        """Headers of the caller come last."""
        reply = json_error(405, "method not allowed", (b"Allow", b"POST"))
        self.assertEqual(reply.headers[2:], ((b"Allow", b"POST"),))

    def test_quotes(self) -> None:
        """The body is JSON, whatever the message holds."""
        message = 'a "quoted" \\ text\nwith\tlines \u00e9 \u4e2d'
        self.assertEqual(json.loads(json_error(400, message).body), {"error": message})

    def test_newlines(self) -> None:
        """No line break of the message gets into a header."""
        for sep in ("\n", "\r\n", "\r", "\u2028", "\x0b", "\x0c", "\x1c", "\x85", " \n "):
            reply = json_error(400, f"one{sep}Set-Cookie: x")
            self.assertEqual(dict(reply.headers)[b"X-Influxdb-Error"], b"one Set-Cookie: x")

    def test_control_characters(self) -> None:
        """No control character of the message gets into a header (RFC 9110, 5.5)."""
        for code in (*range(32), 127):
            value = dict(json_error(400, f"one{chr(code)}two").headers)[b"X-Influxdb-Error"]
            self.assertRegex(value, rb"\A[\x20-\x7e]*\Z", code)

    def test_not_ascii(self) -> None:
        """A header is ASCII: other letters are escaped there, and kept in the body."""
        reply = json_error(400, "caf\u00e9 \u4e2d \U0001f600")
        self.assertEqual(dict(reply.headers)[b"X-Influxdb-Error"], b"caf\\xe9 \\u4e2d \\U0001f600")
        self.assertEqual(reply.body, '{"error":"caf\u00e9 \u4e2d \U0001f600"}\n'.encode())

    def test_surrogates(self) -> None:
        """A message with a lone surrogate, as ``surrogateescape`` makes them, is no error of ours."""
        reply = json_error(400, "bad \udcff")
        self.assertIn("bad", json.loads(reply.body)["error"])


class FilterTests(SynchronousTestCase):
    """Who has a part in a write, and what the client is told."""

    def build(self, *expressions: str | None) -> None:
        """Build a relay to senders, each with a filter or none."""
        self.senders = [FakeSender(f"sender{number}") for number in range(len(expressions))]
        for sender, expression in zip(self.senders, expressions, strict=True):
            sender.filter = None if expression is None else Filter([expression], [])
        self.relay = FanOut("test", self.senders)  # type: ignore[arg-type]

    def submit(self, body: bytes, consistency: str = "") -> list[Reply]:
        """Submit a write; return where the answers will be."""
        told: list[Reply] = []
        self.relay.submit(write(body), consistency).addCallback(told.append)
        return told

    def bodies(self) -> list[list[bytes]]:
        """Return what each sender was given."""
        return [[each.body for each in sender.taken] for sender in self.senders]

    def test_parts(self) -> None:
        """Each backend gets its lines; those with the same filter get the same object."""
        self.build("a", None, "b", "a")
        body = b"a v=1 1\nb v=1 2\na v=1 3\n"
        self.submit(body)
        part = b"a v=1 1\na v=1 3\n"
        self.assertEqual(self.bodies(), [[part], [body], [b"b v=1 2\n"], [part]])
        self.assertIs(self.senders[0].taken[0], self.senders[3].taken[0])
        self.assertEqual(self.senders[0].taken[0].destination, destination())
        self.assertEqual(self.relay.lines_unwanted, 0)

    def test_no_part(self) -> None:
        """A backend for which nothing is left is neither asked nor waited for, whatever the consistency."""
        for consistency in ("one", "quorum", "all", "any"):
            self.build("a", "b", "a")
            told = self.submit(b"a v=1 1\n", consistency)
            self.assertEqual([len(each) for each in self.bodies()], [1, 0, 1])
            self.senders[0].settle(Reply(204))
            self.senders[2].settle(Reply(204))
            self.assertEqual([each.status for each in told], [204])
        self.build("a", "b")
        told = self.submit(b"b v=1 1\n", "all")
        self.senders[1].settle(BackendFailure("refused", "x"))
        self.assertIn(b"(sender1: refused)", told[0].body)

    def test_for_nobody(self) -> None:
        """A write of which no backend takes a line is answered 204, and its lines are counted."""
        for consistency in ("one", "all"):
            self.build("a", "b")
            self.assertEqual(self.submit(b"c v=1 1\nd v=1 1\n", consistency), [Reply(204)])
            self.assertEqual(self.bodies(), [[], []])
            self.assertEqual(self.relay.lines_unwanted, 2)
        self.submit(b"c v=1 1\na v=1 1\n")
        self.assertEqual(self.relay.lines_unwanted, 3)
        self.assertEqual(self.bodies(), [[b"a v=1 1\n"], []])

    def test_changed(self) -> None:
        """Filters that are replaced hold for the writes that follow."""
        self.build("a", None)
        self.submit(b"b v=1 1\n")
        self.senders[0].filter = Filter(["b"], [])
        self.relay.reconfigure("test", self.relay.senders, consistency="one")
        self.submit(b"b v=1 2\na v=1 2\n")
        self.senders[0].filter = None
        self.relay.reconfigure("test", self.relay.senders, consistency="one")
        self.submit(b"c v=1 3\n")
        self.assertEqual(self.bodies()[0], [b"b v=1 2\n", b"c v=1 3\n"])
