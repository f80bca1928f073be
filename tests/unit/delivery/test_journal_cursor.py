"""How far a backend has read a journal, and a random backlog read in pages."""

from __future__ import annotations

import random
from typing import Any

from influxrelay.core.write import Destination
from influxrelay.delivery import journal_backlog
from influxrelay.delivery.fate import State
from influxrelay.delivery.parts import divide_write_slowly
from influxrelay.journal.records import Record
from influxrelay.lineprotocol.filters import Filter
from influxrelay.lineprotocol.scanner import run
from testing.backends import BAD, BROKEN, MISSING, OK, destination, write
from testing.sender_case import SMALL, Client, JournalCase, room


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

    def test_give_up_in_flight(self) -> None:
        """What is in flight then is counted by the journal, too: if it fails it is not sent again."""
        for limit in (SMALL, 1024 * 1024):
            self.build(max_waiting=limit)
            client = self.submit(b"0\n", state=State.UNDECIDED)
            self.submit(b"1\n")
            self.sender.give_up()
            self.fail_request()
            self.assertEqual(client.reason, "refused")
            self.submit(b"2\n")
            self.drain()
            self.assertEqual(self.backend.bodies, [b"0\n", b"2\n"])
            self.assert_left()


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
