"""Requests of one relay to another, and the answers.

Neither is stored. A request that is lost, or its answer, fails for who has asked; it may have been done all the same.

A message is a line of JSON and a piece of the request, or the whole answer. The line has the ``id`` of the request, and
of a request also who asks (``relay``), the number of the ``piece`` and how many ``pieces`` there are.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.journal.shared.committer import MESSAGE
from influxrelay.journal.shared.frames import cut
from influxrelay.journal.shared.interface import Engine, Watch

LOOK = 0.5  # seconds between two looks whether the other relay is still the right one
PATIENCE = 60.0  # seconds for an answer; a backend may take long, and what it is compared with may be behind
MOST = 64  # requests whose pieces have not all come


@attrs.frozen
class _Asked:
    """A request that has no answer yet."""

    answer: Deferred[bytes]
    relay: str
    is_gone: Callable[[], bool]
    until: float


class RelayRequests:
    """Asks other relays, and answers them.

    :param relay: the own name in the group.
    """

    _log = Logger()

    def __init__(self, reactor: Any, engine: Engine, relay: str) -> None:
        self._reactor = reactor
        self._engine = engine
        self._relay = relay
        self._do: Callable[[bytes], Awaitable[bytes]] | None = None
        self._count = 0
        self._asked: dict[str, _Asked] = {}
        self._coming: dict[str, dict[int, bytes]] = {}  # requests of which some pieces have come, the oldest first
        self._watches: list[Watch] = []
        self._timer: Any = None

    async def open(self) -> None:
        """Take what others send."""
        self._watches = [
            self._engine.subscribe(self._subject(kind, self._relay), partial(self._came, take))
            for kind, take in (("request", self._request_came), ("answer", self._answer_came))
        ]
        for each in self._watches:
            await each.in_sync

    def close(self) -> None:
        """Take nothing more, and wait for nothing more."""
        for each in self._watches:
            each.stop()
        for name in list(self._asked):
            self._fail(name, "this relay is stopping")

    def _subject(self, kind: str, relay: str) -> str:
        return f"{self._engine.name}.{kind}.{relay}"

    def _send(self, kind: str, relay: str, head: dict[str, Any], piece: bytes) -> None:
        self._engine.send(self._subject(kind, relay), json.dumps(head).encode() + b"\n" + piece)

    # -- asking

    def ask(self, relay: str, payload: bytes, is_gone: Callable[[], bool]) -> Deferred[bytes]:
        """Ask another relay; fails with a :class:`JournalError` if there is no answer.

        :param is_gone: tells whether it is no longer the one to be asked.
        """
        self._count += 1
        name = f"{self._relay}.{self._count}"
        answer: Deferred[bytes] = Deferred()
        self._asked[name] = _Asked(answer, relay, is_gone, self._reactor.seconds() + PATIENCE)
        pieces = cut(payload, MESSAGE)
        for number, piece in enumerate(pieces):
            head = {"id": name, "relay": self._relay, "piece": number, "pieces": len(pieces)}
            self._send("request", relay, head, piece)
        self._later()
        return answer

    def _later(self) -> None:
        if self._asked and (self._timer is None or not self._timer.active()):
            self._timer = self._reactor.callLater(LOOK, self._look)

    def _look(self) -> None:
        for name, asked in list(self._asked.items()):
            if asked.is_gone():
                self._fail(name, f"relay {asked.relay} does not deliver to it any more; try again")
            elif self._reactor.seconds() >= asked.until:
                self._fail(name, f"no answer from relay {asked.relay}")
        self._later()

    def _fail(self, name: str, why: str) -> None:
        self._asked.pop(name).answer.errback(Failure(JournalError(why)))
        if not self._asked and self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _answer_came(self, head: dict[str, Any], payload: bytes) -> None:
        asked = self._asked.pop(head["id"], None)
        if asked is not None:
            asked.answer.callback(payload)

    # -- answering

    def answer_by(self, do: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Have requests of others done by this, which returns the answer and does not raise."""
        self._do = do

    def _came(self, take: Callable[[dict[str, Any], bytes], None], message: bytes) -> None:
        line, _, payload = message.partition(b"\n")
        try:
            take(json.loads(line), payload)
        except (ValueError, TypeError, LookupError) as error:
            self._log.error("{place}: a message of another relay: {error!r}", place=self._engine.place, error=error)

    def _request_came(self, head: dict[str, Any], payload: bytes) -> None:
        name, relay, pieces = head["id"], str(head["relay"]), int(head["pieces"])
        come = self._coming.setdefault(name, {})
        come[int(head["piece"])] = payload
        if len(come) < pieces:
            while len(self._coming) > MOST:
                del self._coming[next(iter(self._coming))]
            return
        del self._coming[name]
        if self._do is not None:
            request = b"".join(come[each] for each in range(pieces))
            answered = Deferred.fromCoroutine(self._answer(self._do, name, relay, request))
            answered.addErrback(lambda failure: self._log.failure("a request of relay {relay}", failure, relay=relay))

    async def _answer(self, do: Callable[[bytes], Awaitable[bytes]], name: str, relay: str, request: bytes) -> None:
        self._send("answer", relay, {"id": name}, await do(request))
