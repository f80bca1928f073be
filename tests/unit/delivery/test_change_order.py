"""The order of changes and writes at one backend."""

from __future__ import annotations

from functools import partial
from typing import Any

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.write import STATEMENT, Reply
from influxrelay.delivery.fate import State
from influxrelay.delivery.queries import Question
from influxrelay.delivery.statements import Change, Refusal, Result, Scope, as_write
from testing.backends import FakeBackend, Post, destination, write
from testing.journals import MemoryJournal
from testing.sender_case import Client, JournalCase, KeepingCase, MemoryCase

DONE = Result(200, (), b'{"results":[{"statement_id":0}]}\n')
EXISTS = Refusal(400, (), b'{"results":[{"statement_id":0,"error":"user already exists"}]}\n')
MISSING = Refusal(404, (), b'{"results":[{"statement_id":0,"error":"database not found: db"}]}\n')
NO_DATABASE = Reply(404, ((b"X-Influxdb-Error", b"x"),), b'{"error":"database not found: \\"db\\""}\n')


class ChangingCase(KeepingCase):
    """Gives changes to a sender."""

    def change(
        self, kind: str = "DELETE", *databases: bytes, state: State = State.KEPT, journaled: bool = True
    ) -> Client:
        """Submit a change, of ``db`` if it does not say of what."""
        scope = Scope(kind, frozenset(databases or (b"db",)))
        client = self.new_client()
        client.is_journaled = journaled
        if state is not State.UNDECIDED:
            client.decide(kept=state is State.KEPT)
        return self.give(as_write(Change(Question(b"POST", b"", ()), scope, kind)), client)

    def sent(self) -> list[str]:
        """Return what is in flight: the kinds of changes, and the bodies of writes."""
        return [_shown(each) for each in self.backend.pending]

    def answer_next(self, reply: Reply | None = None) -> None:
        """Answer what is in flight, and let time pass by nothing."""
        (post,) = self.backend.pending
        post.answer(reply or (DONE if post.write.destination.kind == STATEMENT else Reply(204)))
        self.clock.advance(0)


def _shown(post: Post) -> str:
    is_change = post.write.destination.kind == STATEMENT
    return post.write.query.decode().partition("&")[0].removeprefix("kind=") if is_change else post.body.decode()


class OrderTests(MemoryCase, ChangingCase):
    """In what order things are sent."""

    def test_between_writes(self) -> None:
        """A change waits for earlier writes to its databases, and later ones wait for it; none are merged over it."""
        for body in (b"1\n", b"2\n", b"3\n"):
            self.submit(body)
        self.change()
        self.submit(b"4\n")
        self.submit(b"5\n")
        for wanted in (["1\n"], ["2\n3\n"], ["DELETE"], ["4\n5\n"]):
            self.assertEqual(self.sent(), wanted)
            self.answer_next()
        self.assert_idle()

    def test_other_databases(self) -> None:
        """Writes to other databases do not wait, and are not waited for; other changes are."""
        self.submit(b"other\n", destination(b"other"))
        self.change()
        self.change("CREATE USER", b"nothing")
        self.submit(b"more\n", destination(b"more"))
        self.assertEqual(self.sent(), ["other\n", "DELETE", "more\n"])
        self.backend.pending[1].answer(DONE)
        self.clock.advance(0)
        self.assertEqual(self.sent(), ["other\n", "more\n", "CREATE+USER"])
        for post in self.backend.pending:
            post.answer(DONE)
        self.clock.advance(0)
        self.assert_idle()

    def test_creation(self) -> None:
        """The creation of a database does not wait for writes to it, but these wait for it if they are later."""
        self.submit(b"1\n")
        self.change("CREATE DATABASE")
        self.submit(b"2\n")
        self.assertEqual(self.sent(), ["1\n", "CREATE+DATABASE"])
        self.backend.pending[0].answer()
        self.assertEqual(self.sent(), ["CREATE+DATABASE"])
        self.answer_next()
        self.assertEqual(self.sent(), ["2\n"])
        self.answer_next()
        self.assert_idle()

    def test_struck(self) -> None:
        """A change that nobody needs any more is not sent, and holds nothing back."""
        self.submit(b"1\n")
        change = self.change(state=State.UNDECIDED)
        self.submit(b"2\n")
        change.decide(kept=False)
        self.answer_next()
        self.assertEqual(self.sent(), ["2\n"])
        self.answer_next()
        self.assert_idle()

    def test_trouble(self) -> None:
        """In trouble what has waited longest and may be sent is the probe, and what may be executed is sent again."""
        self.change()
        self.submit(b"1\n")
        self.fail_request("reset")
        self.clock.advance(1)
        for wanted in (["DELETE"], ["1\n"]):
            self.assertEqual(self.sent(), wanted)
            self.answer_next()
        self.assert_idle()

    def test_server_is_gone(self) -> None:
        """A change has no limit of time, but ends when the server does not answer pings."""
        self.change()
        self.clock.advance(1000)
        self.assertEqual(self.sent(), ["DELETE"])
        self.sender.pinged(BackendFailure("timeout", "ping failed"))
        self.assertEqual(self.sent(), [])
        self.drain()

    def test_repeated(self) -> None:
        """What is refused since it exists already was executed, if an earlier request had no answer."""
        self.change("CREATE USER")
        self.fail_request("reset")
        self.clock.advance(1)
        self.answer_next(EXISTS)
        self.change("CREATE USER")
        self.answer_next(EXISTS)
        self.assertEqual(self.sender.change_outcomes, {"executed": 1, "refused": 1})
        self.assertEqual(len(self.backlog.dead_letters()), 1)
        self.assert_idle()

    def test_missing_database(self) -> None:
        """Where writes and a change wait for a database, a later statement creates it before its own turn."""
        self.submit(b"1\n")
        self.answer_next(NO_DATABASE)
        self.change()
        self.change("CREATE DATABASE")
        self.assertEqual(self.sent(), [])
        self.clock.advance(1)
        self.answer_next(NO_DATABASE)
        ((created, _),) = self.backend.created
        self.assertIn(b"CREATE+DATABASE", created.query)
        self.clock.advance(10)
        for wanted in (["1\n"], ["DELETE"], ["CREATE+DATABASE"]):
            self.assertEqual(self.sent(), wanted)
            self.answer_next()
        self.assert_idle()

    def test_waits_for_its_database(self) -> None:
        """A change of a database that is missing waits for that, and so does what is behind it."""
        self.change()
        self.answer_next(MISSING)
        self.submit(b"1\n")
        self.assertEqual(self.sender.queues.missing_databases(), {b"db"})
        self.assertTrue(self.sender.queues.are_behind())
        self.assertEqual(self.sent(), [])
        self.clock.advance(10)
        for wanted in (["DELETE"], ["1\n"]):
            self.assertEqual(self.sent(), wanted)
            self.answer_next()
        self.assert_idle()

    def test_closed(self) -> None:
        """A sender that is closed waits for no change."""
        self.change()
        waiting = self.submit(b"1\n", state=State.UNDECIDED)
        drained = self.sender.drained()
        self.assertNoResult(drained)
        self.sender.close()
        self.assertEqual(waiting.reason, "stopped")
        self.fail_request("stopped")
        self.successResultOf(drained)
        self.assert_idle()

    def test_sent_again(self) -> None:
        """A dead letter is not sent again while a change of its database waits."""
        self.change()
        problem = self.failureResultOf(self.sender.resend(write(b"again\n"))).value
        self.assertEqual(problem.reason, "behind")
        self.answer_next()
        self.sender.resend(write(b"again\n"))
        self.assertEqual(self.sent(), ["again\n"])
        self.answer_next()
        self.assert_idle()


