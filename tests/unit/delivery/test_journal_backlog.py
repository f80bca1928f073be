"""A backlog in the journal: pages, positions, and whatever may happen to them."""

from __future__ import annotations

import random
from typing import Any

from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.write import Destination, Reply
from influxrelay.delivery import journal_backlog
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.fate import State
from influxrelay.delivery.journal_backlog import PAGE_GAP, READ_AHEAD, REREAD
from influxrelay.delivery.parts import divide_write_slowly
from influxrelay.journal.records import Drop, Record
from influxrelay.lineprotocol.filters import Filter
from influxrelay.lineprotocol.scanner import run
from testing.backends import BAD, BROKEN, OK, destination, write
from testing.sender_case import Client, JournalCase, SenderCase, room

MISSING = Reply(404, (), b'{"error":"database not found: \\"db\\""}\n')
SMALL = room(4, writes=2)  # for one write in flight, and one that waits


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


class CursorTests(JournalCase):
    """The cursor never passes what is not delivered."""

    def assert_left(self, *bodies: bytes) -> None:
        """Check what another process would deliver."""
        self.assertEqual(self.journal.left(), list(bodies))

    def test_live(self) -> None:
        """The cursor moves with what is delivered, and stays before what is not."""
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.assert_left(b"1\n", b"2\n")
        self.answer()
        self.assert_left(b"2\n")
        self.fail_request()
        self.submit(b"3\n")
        self.assert_left(b"2\n", b"3\n")
        self.drain()

    def test_two_in_flight(self) -> None:
        """With two requests in flight the older one holds the cursor, whichever lands, fails or is refused first."""
        for how in ("land", "fail", "refuse"):
            self.build(max_in_flight=2)
            for number in range(4):
                self.submit(b"%d\n" % number)
            first, second = self.backend.pending
            if how == "land":
                second.answer()
            elif how == "fail":
                second.fail()
                first.fail()
            else:
                second.answer(BAD)
            self.assertIn(b"0\n", self.journal.left())
            self.drain()

    def test_back_in_the_wrong_order(self) -> None:
        """Where the older request fails first, the cursor does not pass it when the newer one fails."""
        self.build(max_in_flight=2)
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.backend.pending[0].fail()
        self.backend.pending[0].fail()
        self.assert_left(b"0\n", b"1\n")
        self.drain()

    def test_unmerge(self) -> None:
        """The cursor waits for each write of a merged request that was refused; the refused ones are dead letters."""
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.answer()
        self.answer(BAD)
        self.assert_left(b"1\n", b"2\n")
        self.answer(BAD)
        self.assert_left(b"2\n")
        (letter,) = self.journal.letters
        self.assertEqual((letter.status, letter.write.body, letter.time), (400, b"1\n", 2.0))
        self.answer()
        self.assert_idle()

    def test_not_ready(self) -> None:
        """A queue that waits for its database holds its own cursor and no other."""
        self.submit(b"1\n")
        self.answer(MISSING)
        self.submit(b"2\n", destination(b"other"))
        self.answer()
        self.assert_left(b"1\n")
        self.drain()

    def test_close(self) -> None:
        """The end moves no cursor: what waits, is in flight, or is only on disk, is delivered after a restart."""
        self.build(max_waiting=SMALL)
        clients = [self.submit(b"%d\n" % number, state=State.UNDECIDED) for number in range(5)]
        self.sender.close()
        self.assert_left(*[b"%d\n" % number for number in range(5)])
        self.backend.abort()
        self.assert_left(*[b"%d\n" % number for number in range(5)])
        self.assertEqual([client.reason for client in clients], ["stopped"] * 5)
        self.assertEqual(self.journal.drops(), [])
        self.assert_idle()
        self.restart()
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n1\n2\n3\n4\n")

    def test_close_with_a_merged_refusal(self) -> None:
        """A merged request that is refused after the end stays in the journal."""
        for number in range(3):
            self.submit(b"%d\n" % number)
        self.answer()
        self.sender.close()
        self.answer(BAD)
        self.assert_left(b"1\n", b"2\n")
        self.assert_idle()

    def test_resume(self) -> None:
        """After a restart old writes go before new ones."""
        for number in range(3):
            self.submit(b"%d\n" % number)
        self.answer()
        self.journal.held = []
        self.restart()
        client = self.submit(b"3\n", state=State.UNDECIDED)
        self.journal.release()
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"1\n2\n3\n")
        self.assertEqual(client.result, OK)

    def test_drained(self) -> None:
        """What is on disk can wait: the sender is drained when nothing is in flight and no client waits."""
        self.submit(b"1\n")
        client = self.submit(b"2\n")
        drained = self.sender.drained()
        self.assertNoResult(drained)
        self.fail_request()
        self.assertEqual(client.reason, "refused")
        self.successResultOf(drained)
        self.drain()

    def test_give_up(self) -> None:
        """What waits on disk is passed, and the journal does the counting."""
        self.build(max_waiting=SMALL)
        self.submit(b"0\n")
        clients = [self.submit(b"%d\n" % number, state=State.UNDECIDED) for number in range(1, 4)]
        self.sender.give_up()
        self.assertEqual([client.reason for client in clients], ["operator", "dropped", "dropped"])
        self.assertEqual(self.journal.drops(), [])
        self.answer()
        self.assert_idle()


