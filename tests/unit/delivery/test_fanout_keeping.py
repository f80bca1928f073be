"""Which writes are kept for backends, and what filters leave of them."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.replies import UNABLE
from influxrelay.core.write import Reply, Write
from influxrelay.delivery.fate import Fate, State
from influxrelay.lineprotocol.filters import Filter
from testing.backends import destination, write
from testing.fanout import WRITE, failure, fan_out
from testing.journals import MemoryJournal
from testing.senders import FakeSender


class KeptTests(SynchronousTestCase):
    """What is kept, and when the client is told, with queues."""

    def build(self, count: int = 2, *, journal: bool = True, **settings: Any) -> None:
        """Build a fan-out to senders with a backlog."""
        self.senders = [FakeSender(f"sender{number}", keeps=True) for number in range(count)]
        self.journal = MemoryJournal(41, commits_at_once=False)
        self.relay = fan_out(self.senders, journal=self.journal if journal else None, **settings)

    def submit(self, consistency: str = "") -> list[Reply]:
        """Submit a write; return where the answers will be."""
        told: list[Reply] = []
        self.relay.submit(WRITE, consistency).addCallback(told.append)
        return told

    def state(self) -> State:
        """Return what is decided of the last write."""
        return self.senders[0].fates[-1].state

    def test_in_memory(self) -> None:
        """Without a journal the write is kept or struck in the moment in which the client is told."""
        for outcome, state in ((Reply(204), State.KEPT), (Reply(400), State.STRUCK)):
            self.build(journal=False)
            told = self.submit()
            self.assertEqual(self.state(), State.UNDECIDED)
            self.senders[1].settle(outcome)
            self.assertEqual((told, self.state()), ([outcome], state))
        self.submit()
        self.assertEqual([fate.number for fate in self.senders[0].fates], [1, 2])
        self.assertEqual(self.senders[0].taken, [WRITE] * 2)

    def test_taken(self) -> None:
        """A 204 is given when a backend has the write and it is committed, whichever is first."""
        for commit_first in (False, True):
            self.build()
            told = self.submit()
            steps = [lambda: self.senders[0].settle(Reply(204)), self.journal.commit]
            for step in reversed(steps) if commit_first else steps:
                self.assertEqual(told, [])
                step()
            self.assertEqual((told, self.state()), ([Reply(204)], State.KEPT))
            (record,) = self.journal.appended
            self.assertEqual((record.seq, record.time, record.write), (42, 7.0, WRITE))
            self.assertEqual((self.journal.last_number, self.journal.struck), (42, []))

    def test_refused(self) -> None:
        """A 4xx or 5xx is given when the write is struck from the journal for certain, or that has failed."""
        for problem in (None, JournalError("disk")):
            for outcome in (Reply(400), failure(500)):
                self.build(1)
                told = self.submit()
                self.senders[0].settle(outcome)
                self.assertEqual((told, self.journal.struck), ([], []))
                self.journal.commit()
                self.assertEqual((told, self.journal.struck, self.state()), ([], [42], State.STRUCK))
                self.journal.commit(problem)
                self.assertEqual(len(told), 1)

    def test_dead_letter_first(self) -> None:
        """A dead letter of another backend is with the journal before the 204 is given."""
        self.build()
        told = self.submit()
        buried: list[int] = []
        self.senders[1].fates[0].when_decided(lambda fate: buried.append(len(told)))
        self.senders[0].settle(Reply(204))
        self.journal.commit()
        self.assertEqual((told, buried), ([Reply(204)], [0]))

    def test_submitted_within_a_submission(self) -> None:
        """A client that writes again when it is told, within another write's submission, comes behind that one."""
        self.build()
        order: list[bytes] = []
        first = self.senders[0].submit

        def submit(write: Write, fate: Fate) -> bool:
            if write.body == b"outer 1\n":
                self.relay.submit(Write(write.destination, write.query, b"", b"inner 1\n"))
            order.append(write.body)
            return first(write, fate)

        self.patch(self.senders[0], "submit", submit)
        self.relay.submit(Write(WRITE.destination, b"db=db", b"", b"outer 1\n"))
        self.assertEqual(order, [b"outer 1\n", b"inner 1\n"])

    def test_mistake_within_a_submission(self) -> None:
        """A mistake of ours in one submission fails that one, and not the next."""
        self.build()
        self.patch(self.journal, "append", lambda record: 1 / 0)
        failed = self.relay.submit(WRITE)
        self.failureResultOf(failed, ZeroDivisionError)
        del self.journal.append
        told = self.submit()
        self.senders[0].settle(Reply(204))
        self.journal.commit()
        self.assertEqual(told, [Reply(204)])

    def test_sender_that_raises(self) -> None:
        """A mistake in one sender fails the write for that one, and not for the others."""
        self.build()
        self.patch(self.senders[0], "submit", lambda *_: 1 / 0)
        told = self.submit("all")
        self.senders[1].settle(Reply(204))
        self.journal.commit()
        self.journal.commit()
        self.assertIn(b"(sender0: error)", told[0].body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_journal_fails(self) -> None:
        """Where the journal fails, a write that a backend has is acknowledged; who counted on the disk is told."""
        self.build()
        self.senders[1].relies = True
        told = self.submit()
        self.journal.commit(JournalError("disk"))
        self.assertEqual((self.senders[0].unjournaled, self.senders[1].unjournaled), ([], self.senders[1].fates))
        self.senders[0].settle(Reply(204))
        self.assertEqual((told, self.state(), self.journal.struck), ([Reply(204)], State.KEPT, []))

    def test_journal_fails_and_refuses(self) -> None:
        """Where writes must be journaled, one that cannot be is answered 503, and struck."""
        self.build(refuse_unjournaled=True)
        told = self.submit()
        self.senders[0].settle(Reply(204))
        self.journal.commit(JournalError("disk"))
        self.assertEqual((told[0].status, self.state()), (503, State.STRUCK))
        self.assertEqual(json.loads(told[0].body), {"error": "unable to journal the write: disk"})

    def test_journal_fails_and_backends_too(self) -> None:
        """Where the journal and the backends fail, the client gets the backends' answer."""
        for settings in ({}, {"refuse_unjournaled": True}):
            self.build(1, **settings)
            told = self.submit()
            self.senders[0].settle(Reply(400))
            self.journal.commit(JournalError("disk"))
            self.assertEqual((told, self.state()), ([Reply(400)], State.STRUCK))

    def test_journal_first(self) -> None:
        """Where the journal comes first, no backend gets a write before its commit, nor out of order."""
        self.build(consistency="any", journal_first=True)
        told = [self.submit(), self.submit()]
        handed = self.relay.handed_out()
        self.assertEqual((self.senders[0].fates, told, len(self.journal.appended)), ([], [[], []], 2))
        self.journal.commit()
        self.assertEqual(([fate.number for fate in self.senders[1].fates], told), ([42], [[Reply(204)], []]))
        self.assertNoResult(handed)
        self.journal.commit()
        self.assertEqual(([fate.number for fate in self.senders[1].fates], told), ([42, 43], [[Reply(204)]] * 2))
        self.successResultOf(handed)
        self.successResultOf(self.relay.handed_out())

    def test_journal_first_fails(self) -> None:
        """Where the journal comes first and fails, the backends get the write, and who counted on the disk is told."""
        self.build(consistency="any", journal_first=True)
        self.senders[1].relies = True
        told = self.submit()
        handed = self.relay.handed_out()
        self.journal.commit(JournalError("disk"))
        self.successResultOf(handed)
        self.assertEqual((self.senders[0].unjournaled, self.senders[1].unjournaled), ([], self.senders[1].fates))
        self.assertEqual((told, len(self.senders[0].fates)), ([], 1))
        self.senders[0].settle(Reply(204))
        self.assertEqual((told, self.state()), ([Reply(204)], State.KEPT))

    def test_journal_first_in_order(self) -> None:
        """A write that the journal refuses while earlier ones wait for it does not get to the senders before them."""
        self.build(consistency="any", journal_first=True)
        self.submit()
        handed = self.relay.handed_out()
        self.submit()
        self.journal.commit(JournalError("disk"), last=True)
        self.assertEqual(self.senders[0].fates, [])
        self.assertNoResult(handed)
        self.journal.commit(JournalError("disk"))
        self.assertEqual([fate.number for fate in self.senders[0].fates], [42, 43])
        self.successResultOf(handed)
        self.successResultOf(self.relay.handed_out())

    def test_any(self) -> None:
        """With ``any`` a committed write is acknowledged before any backend has answered."""
        self.build()
        told = self.submit("any")
        self.assertEqual(told, [])
        self.journal.commit()
        self.assertEqual((told, self.state()), ([Reply(204)], State.KEPT))
        self.senders[0].settle(Reply(400))
        self.senders[1].settle(failure())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_any_with_a_failed_commit(self) -> None:
        """With ``any`` a commit that fails acknowledges nothing: the backends decide."""
        self.build()
        told = self.submit("any")
        self.journal.commit(JournalError("disk"))
        self.assertEqual(told, [])
        self.senders[0].settle(failure())
        self.assertEqual(told, [])
        self.senders[1].settle(Reply(204))
        self.assertEqual(told, [Reply(204)])

    def test_any_and_nothing_works(self) -> None:
        """With ``any`` and neither journal nor backends the client gets 503."""
        self.build(1)
        told = self.submit("any")
        self.journal.commit(JournalError("disk"))
        self.senders[0].settle(failure())
        self.assertEqual((told, self.state()), ([UNABLE], State.STRUCK))

    def test_any_in_memory(self) -> None:
        """With ``any`` and queues in memory the client is told at once, unless one of them has refused the write."""
        self.build(journal=False)
        self.assertEqual(self.submit("any"), [Reply(204)])
        self.build(journal=False)
        self.senders[0].at_once, self.senders[0].takes = failure(reason="full"), False
        told = self.submit("any")
        self.assertEqual(told, [])
        self.senders[1].settle(failure())
        self.assertEqual((told, self.state()), ([UNABLE], State.STRUCK))

    def test_any_without_queues_everywhere(self) -> None:
        """With ``any`` and a backend that has no queue, a backend has to take the write."""
        self.build(journal=False)
        bare = FakeSender()
        self.relay = fan_out([*self.senders, bare])
        told = self.submit("any")
        self.assertEqual(told, [])
        bare.settle(Reply(204))
        self.assertEqual(told, [Reply(204)])

    def test_quorum_with_a_journal(self) -> None:
        """With ``all`` a write that one backend has and another has not is struck when the client is told so."""
        self.build(consistency="all")
        told = self.submit()
        self.senders[0].settle(Reply(204))
        self.senders[1].settle(failure())
        self.journal.commit()
        self.journal.commit()
        self.assertEqual(([reply.status for reply in told], self.state()), ([503], State.STRUCK))


class FilterTests(SynchronousTestCase):
    """Who has a part in a write, and what the client is told."""

    def build(self, *expressions: str | None) -> None:
        """Build a relay to senders, each with a filter or none."""
        self.senders = [
            FakeSender(f"sender{number}", wanted=None if expression is None else Filter([expression], []))
            for number, expression in enumerate(expressions)
        ]
        self.relay = fan_out(self.senders)

    def submit(self, body: bytes, consistency: str = "") -> list[Reply]:
        """Submit a write; return where the answers will be."""
        told: list[Reply] = []
        self.relay.submit(write(body), consistency).addCallback(told.append)
        return told

    def bodies(self) -> list[list[bytes]]:
        """Return what each sender was given."""
        return [[each.body for each in sender.taken] for sender in self.senders]

    def test_parts(self) -> None:
        """Each backend gets its lines; those with the same filter get the same object."""
        self.build("a", None, "b", "a")
        body = b"a v=1 1\nb v=1 2\na v=1 3\n"
        self.submit(body)
        part = b"a v=1 1\na v=1 3\n"
        self.assertEqual(self.bodies(), [[part], [body], [b"b v=1 2\n"], [part]])
        self.assertIs(self.senders[0].taken[0], self.senders[3].taken[0])
        self.assertEqual(self.senders[0].taken[0].destination, destination())
        self.assertEqual(self.relay.lines_unwanted, 0)

    def test_no_part(self) -> None:
        """A backend for which nothing is left is neither asked nor waited for, whatever the consistency."""
        for consistency in ("one", "quorum", "all", "any"):
            self.build("a", "b", "a")
            told = self.submit(b"a v=1 1\n", consistency)
            self.assertEqual([len(each) for each in self.bodies()], [1, 0, 1])
            self.senders[0].settle(Reply(204))
            self.senders[2].settle(Reply(204))
            self.assertEqual([each.status for each in told], [204])
        self.build("a", "b")
        told = self.submit(b"b v=1 1\n", "all")
        self.senders[1].settle(BackendFailure("refused", "x"))
        self.assertIn(b"(sender1: refused)", told[0].body)

    def test_for_nobody(self) -> None:
        """A write of which no backend takes a line is answered 204, and its lines are counted."""
        for consistency in ("one", "all"):
            self.build("a", "b")
            self.assertEqual(self.submit(b"c v=1 1\nd v=1 1\n", consistency), [Reply(204)])
            self.assertEqual(self.bodies(), [[], []])
            self.assertEqual(self.relay.lines_unwanted, 2)
        self.submit(b"c v=1 1\na v=1 1\n")
        self.assertEqual(self.relay.lines_unwanted, 3)
        self.assertEqual(self.bodies(), [[b"a v=1 1\n"], []])

    def test_changed(self) -> None:
        """Filters that are replaced hold for the writes that follow."""
        self.build("a", None)
        self.submit(b"b v=1 1\n")
        self.senders[0].filter = Filter(["b"], [])
        self.relay.reconfigure("test", self.relay.senders, consistency="one")
        self.submit(b"b v=1 2\na v=1 2\n")
        self.senders[0].filter = None
        self.relay.reconfigure("test", self.relay.senders, consistency="one")
        self.submit(b"c v=1 3\n")
        self.assertEqual(self.bodies()[0], [b"b v=1 2\n", b"c v=1 3\n"])
