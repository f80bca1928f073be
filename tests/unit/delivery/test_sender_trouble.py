"""A backend that fails, and how it is found well again."""

from __future__ import annotations

from email.utils import formatdate
from functools import partial

from twisted.logger import LogLevel

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery import responses as answers
from influxrelay.delivery.back_off import PROBE_GAP
from testing.backends import BAD, BROKEN, OK, destination, retry_later
from testing.logs import watch_events
from testing.sender_case import SenderCase

TROUBLE = (Reply(408), Reply(425), Reply(429), Reply(301), Reply(304), Reply(100), BROKEN, Reply(503), Reply(599))


class TroubleTests(SenderCase):
    """A backend that fails, and how it is found well again."""

    def test_what_is_trouble(self) -> None:
        """408, 425, 429, 1xx, 3xx and 5xx fail the writes of that request, each with the answer, and are trouble."""
        for reply in TROUBLE:
            self.build()
            clients = self.behind(b"1\n", b"2\n")
            waiting = self.submit(b"3\n")
            self.answer(reply)
            self.assertEqual([client.reason for client in clients], [str(reply.status)] * 2)
            self.assertIs(clients[0].failure.reply, reply)
            self.assertEqual(self.sender.clients.failures, {str(reply.status): 2})
            self.assertIsNone(waiting.result)
            self.assertEqual(self.backend.pending, [])
            self.clock.advance(PROBE_GAP)
            self.answer()
            self.assertEqual(waiting.result, OK)
            self.assertEqual(self.backend.bodies[1:], [b"1\n2\n", b"3\n"])
            self.assert_idle()

    def test_no_answer_is_trouble(self) -> None:
        """A request that fails fails its writes with the transport's reason, without an answer to show."""
        clients = self.behind(b"1\n", b"2\n")
        self.fail_request("reset")
        self.assertEqual([client.reason for client in clients], ["reset"] * 2)
        self.assertIsNone(clients[0].failure.reply)
        self.assertEqual(self.sender.clients.failures, {"reset": 2})
        self.assert_idle()

    def test_since(self) -> None:
        """Trouble counts from its first failure to the first answer, however often the backend fails in between."""
        self.assertIsNone(self.sender.status.trouble_age)
        self.into_trouble()
        for _ in range(2):
            self.submit(b"probe\n")
            self.clock.advance(PROBE_GAP * 2)
            self.fail_request("reset")
        self.assertAlmostEqual(self.sender.status.trouble_age or 0, PROBE_GAP * 4)
        self.submit(b"probe\n")
        self.clock.advance(PROBE_GAP * 2)
        self.answer()
        self.assertIsNone(self.sender.status.trouble_age)

    def test_not_before_the_gap(self) -> None:
        """The probe does not go before PROBE_GAP has passed since the failure."""
        for jitter in (0.0, 0.5, 0.999):
            self.build(jitter=partial(float, jitter))
            self.into_trouble()
            client = self.submit(b"probe\n")
            self.clock.advance(PROBE_GAP * 0.99)
            self.assertEqual(len(self.backend.posts), 1, jitter)
            self.clock.advance(PROBE_GAP * 1.1)
            self.answer()
            self.assertEqual(client.result, OK)
            self.assert_idle()

    def test_one_probe(self) -> None:
        """In trouble there is one request at a time for the whole backend, from the queue that has waited longest."""
        self.into_trouble()
        for number in (3, 1, 2):
            self.submit(b"%d\n" % number, destination(b"%d" % number))
            self.clock.advance(PROBE_GAP / 1000)
        self.clock.advance(PROBE_GAP)
        self.assertEqual([post.body for post in self.backend.pending], [b"3\n"])
        self.clock.advance(PROBE_GAP)
        self.submit(b"4\n", destination(b"4"))
        self.assertEqual(len(self.backend.pending), 1)
        self.fail_request()
        self.clock.advance(PROBE_GAP)
        self.assertEqual([post.body for post in self.backend.pending], [b"1\n"])
        self.answer()
        self.assertEqual([post.body for post in self.backend.pending], [b"2\n", b"4\n"])
        for post in self.backend.pending:
            post.answer()
        self.assert_idle()

    def test_probe_is_merged(self) -> None:
        """What waits in a queue probes together, and its client's truths are the probe's."""
        self.into_trouble()
        clients = [self.submit(b"1\n"), self.submit(b"2\n")]
        self.clock.advance(PROBE_GAP)
        self.assertEqual(self.backend.bodies[1:], [b"1\n2\n"])
        self.answer()
        self.assertEqual([client.result for client in clients], [OK, OK])
        self.assert_idle()

    def test_refused_probe_opens(self) -> None:
        """A probe that is answered 4xx shows that the backend lives, and opens all queues."""
        for answers_ in ((BAD,), (BAD, OK, OK)):
            self.build()
            self.into_trouble()
            for number in range(len(answers_) // 2 + 1):
                self.submit(b"%d\n" % number)
            other = self.submit(b"other\n", destination(b"other"))
            self.clock.advance(PROBE_GAP)
            self.answer(answers_[0])
            self.assertIn(b"other\n", [post.body for post in self.backend.pending])
            while self.backend.pending:
                self.backend.pending[0].answer()
            self.assertEqual(other.result, OK)
            self.assert_idle()

    def test_late_success_opens(self) -> None:
        """A success of a request that was under way when the trouble began opens all queues."""
        self.submit(b"1\n", destination(b"1"))
        self.submit(b"2\n", destination(b"2"))
        waiting = self.submit(b"1b\n", destination(b"1"))
        self.backend.pending[0].fail()
        self.clock.advance(PROBE_GAP * 2)
        self.assertEqual(len(self.backend.pending), 1)  # no probe beside it
        self.answer()
        self.answer()
        self.assertEqual(waiting.result, OK)
        self.assert_idle()

    def test_idle_in_trouble(self) -> None:
        """A sender in trouble on which nothing waits has no timer, and its next write probes at once."""
        self.into_trouble()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1)
        client = self.submit(b"probe\n")
        self.answer()
        self.assertEqual(client.result, OK)
        self.assert_idle()

    def test_probe_for_what_has_expired(self) -> None:
        """When all that waited has expired, the time of the probe passes without one."""
        self.submit(b"1\n")
        client = self.submit(b"2\n")
        self.clock.advance(8)
        self.answer(retry_later(5))
        self.clock.advance(2)
        self.assertIsNotNone(client.result)
        self.clock.advance(3)
        self.assertEqual(len(self.backend.posts), 1)
        self.assert_idle()

    def test_trouble_stops_the_queues(self) -> None:
        """A request that fails before ``post`` returns stops the others: what waits is left for the probe."""
        for number in range(3):
            self.submit(b"%d\n" % number, destination(b"%d" % number))
            self.submit(b"%d later\n" % number, destination(b"%d" % number), mergeable=False)
            self.submit(b"%d last\n" % number, destination(b"%d" % number), mergeable=False)
        self.backend.pending[0].fail()
        self.backend.at_once = [BackendFailure("refused", "at once")] * 9
        self.backend.pending[0].answer()
        self.assertEqual(len(self.backend.posts), 4)
        self.backend.at_once = []
        for _ in range(20):
            self.clock.advance(PROBE_GAP)
            for post in self.backend.pending:
                post.answer()
        self.assert_idle()

    def test_unexpected_exception(self) -> None:
        """An exception of another kind from the transport is logged, and fails the write like any failure."""
        client = self.submit(b"1\n")
        self.backend.pending[0].fail(error=RuntimeError("a bug"))
        self.assertEqual(client.reason, "error")
        self.assertIn("a bug", client.failure.detail)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIsNotNone(self.sender.status.trouble)
        self.assert_idle()

    def test_exception_out_of_post(self) -> None:
        """An exception that ``post`` raises is logged, and fails the write like any failure."""
        self.backend.at_once = [RuntimeError("a bug")]
        client = self.submit(b"1\n")
        self.assertEqual(client.reason, "error")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.clock.advance(PROBE_GAP)
        second = self.submit(b"2\n")
        self.answer()
        self.assertEqual(second.result, OK)
        self.assert_idle()

    def test_log(self) -> None:
        """The first failures are logged, and the recovery is one line that counts them."""
        events = watch_events(self)
        self.into_trouble()
        self.clock.advance(1)
        self.into_trouble()
        self.clock.advance(1)
        self.submit(b"1\n")
        self.answer()
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn, LogLevel.warn, LogLevel.info])
        self.assertEqual((events[2]["backend"], events[2]["count"]), ("fake", 2))
        self.assert_idle()