class RandomTests(JournalCase):
    """Order and completeness, whatever happens."""

    def story(self, seed: int) -> None:  # noqa: C901, PLR0912, PLR0915 (one loop of many events)
        """Let random things happen on a journal with little memory, and check what the backend has in the end."""
        rng = random.Random(seed)
        writes = rng.choice((1, 3, 10, 1000))
        settings = {"max_waiting": room(0, writes=writes, queues=2), "max_batch": rng.choice((5, 9, 100))}
        self.patch(journal_backlog, "READ_AHEAD", room(0, writes=rng.choice((2, 5, 1000)), queues=0))
        self.number = 0
        self.build(**settings)
        places = [destination(b"%d" % number) for number in range(rng.choice((1, 2)))]
        pending: list[tuple[Client, Destination]] = []
        kept: dict[Destination, list[int]] = {place: [] for place in places}
        taken: dict[Destination, list[int]] = {place: [] for place in places}
        struck_at: dict[int, int] = {}
        restarted = False

        def take(post: Any) -> None:
            taken[post.write.destination] += [int(line) for line in post.body.split()]
            post.answer()

        def settle(client: Client, place: Destination) -> None:
            if rng.random() < 0.7:
                kept[place].append(client.number)
                client.decide(kept=True)
            else:
                struck_at[client.number] = len(self.backend.posts)
                client.decide(kept=False)
                self.journal.strike(client.number)

        for _ in range(120):
            action = rng.random()
            if action < 0.4:
                place = rng.choice(places)
                client = self.submit(b"%d\n" % (self.number + 1), place, State.UNDECIDED)
                pending.append((client, place))
            elif action < 0.55 and self.backend.pending:
                take(rng.choice(self.backend.pending))
            elif action < 0.7 and self.backend.pending:
                post = rng.choice(self.backend.pending)
                if rng.random() < 0.3:
                    post.answer(rng.choice((BROKEN, MISSING)))
                else:
                    post.fail("reset")
            elif action < 0.85 and pending:
                settle(*pending.pop(rng.randrange(len(pending))))
            elif action < 0.9:
                self.clock.advance(rng.random())
            elif action < 0.95:
                if self.journal.held is None:
                    self.journal.held = []
                else:
                    self.journal.release()
            elif action < 0.96:
                self.journal.held = None
                self.sender.close()
                self.backend.abort()
                self.check_struck(struck_at)
                struck_at.clear()
                while pending:
                    settle(*pending.pop())
                struck_at.clear()
                restarted = True
                self.restart(**settings)
        if self.journal.held is not None:
            self.journal.release()
        while pending:
            settle(*pending.pop())
        for _ in range(1000):
            if self.sender.is_idle:
                break
            for post in self.backend.pending:
                take(post)
            self.clock.advance(0.5)
        self.assert_idle()
        self.check_struck(struck_at)
        for place in places:
            self.assertLessEqual(set(kept[place]), set(taken[place]))
            if not restarted:
                self.assertEqual(taken[place], sorted(set(taken[place])))

    def check_struck(self, struck_at: dict[int, int]) -> None:
        """Check that no struck write was sent after it was struck."""
        for seq, posts in struck_at.items():
            for body in self.backend.bodies[posts:]:
                self.assertNotIn(b"%d" % seq, body.split())

    def test_stories(self) -> None:
        """What is kept arrives, in order and once, and what is struck does not, in many random stories."""
        for seed in range(150):
            with self.subTest(seed=seed):
                self.story(seed)


class FilterTests(JournalCase):
    """A filtered backend of a journal, and whatever may happen to it."""

    def test_schedules(self) -> None:
        """Through failures, a backlog on disk and restarts its lines arrive in order, and nothing stays on disk."""
        for seed in range(40):
            rng = random.Random(seed)
            self.wanted = Filter(["^a$"], [])
            writes = rng.choice((1, 3, 1000))
            settings = {
                "max_waiting": room(0, writes=writes),
                "max_batch": rng.choice((10, 100)),
                "filter": self.wanted,
            }
            self.build(**settings)
            wanted: list[bytes] = []
            taken: list[bytes] = []
            for number in range(60):
                self.act(rng, taken, settings)
                names = rng.choice((b"a", b"b", b"ab", b"ba", b"bb", b"aa"))
                lines = [b"%c v=1 %d%d" % (name, number, index) for index, name in enumerate(names)]
                wanted += [line for line in lines if line.startswith(b"a")]
                self.submit_part(b"\n".join(lines) + b"\n")
            for _ in range(1000):
                for post in self.backend.pending:
                    post.answer()
                    taken += post.body.split(b"\n")[:-1]
                if self.sender.is_idle:
                    break
                self.clock.advance(0.1)
            self.assert_idle()
            self.assertEqual(taken, wanted, f"seed {seed}")

    def act(self, rng: random.Random, taken: list[bytes], settings: dict[str, Any]) -> None:
        """Let something happen, or nothing."""
        what = rng.random()
        posts = self.backend.pending
        if what < 0.4:
            for post in posts:
                taken += post.body.split(b"\n")[:-1]
                post.answer()
        elif what < 0.6:
            for post in posts:
                post.fail()
        elif what < 0.9:
            self.clock.advance(rng.random())
        elif what < 0.95:
            self.sender.close()
            for post in posts:
                post.fail("stopped")
            self.restart(**settings)

    def submit_part(self, body: bytes) -> None:
        """Submit an acknowledged write as a fan-out does."""
        whole, client = write(body), self.new_client()
        client.decide(kept=True)
        self.journal.append(Record(client.number, client.time, whole))
        part = run(divide_write_slowly(whole, [self.wanted])).parts[self.wanted]
        if part is None:
            self.backlog.skip(whole.destination, client.number)
        else:
            self.sender.submit(part, client)
