"""The line between the supervisor and a worker: both ask, both answer.

Each message is one line of JSON: a question ``{"ask": 1, "what": {...}}``, and for it any number of ``{"to": 1,
"progress": [1, 2]}``, then one ``{"to": 1, "result": ...}`` or ``{"to": 1, "error": "..."}``. A line ``{}`` asks for
nothing: it says that its sender is well.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from influxrelay.errors import JournalError
from influxrelay.report import Refused

Progress = Callable[[int, int], None]
"""Is told how many are done, of how many."""

Answer = Callable[[dict[str, Any], Progress], Awaitable[Any]]


class NoAnswer(Refused):
    """The other end has gone, or is silent."""


@implementer(IFileDescriptorReceiver)
class Channel(LineOnlyReceiver):
    """One end.

    :param answer: returns what JSON can say, for a question of the other end.
    :ivar fds: that have come with a question; whoever answers it takes them.
    :ivar heard: is called with each message of the other end.
    :ivar lost: is called when the other end has gone.
    """

    _log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = 2**30  # both ends are ours
    transport: Any

    def __init__(self, answer: Answer, heard: Callable[[], None], lost: Callable[[], None]) -> None:
        self._answer = answer
        self.heard = heard
        self.lost = lost
        self.fds: list[int] = []
        self._numbers = count()
        self._asked: dict[int, tuple[Deferred[Any], Progress | None]] = {}

    def ask(self, what: dict[str, Any], progress: Progress | None = None, fds: Iterable[int] = ()) -> Deferred[Any]:
        """Ask the other end; fails with :class:`Refused` if that says so, and with :class:`NoAnswer` if it goes.

        :param fds: to pass with the question.
        """
        for fd in fds:
            self.transport.sendFileDescriptor(fd)
        number = next(self._numbers)

        def forget(_: Deferred[Any]) -> None:
            del self._asked[number]

        answered: Deferred[Any] = Deferred(forget)
        self._asked[number] = answered, progress
        self._send({"ask": number, "what": what})
        return answered

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Keep a descriptor for the question that comes with it."""
        self.fds.append(descriptor)

    def is_well(self) -> None:
        """Tell the other end that this one is well."""
        self._send({})

    def lineReceived(self, line: bytes) -> None:
        """Take a message."""
        self.heard()
        message = json.loads(line)
        if "ask" in message:
            done = Deferred.fromCoroutine(self._reply(message["ask"], message["what"]))
            done.addErrback(lambda failure: self._log.failure("a question of another process", failure))
        elif message.get("to") in self._asked:
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        answered, progress = self._asked[message["to"]]
        if "progress" in message:
            if progress is not None:
                progress(*message["progress"])
            return
        del self._asked[message["to"]]
        if "error" in message:
            answered.errback(Refused(message["error"]))
        else:
            answered.callback(message["result"])

    async def _reply(self, number: int, what: dict[str, Any]) -> None:
        try:
            result = await self._answer(what, lambda *done: self._send({"to": number, "progress": done}))
        except (Refused, JournalError) as error:
            self._send({"to": number, "error": str(error)})
        except Exception as error:
            self._send({"to": number, "error": f"it has failed in this: {error!r} (see the log)"})
            raise
        else:
            self._send({"to": number, "result": result})

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 (Twisted's)
        """Answer for the other end, which has gone."""
        asked, self._asked = self._asked, {}
        for answered, _ in asked.values():
            answered.errback(NoAnswer("has ended"))
        self.lost()

    def _send(self, message: dict[str, Any]) -> None:
        self.sendLine(json.dumps(message).encode())
