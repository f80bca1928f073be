"""Pings: how backends are while no writes tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery.responses import Verdict, excerpt, judge
from influxrelay.delivery.sender import Sender

INTERVAL = 2.0  # seconds


class Prober:
    """Asks each backend that has answered no write since the last look whether it lives.

    :param senders: returns them as they are now.
    """

    _log = Logger()

    def __init__(self, senders: Callable[[], Iterable[Sender]], reactor: Any) -> None:
        self._senders = senders
        self._reactor = reactor
        self._timer: IDelayedCall | None = None
        self._seen: dict[Sender, int] = {}
        self._under_way: set[Sender] = set()

    def start(self) -> None:
        """Look at once, and then again and again."""
        self._look()

    def stop(self) -> None:
        """Ask no more; what a ping under way brings is dropped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._reactor.callLater(INTERVAL, self._look)
        before, self._seen = self._seen, {}
        for sender in self._senders():
            answers = self._seen[sender] = sender.requests.answered
            if before.get(sender, answers) == answers:
                if sender not in self._under_way:
                    Deferred.fromCoroutine(self._ping(sender)).addErrback(self._bug, sender)
            elif sender.status.trouble is None:
                sender.pinged(None)  # a write has told that it lives

    async def _ping(self, sender: Sender) -> None:
        answers, backend = sender.requests.answered, sender.backend
        self._under_way.add(sender)
        try:
            problem = _judge(await backend.ping())
        except BackendFailure as failure:
            problem = BackendFailure(failure.reason, f"ping failed: {failure.detail}")
        finally:
            self._under_way.discard(sender)
        is_news = (sender.requests.answered, sender.backend) == (answers, backend)  # else more is known
        if self._timer is not None and is_news:
            sender.pinged(problem)

    def _bug(self, failure: Failure, sender: Sender) -> None:
        self._log.failure("unexpected error in a ping of {backend}", failure, backend=sender.name)


def _judge(reply: Reply) -> BackendFailure | None:
    """Read an answer: whoever says 5xx, or "not now", is not well; to be asked for a password is to be answered."""
    if reply.status < 400 or (reply.status < 500 and judge(reply) is not Verdict.NOT_NOW):
        return None
    return BackendFailure(str(reply.status), f"answered the ping with {excerpt(reply)}", reply)
