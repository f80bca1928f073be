"""Keeps the delivery's mistakes from the log: what raises is logged, and the log goes on."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply
from influxrelay.journal.interface import Key, Positions
from influxrelay.journal.records import Record
from influxrelay.journal.shared_log import Follower


class Guard:
    """A follower that does not raise.

    :ivar follower: to which everything is passed, once there is one.
    """

    _log = Logger()

    def __init__(self) -> None:
        self.follower: Follower

    def hand_out(self, records: Sequence[Record], origin: str) -> None:
        """Pass it on."""
        try:
            self.follower.hand_out(records, origin)
        except Exception:  # noqa: BLE001 (see the module)
            self._log.failure("what was written by {relay}", relay=origin)

    def outcome(self, number: int, backend: str, result: Reply | BackendFailure) -> None:
        """Pass it on."""
        try:
            self.follower.outcome(number, backend, result)
        except Exception:  # noqa: BLE001
            self._log.failure("an outcome at backend {backend}", backend=backend)

    def decided(self, numbers: Sequence[int], *, kept: bool) -> None:
        """Pass it on."""
        try:
            self.follower.decided(numbers, kept=kept)
        except Exception:  # noqa: BLE001
            self._log.failure("a decision")

    def gained(self, key: Key, positions: Positions, last_number: int) -> None:
        """Pass it on."""
        try:
            self.follower.gained(key, positions, last_number)
        except Exception:  # noqa: BLE001
            self._log.failure("a lease that was gained")

    def lost(self, key: Key) -> None:
        """Pass it on."""
        try:
            self.follower.lost(key)
        except Exception:  # noqa: BLE001
            self._log.failure("a lease that was lost")

    def dropped(self, key: Key, destination: Destination, upto: int) -> None:
        """Pass it on."""
        try:
            self.follower.dropped(key, destination, upto)
        except Exception:  # noqa: BLE001
            self._log.failure("what a limit has cost")

    def given_up(self, key: Key, upto: int) -> None:
        """Pass it on."""
        try:
            self.follower.given_up(key, upto)
        except Exception:  # noqa: BLE001
            self._log.failure("a queue that was dropped")

    def paused(self, key: Key, *, paused: bool) -> None:
        """Pass it on."""
        try:
            self.follower.paused(key, paused=paused)
        except Exception:  # noqa: BLE001
            self._log.failure("a pause")
