"""What clients can make a listener hold: connections, memory, time."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Any, Protocol

import attrs
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from influxrelay.core.log_throttle import Throttle

SLOWEST = 1000  # bytes a second that a body has to make in the long run
UNREAD = 30.0  # seconds for which a client may leave an answer unread
CLOSING = 15.0  # seconds for which the end of a connection may take
_LOOK = 1.0  # seconds between two looks at the clients
_SHED = 32  # the part of the connections that goes at once when there are too many: looking for them has a price
_RELIEF = 8  # the part of the memory that is to be free afterwards


@attrs.frozen
class ClientLimits:
    """The bounds of one listener.

    :ivar connections: of clients at a time, at least 1.
    :ivar in_flight: bytes of bodies that are being received, or whose writes are not answered yet.
    :ivar header_timeout: seconds from a connection, or from the first byte of a later request, to the end of the head.
    :ivar body_timeout: seconds for a body, and one more for each :data:`SLOWEST` bytes of it.
    :ivar idle_timeout: seconds that a connection may wait for its next request.
    """

    connections: int = 4000
    in_flight: int = 32 * 1024 * 1024
    header_timeout: float = 10.0
    body_timeout: float = 20.0
    idle_timeout: float = 180.0


class Doing(Enum):
    """What a client's connection is about; the values are the reasons for which one is closed."""

    IDLE = "idle-timeout"
    HEAD = "header-timeout"
    BODY = "body-timeout"
    ANSWER = "answer"
    UNREAD = "unread"
    CLOSING = "closing"


class Client(Protocol):
    """A connection as the guard sees it.

    :ivar answered: how many answers it got.
    :ivar seen: what the guard saw at its last look: what the connection was about, and :attr:`answered`.
    :ivar since: since when that has been so, in seconds of the reactor's clock.
    """

    answered: int
    seen: tuple[Doing, int]
    since: float

    def doing(self) -> Doing:
        """Tell what the connection is about."""

    def body_size(self) -> int:
        """Return how many bytes of a body have come."""

    def expire(self, doing: Doing) -> None:
        """End the connection, for it has been about this for too long."""

    def cut(self) -> None:
        """Break the connection."""


class Upload(Protocol):
    """A request whose body is not complete."""

    counted: int

    def refuse_for_memory(self) -> None:
        """Answer 503 and let go of what has come of the body."""


class Guard:
    """Keeps one listener's clients within its :class:`ClientLimits`.

    There is no timer for each connection: all of them are looked at once a second. The counters are plain attributes,
    read by whoever reports them.

    :ivar name: the listener's, for the log.
    :ivar limits: what holds now; the next look and the next connection find it.
    :ivar clients: the connections that are open, the oldest first.
    :ivar uploads: requests of which a part of the body has come.
    :ivar held: bytes in flight.
    :ivar accepted: connections so far.
    :ivar closed: connections that were closed by the reason: ``full`` and the values of :class:`Doing`.
    """

    _log = Logger()

    def __init__(self, limits: ClientLimits, reactor: Any) -> None:
        self.name = ""
        self.limits = limits
        self.clients: dict[Client, None] = {}
        self.uploads: set[Upload] = set()
        self.held = 0
        self.accepted = 0
        self.closed: Counter[str] = Counter(full=0, **{each.value: 0 for each in Doing if each is not Doing.ANSWER})
        self._reactor = reactor
        self._next_look: IDelayedCall | None = None
        self._full, self._heavy = Throttle(reactor), Throttle(reactor)

    # -- connections

    def admit(self, client: Client) -> None:
        """Take a new connection; if there are too many, close a few that need it least."""
        self.accepted += 1
        client.seen, client.since = (Doing.HEAD, 0), self._reactor.seconds()
        self.clients[client] = None
        if self._next_look is None:
            self._look_later()
        if len(self.clients) > self.limits.connections:
            self._shed()

    def gone(self, client: Client) -> None:
        """Forget a connection that is lost."""
        self.clients.pop(client, None)
        if not self.clients and self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _shed(self) -> None:
        """Close those that never had a request, the oldest first; then those that have been idle for longest.

        An honest client sends its request at once: one that holds a connection without a request is the first to go.
        """
        ranks: tuple[list[Client], ...] = ([], [], [])
        newest = next(reversed(self.clients))
        closing = 0
        for client in self.clients:
            doing = client.doing()
            if doing is Doing.CLOSING:
                closing += 1
            elif client is not newest and doing is not Doing.ANSWER:
                ranks[(1 if doing is Doing.IDLE else 2) if client.answered else 0].append(client)
        if len(self.clients) - closing <= self.limits.connections:
            return
        for rank in ranks[1:]:
            rank.sort(key=lambda client: client.since)
        victims = next(filter(None, ranks), [newest])[: max(1, self.limits.connections // _SHED)]
        for client in victims:
            client.cut()
        self.closed["full"] += len(victims)
        count = self._full.admit()
        if count:
            self._log.warn(
                "{name}: more than {most} connections: {count} time(s) those were closed that have waited for longest",
                name=self.name,
                most=self.limits.connections,
                count=count,
            )

    # -- memory

    def make_room(self, asker: Upload) -> bool:
        """Refuse the largest bodies that are being received; tell whether there is room for the asker's now.

        So small writes go on, whoever sends large ones. A body that is alone is left alone: ``max-body-size`` is its
        bound.
        """
        goal = self.limits.in_flight - self.limits.in_flight // _RELIEF
        for upload in sorted(self.uploads, key=lambda each: each.counted, reverse=True):
            if self.held <= goal or upload.counted == self.held:
                break
            upload.refuse_for_memory()
        count = self._heavy.admit()
        if count:
            self._log.warn(
                "{name}: more than {most} bytes in flight: {count} time(s) the largest bodies were refused",
                name=self.name,
                most=self.limits.in_flight,
                count=count,
            )
        return self.held <= self.limits.in_flight or asker.counted == self.held

    # -- time

    def _look_later(self) -> None:
        limits = self.limits
        shortest = min(limits.header_timeout, limits.body_timeout, limits.idle_timeout)
        self._next_look = self._reactor.callLater(min(_LOOK, shortest / 4), self._look)

    def _look(self) -> None:
        """Close the connections that have waited for too long."""
        self._next_look = None
        now = self._reactor.seconds()
        for client in list(self.clients):
            doing = client.doing()
            seen = (doing, client.answered)
            if seen != client.seen:
                client.seen, client.since = seen, now
            elif now - client.since > self._patience(client, doing):
                client.since = now
                self.closed[doing.value] += 1
                client.expire(doing)
        if self.clients:
            self._look_later()

    def _patience(self, client: Client, doing: Doing) -> float:
        limits = self.limits
        match doing:
            case Doing.IDLE:
                return limits.idle_timeout
            case Doing.HEAD:
                return limits.header_timeout
            case Doing.BODY:
                return limits.body_timeout + client.body_size() / SLOWEST
            case Doing.UNREAD:
                return UNREAD
            case Doing.CLOSING:
                return CLOSING
            case Doing.ANSWER:
                return float("inf")
