"""Writes that a backend refuses, one by one and merged."""

from __future__ import annotations

from influxrelay.core.write import Reply
from influxrelay.delivery.back_off import PROBE_GAP
from influxrelay.journal.records import Drop
from testing.backends import BAD, BROKEN, OK, PERMANENT_TEXTS, TIMEOUT
from testing.logs import watch_events
from testing.sender_case import SenderCase, room

TROUBLE = (Reply(408), Reply(425), Reply(429), Reply(301), Reply(304), Reply(100), BROKEN, Reply(503), Reply(599))


class RefusalTests(SenderCase):
    """A 4xx or a permanent 5xx, to one write and to many."""

    def test_alone(self) -> None:
        """The answer 4xx to a single write is its client's, unchanged, and the sender goes on."""
        client = self.submit(b"bad\n")
        second = self.submit(b"good\n")
        self.answer(BAD)
        self.assertIs(client.result, BAD)
        self.assertEqual(self.sender.clients.failures, {"400": 1})
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
        self.assertEqual(self.sender.clients.failures, {"400": 1})
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
                self.assertIsNone(self.sender.status.trouble)
                self.answer(reply)
                self.answer()
                self.assertEqual(self.backend.bodies[1:], [b"1\n2\n", b"1\n", b"2\n"])
                self.assertEqual(clients[0].reason, str(status))
                self.assertIs(clients[0].failure.reply, reply)
                self.assertEqual(clients[1].result, OK)
                self.assertEqual(self.sender.clients.failures, {str(status): 1})
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
        self.build(max_waiting=room(13, writes=3))
        self.behind(b"111\n", b"222\n")
        self.answer(BAD)
        self.assertEqual(self.sender.queues.waiting(), (1, 4))
        last = self.submit(b"333\n")
        self.assertEqual(self.submit(b"4").reason, "overflow")
        self.answer()
        self.answer()
        self.answer()
        self.assertEqual(last.result, OK)
        self.assert_idle()

    def test_misdirected(self) -> None:
        """A 404 that is not InfluxDB's is its clients' answer, an alarm, and a loss if another backend took it."""
        page = Reply(404, (), b"<html>not here</html>")
        clients = self.behind(b"1\n", b"2\n")
        self.answer(page)
        self.assertEqual([client.result for client in clients], [page] * 2)
        self.assertIn("down: 404", self.sender.why_unavailable())
        for client in clients:
            client.decide(kept=client is clients[0])
        self.assertEqual(self.backlog.losses(), [Drop("fake", "unqueued", 1, 2, 2.0, 2.0)])
        self.clock.advance(PROBE_GAP)
        again = self.submit(b"3\n")
        self.answer()
        self.assertEqual((again.result, self.sender.why_unavailable()), (OK, ""))
        self.assert_idle()

    def test_lost(self) -> None:
        """What fails is lost for the backend if it turns out that another one has it; so is what lacks its database."""
        missing = Reply(404, (), b'{"error":"database not found: \\"db\\""}')
        for outcome, lost in ((missing, 1), (BROKEN, 1), (BAD, 0), (OK, 0)):
            for first in (True, False):
                self.build()
                client = self.submit(b"1\n")
                if first:
                    client.decide(kept=True)
                self.answer(outcome)
                if not first:
                    self.assertEqual(self.backlog.losses(), [])
                    client.decide(kept=True)
                self.assertEqual(sum(each.writes for each in self.backlog.losses()), lost)
                self.assert_idle()

    def test_log_is_throttled(self) -> None:
        """Refusals are logged with the backend's words, one line in ten seconds, and the next one counts the others."""
        events = watch_events(self)
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
