"""Logging that stays readable when the same thing happens ten thousand times."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from influxrelay.core.text import count as numbered

SHOWN = 4  # identical failures in a row that are logged in full; from the fifth on they are a count


class FailureLog:
    """The log of one backend's troubles.

    Of identical failures in a row the first four are logged one by one. From the fifth on they are counted, and the
    count is logged when it has doubled. The recovery is one line.
    """

    _log = Logger()

    def __init__(self, relay: str, backend: str) -> None:
        self._relay = relay
        self._backend = backend
        self._reason = ""
        self._count = 0
        self._next_report = 0
        self._total = 0

    def rename(self, relay: str, backend: str) -> None:
        """Speak of it by another name."""
        self._relay, self._backend = relay, backend

    def failed(self, reason: str, detail: str) -> None:
        """Note a failure; ``reason`` decides what is identical."""
        if reason != self._reason:
            self._reason, self._count, self._next_report = reason, 0, SHOWN + 1
        self._count += 1
        self._total += 1
        why = detail if detail.startswith(reason) else f"{reason}: {detail}"  # an answer begins with its status
        fields = {"relay": self._relay, "backend": self._backend, "why": why, "reason": reason, "detail": detail}
        if self._count <= SHOWN:
            self._log.warn("{relay}: backend {backend} failed: {why}", **fields)
        elif self._count == self._next_report:
            self._next_report *= 2
            self._log.warn(
                "{relay}: backend {backend} failed {count} times in a row: {why}",
                count=self._count,
                **fields,
            )

    def recovered(self) -> None:
        """Note a success; says so if there was a failure before it."""
        if self._total:
            self._log.info(
                "{relay}: backend {backend} is back after {failures}, the last: {reason}",
                relay=self._relay,
                backend=self._backend,
                failures=numbered(self._total, "failure"),
                count=self._total,
                reason=self._reason,
            )
            self._reason, self._count, self._total = "", 0, 0


class Throttle:
    """Lets one line pass in a while, and counts the others into the next one.

    :param interval: seconds between two lines.
    """

    def __init__(self, reactor: IReactorTime, interval: float = 10.0) -> None:
        self._reactor = reactor
        self._interval = interval
        self._next = float("-inf")
        self._kept_back = 0

    def admit(self) -> int:
        """Return how many events the caller's line stands for, or 0 if there is to be none."""
        now = self._reactor.seconds()
        if now < self._next:
            self._kept_back += 1
            return 0
        self._next = now + self._interval
        count, self._kept_back = self._kept_back + 1, 0
        return count


class RefusalLog:
    """The log of what a backend refuses: one line in ten seconds, and the next one counts the others."""

    _log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._throttle = Throttle(reactor)

    def refused(self, relay: str, backend: str, status: int, detail: str) -> None:
        """Note a refusal."""
        count = self._throttle.admit()
        if count:
            self._log.warn(
                "{relay}: backend {backend} refused {writes}, the last with {detail}",
                relay=relay,
                backend=backend,
                writes=numbered(count, "write"),
                count=count,
                reason=status,
                detail=detail,
            )
