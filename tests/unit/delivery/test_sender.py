"""The sender to one backend: order, merging, unmerging, trouble, bounds and the end."""

from __future__ import annotations

from email.utils import formatdate

from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply
from influxrelay.delivery import responses as answers
from influxrelay.delivery.destination_queue import body_parts
from influxrelay.delivery.responses import MAX_RETRY_AFTER, Verdict, excerpt, is_presentable, judge, retry_after
from influxrelay.delivery.sender import PROBE_GAP, Sender
from testing.backends import BAD, BROKEN, OK, TIMEOUT, Client, FakeBackend, destination, retry_later, write

PERMANENT_TEXTS = (
    b"retention policy not found",
    b"partial write",
    b"unable to parse",
    b"points beyond retention policy",
    b"field type conflict",
)
TROUBLE = (Reply(408), Reply(425), Reply(429), Reply(301), Reply(304), Reply(100), BROKEN, Reply(503), Reply(599))


class SenderCase(SynchronousTestCase):
    """A sender on a Clock to a fake backend; after each story nothing may be left over."""

    def setUp(self) -> None:
        """Build the default sender."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.build()

    def build(self, **settings: object) -> None:
        """Build a sender with other settings."""
        self.backend = FakeBackend()
        settings = {"relay": "test", "jitter": lambda: 0.0, **settings}
        self.sender = Sender(self.backend, self.clock, **settings)  # type: ignore[arg-type]

    def submit(self, body: bytes, to: Destination | None = None, **more: object) -> Client:
        """Submit a write."""
        return Client(self.sender.submit(write(body, to, **more)))  # type: ignore[arg-type]

    def behind(self, *bodies: bytes, **more: object) -> list[Client]:
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

    def fail_request(self, reason: str = "refused") -> None:
        """Let the request in flight fail, of which there is one."""
        (post,) = self.backend.pending
        post.fail(reason)

    def into_trouble(self) -> None:
        """Let one write fail."""
        client = self.submit(b"unlucky\n", destination(b"unlucky"))
        self.fail_request()
        self.assertEqual(client.reason, "refused")

    def assert_idle(self) -> None:
        """Check that the sender has forgotten everything, and that its last timers end."""
        self.assertEqual(self.backend.pending, [])
        self.assertEqual(self.sender._tally.bytes, 0)
        self.assertEqual(self.sender._in_flight, 0)
        self.assertEqual(self.sender._queues, {})
        self.successResultOf(self.sender.drained())
        self.assertIsNone(self.sender._wake)
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OrderTests(SenderCase):
    """What goes when."""

    def test_idle_sends_at_once(self) -> None:
        """A write to an idle queue is sent in the call of submit, as it is, and its client gets the answer."""
        client = self.submit(b"a 1 1")
        self.assertEqual(self.backend.bodies, [b"a 1 1"])
        self.assertIsNone(client.result)
        answer = Reply(200, (), b"fine")
        self.answer(answer)
        self.assertIs(client.result, answer)
        self.assert_idle()

    def test_one_in_flight(self) -> None:
        """While a request is in flight, writes to its destination wait."""
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.submit(b"3\n")
        self.assertEqual(self.backend.bodies, [b"1\n"])
        self.answer()
        self.assertEqual(self.backend.bodies, [b"1\n", b"2\n3\n"])
        self.answer()
        self.assert_idle()

    def test_destinations_do_not_wait(self) -> None:
        """Writes that differ in database, policy, precision or credentials travel at the same time, never together."""
        places = [
            destination(),
            destination(b"other"),
            destination(rp=b"rp"),
            destination(precision=b"s"),
            destination(user=b"u"),
        ]
        for round_ in range(2):
            for number, place in enumerate(places):
                self.submit(b"%d.%d\n" % (round_, number), place)
        self.assertEqual(self.backend.bodies, [b"0.%d\n" % number for number in range(5)])
        for post in self.backend.pending:
            post.answer()
        self.assertEqual(self.backend.bodies[5:], [b"1.%d\n" % number for number in range(5)])
        for post in self.backend.pending:
            self.assertIs(post.write.destination, places[int(post.body.strip().split(b".")[1])])
            post.answer()
        self.assert_idle()

    def test_each_client_is_answered(self) -> None:
        """All writes of a merged request get its 2xx."""
        clients = self.behind(b"1\n", b"2\n", b"3\n")
        self.answer()
        self.assertEqual([client.result for client in clients], [OK] * 3)
        self.assertEqual((self.sender.requests, self.sender.writes), (2, 4))
        self.assertEqual(self.sender.failures, {})
        self.assert_idle()

    def test_sends_before_it_tells(self) -> None:
        """What waits is on its way before a client is told, so that a client's next write cannot overtake it."""
        first = self.sender.submit(write(b"1\n"))
        self.submit(b"2\n")
        first.addCallback(lambda _: self.submit(b"3\n"))
        self.answer()
        self.assertEqual(self.backend.bodies, [b"1\n", b"2\n"])
        self.answer()
        self.assertEqual(self.backend.bodies, [b"1\n", b"2\n", b"3\n"])
        self.answer()
        self.assert_idle()

    def test_more_in_flight(self) -> None:
        """With max_in_flight = 2 two requests of a destination are under way, and the third write waits."""
        self.build(max_in_flight=2)
        for body in (b"1\n", b"2\n", b"3\n", b"4\n"):
            self.submit(body)
        self.assertEqual(self.backend.bodies, [b"1\n", b"2\n"])
        self.backend.pending[1].answer()
        self.assertEqual(self.backend.bodies, [b"1\n", b"2\n", b"3\n4\n"])
        self.submit(b"5\n")
        self.backend.pending[0].answer()
        self.assertEqual(self.backend.bodies[3:], [b"5\n"])
        for post in self.backend.pending:
            post.answer()
        self.assert_idle()

    def test_more_in_flight_refused_together(self) -> None:
        """With max_in_flight = 2 the writes of two merged requests that are both refused go one by one."""
        self.build(max_in_flight=2, max_batch=6)
        heads = [self.submit(b"x\n"), self.submit(b"y\n")]
        clients = [self.submit(body) for body in (b"1\n", b"2\n", b"3\n", b"4\n", b"5\n")]
        for post in self.backend.pending:
            post.answer()
        self.assertEqual(self.backend.bodies[2:], [b"1\n2\n", b"3\n4\n"])
        for post in self.backend.pending:
            post.answer(BAD)
        while self.backend.pending:
            self.assertLessEqual(len(self.backend.pending), 2)
            self.backend.pending[0].answer()
        self.assertEqual(sorted(self.backend.bodies[4:]), [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"])
        self.assertEqual([client.result for client in heads + clients], [OK] * 7)
        self.assert_idle()

    def test_answered_before_post_returns(self) -> None:
        """A transport that answers at once is fine: order holds and nothing is left."""
        self.submit(b"1\n")
        clients = [self.submit(b"2\n", mergeable=False), self.submit(b"3\n", mergeable=False)]
        self.backend.at_once = [OK, OK]
        self.answer()
        self.assertEqual(self.backend.bodies, [b"1\n", b"2\n", b"3\n"])
        self.assertEqual([client.result for client in clients], [OK, OK])
        self.assert_idle()

    def test_order_with_answers_before_post_returns(self) -> None:
        """A write submitted by a client that was answered within ``post`` still has the queue for itself."""
        self.submit(b"1\n")
        self.sender.submit(write(b"2\n")).addCallback(lambda _: self.submit(b"3\n"))
        self.backend.at_once = [OK]
        self.answer()
        self.submit(b"4\n")
        self.assertEqual(self.backend.bodies, [b"1\n", b"2\n", b"3\n"])
        self.answer()
        self.answer()
        self.assert_idle()


class MergeTests(SenderCase):
    """What travels together."""

    def test_one_newline_each(self) -> None:
        """Bodies are joined with exactly one newline each, whether or not they bring their own."""
        self.behind(b"a 1", b"b 2\n", b"c 3\r\n", b"d 4")
        self.assertEqual(self.backend.bodies[1], b"a 1\nb 2\nc 3\r\nd 4\n")
        self.answer()
        self.assert_idle()

    def test_join(self) -> None:
        """A single write that waited is sent byte for byte."""
        self.assertEqual(body_parts([]), [])
        self.behind(b"a 1")
        self.assertEqual(self.backend.bodies[1], b"a 1")
        self.answer()
        self.assert_idle()

    def test_bounded(self) -> None:
        """A merged request has no more than max_batch bytes, and what is left over is next."""
        self.build(max_batch=8)
        self.behind(b"aaa\n", b"bb\n", b"c", b"d\n")
        while self.backend.pending:
            self.answer()
        self.assertLess(len(self.backend.bodies), 5)
        self.assertEqual(b"".join(self.backend.bodies[1:]).replace(b"\n", b""), b"aaabbcd")
        self.assertTrue(all(len(body) <= 8 for body in self.backend.bodies), self.backend.bodies)
        self.assert_idle()

    def test_bounded_exactly(self) -> None:
        """The newlines that the relay adds count: no merged request is a byte over max_batch."""
        for first, second in ((b"aaaa", b"bbbb"), (b"aaaa\n", b"bbbb"), (b"aaaa", b"bbbb\n"), (b"aaaa\n", b"bbbb\n")):
            self.build(max_batch=9)
            self.behind(first, second)
            self.assertEqual(self.backend.bodies[1], first)
            self.answer()
            self.answer()
            self.assert_idle()

    def test_fills_the_bound(self) -> None:
        """Two writes that fit in max_batch with their newlines travel together."""
        self.build(max_batch=12)
        self.behind(b"aaaa\n", b"bbbb\n")
        self.assertEqual(self.backend.bodies[1], b"aaaa\nbbbb\n")
        self.answer()
        self.assert_idle()

    def test_larger_than_the_bound(self) -> None:
        """A single write larger than max_batch travels, alone."""
        self.build(max_batch=8)
        self.behind(b"1\n", b"large " * 3 + b"\n", b"2\n")
        self.answer()
        self.answer()
        self.answer()
        self.assertEqual(self.backend.bodies[1:], [b"1\n", b"large large large \n", b"2\n"])
        self.assert_idle()

    def test_only_the_same_query(self) -> None:
        """Writes of one destination with different queries keep their order and never share a request."""
        head = self.submit(b"head\n")
        for body, query in ((b"1\n", b"db=db"), (b"2\n", b"db=db&x=1"), (b"3\n", b"db=db&x=1"), (b"4\n", b"db=db")):
            self.submit(body, query=query)
        for _ in range(4):
            self.answer()
        self.assertEqual(self.backend.bodies[1:], [b"1\n", b"2\n3\n", b"4\n"])
        self.assertEqual([post.write.query for post in self.backend.posts[1:]], [b"db=db", b"db=db&x=1", b"db=db"])
        self.assertEqual(head.result, OK)
        self.assert_idle()

    def test_only_mergeable(self) -> None:
        """A write that is not mergeable travels alone, wherever it stands."""
        self.submit(b"head\n")
        for body, mergeable in ((b"1\n", False), (b"2\n", True), (b"3\n", True), (b"4\n", False), (b"5\n", True)):
            self.submit(body, mergeable=mergeable)
        for _ in range(5):
            self.answer()
        self.assertEqual(self.backend.bodies[1:], [b"1\n", b"2\n3\n", b"4\n", b"5\n"])
        self.assert_idle()


class RefusalTests(SenderCase):
    """A 4xx or a permanent 5xx, to one write and to many."""

    def test_alone(self) -> None:
        """The answer 4xx to a single write is its client's, unchanged, and the sender goes on."""
        client = self.submit(b"bad\n")
        second = self.submit(b"good\n")
        self.answer(BAD)
        self.assertIs(client.result, BAD)
        self.assertEqual(self.sender.failures, {"400": 1})
        self.answer()
        self.assertEqual(second.result, OK)
        self.assert_idle()

    def test_unmerged(self) -> None:
        """After a merged request is refused its writes go alone, in order, before newer ones; each has its truth."""
        clients = self.behind(b"1\n", b"bad\n", b"3\n")
        late = [self.submit(b"4\n"), self.submit(b"5\n")]
        self.answer(BAD)
        self.assertEqual([client.result for client in clients], [None] * 3)
        for reply in (OK, Reply(400, (), b"only mine"), OK, OK):
            self.assertEqual(len(self.backend.pending), 1)
            self.answer(reply)
        self.assertEqual(self.backend.bodies[1:], [b"1\nbad\n3\n", b"1\n", b"bad\n", b"3\n", b"4\n5\n"])
        self.assertEqual([client.result for client in clients], [OK, Reply(400, (), b"only mine"), OK])
        self.assertEqual([client.result for client in late], [OK, OK])
        self.assertEqual(self.sender.failures, {"400": 1})
        self.assert_idle()

    def test_byte_for_byte(self) -> None:
        """What is sent again alone is what the client sent, without a newline of ours."""
        self.behind(b"1", b"2\n")
        self.answer(BAD)
        self.answer()
        self.answer()
        self.assertEqual(self.backend.bodies[1:], [b"1\n2\n", b"1", b"2\n"])
        self.assert_idle()

    def test_unmerged_on_permanent(self) -> None:
        """A 5xx with a permanent text to a merged request unmerges it too, and is no trouble."""
        for text in PERMANENT_TEXTS:
            for status in (500, 503):
                reply = Reply(status, (), b'{"error":"' + text.upper() + b': x"}')
                self.build()
                clients = self.behind(b"1\n", b"2\n")
                self.answer(reply)
                self.assertIsNone(self.sender.trouble)
                self.answer(reply)
                self.answer()
                self.assertEqual(self.backend.bodies[1:], [b"1\n2\n", b"1\n", b"2\n"])
                self.assertEqual(clients[0].reason, str(status))
                self.assertIs(clients[0].result.reply, reply)
                self.assertEqual(clients[1].result, OK)
                self.assertEqual(self.sender.failures, {str(status): 1})
                self.assert_idle()

    def test_trouble_in_the_middle(self) -> None:
        """Trouble in the middle of unmerging fails that write alone; the rest is probed one by one, still in order."""
        clients = self.behind(b"1\n", b"2\n", b"3\n", b"4\n")
        late = self.submit(b"5\n")
        self.answer(BAD)
        self.answer()
        self.answer(BROKEN)
        self.assertEqual(clients[1].reason, "500")
        self.assertEqual(self.backend.pending, [])
        self.clock.advance(PROBE_GAP)
        self.assertEqual(self.backend.bodies[-1], b"3\n")
        self.answer(BAD)
        self.assertIs(clients[2].result, BAD)
        self.answer()
        self.answer()
        self.assertEqual(self.backend.bodies[2:], [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"])
        self.assertEqual([clients[0].result, clients[3].result, late.result], [OK, OK, OK])
        self.assert_idle()

    def test_failure_in_the_middle(self) -> None:
        """A reset in the middle of unmerging fails that write alone."""
        clients = self.behind(b"1\n", b"2\n")
        self.answer(BAD)
        self.fail_request("reset")
        self.clock.advance(PROBE_GAP)
        self.answer()
        self.assertEqual(clients[0].reason, "reset")
        self.assertEqual(clients[1].result, OK)
        self.assert_idle()

    def test_time_out_in_the_middle(self) -> None:
        """What is to go alone expires as anything that waits, and what comes after it may be merged again."""
        clients = self.behind(b"1\n", b"2\n", b"3\n")
        self.clock.advance(5)
        self.answer(BAD)
        late = [self.submit(b"4\n"), self.submit(b"5\n")]
        self.clock.advance(5)
        self.assertEqual([client.reason for client in clients[1:]], ["timeout"] * 2)
        self.assertIsNone(clients[0].result)
        self.answer()
        self.assertEqual(self.backend.bodies[2:], [b"1\n", b"4\n5\n"])
        self.answer()
        self.assertEqual([client.result for client in late], [OK, OK])
        self.assert_idle()

    def test_deadline_of_what_is_unmerged(self) -> None:
        """What waits to go alone expires at its deadline, also if the timer had ended before it came back."""
        self.submit(b"head\n")
        self.clock.advance(1)
        clients = [self.submit(b"1\n"), self.submit(b"2\n")]
        self.clock.advance(8)
        self.answer()  # at 9 s
        self.clock.advance(3)  # the expiry timer has fired at 11 s, and found nothing
        self.answer(BAD)  # at 12 s, after the deadlines
        self.clock.advance(TIMEOUT - 3)  # at 19 s
        self.assertEqual(clients[1].reason, "timeout")
        self.backend.abort()
        self.assert_idle()

    def test_deadline_of_what_is_unmerged_before_newer(self) -> None:
        """What waits to go alone expires at its own deadline, though a newer write has set the timer to a later one."""
        self.submit(b"head\n")
        clients = [self.submit(b"1\n"), self.submit(b"2\n")]
        self.clock.advance(9)
        self.answer()
        self.clock.advance(1.5)
        late = self.submit(b"3\n")  # expires at 20.5 s
        self.answer(BAD)
        self.clock.advance(TIMEOUT - 1)  # at 19.5 s
        self.assertEqual(clients[1].reason, "timeout")
        self.assertIsNone(late.result)
        self.backend.abort()
        self.clock.advance(TIMEOUT)
        self.backend.abort()
        self.assert_idle()

    def test_never_ends_later_than_deadline_and_timeout(self) -> None:
        """However many writes are unmerged, each is settled within its deadline and the time of one more request."""
        self.submit(b"head\n")
        clients = [self.submit(b"%d\n" % number) for number in range(5)]
        self.clock.advance(9)
        self.answer()
        self.clock.advance(9)
        self.answer(BAD)
        for _ in range(4):
            self.clock.advance(1)
            if self.backend.pending and self.clock.seconds() < 1000 + 2 * TIMEOUT:
                self.answer()
        self.assertEqual([client.result is not None for client in clients], [True] * 5)
        self.backend.abort()
        self.assert_idle()

    def test_bounded_memory_counts_what_comes_back(self) -> None:
        """Writes that come back to be sent alone count as waiting, and newer ones overflow."""
        self.build(max_waiting=8)
        self.behind(b"111\n", b"222\n")
        self.answer(BAD)
        self.assertEqual(self.sender._tally.bytes, 4)
        last = self.submit(b"333\n")
        self.assertEqual(self.submit(b"4").reason, "overflow")
        self.answer()
        self.answer()
        self.answer()
        self.assertEqual(last.result, OK)
        self.assert_idle()

    def test_log_is_throttled(self) -> None:
        """Refusals are logged with the backend's words, one line in ten seconds, and the next one counts the others."""
        events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for _ in range(3):
            self.submit(b"bad\n")
            self.answer(BAD)
        self.clock.advance(10)
        self.submit(b"bad\n")
        self.answer(BAD)
        counts = [event["count"] for event in events if "refused" in str(event.get("log_format"))]
        self.assertEqual(counts, [1, 3])
        self.assertEqual(events[0]["detail"], '400: {"error":"unable to parse"}')
        self.assert_idle()


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
            self.assertIs(clients[0].result.reply, reply)
            self.assertEqual(self.sender.failures, {str(reply.status): 2})
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
        self.assertIsNone(clients[0].result.reply)
        self.assertEqual(self.sender.failures, {"reset": 2})
        self.assert_idle()

    def test_not_before_the_gap(self) -> None:
        """The probe does not go before PROBE_GAP has passed since the failure."""
        for jitter in (0.0, 0.5, 0.999):
            self.build(jitter=lambda jitter=jitter: jitter)
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
        self.assertIn("a bug", client.result.detail)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIsNotNone(self.sender.trouble)
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
        events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
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
        self.assertIs(client.result.reply, reply)
        self.clock.advance(2)
        patient = self.submit(b"3\n")
        self.assertIsNone(patient.result)
        self.clock.advance(9)
        self.answer()
        self.assertEqual(patient.result, OK)
        self.assertEqual(self.sender.failures, {"503": 2})
        self.assert_idle()

    def test_too_late_for_what_waits(self) -> None:
        """A write that waits already, and cannot wait as long as Retry-After says, fails at once with that answer."""
        reply = retry_later(11)
        self.submit(b"1\n")
        client = self.submit(b"2\n")
        self.answer(reply)
        self.assertIsNotNone(client.result)
        self.assertEqual(client.reason, "503")
        self.assertIs(client.result.reply, reply)
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


class DeadlineTests(SenderCase):
    """How long a write may wait."""

    def test_exactly_the_timeout(self) -> None:
        """A write that waits fails after exactly the backend's timeout, and what is in flight is left alone."""
        first = self.submit(b"1\n")
        self.clock.advance(3)
        client = self.submit(b"2\n")
        self.clock.advance(TIMEOUT - 0.001)
        self.assertIsNone(client.result)
        self.clock.advance(0.001)
        self.assertEqual(client.reason, "timeout")
        self.assertIsNone(client.result.reply)
        self.assertIn("10 s", client.result.detail)
        self.assertEqual(self.sender.failures, {"timeout": 1})
        self.answer()
        self.assertEqual(first.result, OK)
        self.assertEqual(self.backend.bodies, [b"1\n"])
        self.assert_idle()

    def test_several_queues(self) -> None:
        """Each write in each queue has its own deadline, however often the timer has to be set anew."""
        clients = []
        for step in range(6):
            place = destination(b"%d" % (step % 2))
            self.submit(b"first\n", place) if step < 2 else clients.append(self.submit(b"%d\n" % step, place))
            self.clock.advance(1)
        for expired in range(5):
            outcomes = [client.result is not None for client in clients]
            self.assertEqual(outcomes, [True] * expired + [False] * (4 - expired), expired)
            self.clock.advance(TIMEOUT - 4 if not expired else 1)
        self.assertEqual(self.sender.failures, {"timeout": 4})
        self.backend.abort()
        self.assert_idle()

    def test_same_instant(self) -> None:
        """All that is due at one instant, in all queues, fails at that instant."""
        for number in range(3):
            self.submit(b"first\n", destination(b"%d" % number))
        clients = [self.submit(b"%d\n" % number, destination(b"%d" % (number % 3))) for number in range(9)]
        self.clock.advance(TIMEOUT)
        self.assertEqual([client.reason for client in clients], ["timeout"] * 9)
        self.assertEqual(self.sender._tally.bytes, 0)
        self.backend.abort()
        self.assert_idle()

    def test_in_trouble(self) -> None:
        """What waits in trouble expires too, its queues go away, and the sender is drained."""
        self.submit(b"1\n")
        self.answer(retry_later(5))
        clients = [self.submit(b"%d\n" % number, destination(b"%d" % number)) for number in range(3)]
        self.clock.advance(5)
        drained = self.sender.drained()
        self.clock.advance(5)
        self.assertEqual([client.reason for client in clients[1:]], ["timeout"] * 2)
        self.assertNoResult(drained)
        self.fail_request("timeout")
        self.successResultOf(drained)
        self.assert_idle()

    def test_client_submits_when_told(self) -> None:
        """A client may submit again in the moment that it learns of its time-out."""
        self.submit(b"1\n")
        again: list[Client] = []
        waiting = self.sender.submit(write(b"2\n"))
        waiting.addErrback(lambda _: again.append(self.submit(b"3\n")))
        self.clock.advance(TIMEOUT)
        self.assertEqual(len(again), 1)
        self.clock.advance(TIMEOUT)
        self.assertEqual(again[0].reason, "timeout")
        self.answer()
        self.assert_idle()

    def test_client_submits_when_told_beside_others(self) -> None:
        """A client that submits again when it learns of its time-out puts off no other write's deadline."""
        self.submit(b"1\n")
        self.sender.submit(write(b"2\n")).addErrback(lambda _: self.submit(b"3\n") and None)
        self.clock.advance(1)
        other = self.submit(b"4\n")
        self.clock.advance(TIMEOUT - 1)
        self.assertIsNone(other.result)
        self.clock.advance(1)
        self.assertEqual(other.reason, "timeout")
        self.clock.advance(TIMEOUT)
        self.answer()
        self.assert_idle()

    def test_timer_ends(self) -> None:
        """The timer for what waits fires once for nothing when nothing waits any more, and is not set again."""
        self.behind(b"1\n")
        self.answer()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assert_idle()


class BoundTests(SenderCase):
    """How much may wait."""

    def test_overflow(self) -> None:
        """A write beyond max_waiting fails for this backend at once with a clear reason, and is counted."""
        self.build(max_waiting=10)
        first = self.submit(b"in flight, not waiting\n")
        waiting = self.submit(b"12345678\n")
        client = self.submit(b"90")
        self.assertEqual(client.reason, "overflow")
        self.assertEqual(client.result.detail, "9 bytes are waiting for it already")
        fits = self.submit(b"9")
        self.assertEqual(self.sender._tally.bytes, 10)
        self.assertEqual(self.sender.failures, {"overflow": 1})
        self.answer()
        self.assertEqual(self.sender._tally.bytes, 0)
        self.answer()
        self.assertEqual([first.result, waiting.result, fits.result], [OK] * 3)
        self.assertEqual(self.sender.writes, 4)
        self.assert_idle()

    def test_overflow_leaves_no_queue(self) -> None:
        """A write that overflows in trouble leaves no queue behind."""
        self.build(max_waiting=1)
        self.into_trouble()
        self.assertEqual(self.submit(b"too large\n").reason, "overflow")
        self.assert_idle()

    def test_many_queues_share_the_bound(self) -> None:
        """The bound is the backend's, not a queue's."""
        self.build(max_waiting=6)
        for number in range(3):
            self.submit(b"1\n", destination(b"%d" % number))
        clients = [self.submit(b"2\n", destination(b"%d" % (number % 3))) for number in range(4)]
        self.assertEqual(clients[3].reason, "overflow")
        self.assertEqual(self.sender._tally.bytes, 6)
        self.backend.abort()
        self.clock.advance(TIMEOUT)
        self.backend.abort()
        self.assert_idle()

    def test_idle_queues_go_away(self) -> None:
        """A thousand destinations that are done leave no queue."""
        for number in range(1000):
            self.submit(b"1\n", destination(b"%d" % number))
        self.assertEqual(len(self.sender._queues), 1000)
        for post in self.backend.pending:
            post.answer()
        self.assert_idle()


class EndTests(SenderCase):
    """How a sender ends."""

    def test_drained_when_idle(self) -> None:
        """An idle sender is drained already."""
        self.successResultOf(self.sender.drained())
        self.assert_idle()

    def test_drained(self) -> None:
        """Drained fires for everyone who asked when nothing is in flight and nothing waits, and no sooner."""
        self.behind(b"1\n")
        self.submit(b"2\n", destination(b"other"))
        waiters = [self.sender.drained(), self.sender.drained()]
        self.backend.pending[0].answer()
        self.assertNoResult(waiters[0])
        self.answer()
        for waiter in waiters:
            self.successResultOf(waiter)
        self.assert_idle()

    def test_drained_by_failures(self) -> None:
        """Failures drain a sender as well."""
        self.submit(b"1\n")
        drained = self.sender.drained()
        self.fail_request()
        self.successResultOf(drained)
        self.assert_idle()

    def test_clients_are_told_before_drained(self) -> None:
        """When drained fires, the last client has its answer."""
        client = self.submit(b"1\n")
        seen: list[object] = []
        self.sender.drained().addCallback(lambda _: seen.append(client.result))
        self.answer()
        self.assertEqual(seen, [OK])
        self.assert_idle()

    def test_close(self) -> None:
        """A closed sender fails what waits and what comes, and leaves what is in flight to the transport."""
        first = self.submit(b"1\n")
        waiting = [self.submit(b"2\n"), self.submit(b"3\n")]
        self.sender.close()
        waiting += [self.submit(b"4\n"), self.submit(b"5\n", destination(b"other"))]
        self.assertEqual([client.reason for client in waiting], ["stopped"] * 4)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        drained = self.sender.drained()
        self.assertNoResult(drained)
        self.answer()
        self.assertEqual(first.result, OK)
        self.successResultOf(drained)
        self.assertEqual(self.sender.failures, {"stopped": 4})
        self.assert_idle()

    def test_close_in_trouble(self) -> None:
        """A sender closed in trouble has no probe and no timer left, and is drained."""
        self.into_trouble()
        waiting = self.submit(b"1\n")
        drained = self.sender.drained()
        self.sender.close()
        self.assertEqual(waiting.reason, "stopped")
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.submit(b"2\n").reason, "stopped")
        self.assert_idle()

    def test_close_and_abort(self) -> None:
        """After close and the transport's abort everyone has an answer and nothing is left."""
        clients = [self.submit(b"1\n"), self.submit(b"2\n"), self.submit(b"3\n", destination(b"other"))]
        self.sender.close()
        self.backend.abort()
        self.assertEqual([client.reason for client in clients], ["stopped"] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assert_idle()

    def test_close_twice(self) -> None:
        """Closing again changes nothing."""
        client = self.submit(b"1\n")
        self.sender.close()
        self.sender.close()
        self.answer()
        self.assertEqual(client.result, OK)
        self.assert_idle()

    def test_nothing_is_sent_after_close(self) -> None:
        """A merged request that is refused after close is not sent again: its writes fail as stopped."""
        clients = self.behind(b"1\n", b"2\n")
        self.sender.close()
        self.answer(BAD)
        self.assertEqual(self.backend.pending, [])
        self.assertEqual([client.reason for client in clients], ["stopped"] * 2)
        self.assert_idle()


class AnswerTests(SynchronousTestCase):
    """The reading of answers."""

    def test_judge(self) -> None:
        """Each status has its verdict, and a permanent text counts only in a 5xx."""
        table = {
            Verdict.TAKEN: (200, 204, 299),
            Verdict.REFUSED: (400, 401, 403, 404, 413, 422, 499),
            Verdict.NOT_NOW: (100, 199, 300, 301, 304, 399, 408, 425, 429, 500, 502, 503, 599),
        }
        for verdict, statuses in table.items():
            for status in statuses:
                self.assertIs(judge(Reply(status)), verdict, status)
        for text in PERMANENT_TEXTS:
            for status, verdict in ((500, Verdict.PERMANENT), (400, Verdict.REFUSED), (429, Verdict.NOT_NOW)):
                self.assertIs(judge(Reply(status, (), b"error: " + text.title() + b" x")), verdict)

    def test_database_not_found(self) -> None:
        """The text "database not found" can heal."""
        self.assertIs(judge(Reply(500, (), b"database not found")), Verdict.NOT_NOW)

    def test_presentable(self) -> None:
        """A client may see 5xx, 408, 425 and 429, and nothing that is no final answer."""
        for status in (500, 503, 599, 408, 425, 429):
            self.assertTrue(is_presentable(Reply(status)), status)
        for status in (100, 301, 304, 399):
            self.assertFalse(is_presentable(Reply(status)), status)

    def test_retry_after(self) -> None:
        """Seconds and dates are read, the past is now, an hour is the most, and nonsense is 0."""
        self.patch(answers, "time", lambda: 1_700_000_000.0)
        table = {
            "": 0,
            "0": 0,
            " 7 ": 7,
            "3600": 3600,
            "3601": MAX_RETRY_AFTER,
            "9" * 400: MAX_RETRY_AFTER,
            "-1": 0,
            "1.5": 0,
            "soon": 0,
            "Tue, 14 Nov 2023 22:13:50 GMT": 30,
            "Tue, 14 Nov 2023 22:13:10 GMT": 0,
            "Tue, 14 Nov 2123 22:13:10 GMT": MAX_RETRY_AFTER,
            "Tue, 99 Nov 2023 22:13:10 GMT": 0,
            "\u00e9": 0,
        }
        for value, seconds in table.items():
            self.assertAlmostEqual(retry_after(retry_later(value)), seconds, msg=value)
        self.assertEqual(retry_after(Reply(503)), 0)

    def test_retry_after_overflow(self) -> None:
        """Numbers that no calendar holds are nonsense like any other, and never raised."""
        for value in (
            "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
            "Mon, 99999999999999999999 Jan 2024 00:00:00 GMT",
            "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
        ):
            self.assertEqual(retry_after(retry_later(value)), 0, value)

    def test_excerpt(self) -> None:
        """An excerpt is the status and at most 200 bytes of the text, whatever they are."""
        self.assertEqual(excerpt(Reply(500)), "500")
        self.assertEqual(excerpt(Reply(500, (), b" \n")), "500")
        self.assertEqual(excerpt(Reply(500, (), b"why\n")), "500: why")
        self.assertEqual(excerpt(Reply(500, (), b"\xff")), "500: \ufffd")
        self.assertEqual(len(excerpt(Reply(500, (), b"x" * 10_000))), len("500: ") + 200)
