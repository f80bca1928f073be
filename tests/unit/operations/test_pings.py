"""The pings of backends, and what they change."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery.back_off import FORGIVENESS
from influxrelay.delivery.backlog import MemoryBacklog
from influxrelay.delivery.fate import Fate
from influxrelay.delivery.prober import INTERVAL, Prober
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from testing.backends import FakeBackend, write
from testing.sender_case import Client

OK = Reply(204)
REFUSED = BackendFailure("refused", "Connection refused.")
LINE = b"m f=1 1\n"


class PingCase(SynchronousTestCase):
    """A sender, its fake backend that can be pinged, and a pinger, on a Clock."""

    def setUp(self) -> None:
        """Start."""
        self.clock = Clock()
        self.backend = FakeBackend()
        self.asked: list[Deferred[Reply]] = []
        self.backend.ping = self._ping  # type: ignore[method-assign]
        self.sender = Sender(self.backend, self.clock, SenderSettings("fake", "test"), jitter=lambda: 0.0)
        self.senders = [self.sender]
        self.pinger = Prober(lambda: self.senders, self.clock)
        self.pinger.start()

    def _ping(self) -> Deferred[Reply]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def answer(self, outcome: Reply | BackendFailure) -> None:
        """Answer the ping under way."""
        (asked,) = self.asked
        self.asked = []
        if isinstance(outcome, Reply):
            asked.callback(outcome)
        else:
            asked.errback(Failure(outcome))

    def next_ping(self) -> None:
        """Wait for it."""
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.asked), 1)

    def write(self, outcome: Reply | BackendFailure) -> None:
        """Send a write that comes back so."""
        self.sender.submit(write(LINE), Client(1, self.clock.seconds()))
        pending = self.backend.pending[-1]
        if isinstance(outcome, Reply):
            pending.answer(outcome)
        else:
            pending.fail(error=outcome)


class PingTests(PingCase):
    """When pings are sent, and what they mean."""

    def test_at_once_and_then_regularly(self) -> None:
        """The first ping goes at the start, one more with each interval, and never two at a time."""
        self.assertFalse(self.sender.status.is_known)
        self.answer(OK)
        self.assertTrue(self.sender.status.is_known)
        self.next_ping()
        self.clock.pump([INTERVAL] * 3)
        self.answer(OK)
        self.next_ping()

    def test_traffic(self) -> None:
        """While writes are answered no ping is sent."""
        self.answer(OK)
        for _ in range(5):
            self.write(OK)
            self.clock.advance(INTERVAL)
        self.assertEqual(self.asked, [])
        self.next_ping()

    def test_answers(self) -> None:
        """5xx, "not now" and no answer are failures; all else is the answer of one that lives."""
        for status, words in (
            (204, ""),
            (200, ""),
            (301, ""),
            (401, ""),
            (404, ""),
            (408, "down: 408"),
            (429, "down: 429"),
            (500, "down: 500: answered the ping with 500: oops"),
            (503, "down: 503"),
        ):
            self.answer(Reply(status, (), b"oops"))
            self.assertTrue(
                self.sender.why_unavailable().startswith(words) and bool(words) == bool(self.sender.why_unavailable()),
                status,
            )
            self.next_ping()
        self.answer(REFUSED)
        self.assertEqual(self.sender.why_unavailable(), "down: refused: ping failed: Connection refused")

    def test_failure_keeps_nothing_back(self) -> None:
        """After a failed ping writes go out as ever, and the first that is taken ends the matter."""
        self.answer(REFUSED)
        self.sender.submit(write(LINE), Client(1, self.clock.seconds()))
        self.assertEqual(self.sender.why_unavailable()[:4], "down")
        self.backend.pending[0].answer(OK)
        self.assertEqual(self.sender.why_unavailable(), "")
        self.clock.advance(INTERVAL)
        self.assertIsNone(self.sender.status.problem)

    def test_overtaken(self) -> None:
        """A ping that comes back after a write says nothing."""
        self.write(OK)
        self.answer(REFUSED)
        self.assertEqual(self.sender.why_unavailable(), "")
        self.clock.advance(INTERVAL)
        self.next_ping()
        self.write(REFUSED)
        self.answer(OK)
        self.assertEqual(self.sender.why_unavailable()[:4], "down")

    def test_ends_trouble_of_the_connection(self) -> None:
        """Where nobody writes any more, a good ping shows that a backend can be reached again."""
        for reason in ("refused", "timeout", "reset", "unreachable"):
            self.write(BackendFailure(reason, "x"))
            self.asked = []
            self.pinger._under_way.clear()
            self.assertEqual(self.sender.why_unavailable(), f"down: {reason}: x")
            self.clock.advance(INTERVAL)
            self.next_ping()
            self.answer(OK)
            self.assertEqual(self.sender.why_unavailable(), "")

    def test_ends_other_trouble_later(self) -> None:
        """One that has answered 503 is believed only after a while, and not before its Retry-After."""
        for headers, wait in (((), FORGIVENESS), (((b"Retry-After", b"60"),), 60 + FORGIVENESS)):
            self.answer(OK)
            self.write(Reply(503, headers, b"busy"))
            began = self.clock.seconds()
            while self.sender.status.trouble is not None:
                self.clock.advance(INTERVAL)
                if self.asked:
                    self.answer(OK)
            self.assertGreaterEqual(self.clock.seconds() - began, wait)
            self.assertLess(self.clock.seconds() - began, wait + 2 * INTERVAL + 0.2)
            self.next_ping()

    def test_what_waits_is_probed(self) -> None:
        """With writes that wait a good ping does not end the trouble, but lets the next probe go at once."""
        self.answer(OK)
        settings = SenderSettings("fake", "test", buffer=100_000, max_delay=1000.0)
        self.senders[0] = self.sender = Sender(self.backend, self.clock, settings, MemoryBacklog(), jitter=lambda: 1.0)
        self.sender.submit(write(LINE), Fate.restored(1, 0.0))
        for _ in range(8):  # until the pauses are long
            self.backend.pending[0].fail(error=REFUSED)
            while not self.backend.pending:
                self.clock.advance(0.1)
            if self.asked:
                self.asked = []
                self.pinger._under_way.clear()
        self.backend.pending[0].fail(error=REFUSED)
        self.assertEqual(self.backend.pending, [])
        while not self.asked:
            self.clock.advance(0.1)
        self.assertEqual(self.backend.pending, [])
        self.answer(OK)
        self.assertEqual(len(self.backend.pending), 1)
        self.assertIsNotNone(self.sender.status.trouble)
        self.backend.pending[0].answer(OK)
        self.assertIsNone(self.sender.status.trouble)

    def test_stop(self) -> None:
        """After the stop nothing is sent, and what comes back says nothing."""
        self.pinger.stop()
        self.answer(REFUSED)
        self.assertFalse(self.sender.status.is_known)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bug(self) -> None:
        """A mistake in one ping is logged, and the next one goes."""
        (asked,) = self.asked
        self.asked = []
        asked.errback(ValueError("oops"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.next_ping()

    def test_new_senders(self) -> None:
        """The senders are those of the moment."""
        self.answer(OK)
        self.senders[:] = []
        self.clock.advance(INTERVAL)
        self.assertEqual((self.asked, self.pinger._seen), ([], {}))
