"""What the queues were like in the last hour, for the page that people look at."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

PERIOD = 5.0  # seconds between two samples
SPAN = 3600.0  # seconds for which they are kept
_SHARE = 20  # a look that takes long is followed by a pause so many times as long


@attrs.frozen
class Sample:
    """One backend at one moment.

    :ivar time: seconds since the epoch.
    :ivar submitted: writes that the backend's sender was given since the start.
    :ivar waiting: writes in its queue; 0 if it has none, or if that could not be found out.
    :ivar age: seconds since the oldest of them was accepted.
    :ivar lost: writes that it will never get.
    :ivar used: bytes that its queue takes.
    :ivar sends: whether it takes writes.
    """

    time: float
    submitted: int
    waiting: int
    age: float
    lost: int
    used: int
    sends: bool


@attrs.frozen
class Rates:
    """Means of the last while, in writes per second.

    :ivar accepted: that came for the backend.
    :ivar sent: that the backend has answered.
    :ivar lost: that the backend will never get.
    :ivar filling: bytes per second that its queue takes more.
    """

    accepted: float
    sent: float
    lost: float = 0.0
    filling: float = 0.0

    def time_to_go(self, waiting: int) -> float | None:
        """Return in how many seconds a queue is empty if it goes on so; None if it does not shrink."""
        return round(waiting / (self.sent - self.accepted), 3) if waiting and self.sent > self.accepted else None


@attrs.define
class Track:
    """What is remembered of one backend.

    :ivar state: as ``/status`` has it.
    :ivar since: when a sample first showed that state, in seconds since the epoch, or when a write first failed if it
        is trouble with writes; the start of the relay if it was never another one.
    """

    state: str
    since: float
    samples: deque[Sample]

    def rates(self, seconds: float) -> Rates | None:
        """Return what came and went in each of the last so many seconds; None as long as there is one sample."""
        last = self.samples[-1]
        first = next((each for each in self.samples if each.time >= last.time - seconds), last)
        if last.time <= first.time or last.submitted < first.submitted:
            return None
        accepted, lost, span = last.submitted - first.submitted, max(0, last.lost - first.lost), last.time - first.time
        sends = any(each.sends for each in self.samples if each.time >= first.time)
        gone = max(0, accepted - (last.waiting - first.waiting) - lost) if sends else 0
        return Rates(accepted / span, gone / span, lost / span, (last.used - first.used) / span)


class History(Service):
    """Looks at ``/status`` every :data:`PERIOD` seconds, and keeps what a chart of the last hour needs.

    :param ask: returns what ``/status`` shows.
    :param clock: returns seconds since the epoch.
    """

    _log = Logger()

    def __init__(
        self,
        ask: Callable[[], Awaitable[dict[str, Any]]],
        reactor: IReactorTime,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._tracks: dict[tuple[str, str], Track] = {}
        self._looks = LoopingCall(self._look)
        self._looks.clock = self._reactor = reactor
        self._rest_until = 0.0

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._looks.start(PERIOD)

    def stopService(self) -> None:
        """End; what was seen is kept."""
        super().stopService()
        if self._looks.running:
            self._looks.stop()

    async def _look(self) -> None:
        began = self._reactor.seconds()
        if began < self._rest_until:
            return
        try:
            self.add(await self._ask())
            self._rest_until = began + _SHARE * (self._reactor.seconds() - began)
        except Exception:  # noqa: BLE001 (there is another look in a moment)
            self._log.failure("a look at the queues")

    def add(self, status: dict[str, Any]) -> None:
        """Remember what ``/status`` shows now; forget what is older than :data:`SPAN`, and backends that are gone."""
        now = self._clock()
        backends = {
            (listener["name"], backend["name"]): backend
            for listener in status["listeners"]
            for backend in listener["backends"]
        }
        tracks = {}
        for row in status["queues"]:
            key = row["listener"], row["backend"]
            state, backend = row["state"], backends.get(key, {})
            began = now - (backend.get("trouble_age") or 0.0) if state == "trouble" else now
            track = self._tracks.get(key) or Track(state, began, deque())
            if track.state != state:
                track.state, track.since = state, began
            lost = sum(each["writes"] for each in row["drops"])
            track.samples.append(
                Sample(
                    time=now,
                    submitted=backend.get("writes", 0),
                    waiting=row["writes"] or 0,
                    age=row["oldest_age"] or 0.0,
                    lost=lost,
                    used=row["queue_used"] or 0,
                    sends=state not in ("trouble", "paused"),
                )
            )
            while track.samples[0].time < now - SPAN:
                track.samples.popleft()
            tracks[key] = track
        self._tracks = tracks

    def track(self, listener: str, backend: str) -> Track | None:
        """Return what is remembered of a backend; None before the first look at it."""
        return self._tracks.get((listener, backend))
