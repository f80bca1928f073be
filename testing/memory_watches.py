"""What is handed out as it comes, by the system that keeps a shared log in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from testing.memory_store import Kept, Values

if TYPE_CHECKING:
    from testing.memory_stream import MemoryEngine

REQUEST, ANSWER, PUSH, MESSAGE = "request", "answer", "push", "message"
"""What travels: to the cluster, its answer, what a watch hands out, and what is sent without being stored."""


class Watching:
    """Hands out what is stored."""

    def __init__(
        self,
        engine: MemoryEngine,
        source: Kept | Values,
        position: int,
        find: Callable[[int, int], Iterable[tuple[int, Callable[[], None]]]],
    ) -> None:
        self.in_sync: Deferred[None] = Deferred()
        self._engine = engine
        self._source = source
        self._position = position
        self._find = find
        self._target: int | None = None
        self._stopped = False
        engine.watches.append(self)
        source.followers.append(self)
        self.changed()

    def stop(self) -> None:
        """Hand out nothing more."""
        if not self._stopped:
            self._stopped = True
            self._engine.watches.remove(self)
            self._source.followers.remove(self)

    def changed(self) -> None:
        """Send what is new."""
        self._engine.travel(PUSH, partial(self._hand_out, self._source.last))

    def _hand_out(self, upto: int) -> None:
        if self._target is None:
            self._target = upto
        for position, give in list(self._find(self._position, upto)):
            if self._stopped:
                return
            self._position = position
            give()
        self._position = max(self._position, upto)
        if not self._stopped and not self.in_sync.called and self._position >= self._target:
            self.in_sync.callback(None)


class Subscription:
    """Hands out what is sent to a subject."""

    def __init__(self, engine: MemoryEngine, subject: str, on_payload: Callable[[bytes], None]) -> None:
        self.engine = engine
        self.subject = subject
        self.in_sync: Deferred[None] = Deferred()
        self._on_payload = on_payload
        self._stopped = False
        engine.watches.append(self)
        self.changed()

    def changed(self) -> None:
        """Let the cluster know, if it does not; again and again as long as it does not say so."""
        self.engine.travel(REQUEST, self._begin)
        self.engine.clock.callLater(self.engine.attempt, self._look)

    def _look(self) -> None:
        if not self._stopped and not self.in_sync.called:
            self.changed()

    def hand_out(self, payload: bytes) -> None:
        """Give a payload to whoever wants it."""
        if not self._stopped:
            self._on_payload(payload)

    def stop(self) -> None:
        """Hand out nothing more."""
        if not self._stopped:
            self._stopped = True
            self.engine.watches.remove(self)
            if self in self.engine.cluster.subscriptions:
                self.engine.cluster.subscriptions.remove(self)

    def _begin(self) -> None:
        if self._stopped:
            return
        if self not in self.engine.cluster.subscriptions:
            self.engine.cluster.subscriptions.append(self)
        self.engine.travel(ANSWER, self._begun)

    def _begun(self) -> None:
        if not self.in_sync.called:
            self.in_sync.callback(None)
