"""The order in which a sender sends, and what travels together."""

from __future__ import annotations

from influxrelay.core.write import Reply
from influxrelay.delivery.destination_queue import body_parts
from influxrelay.delivery.sender import Sender
from testing.backends import BAD, BROKEN, OK, FakeBackend, destination
from testing.sender_case import SenderCase

TROUBLE = (Reply(408), Reply(425), Reply(429), Reply(301), Reply(304), Reply(100), BROKEN, Reply(503), Reply(599))


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
        self.assertEqual((self.sender.requests.count, self.sender.writes), (2, 4))
        self.assertEqual(self.sender.clients.failures, {})
        self.assert_idle()

    def test_sends_before_it_tells(self) -> None:
        """What waits is on its way before a client is told, so that a client's next write cannot overtake it."""
        self.submit(b"1\n", on_told=lambda: self.submit(b"3\n"))
        self.submit(b"2\n")
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
        self.submit(b"2\n", on_told=lambda: self.submit(b"3\n"))
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

    def test_smaller_for_others(self) -> None:
        """Requests are half as large while another backend is some megabytes behind, if it is well."""
        megabyte, line = 1024 * 1024, b"x" * 1000 + b"\n"
        self.build(max_batch=4 * (len(line) + 1))
        behind = Sender(FakeBackend(), self.clock, self.settings)
        self.sender.go_along_with([self.sender, behind])
        for size, merged in ((0, 4), (1, 4), (3, 2), (23, 2), (24, 4)):
            behind.queues.memory.size = size * megabyte
            self.behind(*[line] * 8)
            self.assertEqual(self.backend.bodies[-1].count(b"\n"), merged, size)
            self.drain()
        behind.queues.memory.size = 3 * megabyte
        behind.pause()
        self.behind(*[line] * 8)
        self.assertEqual(self.backend.bodies[-1].count(b"\n"), 4)
        self.drain()

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
