"""What the operator says that answers mean."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import LINES, REMOTE_WRITE, Reply
from influxrelay.delivery.answer_rules import AnswerRule, classify
from influxrelay.delivery.back_off import PROBE_GAP
from influxrelay.delivery.fate import State
from influxrelay.delivery.responses import Verdict
from influxrelay.delivery.settle import Count, present
from testing.backends import BAD, BROKEN, destination, retry_later
from testing.remote_write import Timeseries, version_1
from testing.remote_write_case import packed
from testing.sender_case import JournalCase, MemoryCase

PAGE = Reply(404, (), b"<html>nginx: not here</html>")
MISSING = Reply(404, (), b'{"error":"database not found: \\"db\\""}')
STRAY = Reply(404, (), b'{"code":"not found","message":"organization name \\"o\\" not found"}')
LATE = Reply(400, (), b"out-of-order sample")
LIMIT = Reply(400, (), b"Per-User series limit of 150000 exceeded (err-mimir-max-series-per-user)")


def rule(means: str, *statuses: int, text: str = "") -> AnswerRule:
    """Return a rule for statuses, for a text, or for both."""
    return AnswerRule(means, tuple(range(each, each + 1) for each in statuses), text)


class ClassifyTests(SynchronousTestCase):
    """What an answer means."""

    def test_defaults(self) -> None:
        """Without a rule each answer means what the contract says, for a reason that a counter can have."""
        for reply, kind, means, reason in (
            (BAD, LINES, "dead-letter", "400"),
            (Reply(500, (), b"Partial Write: x"), LINES, "dead-letter", "partial write"),
            (BROKEN, LINES, "retry", "500"),
            (Reply(429), LINES, "retry", "429"),
            (Reply(301), LINES, "retry", "301"),
            (PAGE, LINES, "hold", "404"),
            (MISSING, LINES, "hold", "404"),
            (STRAY, LINES, "hold", "404"),
            (LATE, LINES, "dead-letter", "400"),
            (LATE, REMOTE_WRITE, "stale", "out of order"),
            (Reply(409, (), b"conflict"), REMOTE_WRITE, "stale", "409"),
            (Reply(500, (), b"too old sample"), REMOTE_WRITE, "stale", "too old"),
        ):
            answer = classify(reply, kind)
            self.assertEqual((answer.means, answer.reason), (means, reason))
            self.assertEqual(answer.reply.status, 503 if reply is STRAY else reply.status)

    def test_matches(self) -> None:
        """A rule matches by status, by text in upper or lower case, or by both; the first that does decides."""
        rules = [
            rule("retry", 400, 403, text="per-user .* limit"),
            rule("stale", text="LIMIT"),
            AnswerRule("hold", (range(400, 500),)),
        ]
        for reply, means, reason in (
            (LIMIT, "retry", "per-user .* limit"),
            (Reply(422, (), LIMIT.body), "stale", "LIMIT"),
            (BAD, "hold", "400"),
            (BROKEN, "retry", "500"),
        ):
            answer = classify(reply, rules=rules)
            self.assertEqual((answer.means, answer.reason), (means, reason))

    def test_settles_no_more_than_by_default(self) -> None:
        """Whatever a rule says, an answer settles a write only if it does so by default."""
        settling = (Verdict.REFUSED, Verdict.MISDIRECTED, Verdict.NOT_READY)
        late = Reply(400, (), b"duplicate sample")
        for reply, kind in (
            (BROKEN, LINES),
            (Reply(429), LINES),
            (Reply(301), LINES),
            (late, REMOTE_WRITE),
            (STRAY, LINES),
        ):
            for means in ("retry", "dead-letter", "stale", "hold"):
                verdict = classify(reply, kind, [rule(means, reply.status)]).verdict
                self.assertNotIn(verdict, settling, (reply, means))
        for reply in (BAD, PAGE, MISSING):
            for means, settles in (("retry", False), ("dead-letter", True), ("stale", False), ("hold", True)):
                verdict = classify(reply, rules=[rule(means, reply.status)]).verdict
                self.assertEqual(verdict in settling, settles, (reply, means))

    def test_what_a_client_is_shown(self) -> None:
        """Of answers that mean "retry" a client sees a status that makes it try again, with their Retry-After."""
        later = Reply(404, retry_later(7).headers, b"starting")
        for reply, status in ((later, 503), (MISSING, 503), (LATE, 503), (Reply(301), 503), (Reply(429), 429)):
            failure = classify(reply, REMOTE_WRITE, [rule("retry", reply.status)]).failure()
            self.assertEqual(failure.reason, str(reply.status))
            shown = present([BackendFailure("refused", "x"), failure])
            self.assertEqual(shown.status, status)
        shown = classify(later, rules=[rule("retry", 404)]).reply
        self.assertIn((b"Retry-After", b"7"), shown.headers)
        stale = classify(LIMIT, rules=[rule("stale", 400)])
        self.assertIs(present([BackendFailure("500", "x", BROKEN), stale.failure("stale")]), LIMIT)

    def test_count(self) -> None:
        """With ``all``, an answer that means "retry" or "dead-letter" outside of 4xx is no refusal, a stale one is."""
        for means, status in (("retry", 503), ("stale", 400)):
            answer = classify(LIMIT, rules=[rule(means, 400)])
            counted = Count(2, 2).failed("a", answer.failure("stale" if means == "stale" else ""))
            assert counted is not None
            self.assertEqual(counted.status, status)


class AcknowledgedTests(MemoryCase):
    """What becomes of writes that clients were told are taken."""

    def refuse(self, means: str, reply: Reply) -> None:
        """Let a backend answer an acknowledged write so."""
        self.build(answers=(rule(means, reply.status),))
        self.submit(b"1\n")
        self.answer(reply)

    def test_retry(self) -> None:
        """The write waits, the backend is in trouble, and the write is sent again."""
        self.refuse("retry", BAD)
        self.assertEqual((self.sender.state, self.backlog.dead_letters()), ("trouble", []))
        self.assertEqual(self.sender.requests.answers, {("retry", "400"): 1})
        self.clock.advance(1)
        self.assertEqual(self.backend.bodies, [b"1\n", b"1\n"])
        self.answer()
        self.assert_idle()

    def test_hold(self) -> None:
        """The same, with the alarm; a client that waits is shown the answer."""
        self.build(answers=(rule("hold", 403),))
        waiting = self.submit(b"1\n", state=State.UNDECIDED)
        self.answer(Reply(403, (), b"tenant is suspended"))
        assert isinstance(waiting.result, Reply)
        self.assertEqual((waiting.result.status, waiting.result.body), (403, b"tenant is suspended"))
        self.assertEqual(self.sender.why_unavailable(), "down: 403: answered 403: tenant is suspended")
        self.assertEqual(self.sender.requests.answers, {("hold", "403"): 1})
        waiting.decide(kept=True)
        self.clock.advance(1)
        self.answer()
        self.assert_idle()

    def test_stale(self) -> None:
        """The write is passed: it is counted, and neither repeated nor a dead letter."""
        self.refuse("stale", BAD)
        self.assertEqual(self.sender.refused, {("stale", "400"): 1})
        self.assertEqual(
            (self.backlog.dead_letters(), self.backlog.losses(), self.sender.why_unavailable()), ([], [], "")
        )
        self.assert_idle()

    def test_dead_letter(self) -> None:
        """The write is a dead letter, whatever the status; so is one whose database is not there."""
        for reply in (BROKEN, Reply(429), MISSING, PAGE):
            self.refuse("dead-letter", reply)
            self.assertEqual([each.status for each in self.backlog.dead_letters()], [reply.status])
            self.assertEqual(self.sender.refused, {("dead-letter", str(reply.status)): 1})
            self.assertEqual(self.sender.why_unavailable(), "")
            self.assert_idle()

    def test_not_acknowledged(self) -> None:
        """A refused write counts only if another backend has taken it."""
        for kept in (True, False):
            self.build(answers=(rule("stale", 400),))
            client = self.submit(b"1\n", state=State.UNDECIDED)
            self.answer(BAD)
            self.assertEqual((client.reason, self.sender.refused.total()), ("stale", 0))
            client.decide(kept=kept)
            self.assertEqual(self.sender.refused.total(), kept)
            self.assert_idle()

    def test_merged(self) -> None:
        """A merged request that is refused is sent again one by one, and each write has its own answer."""
        self.build(answers=(rule("stale", 400),))
        self.behind(b"1\n", b"2\n")
        self.answer(BAD)
        self.answer(BAD)
        self.answer()
        self.assertEqual(self.backend.bodies[1:], [b"1\n2\n", b"1\n", b"2\n"])
        self.assertEqual(self.sender.refused, {("stale", "400"): 1})
        self.assert_idle()

    def test_other_rules(self) -> None:
        """Other rules hold for the next answer."""
        self.refuse("retry", BAD)
        self.sender.reconfigure(self.backend, self.settings.__class__(name="fake", buffer=100_000))
        self.clock.advance(PROBE_GAP)
        self.answer(BAD)
        self.assertEqual([each.status for each in self.backlog.dead_letters()], [400])
        self.assert_idle()


class LateSamplesTests(JournalCase):
    """Samples that come too late, of a remote write in a journal."""

    def test_dead_letter(self) -> None:
        """They may be kept, once for the body, as a dead letter; for a client that waits they settle nothing."""
        self.build(answers=(rule("dead-letter", text="out.of.order"),))
        series = [Timeseries({"__name__": name}, [(1.0, 1)]) for name in ("a", "b")]
        client = self.submit(packed(version_1(series)), destination(precision=b"remote write"), State.UNDECIDED)
        self.answer(LATE)
        self.assertEqual(client.reason, "stale")
        client.decide(kept=True)
        self.answer(LATE)  # of the first half
        self.answer()
        self.assertEqual([each.write.body for each in self.journal.letters], [self.backend.bodies[0]])
        self.assertEqual(self.sender.refused, {("dead-letter", "out.of.order"): 1})
        self.assert_idle()