class JournalTests(JournalCase, ChangingCase):
    """What is certain before something is sent."""

    def build(self, **settings: Any) -> None:
        """Build a sender with a journal that keeps what a test says."""
        super().build(**settings)
        self.journal = self.slow = MemoryJournal(commits_at_once=False)
        self.backlog = self.make_backlog()
        self.backend = FakeBackend()
        make = partial(type(self.sender), jitter=lambda: 0.0)
        self.sender = make(self.backend, self.clock, self.settings, self.backlog)

    def test_not_before_the_journal(self) -> None:
        """A change is not executed before it is in the journal, or it is known that it will not be."""
        for problem in ("", "disk full"):
            change = self.change(state=State.UNDECIDED, journaled=False)
            self.sender.execute_changes()
            self.assertEqual(self.sent(), [])
            change.journal_problem = problem
            change.is_journaled = not problem
            self.sender.execute_changes()
            self.assertEqual(self.sent(), ["DELETE"])
            self.answer_next()
            change.decide(kept=True)
            self.slow.commit()
            while self.slow._commits:
                self.slow.commit()
            self.clock.advance(0)

    def test_kept_before_what_is_behind(self) -> None:
        """What is behind a change is sent when it is kept that the change is passed, however often that is tried."""
        self.change()
        self.submit(b"1\n")
        self.slow.commit()
        self.slow.commit()
        self.answer_next()
        self.assertEqual(self.sent(), [])
        self.slow.commit(JournalError("disk full"))
        self.clock.advance(1)
        self.assertEqual(self.sent(), [])
        self.slow.commit()
        self.clock.advance(0)
        self.assertEqual(self.sent(), ["1\n"])
        self.answer_next()
        self.assert_idle()

    def test_restart(self) -> None:
        """Another process sends nothing to a database before it knows which changes wait."""
        self.submit(b"1\n")
        self.change()
        self.submit(b"2\n")
        for _ in range(3):
            self.slow.commit()
        self.slow.held = []
        self.restart()
        self.submit(b"3\n")
        self.slow.commit()
        self.assertEqual(self.sent(), [])
        self.slow.release()
        for wanted in (["1\n"], ["DELETE"]):
            self.clock.advance(0.1)
            self.assertEqual(self.sent(), wanted)
            self.answer_next()
        self.slow.commit()
        self.clock.advance(0.1)
        self.assertEqual(self.sent(), ["2\n3\n"])
        self.answer_next()
        self.assert_idle()
