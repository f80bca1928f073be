"""Writes that the journal could not take, for a backend that has a backlog in it."""

from __future__ import annotations

import random
from typing import Any

from influxrelay.delivery import journal_backlog
from influxrelay.delivery.fate import State
from influxrelay.journal.records import Drop
from testing.backends import destination, write
from testing.sender_case import Client, JournalCase, SenderCase, room


class UnjournaledTests(JournalCase):
    """They wait in memory, each in its turn."""

    def build(self, **settings: Any) -> None:
        """Build a sender that leaves all but a few writes to the journal."""
        self.patch(journal_backlog, "READ_AHEAD", room(0, writes=2, queues=0))
        super().build(**settings)

    def refused(self, number: int, state: State = State.KEPT, *, at_once: bool = False) -> Client:
        """Submit a write that the journal refuses, before or after the sender has it."""
        client = self.new_client()
        if at_once:
            client.not_journaled("no space left")
        SenderCase.give(self, write(b"%d\n" % number), client)
        if not at_once:
            client.not_journaled("no space left")
        self.journal.last_number = client.number  # up to there all is in the journal, or known not to be
        if state is not State.UNDECIDED:
            client.decide(kept=state is State.KEPT)
        return client

    def into_backlog(self, count: int) -> None:
        """Let writes wait in the journal."""
        for number in range(count):
            self.submit(b"%d\n" % number)
        self.fail_request()
        self.assertTrue(self.sender.queues.are_on_disk())

    def seen(self) -> list[int]:
        """Return what the backend has taken or been asked to, in order, each once."""
        return [int(each) for each in dict.fromkeys(b"".join(self.backend.bodies).split())]

    def test_in_turn(self) -> None:
        """They are sent between the writes that came before and after them."""
        self.into_backlog(10)
        self.refused(10)
        self.refused(11, at_once=True)
        self.submit(b"12\n")
        self.refused(13)
        self.drain()
        self.assertEqual((self.seen(), self.journal.drops()), ([*range(14)], []))

    def test_struck(self) -> None:
        """One of which its client is told that it is not taken is forgotten at once."""
        self.into_backlog(10)
        before = self.sender.queues.memory.size
        client = self.refused(10, State.UNDECIDED)
        self.assertGreater(self.sender.queues.memory.size, before)
        client.decide(kept=False)
        self.assertEqual(self.sender.queues.memory.size, before)
        self.submit(b"11\n")
        self.drain()
        self.assertEqual(self.seen(), [*range(10), 11])

    def test_no_room(self) -> None:
        """One for which there is no memory is lost, and counted."""
        self.into_backlog(10)
        self.sender.reconfigure(self.backend, self.settings)
        self.backlog.limit = self.sender.queues.memory.size
        for at_once in (False, True):
            self.assertEqual(self.refused(10, at_once=at_once).reason, "full")
        self.assertEqual([(each.reason, each.writes) for each in self.journal.drops()], [("full", 2)])
        self.drain()

    def test_given_up(self) -> None:
        """An operator who drops the queue drops them, too; the journal does not know of them, so they are counted."""
        self.into_backlog(10)
        self.refused(10)
        self.sender.give_up()
        self.assertEqual(self.journal.drops(), [Drop("fake", "operator", 1, 3, 11.0, 11.0)])
        self.drain()
        self.assertNotIn(10, self.seen())

    def test_closed(self) -> None:
        """At the end of the relay they are lost, and counted."""
        self.into_backlog(10)
        client = self.refused(10, State.UNDECIDED)
        self.sender.close()
        client.decide(kept=True)
        self.assertEqual([(each.reason, each.writes) for each in self.journal.drops()], [("full", 1)])
        self.assert_idle()

    def test_older_ones_dropped(self) -> None:
        """Where a limit costs the journal what was before them they are the next ones."""
        self.into_backlog(10)
        self.refused(10)
        self.submit(b"11\n")
        for number in range(1, 11):
            self.journal.records.pop(number, None)
        self.backlog.forget(destination(), 11)
        self.drain()
        self.assertEqual(self.seen()[-2:], [10, 11])

    def test_any_order(self) -> None:
        """Whatever the journal refuses, and whenever the backend fails, all arrives in order."""
        for seed in range(200):
            rng = random.Random(seed)
            self.number = 0
            self.build(max_batch=rng.choice((2, 6, 100)))
            count = rng.randrange(5, 40)
            for number in range(count):
                if rng.random() < 0.4:
                    self.refused(number, at_once=rng.random() < 0.5)
                else:
                    self.submit(b"%d\n" % number)
                for post in self.backend.pending if rng.random() < 0.3 else ():
                    if rng.random() < 0.6:
                        post.fail("refused")
                    else:
                        post.answer()
                self.clock.advance(rng.choice((0, 0.01, 0.5)))
            self.drain()
            self.assertEqual((self.seen(), self.journal.drops()), ([*range(count)], []), seed)
