"""How a backend is, for whoever asks its sender."""

from __future__ import annotations

from twisted.logger import Logger

from influxrelay.core.errors import BackendFailure
from influxrelay.delivery.back_off import BackOff
from influxrelay.delivery.requests import Requests


class BackendStatus:
    """What is wrong with a backend, as its last request or its last ping tells.

    A ping's result counts until the next write comes back.
    """

    _log = Logger()

    def __init__(self, requests: Requests, back_off: BackOff) -> None:
        self._requests = requests
        self._back_off = back_off
        self._ping_problem: BackendFailure | None = None
        self._pinged_at = -1  # so many requests had come back then

    @property
    def trouble(self) -> BackendFailure | None:
        """The backend's trouble with writes; None while it is well."""
        return self._back_off.trouble

    @property
    def trouble_age(self) -> float | None:
        """For how many seconds it has had trouble with writes; None while it is well."""
        return self._back_off.trouble_age

    @property
    def problem(self) -> BackendFailure | None:
        """What is wrong with the backend: its trouble with writes, else what the last ping says if that is news."""
        return self.trouble or (self._ping_problem if self._pinged_at == self._requests.answered else None)

    @property
    def is_known(self) -> bool:
        """Whether the backend has been heard of: an answer to a write or to a ping, or a failure."""
        return self._pinged_at >= 0 or self._requests.answered > 0

    def note_ping(self, problem: BackendFailure | None, listener: str, backend: str) -> None:
        """Take what a ping has told; log it when pings begin to fail, fail for another reason, or succeed again."""
        before, self._ping_problem, self._pinged_at = self._ping_problem, problem, self._requests.answered
        fields = {"relay": listener, "backend": backend}
        if problem is None and before is not None:
            self._log.info("{relay}: the ping of backend {backend} succeeds again", **fields)
        elif problem is not None and (before is None or before.reason != problem.reason):
            self._log.warn(
                "{relay}: the ping of backend {backend} failed: {reason}: {detail}",
                reason=problem.reason,
                detail=problem.detail,
                **fields,
            )
