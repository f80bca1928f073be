"""How long and how much may wait in a sender, and how it ends."""

from __future__ import annotations

from influxrelay.core.write import Reply
from testing.backends import BAD, BROKEN, OK, TIMEOUT, destination, retry_later
from testing.sender_case import Client, SenderCase, room

TROUBLE = (Reply(408), Reply(425), Reply(429), Reply(301), Reply(304), Reply(100), BROKEN, Reply(503), Reply(599))


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
        self.assertIsNone(client.failure.reply)
        self.assertIn("10 s", client.failure.detail)
        self.assertEqual(self.sender.clients.failures, {"timeout": 1})
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
        self.assertEqual(self.sender.clients.failures, {"timeout": 4})
        self.backend.abort()
        self.assert_idle()

    def test_same_instant(self) -> None:
        """All that is due at one instant, in all queues, fails at that instant."""
        for number in range(3):
            self.submit(b"first\n", destination(b"%d" % number))
        clients = [self.submit(b"%d\n" % number, destination(b"%d" % (number % 3))) for number in range(9)]
        self.clock.advance(TIMEOUT)
        self.assertEqual([client.reason for client in clients], ["timeout"] * 9)
        self.assertEqual(self.sender.queues.waiting()[1], 0)
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
        self.submit(b"2\n", on_told=lambda: again.append(self.submit(b"3\n")))
        self.clock.advance(TIMEOUT)
        self.assertEqual(len(again), 1)
        self.clock.advance(TIMEOUT)
        self.assertEqual(again[0].reason, "timeout")
        self.answer()
        self.assert_idle()

    def test_client_submits_when_told_beside_others(self) -> None:
        """A client that submits again when it learns of its time-out puts off no other write's deadline."""
        self.submit(b"1\n")
        self.submit(b"2\n", on_told=lambda: self.submit(b"3\n"))
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
        self.build(max_waiting=room(33, writes=3))
        first = self.submit(b"this one is in flight..\n")
        waiting = self.submit(b"12345678\n")
        client = self.submit(b"90")
        self.assertEqual((client.reason, self.taken), ("overflow", False))
        taken = room(33, writes=2)
        self.assertEqual(client.failure.detail, f"{taken} bytes are waiting for it already")
        self.assertTrue(self.backlog.is_full)
        self.assertEqual(self.sender.queues.memory.size, taken)
        self.assertEqual(self.sender.clients.failures, {"overflow": 1})
        self.answer()
        self.assertFalse(self.backlog.is_full)
        fits = self.submit(b"9")
        self.answer()
        self.answer()
        self.assertEqual([first.result, waiting.result, fits.result], [OK] * 3)
        self.assertEqual(self.sender.writes, 4)
        self.assert_idle()

    def test_single_large_write(self) -> None:
        """A write that is larger than max_waiting is sent if nothing else is on its way."""
        self.build(max_waiting=10)
        client = self.submit(b"x" * 100 + b"\n")
        self.assertEqual(self.submit(b"1\n").reason, "overflow")
        self.assertEqual(self.submit(b"1\n", destination(b"other")).reason, "overflow")
        self.answer()
        self.assertEqual(client.result, OK)
        self.assert_idle()

    def test_small_beside_large(self) -> None:
        """Small writes wait beside a large one that takes more than all of the room, up to a quarter of it."""
        megabyte = 1024 * 1024
        self.build(max_waiting=8 * megabyte, max_batch=megabyte)
        client = self.submit(b"x" * 11 * megabyte + b"\n")
        small = b"x" * (32 * 1024) + b"\n"
        clients = [self.submit(small, destination(b"%d" % (number % 2))) for number in range(70)]
        reasons = [each.reason for each in clients if each.result is not None]
        self.assertEqual(reasons, ["overflow"] * len(reasons))
        self.assertLess(len(small) * (70 - len(reasons)), 2 * megabyte)
        self.assertGreater(len(small) * (71 - len(reasons)), 1.9 * megabyte)
        self.assertEqual(self.submit(b"x" * megabyte).reason, "overflow")
        self.drain()
        self.assertEqual(client.result, OK)
        self.assert_idle()

    def test_large_beside_small(self) -> None:
        """A write that is larger than max_waiting waits behind small ones, if it is the only large one."""
        megabyte = 1024 * 1024
        self.build(max_waiting=8 * megabyte, max_batch=megabyte)
        first = self.submit(b"1\n")
        large, larger = (self.submit(b"x" * size * megabyte + b"\n") for size in (9, 10))
        small = self.submit(b"2\n")
        self.assertEqual(larger.reason, "overflow")
        self.drain()
        self.assertEqual([each.result for each in (first, large, small)], [OK] * 3)
        self.assert_idle()

    def test_many_queues_share_the_bound(self) -> None:
        """The bound is the backend's, and what is in flight counts, and so does each queue."""
        self.build(max_waiting=room(10, writes=5, queues=3))
        for number in range(3):
            self.submit(b"1\n", destination(b"%d" % number))
        clients = [self.submit(b"2\n", destination(b"%d" % (number % 3))) for number in range(3)]
        self.assertEqual(clients[2].reason, "overflow")
        self.assertEqual(self.submit(b"3\n", destination(b"3")).reason, "overflow")
        self.assertEqual(self.sender.queues.waiting(), (2, 4))
        self.backend.abort()
        self.clock.advance(TIMEOUT)
        self.backend.abort()
        self.assert_idle()

    def test_idle_queues_go_away(self) -> None:
        """A thousand destinations that are done leave no queue."""
        for number in range(1000):
            self.submit(b"1\n", destination(b"%d" % number))
        self.assertEqual(len(self.sender.queues), 1000)
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
        self.assertEqual(self.sender.clients.failures, {"stopped": 4})
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
