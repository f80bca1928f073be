"""A backlog in the journal: pages, positions, and whatever may happen to them."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.delivery import journal_backlog
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.fate import State
from influxrelay.delivery.journal_backlog import PAGE_GAP, READ_AHEAD, REREAD
from influxrelay.journal.records import Drop, Record
from testing.backends import MISSING, OK, destination, write
from testing.sender_case import SMALL, JournalCase, SenderCase, room


class PagingTests(JournalCase):
    """A queue whose backlog is larger than memory."""

    def test_order_across_the_switch(self) -> None:
        """From live to behind and back to live, everything arrives once and in order."""
        self.build(max_waiting=room(9, writes=3), max_batch=4)
        clients = [self.submit(b"%02d\n" % number, state=State.UNDECIDED) for number in range(20)]
        self.assertTrue(self.sender.queues.are_behind())
        self.assertLessEqual(self.sender.queues.waiting()[0], 2)
        for number in range(20, 40):
            self.clock.advance(PAGE_GAP)
            self.answer()
            clients.append(self.submit(b"%02d\n" % number, state=State.UNDECIDED))
            self.assertLessEqual(self.sender.queues.waiting()[0], 3)
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"".join(b"%02d\n" % number for number in range(40)))
        self.assertEqual([client.result for client in clients], [OK] * 40)
        self.assertFalse(self.sender.queues.are_behind())

    def test_trouble_while_behind(self) -> None:
        """A queue that is behind keeps order through trouble, and memory within its bound."""
        self.build(max_waiting=room(6, writes=3), max_batch=4)
        for number in range(10):
            self.submit(b"%d\n" % number)
        self.fail_request()
        for number in range(10, 20):
            self.submit(b"%d\n" % number)
            self.assertLessEqual(self.sender.queues.waiting()[0], 4)
        self.drain()
        seen = b"".join(self.backend.bodies).split()
        self.assertEqual(seen[seen.index(b"1") :], [b"%d" % number for number in range(1, 20)])

    def test_many_queues(self) -> None:
        """Many queues with a backlog share the memory: none has more than a write beyond the bound."""
        body = b"x" * (READ_AHEAD // 4) + b"\n"
        for number in range(36):
            self.journal.append(Record(number + 1, 1.0, write(body, destination(b"%d" % (number % 12)))))
        self.restart(max_waiting=READ_AHEAD, max_batch=1)
        self.sender.pause()
        self.assertLessEqual(self.sender.queues.waiting()[1], READ_AHEAD + 13 * len(body))
        self.sender.unpause()
        self.drain()
        self.assertEqual(len(self.backend.posts), 36)

    def test_too_many_queues(self) -> None:
        """Where a backend that takes nothing has no room for another destination, writes to that are lost for it."""
        self.build(max_waiting=room(0, writes=1, queues=3))
        self.submit(b"0\n", destination(b"0"))
        self.fail_request()
        self.assertEqual(self.submit(b"1\n", destination(b"1")).result, None)
        self.assertEqual(self.submit(b"2\n", destination(b"2")).result, None)
        kept = self.submit(b"3\n", destination(b"3"))
        refused = self.submit(b"4\n", destination(b"4"), state=State.UNDECIDED)
        self.assertEqual((kept.reason, refused.reason, self.taken), ("full", "full", False))
        self.assertEqual(self.journal.drops(), [Drop("fake", "full", 1, 2, 4.0, 4.0)])
        self.assertIn(b"4\n", self.journal.left())
        refused.decide(kept=True)
        self.assertEqual(self.journal.drops(), [Drop("fake", "full", 2, 4, 4.0, 5.0)])
        self.assertEqual(self.journal.left(), [b"0\n", b"1\n", b"2\n"])
        self.drain()

    def test_page_under_way(self) -> None:
        """Writes that come while a page is read are neither lost nor sent twice nor out of order."""
        self.build(max_waiting=SMALL)
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.journal.held = []
        self.submit(b"2\n")
        self.answer()
        struck = self.submit(b"3\n", state=State.UNDECIDED)
        self.submit(b"4\n")
        self.assertEqual(len(self.journal.held), 1)
        held, self.journal.held = self.journal.held, None
        read, result = held[0]
        page = read()  # it holds what came after it was asked for, and is struck after it was read
        struck.decide(kept=False)
        self.journal.strike(struck.number)
        result.callback(page)
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n1\n2\n4\n")

    def test_page_errors(self) -> None:
        """A page that cannot be read is tried again."""
        self.build(max_waiting=SMALL)
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.journal.problems = [JournalError("disk"), ZeroDivisionError()]
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n1\n2\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_page_errors_after_the_end(self) -> None:
        """A page that comes or fails after the end changes nothing."""
        outcomes: list[Any] = [([], 9), Failure(JournalError("x"))]
        for outcome in outcomes:
            self.build(max_waiting=SMALL)
            for _ in range(3):
                self.submit(b"1\n")
            self.journal.held = []
            self.answer()
            self.sender.close()
            self.journal.held[0][1].callback(outcome)
            self.backend.abort()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assert_idle()
            self.assertEqual(REREAD, 1.0)

    def test_settled_while_behind(self) -> None:
        """A write whose client is told by another backend is delivered from disk, and nobody waits for it."""
        self.build(max_waiting=SMALL)
        self.submit(b"0\n")
        self.submit(b"1\n")
        client = self.submit(b"2\n", state=State.UNDECIDED)
        self.assertEqual(len(self.sender.clients), 2)
        client.decide(kept=True)
        self.assertEqual(len(self.sender.clients), 1)
        self.drain()
        self.assertIsNone(client.result)
        self.assertEqual(b"".join(self.backend.bodies), b"0\n1\n2\n")

    def test_forget(self) -> None:
        """To forget what the journal has dropped costs no more than there is of it, however much waits."""
        clients = [self.submit(b"%d\n" % number) for number in range(100)]
        self.fail_request()
        popped: list[Entry] = []
        pop = DestinationQueue.pop

        def count(queue: DestinationQueue) -> Entry:
            popped.append(pop(queue))
            return popped[-1]

        self.patch(DestinationQueue, "pop", count)
        self.backlog.forget(destination(), 3)
        self.assertEqual([entry.write.body for entry in popped], [b"0\n", b"1\n", b"2\n"])
        self.drain()
        self.assertEqual({client.reason for client in clients}, {"refused"})
        self.assertEqual(b"".join(self.backend.bodies[1:]), b"".join(b"%d\n" % number for number in range(3, 100)))

    def test_not_journaled(self) -> None:
        """A write that is neither in memory nor in the journal fails, and is counted if it is acknowledged."""
        self.build(max_waiting=SMALL)
        self.submit(b"0\n")
        self.submit(b"1\n")
        client = self.submit(b"2\n", state=State.UNDECIDED)
        self.journal.strike(client.number)
        client.not_journaled("no space left")
        self.assertEqual(client.reason, "full")
        client.decide(kept=True)
        self.assertEqual([(drop.reason, drop.writes) for drop in self.journal.drops()], [("full", 1)])
        self.drain()

    def test_not_journaled_before(self) -> None:
        """A write that the journal does not have waits in memory, or fails where there is no room."""
        self.build(max_waiting=SMALL)
        self.submit(b"0\n")
        clients = []
        for number in (1, 2):
            client = self.new_client()
            client.not_journaled("no space left")
            clients.append(SenderCase.give(self, write(b"%d\n" % number), client))
            client.decide(kept=True)
        self.assertEqual((clients[0].result, clients[1].reason), (None, "full"))
        self.assertEqual(self.journal.drops(), [Drop("fake", "full", 1, 2, 3.0, 3.0)])
        self.sender.close()
        self.backend.abort()
        self.assertEqual(self.journal.drops()[0].writes, 2)

    def test_struck_in_the_journal(self) -> None:
        """A client whose write is no longer in the journal is told, and not held."""
        self.build(max_waiting=SMALL)
        self.submit(b"0\n")
        self.submit(b"1\n")
        client = self.submit(b"2\n", state=State.UNDECIDED)
        self.journal.strike(client.number)
        self.drain()
        self.assertEqual(client.reason, "struck")

    def test_trimmed(self) -> None:
        """Of what waits for a backend that takes nothing the head alone stays in memory; all arrives once, in order."""
        for stop in (self.fail_request, self.pause, self.miss_database):
            self.build(max_batch=1000)
            bodies = [b"%d\n" % number for number in range(3000)]
            clients = [self.submit(body, state=State.UNDECIDED) for body in bodies]
            self.assertEqual(self.sender.queues.waiting()[0], 2999)
            stop()
            self.assertLessEqual(self.sender.queues.memory.size, READ_AHEAD + room(0, writes=1))
            self.assertTrue(self.sender.queues.are_on_disk())
            for number in (*range(0, 3000, 2), *range(1, 3000, 2)):
                clients[number].decide(kept=number != 7)
            self.journal.strike(clients[7].number)
            self.sender.unpause()
            self.drain()
            first = len(self.backend.posts[0].body) * (stop == self.pause)
            seen = b"".join(self.backend.bodies).replace(b"0\n0\n1\n", b"0\n1\n", 1)
            self.assertEqual(seen[first:].split()[-2990:], b"".join(bodies).split()[-2990:])
            self.assertNotIn(b"7", seen.split())

    def pause(self) -> None:
        """Stop by the operator's wish."""
        self.sender.pause()
        self.answer()

    def miss_database(self) -> None:
        """Stop because the database is missing."""
        self.answer(MISSING)

    def test_trimmed_while_a_page_is_read(self) -> None:
        """Where writes leave memory while a page behind them is read, it is read again, behind what is left."""
        self.patch(journal_backlog, "READ_AHEAD", room(0, writes=4, queues=0))
        self.build(max_waiting=room(0, writes=8), max_batch=2)
        for number in range(10):
            self.submit(b"%d\n" % number)
        self.journal.held = []
        self.answer()
        self.assertEqual(len(self.journal.held), 0)
        while not self.journal.held:
            self.clock.advance(PAGE_GAP)
            self.answer()
        self.submit(b"A\n")
        self.fail_request()
        self.journal.release()
        self.drain()
        order = list(dict.fromkeys(b"".join(self.backend.bodies).split()))
        self.assertEqual(b"".join(order), b"0123456789A")

    def test_not_trimmed(self) -> None:
        """What the journal does not have stays in memory, whatever happens."""
        self.build()
        self.submit(b"head\n")
        for number in range(2000):
            client = self.new_client()
            SenderCase.give(self, write(b"%d\n" % number), client)
            client.not_journaled("no space left")
            client.decide(kept=True)
        self.fail_request()
        self.assertEqual(self.sender.queues.waiting()[0], 2001)
        self.drain()

    def test_tiny_writes_by_pages(self) -> None:
        """A backlog of tiny writes is read in pages that take no more memory than others."""
        for number in range(5000):
            self.journal.append(Record(number + 1, 1.0, write(b"%d\n" % number)))
        SenderCase.build(self)
        self.backlog.resume([(destination(), 0)], 5000, 5000)
        most = 0
        for _ in range(100):
            most = max(most, self.sender.queues.memory.size)
            self.answer_all()
            self.clock.advance(PAGE_GAP)
        self.assertLess(most, 3 * READ_AHEAD)
        self.assertEqual(b"".join(self.backend.bodies), b"".join(b"%d\n" % number for number in range(5000)))
        self.assert_idle()

    def test_damaged(self) -> None:
        """A damaged write is passed over and counted."""
        self.build(max_waiting=SMALL)
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.submit(b"3\n")
        self.journal.damaged.add(3)
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n1\n3\n")
        self.assertEqual(self.journal.drops(), [Drop("fake", "damaged", 1, 2, 3.0, 3.0)])
