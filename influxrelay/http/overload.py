"""What clients can make a listener hold: connections, memory, time."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Any, Protocol

import attrs
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from influxrelay.core.log_throttle import Throttle
from influxrelay.core.text import times

OVERHEAD = 2048  # bytes that a request takes beside its body, until it is answered
SLOWEST = 1000  # bytes a second that a body has to make in the long run
UNREAD = 30.0  # seconds for which a client may leave a response unread
CLOSING = 15.0  # seconds for which the end of a connection may take
_LOOK = 1.0  # seconds between two looks at the clients
_SHED = 32  # the part of the connections that is closed at once when there are too many: choosing them takes time
_RELIEF = 8  # the part of the memory that is to be free afterwards
_SMALL = 64 * 1024  # bytes of a request that large ones do not keep out
_LARGE = 1024 * 1024
_BESIDE = 4  # the part of the memory that small requests may take beside large ones


@attrs.frozen
class ClientLimits:
    """The bounds of one listener.

    :ivar connections: of clients at a time, at least 1.
    :ivar in_flight: bytes of bodies that are being received, or whose requests are not answered yet.
    :ivar header_timeout: seconds from a connection, or from the first byte of a later request, to the end of the head.
    :ivar body_timeout: seconds for a body, and one more for each :data:`SLOWEST` bytes of it.
    :ivar idle_timeout: seconds that a connection may wait for its next request.
    """

    connections: int = 4000
    in_flight: int = 32 * 1024 * 1024
    header_timeout: float = 10.0
    body_timeout: float = 20.0
    idle_timeout: float = 180.0


class Activity(Enum):
    """What a connection is waiting for; the values are the reasons for which one is closed."""

    IDLE = "idle-timeout"
    HEAD = "header-timeout"
    BODY = "body-timeout"
    RESPONSE = "answer"
    UNREAD = "unread"
    CLOSING = "closing"


class Client(Protocol):
    """A connection, as far as its limits are concerned."""

    @property
    def answered(self) -> int:
        """How many responses the client got."""

    @property
    def progress(self) -> int:
        """A number that grows with each response, and whenever the client has read what was waiting for it."""

    def activity(self) -> Activity:
        """Tell what the connection is waiting for."""

    def body_size(self) -> int:
        """Return how many bytes of a body have come."""

    def expire(self, activity: Activity) -> None:
        """End the connection: it has been waiting for this for too long."""

    def refuse_body(self) -> None:
        """Answer 503 to the request whose body is being received, and release what has come of it."""

    def cut(self) -> None:
        """Break the connection."""


@attrs.define
class _Sight:
    """What a client was seen waiting for, how far it had come, and since when."""

    activity: Activity
    progress: int
    since: float


class AdmissionControl:
    """Keeps the clients of one listener within its :class:`ClientLimits`.

    There is no timer for each connection: all of them are looked at once a second. The counters are plain attributes,
    read by whoever reports them.

    :param name: the listener's, for the log.
    :ivar limits: what holds now; see :meth:`reconfigure`.
    :ivar in_flight: bytes of bodies, as in :attr:`ClientLimits.in_flight`.
    :ivar accepted: connections so far.
    :ivar closed: connections that were closed, by the reason: ``full`` and the values of :class:`Activity`.
    """

    _log = Logger()

    def __init__(self, name: str, limits: ClientLimits, reactor: Any) -> None:
        self.name = name
        self.limits = limits
        self.in_flight = 0
        self.accepted = 0
        self.closed: Counter[str] = Counter(
            full=0, **{each.value: 0 for each in Activity if each is not Activity.RESPONSE}
        )
        self._clients: dict[Client, _Sight] = {}  # the oldest first
        self._sizes: dict[object, int] = {}  # by request
        self._uploads: dict[object, Client] = {}  # requests whose bodies are being received
        self._reactor = reactor
        self._next_look: IDelayedCall | None = None
        self._full, self._heavy = Throttle(reactor), Throttle(reactor)

    def reconfigure(self, name: str, limits: ClientLimits) -> None:
        """Let other limits hold for the next connection, and for the next look at those that are there."""
        self.name = name
        self.limits = limits

    @property
    def max_connections(self) -> int:
        """How many connections there may be."""
        return self.limits.connections

    def limit_connections(self, number: int) -> None:
        """Let there be so many, as :meth:`reconfigure` does."""
        self.limits = attrs.evolve(self.limits, connections=number)

    # -- connections

    @property
    def connections(self) -> list[Any]:
        """The connections that are open, the oldest first."""
        return list(self._clients)

    def admit(self, client: Client) -> None:
        """Take a new connection; if there are too many, close a few that need it least."""
        self.accepted += 1
        self._clients[client] = _Sight(Activity.HEAD, 0, self._reactor.seconds())
        if self._next_look is None:
            self._look_later()
        if len(self._clients) > self.limits.connections:
            self._shed()

    def forget(self, client: Client) -> None:
        """Forget a connection that is lost."""
        self._clients.pop(client, None)
        if not self._clients and self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _shed(self) -> None:
        """Close those that never had a request, the oldest first; else those that have been idle for longest.

        An honest client sends its request at once: one that holds a connection without a request is the first to go.
        """
        ranks: tuple[list[Client], ...] = ([], [], [])
        newest = next(reversed(self._clients))
        closing = 0
        for client in self._clients:
            activity = client.activity()
            if activity is Activity.CLOSING:
                closing += 1
            elif client is not newest and activity is not Activity.RESPONSE:
                ranks[(1 if activity is Activity.IDLE else 2) if client.answered else 0].append(client)
        if len(self._clients) - closing <= self.limits.connections:
            return
        for rank in ranks[1:]:
            rank.sort(key=lambda client: self._clients[client].since)
        victims = next(filter(None, ranks), [newest])[: max(1, self.limits.connections // _SHED)]
        for client in victims:
            client.cut()
        self.closed["full"] += len(victims)
        count = self._full.admit()
        if count:
            self._log.warn(
                "{name}: more than {most} connections: closed the longest-idle ones, {times}",
                name=self.name,
                most=self.limits.connections,
                times=times(count),
            )

    # -- memory

    def reserve(self, request: object, size: int, uploader: Client | None = None) -> bool:
        """Count more bytes for a request, until they are released; tell whether there is room for them.

        Where there is not, the largest bodies that are being received are refused, as many as it takes. Small writes go
        on, whoever sends large ones: they have a part of the memory for themselves. A body that is alone is left alone:
        ``max-body-size`` is its bound.

        :param uploader: the connection, as long as the body is not complete.
        """
        self._sizes[request] = self._sizes.get(request, 0) + size
        self.in_flight += size
        if uploader is not None:
            self._uploads[request] = uploader
        return self.in_flight <= self.limits.in_flight or self._make_room(request)

    def complete(self, request: object) -> None:
        """Note that the body of a request has come: it is not refused any more."""
        self._uploads.pop(request, None)

    def release(self, request: object) -> None:
        """Count the bytes of a request no more."""
        self._uploads.pop(request, None)
        self.in_flight -= self._sizes.pop(request, 0)

    def reserved(self, request: object) -> int:
        """Return how many bytes are counted for a request."""
        return self._sizes.get(request, 0)

    def _make_room(self, asker: object) -> bool:
        goal = self.limits.in_flight - self.limits.in_flight // _RELIEF
        for upload in sorted(self._uploads, key=self.reserved, reverse=True):
            if self.in_flight <= goal or self.reserved(upload) == self.in_flight:
                break
            self._uploads[upload].refuse_body()
        count = self._heavy.admit()
        if count:
            self._log.warn(
                "{name}: more than {most} bytes in flight: refused the largest bodies, {times}",
                name=self.name,
                most=self.limits.in_flight,
                times=times(count),
            )
        return self._has_room_for(asker)

    def _has_room_for(self, asker: object) -> bool:
        limit, size = self.limits.in_flight, self.reserved(asker)
        if self.in_flight <= limit or size == self.in_flight:
            return True
        if size > _SMALL:
            return False
        return self.in_flight - sum(each for each in self._sizes.values() if each > _LARGE) <= limit // _BESIDE

    # -- time

    def _look_later(self) -> None:
        limits = self.limits
        shortest = min(limits.header_timeout, limits.body_timeout, limits.idle_timeout)
        self._next_look = self._reactor.callLater(min(_LOOK, shortest / 4), self._look)

    def _look(self) -> None:
        """Close the connections that have waited for too long."""
        self._next_look = None
        now = self._reactor.seconds()
        for client, sight in list(self._clients.items()):
            activity, progress = client.activity(), client.progress
            if activity is not sight.activity or progress != sight.progress:
                sight.activity, sight.progress, sight.since = activity, progress, now
            elif now - sight.since > self._patience(client, activity):
                sight.since = now
                self.closed[activity.value] += 1
                client.expire(activity)
        if self._clients:
            self._look_later()

    def _patience(self, client: Client, activity: Activity) -> float:
        limits = self.limits
        match activity:
            case Activity.IDLE:
                return limits.idle_timeout
            case Activity.HEAD:
                return limits.header_timeout
            case Activity.BODY:
                return limits.body_timeout + client.body_size() / SLOWEST
            case Activity.UNREAD:
                return UNREAD
            case Activity.CLOSING:
                return CLOSING
            case Activity.RESPONSE:
                return float("inf")
