"""The fan-out and the settle rule."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.replies import UNABLE, json_error
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.settle import FirstAnswer
from influxrelay.lineprotocol.filters import Filter
from testing.backends import destination, write
from testing.journals import MemoryJournal
from testing.senders import FakeSender

WRITE = Write(Destination(b"db", b"", b"ns", (b"", b"", b"")), b"db=db", b"", b"m f=1 1\n")


def failure(status: int | None = None, reason: str = "refused") -> BackendFailure:
    """Return a failure, with an answer if there is a status."""
    if status is None:
        return BackendFailure(reason, "x")
    return BackendFailure(str(status), "x", Reply(status, ((b"X", b"%d" % status),), b"words of %d" % status))


def fan_out(senders: Sequence[FakeSender], name: str = "test", **settings: Any) -> FanOut:
    """Return a fan-out to these."""
    there: Any = senders
    return FanOut(name, there, Clock(), clock=lambda: 7.0, **settings)


def expected(outcomes: list[Reply | BackendFailure]) -> tuple[int, int]:
    """Return what the contract says: after how many outcomes the client is answered, and with which status."""
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Reply):
            return number, outcome.status
    statuses = [outcome.reply.status for outcome in outcomes if isinstance(outcome, BackendFailure) and outcome.reply]
    shown = [status for status in statuses if status >= 500] or [s for s in statuses if s in (408, 425, 429)]
    return len(outcomes), max(shown, default=503)


class SettleTests(SynchronousTestCase):
    """Which answer is the client's."""

    def settle(self, *outcomes: Reply | BackendFailure, order: tuple[int, ...] = ()) -> tuple[int, Reply]:
        """Let senders answer in an order; return after how many of them the client was answered, and with what."""
        senders = [FakeSender() for _ in outcomes]
        relay = fan_out(senders)
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
        kinds: list[Reply | BackendFailure] = [
            Reply(204),
            Reply(400, (), b"bad"),
            Reply(404, (), b"no"),
            failure(),
            failure(500),
            failure(503),
            failure(408),
            failure(429),
            failure(301),
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
        kinds: list[Reply | BackendFailure] = [Reply(204), Reply(400), failure(500)]
        for outcomes in itertools.product(kinds, repeat=2):
            senders = [FakeSender(), FakeSender()]
            for sender, outcome in zip(senders, outcomes, strict=True):
                sender.at_once = outcome
            relay = fan_out(senders)
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
        relay = fan_out(senders, name="name")
        self.assertEqual((relay.name, relay.senders), ("name", tuple(senders)))


class FirstAnswerTests(SynchronousTestCase):
    """The rule itself."""

    def test_as_a_deferred_list(self) -> None:
        """It fires when a DeferredList of the backends' Deferreds does, and with the same."""
        kinds: list[Reply | BackendFailure] = [Reply(204), Reply(400), failure(), failure(500)]
        for count in (1, 2, 3):
            for outcomes in itertools.product(kinds, repeat=count):
                ways: list[Deferred[Reply]] = [Deferred() for _ in outcomes]
                fired: list[Any] = []
                DeferredList(ways, fireOnOneCallback=True, consumeErrors=True).addCallback(fired.append)
                rule, certain = FirstAnswer(count), None
                for way, outcome in zip(ways, outcomes, strict=True):
                    if isinstance(outcome, Reply):
                        way.callback(outcome)
                        certain = certain or rule.answered("x", outcome)
                    else:
                        way.errback(outcome)
                        certain = certain or rule.failed("x", outcome)
                    self.assertEqual(bool(fired), certain is not None, outcomes)
                if isinstance(fired[0], tuple):
                    self.assertIs(fired[0][0], certain)
                else:
                    self.assertEqual([each.value for _, each in fired[0]], list(outcomes))


class QuorumTests(SynchronousTestCase):
    """Consistency ``quorum`` and ``all``."""

    def expected(self, outcomes: list[tuple[str, Reply | BackendFailure]], needed: int) -> tuple[int, int, list[str]]:
        """Return after how many outcomes there is which answer, and which backends it names."""
        good, bad, refusals = 0, [], []
        for number, (name, outcome) in enumerate(outcomes, 1):
            if isinstance(outcome, Reply) and outcome.status < 300:
                good += 1
            elif isinstance(outcome, Reply):
                bad.append(f"{name}: {outcome.status}")
                refusals.append(outcome.status)
            else:
                bad.append(f"{name}: {outcome.reason}")
            if good == needed:
                return number, 204, []
            if len(bad) > len(outcomes) - needed:
                return (number, refusals[0], []) if len(refusals) == len(bad) else (number, 503, bad)
        raise AssertionError

    def submit(
        self, outcomes: list[Reply | BackendFailure], consistency: str, order: tuple[int, ...]
    ) -> tuple[int, Reply]:
        """Let backends answer in an order; return after how many of them the client was answered, and with what."""
        senders = [FakeSender(f"sender{number}") for number in range(len(outcomes))]
        relay = fan_out(senders)
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
        kinds: list[Reply | BackendFailure] = [
            Reply(204),
            Reply(200),
            Reply(400, (), b"bad"),
            Reply(404, (), b"no"),
            failure(),
            failure(500),
            failure(429),
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
        table: list[tuple[list[Reply | BackendFailure], str, Reply | None]] = [
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
            relay = fan_out(senders, consistency="all")
            answered = relay.submit(WRITE, asked)
            senders[0].settle(Reply(204))
            senders[1].settle(failure())
            self.assertEqual(self.successResultOf(answered).status, status)


class KeptTests(SynchronousTestCase):
    """What is kept, and when the client is told, with queues."""

    def build(self, count: int = 2, *, journal: bool = True, **settings: Any) -> None:
        """Build a fan-out to senders with a backlog."""
        self.senders = [FakeSender(f"sender{number}", keeps=True) for number in range(count)]
        self.journal = MemoryJournal(41, commits_at_once=False)
        self.relay = fan_out(self.senders, journal=self.journal if journal else None, **settings)

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
            self.assertEqual(self.state(), State.UNDECIDED)
            self.senders[1].settle(outcome)
            self.assertEqual((told, self.state()), ([outcome], state))
        self.submit()
        self.assertEqual([fate.number for fate in self.senders[0].fates], [1, 2])
        self.assertEqual(self.senders[0].taken, [WRITE] * 2)

    def test_taken(self) -> None:
        """A 204 is given when a backend has the write and it is committed, whichever is first."""
        for commit_first in (False, True):
            self.build()
            told = self.submit()
            steps = [lambda: self.senders[0].settle(Reply(204)), self.journal.commit]
            for step in reversed(steps) if commit_first else steps:
                self.assertEqual(told, [])
                step()
            self.assertEqual((told, self.state()), ([Reply(204)], State.KEPT))
            (record,) = self.journal.appended
            self.assertEqual((record.seq, record.time, record.write), (42, 7.0, WRITE))
            self.assertEqual((self.journal.last_number, self.journal.struck), (42, []))

    def test_refused(self) -> None:
        """A 4xx or 5xx is given when the write is struck from the journal for certain, or that has failed."""
        for problem in (None, JournalError("disk")):
            for outcome in (Reply(400), failure(500)):
                self.build(1)
                told = self.submit()
                self.senders[0].settle(outcome)
                self.assertEqual((told, self.journal.struck), ([], []))
                self.journal.commit()
                self.assertEqual((told, self.journal.struck, self.state()), ([], [42], State.STRUCK))
                self.journal.commit(problem)
                self.assertEqual(len(told), 1)

    def test_dead_letter_first(self) -> None:
        """A dead letter of another backend is with the journal before the 204 is given."""
        self.build()
        told = self.submit()
        buried: list[int] = []
        self.senders[1].fates[0].when_decided(lambda fate: buried.append(len(told)))
        self.senders[0].settle(Reply(204))
        self.journal.commit()
        self.assertEqual((told, buried), ([Reply(204)], [0]))

    def test_submitted_within_a_submission(self) -> None:
        """A client that writes again when it is told, within another write's submission, comes behind that one."""
        self.build()
        order: list[bytes] = []
        first = self.senders[0].submit

        def submit(write: Write, fate: Fate) -> bool:
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
        self.patch(self.journal, "append", lambda record: 1 / 0)
        failed = self.relay.submit(WRITE)
        self.failureResultOf(failed, ZeroDivisionError)
        del self.journal.append
        told = self.submit()
        self.senders[0].settle(Reply(204))
        self.journal.commit()
        self.assertEqual(told, [Reply(204)])

    def test_sender_that_raises(self) -> None:
        """A mistake in one sender fails the write for that one, and not for the others."""
        self.build()
        self.patch(self.senders[0], "submit", lambda *_: 1 / 0)
        told = self.submit("all")
        self.senders[1].settle(Reply(204))
        self.journal.commit()
        self.journal.commit()
        self.assertIn(b"(sender0: error)", told[0].body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_journal_fails(self) -> None:
        """Where the journal fails, a write that a backend has is acknowledged; who counted on the disk is told."""
        self.build()
        self.senders[1].relies = True
        told = self.submit()
        self.journal.commit(JournalError("disk"))
        self.assertEqual((self.senders[0].unjournaled, self.senders[1].unjournaled), ([], self.senders[1].fates))
        self.senders[0].settle(Reply(204))
        self.assertEqual((told, self.state(), self.journal.struck), ([Reply(204)], State.KEPT, []))

    def test_journal_fails_and_refuses(self) -> None:
        """Where writes must be journaled, one that cannot be is answered 503, and struck."""
        self.build(refuse_unjournaled=True)
        told = self.submit()
        self.senders[0].settle(Reply(204))
        self.journal.commit(JournalError("disk"))
        self.assertEqual((told[0].status, self.state()), (503, State.STRUCK))
        self.assertEqual(json.loads(told[0].body), {"error": "unable to journal the write: disk"})

    def test_journal_fails_and_backends_too(self) -> None:
        """Where the journal and the backends fail, the client gets the backends' answer."""
        for settings in ({}, {"refuse_unjournaled": True}):
            self.build(1, **settings)
            told = self.submit()
            self.senders[0].settle(Reply(400))
            self.journal.commit(JournalError("disk"))
            self.assertEqual((told, self.state()), ([Reply(400)], State.STRUCK))

    def test_journal_first(self) -> None:
        """Where the journal comes first, no backend gets a write before its commit, nor out of order."""
        self.build(consistency="any", journal_first=True)
        told = [self.submit(), self.submit()]
        handed = self.relay.handed_out()
        self.assertEqual((self.senders[0].fates, told, len(self.journal.appended)), ([], [[], []], 2))
        self.journal.commit()
        self.assertEqual(([fate.number for fate in self.senders[1].fates], told), ([42], [[Reply(204)], []]))
        self.assertNoResult(handed)
        self.journal.commit()
        self.assertEqual(([fate.number for fate in self.senders[1].fates], told), ([42, 43], [[Reply(204)]] * 2))
        self.successResultOf(handed)
        self.successResultOf(self.relay.handed_out())

    def test_journal_first_fails(self) -> None:
        """Where the journal comes first and fails, the backends get the write, and who counted on the disk is told."""
        self.build(consistency="any", journal_first=True)
        self.senders[1].relies = True
        told = self.submit()
        handed = self.relay.handed_out()
        self.journal.commit(JournalError("disk"))
        self.successResultOf(handed)
        self.assertEqual((self.senders[0].unjournaled, self.senders[1].unjournaled), ([], self.senders[1].fates))
        self.assertEqual((told, len(self.senders[0].fates)), ([], 1))
        self.senders[0].settle(Reply(204))
        self.assertEqual((told, self.state()), ([Reply(204)], State.KEPT))

    def test_any(self) -> None:
        """With ``any`` a committed write is acknowledged before any backend has answered."""
        self.build()
        told = self.submit("any")
        self.assertEqual(told, [])
        self.journal.commit()
        self.assertEqual((told, self.state()), ([Reply(204)], State.KEPT))
        self.senders[0].settle(Reply(400))
        self.senders[1].settle(failure())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_any_with_a_failed_commit(self) -> None:
        """With ``any`` a commit that fails acknowledges nothing: the backends decide."""
        self.build()
        told = self.submit("any")
        self.journal.commit(JournalError("disk"))
        self.assertEqual(told, [])
        self.senders[0].settle(failure())
        self.assertEqual(told, [])
        self.senders[1].settle(Reply(204))
        self.assertEqual(told, [Reply(204)])

    def test_any_and_nothing_works(self) -> None:
        """With ``any`` and neither journal nor backends the client gets 503."""
        self.build(1)
        told = self.submit("any")
        self.journal.commit(JournalError("disk"))
        self.senders[0].settle(failure())
        self.assertEqual((told, self.state()), ([UNABLE], State.STRUCK))

    def test_any_in_memory(self) -> None:
        """With ``any`` and queues in memory the client is told at once, unless one of them has refused the write."""
        self.build(journal=False)
        self.assertEqual(self.submit("any"), [Reply(204)])
        self.build(journal=False)
        self.senders[0].at_once, self.senders[0].takes = failure(reason="full"), False
        told = self.submit("any")
        self.assertEqual(told, [])
        self.senders[1].settle(failure())
        self.assertEqual((told, self.state()), ([UNABLE], State.STRUCK))

    def test_any_without_queues_everywhere(self) -> None:
        """With ``any`` and a backend that has no queue, a backend has to take the write."""
        self.build(journal=False)
        bare = FakeSender()
        self.relay = fan_out([*self.senders, bare])
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
        self.journal.commit()
        self.journal.commit()
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
        self.senders = [
            FakeSender(f"sender{number}", wanted=None if expression is None else Filter([expression], []))
            for number, expression in enumerate(expressions)
        ]
        self.relay = fan_out(self.senders)

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
