"""What one relay asks another."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from influxrelay.core.errors import JournalError
from influxrelay.journal.shared.committer import MESSAGE
from influxrelay.journal.shared.relay_requests import MOST, PATIENCE
from testing.logs import watch_log
from testing.memory_watches import MESSAGE as SENT
from testing.shared_journals import GroupCase, Relay


async def backwards(request: bytes) -> bytes:
    """Answer with the request from its end to its beginning."""
    return request[::-1]


class RequestTests(GroupCase):
    """Questions and answers."""

    def setUp(self) -> None:
        """Start two relays."""
        super().setUp()
        self.one, self.two = self.relay("ra"), self.relay("rb")
        self.two.journal.answer_by(backwards)

    def ask(
        self, request: bytes, relay: Relay | None = None, is_gone: Callable[[], bool] = lambda: False
    ) -> Deferred[bytes]:
        """Ask the second relay."""
        return (relay or self.one).journal.ask("rb", request, is_gone)

    def problem(self, asked: Deferred[bytes]) -> str:
        """Return why there is no answer."""
        try:
            self.result(asked, 2 * PATIENCE)
        except JournalError as error:
            return str(error)
        raise AssertionError("there is an answer")

    def test_answered(self) -> None:
        """Each request gets its own answer, however large it is, and also one relay's from itself."""
        large = bytes(range(251)) * (2 * MESSAGE // 251)
        asked = [self.ask(each) for each in (b"abc", b"", large)]
        self.assertEqual([self.result(each) for each in asked], [b"cba", b"", large[::-1]])
        self.assertEqual(self.result(self.ask(b"abc", self.two)), b"cba")

    def test_nobody(self) -> None:
        """A relay that is not there does not answer, nor one that answers nobody."""
        self.assertEqual(self.problem(self.one.journal.ask("rc", b"a", lambda: False)), "no answer from relay rc")
        self.assertEqual(self.problem(self.two.journal.ask("ra", b"a", lambda: False)), "no answer from relay ra")

    def test_lost(self) -> None:
        """A request of which a piece is lost is not done, and is forgotten when there are many of them."""
        for _ in range(MOST + 1):
            self.cluster.lose(SENT)
            self.ask(bytes(MESSAGE + 1)).addErrback(lambda _: None)
            self.later()
        self.assertLessEqual(len(self.two.journal._requests._coming), MOST)
        self.assertEqual(self.result(self.ask(b"abc")), b"cba")

    def test_gone(self) -> None:
        """Nobody waits for a relay that is no longer to be asked, or at a relay that stops."""
        self.kill(self.two)
        gone: list[int] = []
        asked, more = self.ask(b"a", is_gone=lambda: bool(gone)), self.ask(b"b")
        self.later(5)
        self.assertNoResult(asked)
        gone.append(1)
        self.assertIn("relay rb does not deliver to it any more", self.problem(asked))
        self.result(self.one.journal.stop(5.0))
        self.assertEqual(self.problem(more), "this relay is stopping")

    def test_nonsense(self) -> None:
        """What makes no sense is logged, and what comes then is answered."""
        logged = watch_log(self)
        for message in (b"", b"{}\n", b"[1]\n", b"\xff\nabc"):
            self.one.engine.send(f"{self.one.engine.name}.request.rb", message)
        self.later()
        self.assertEqual([each.split(": ")[1] for each in logged], ["a message of another relay"] * 4)
        self.assertEqual(self.result(self.ask(b"abc")), b"cba")
