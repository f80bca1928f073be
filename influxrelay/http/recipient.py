"""Who gets what a backend says: a client, or the relay itself, which makes something of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IPushProducer

from influxrelay.core.write import Reply


class Recipient(Protocol):
    """What a question is answered to; a client's :class:`~influxrelay.http.request.Request` is one."""

    @property
    def connection(self) -> object | None:
        """What the questions of one connection have in common; None if the client has gone."""

    def on_leave(self, call: Callable[[], None]) -> None:
        """Call this once if nobody wants the answer any more."""

    def respond(self, reply: Reply) -> None:
        """Take an answer in one piece."""

    def refuse(self, reply: Reply) -> None:
        """Take an answer of the relay, which has asked nobody."""

    def begin(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        """Take the head of an answer in pieces."""

    def register_producer(self, producer: IPushProducer) -> None:
        """Know whom to pause."""

    def unregister_producer(self) -> None:
        """Forget whom to pause."""

    def write(self, data: bytes) -> None:
        """Take a piece."""

    def flush(self) -> None:
        """Hold nothing back of what has been taken."""

    def finish(self) -> None:
        """Know that the answer is complete."""

    def abort(self) -> None:
        """Know that the rest of the answer does not come."""
