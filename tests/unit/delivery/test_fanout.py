"""When a write is settled, and with which answer."""

from __future__ import annotations

import itertools
import json
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.replies import UNABLE
from influxrelay.core.write import Reply
from influxrelay.delivery.fate import Fate
from influxrelay.delivery.settle import FirstAnswer
from testing.fanout import WRITE, failure, fan_out
from testing.journals import MemoryJournal
from testing.senders import FakeSender


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
        """Senders that have answered already are as good as others; the next gets no write that the client has back."""
        kinds: list[Reply | BackendFailure] = [Reply(204), Reply(400), failure(500)]
        for outcomes in itertools.product(kinds, repeat=2):
            senders = [FakeSender(), FakeSender()]
            for sender, outcome in zip(senders, outcomes, strict=True):
                sender.at_once = outcome
            relay = fan_out(senders)
            reply = self.successResultOf(relay.submit(WRITE))
            self.assertEqual(reply.status, expected(list(outcomes))[1])
            self.assertEqual(
                [sender.taken for sender in senders], [[WRITE], [] if outcomes[0] is kinds[1] else [WRITE]]
            )

    def test_late_failures_are_no_errors(self) -> None:
        """A backend that fails after the client was answered leaves no unhandled error."""
        self.settle(Reply(204), failure(), failure(500))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_attributes(self) -> None:
        """A relay knows its name and its senders."""
        senders = [FakeSender()]
        relay = fan_out(senders, name="name")
        self.assertEqual((relay.name, relay.senders), ("name", tuple(senders)))


class ReceiptTests(SynchronousTestCase):
    """What the journal tells of each write."""

    def test_mistake(self) -> None:
        """A mistake in what comes of one write is logged, and the journal can tell of the next."""
        for problem in (None, JournalError("disk full")):
            journal = MemoryJournal(commits_at_once=False)
            sender = FakeSender()
            relay = fan_out([sender], journal=journal)
            answers = [relay.submit(WRITE) for _ in range(2)]
            broken = self.patch(Fate, "tell", lambda *_: 1 // 0)
            for fate in sender.fates:
                fate.answered("", Reply(204))
            journal.commit(problem)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            broken.restore()
            journal.commit(problem)
            self.assertNoResult(answers[0])
            self.assertEqual(self.successResultOf(answers[1]).status, 204)


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
