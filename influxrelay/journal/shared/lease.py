"""Who may deliver to a backend: rules for one value that is changed by compare-and-set.

The owner writes the value again and again, and believes in its lease until some time after it *sent* the last change
that was taken. Another relay takes it when it has seen no change for that time. Since a change is seen after it was
sent, no two believe at once, however long messages travel and processes stop, as long as clocks run equally fast (up to
the margin).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import attrs

from influxrelay.journal.shared.state import BackendState

MARGIN = 0.1  # of the time of a lease: by so much the owner stops earlier than another relay begins
RENEWALS = 3  # within the time of a lease


def steady() -> float:
    """Return seconds on a clock that is never set, and goes on while the process, or the machine, is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """One relay's view of a backend's lease; it does nothing by itself.

    :param relay: the own name, that no other process has or has had.
    :param seconds: for which a lease holds.
    :param now: seconds on a clock that is never set and goes on while the process is stopped.
    :ivar state: as it was last seen.
    :ivar revision: the value's, then.
    :ivar taken: the highest beat of our own that is known to have been taken.
    """

    def __init__(self, relay: str, seconds: float, now: Callable[[], float]) -> None:
        self.state: BackendState | None = None
        self.revision = 0
        self.taken = 0
        self._relay = relay
        self._seconds = seconds
        self._now = now
        self._seen = -math.inf  # when the revision was
        self._sent: dict[int, float] = {}  # when changes of our own were that may have been taken, by beat
        self._last_sent = -math.inf
        self._beat = 0
        self._epoch = 0  # of our own lease
        self._valid_until = -math.inf
        self._is_released = False

    # -- what is known

    @property
    def is_valid(self) -> bool:
        """Whether the lease is ours at this moment."""
        return self._now() < self._valid_until

    @property
    def valid_until(self) -> float:
        """Until when the lease is ours, on the clock."""
        return self._valid_until

    @property
    def last_sent(self) -> float:
        """When the last change of our own was sent, on the clock."""
        return self._last_sent

    @property
    def is_ours(self) -> bool:
        """Whether the value says that it is ours, which may be long ago."""
        return self.state is not None and self.state.owner == self._relay and self.state.epoch == self._epoch

    @property
    def due(self) -> float:
        """When the next change is to be sent, on the clock; infinity if nothing is to be done before one is seen."""
        state = self.state
        if state is None or self._is_released:
            return math.inf
        if self.is_ours or self._last_sent > self._seen:  # or so we may find out
            return self._last_sent + self._seconds / RENEWALS
        return self._seen + self._seconds if state.owner else -math.inf

    def observe(self, state: BackendState, revision: int) -> None:
        """Learn what the value is, from whatever source, new or old."""
        if revision <= self.revision:
            return
        self.state, self.revision, self._seen = state, revision, self._now()
        sent = self._sent.get(state.beat) if self.is_ours else None
        self._sent.clear()  # what else was sent comes too late now
        if sent is None:
            self._valid_until = -math.inf
        elif not self._is_released:
            self._sent[state.beat] = sent
            self._valid_until = max(self._valid_until, sent + self._seconds * (1 - MARGIN))
            self.taken = state.beat

    # -- changes; who makes one sends it at once, with the revision

    def claim(self, state: BackendState) -> BackendState:
        """Return the value by which we take the lease of another, or of nobody."""
        self._epoch = state.epoch + 1
        self._valid_until = -math.inf
        return self._written(attrs.evolve(state, owner=self._relay, epoch=self._epoch, removed=False))

    def renew(self, state: BackendState) -> BackendState:
        """Return the value by which we keep a lease that is ours, or believe in it again."""
        return self._written(state)

    def _written(self, state: BackendState) -> BackendState:
        self._beat = max(self._beat, state.beat) + 1
        self._last_sent = self._sent[self._beat] = self._now()
        return attrs.evolve(state, beat=self._beat)

    def release(self, state: BackendState, *, removed: bool = False) -> BackendState:
        """Return the value by which we give the lease back, and never take it again."""
        self._is_released = True
        self._valid_until = -math.inf
        return attrs.evolve(state, owner="", removed=removed)
