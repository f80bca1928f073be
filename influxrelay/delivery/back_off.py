"""When a backend in trouble is asked again."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from influxrelay.core.errors import BackendFailure

PROBE_GAP = 0.1  # seconds that a backend in trouble is left alone at the least
FIRST_DELAY = 0.5  # seconds until the first retry for which no client waits; it doubles up to the maximum
FORGIVENESS = 10.0  # seconds after which one that said 5xx or "not now", and answers pings, may be asked again


class BackOff:
    """A backend's trouble, and the pauses that it is given.

    It is left alone for :data:`PROBE_GAP`, and as long as its ``Retry-After`` says. While no client waits the pauses
    grow from :data:`FIRST_DELAY` to ``max_delay``.

    :param jitter: returns a number in [0, 1).
    :param max_delay: seconds.
    :ivar trouble: the last failure that was the backend's own; None while it is well.
    :ivar not_before: when it may be asked again, on the reactor's clock.
    """

    def __init__(self, reactor: IReactorTime, jitter: Callable[[], float], max_delay: float) -> None:
        self.trouble: BackendFailure | None = None
        self.not_before = 0.0
        self._reactor = reactor
        self._jitter = jitter
        self._max_delay = max_delay
        self._began = 0.0  # the trouble, on the reactor's clock
        self._failures = 0  # in a row
        self._retry_at = 0.0

    def reconfigure(self, max_delay: float) -> None:
        """Let another maximum hold, and ask at once: what was wrong may be what has changed."""
        self._max_delay = max_delay
        self.not_before, self._retry_at, self._failures = 0.0, 0.0, 0

    def failed(self, problem: BackendFailure, retry_after: float) -> None:
        """Note a failure, and for how many seconds the backend asked to be left alone."""
        now = self._reactor.seconds()
        if self.trouble is None:
            self._began = now
        self.trouble = problem
        self.not_before = max(self.not_before, now + max(retry_after, PROBE_GAP * (1 + self._jitter() / 2)))
        self._retry_at = max(self.not_before, now + self.delay(self._failures))
        self._failures += 1

    @property
    def trouble_age(self) -> float | None:
        """For how many seconds the backend has been in trouble; None while it is well."""
        return None if self.trouble is None else self._reactor.seconds() - self._began

    def delay(self, failures: int) -> float:
        """Return the pause after so many failures in a row, in seconds."""
        pause: float = min(self._max_delay, FIRST_DELAY * 2 ** min(failures, 20))
        return pause * (0.5 + self._jitter() / 2)

    def lives(self) -> bool:
        """Note an answer that is no trouble; return whether it ends one."""
        self._failures = 0
        if self.trouble is None:
            return False
        self.trouble, self.not_before = None, 0.0
        return True

    def hasten(self) -> None:
        """Ask as soon as the backend may be asked."""
        self._retry_at = self.not_before

    def probe_time(self, *, clients_wait: bool) -> float:
        """Return when the backend is to be asked again, on the reactor's clock."""
        return self.not_before if clients_wait else self._retry_at

    def is_forgiven(self) -> bool:
        """Tell whether an answer to a ping ends the trouble of a backend for which nothing waits."""
        trouble = self.trouble
        if trouble is None:
            return False
        return trouble.reply is None or self._reactor.seconds() >= self.not_before + FORGIVENESS