class RetryAfterTests(SenderCase):
    """A backend that says when to come back."""

    def test_seconds(self) -> None:
        """The probe does not go before the Retry-After of a 503 or 429."""
        for status in (503, 429, 500):
            self.build()
            self.submit(b"1\n")
            self.answer(retry_later(3, status))
            client = self.submit(b"2\n")
            self.clock.advance(2.999)
            self.assertEqual(len(self.backend.posts), 1)
            self.clock.advance(0.001)
            self.answer()
            self.assertEqual(client.result, OK)
            self.assert_idle()

    def test_shorter_than_the_gap(self) -> None:
        """A Retry-After of 0 is no reason to come back sooner than PROBE_GAP."""
        self.submit(b"1\n")
        self.answer(retry_later(0))
        self.submit(b"2\n")
        self.clock.advance(PROBE_GAP / 4)
        self.assertEqual(len(self.backend.posts), 1)
        self.clock.advance(PROBE_GAP)
        self.answer()
        self.assert_idle()

    def test_date(self) -> None:
        """The Retry-After may be an HTTP date."""
        self.patch(answers, "time", lambda: 1_700_000_000.0)
        self.submit(b"1\n")
        self.answer(retry_later(formatdate(1_700_000_004, usegmt=True)))
        self.submit(b"2\n")
        self.clock.advance(3.999)
        self.assertEqual(len(self.backend.posts), 1)
        self.clock.advance(0.002)
        self.answer()
        self.assert_idle()

    def test_too_late_for_a_new_write(self) -> None:
        """A write that cannot wait as long as the Retry-After says fails at once, with that answer."""
        reply = retry_later(11)
        self.submit(b"1\n")
        self.answer(reply)
        client = self.submit(b"2\n")
        self.assertEqual(client.reason, "503")
        self.assertIs(client.failure.reply, reply)
        self.clock.advance(2)
        patient = self.submit(b"3\n")
        self.assertIsNone(patient.result)
        self.clock.advance(9)
        self.answer()
        self.assertEqual(patient.result, OK)
        self.assertEqual(self.sender.clients.failures, {"503": 2})
        self.assert_idle()

    def test_too_late_for_what_waits(self) -> None:
        """A write that waits already, and cannot wait as long as Retry-After says, fails at once with that answer."""
        reply = retry_later(11)
        self.submit(b"1\n")
        client = self.submit(b"2\n")
        self.answer(reply)
        self.assertIsNotNone(client.result)
        self.assertEqual(client.reason, "503")
        self.assertIs(client.failure.reply, reply)
        self.assert_idle()

    def test_not_shortened_by_another_failure(self) -> None:
        """A request that was under way and fails after a Retry-After was given does not shorten it."""
        self.submit(b"1\n", destination(b"1"))
        self.submit(b"2\n", destination(b"2"))
        self.backend.pending[0].answer(retry_later(5))
        self.backend.pending[0].fail("reset")
        self.submit(b"3\n")
        self.clock.advance(4.9)
        self.assertEqual(len(self.backend.posts), 2)
        self.clock.advance(0.1)
        self.answer()
        self.assert_idle()

    def test_forgotten_after_recovery(self) -> None:
        """A Retry-After ends with the trouble: the next failure has only the gap."""
        self.submit(b"1\n", destination(b"1"))
        self.submit(b"2\n", destination(b"2"))
        self.backend.pending[0].answer(retry_later(5))
        self.answer()
        self.into_trouble()
        self.submit(b"3\n")
        self.clock.advance(PROBE_GAP)
        self.answer()
        self.assert_idle()

    def test_nonsense_is_survived(self) -> None:
        """A Retry-After that no calendar knows leaves no write without an answer, and blocks no queue."""
        self.submit(b"1\n")
        client = self.submit(b"2\n")
        self.answer()
        self.answer(retry_later("Mon, 01 Jan 99999999999999999999 00:00:00 GMT"))
        self.flushLoggedErrors(OverflowError)
        self.assertIsNotNone(client.result)
        self.clock.advance(PROBE_GAP)
        again = self.submit(b"3\n")
        self.answer()
        self.assertEqual(again.result, OK)
        self.assert_idle()
