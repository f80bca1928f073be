"""A log that relays share, in memory: whoever a test says has a lease gets what is in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.write import Destination, Reply
from influxrelay.journal.interface import Receipt
from influxrelay.journal.records import Record
from influxrelay.journal.shared_log import Elsewhere
from testing.journals import MemoryJournal


class Group:
    """What the relays share.

    :ivar records: what is in the log, by number.
    :ivar relays: by name.
    :ivar owners: the relays that deliver, by backend.
    :ivar age: what is told of the oldest write that waits.
    :ivar paused: the backends that an operator has paused.
    :ivar passed: up to where each backend has each destination.
    """

    def __init__(self) -> None:
        self.records: dict[int, tuple[Record, str]] = {}
        self.struck: list[int] = []
        self.relays: dict[str, GroupLog] = {}
        self.owners: dict[str, str] = {}
        self.passed: dict[str, dict[Destination, int]] = {}
        self.last = 0
        self.age = 0.0
        self.paused: set[str] = set()

    def move(self, backend: str, relay: str) -> None:
        """Give a backend's lease to a relay; empty for nobody."""
        before = self.owners.pop(backend, "")
        if before in self.relays:
            log = self.relays[before]
            log.follower.lost(log.keys[backend])
        if relay:
            self.owners[backend] = relay
            log = self.relays[relay]
            passed = self.passed.setdefault(backend, {})
            waiting = {record.write.destination for record, _ in self.records.values()}
            positions = [(where, passed.get(where, 0)) for where in waiting if passed.get(where, 0) < self.last]
            log.follower.gained(log.keys[backend], positions, self.last)


class GroupLog(MemoryJournal):
    """The log as one relay sees it.

    :ivar is_cut: whether nothing travels between this relay and the others.
    :ivar failing: what appends fail with.
    :ivar told: outcomes that were sent to other relays.
    """

    def __init__(self, group: Group, relay: str) -> None:
        super().__init__()
        self.group = group
        self.relay = relay
        self.follower: Any = None
        self.keys: dict[str, Any] = {}
        self.is_cut = False
        self.failing = ""
        self.told: list[tuple[int, str]] = []
        group.relays[relay] = self

    def _name(self, key: Any) -> str:
        return next(name for name, each in self.keys.items() if each is key)

    def is_valid(self, key: Any) -> bool:
        """Tell whether the relay has the lease."""
        return self.group.owners.get(self._name(key)) == self.relay

    def deliverers(self) -> dict[str, str]:
        """Return the owners."""
        return dict(self.group.owners)

    def elsewhere(self, key: Any) -> Elsewhere:
        """Return what is known of a backend."""
        name, owners = self._name(key), self.group.owners
        passed = self.group.passed.get(name, {})
        waits = any(
            passed.get(record.write.destination, 0) < number for number, (record, _) in self.group.records.items()
        )
        return Elsewhere(owners.get(name, ""), name in self.group.paused, self.group.age if waits else None)

    def append_for(self, record: Record, receipt: Receipt) -> None:
        """Have it handed out by all relays that deliver to anything."""
        group = self.group
        if self.failing:
            receipt.errback(Failure(JournalError(self.failing)))
            return
        group.last += 1
        record.seq = group.last
        group.records[record.seq] = record, self.relay
        receipt.callback(None)
        for name, log in group.relays.items():
            if name in group.owners.values():
                log.follower.hand_out([record], self.relay)

    def strike(self, number: int) -> Deferred[None]:
        """Tell all relays."""
        self.group.struck.append(number)
        self.group.records.pop(number)
        for log in self.group.relays.values():
            log.follower.decided([number], kept=False)
        return succeed(None)

    def outcome(self, number: int, origin: str, backend: str, result: Reply | BackendFailure) -> None:
        """Tell the origin."""
        self.told.append((number, origin))
        if origin == self.relay or not self.is_cut:
            self.group.relays[origin].follower.outcome(number, backend, result)

    def decided(self, numbers: Iterable[int]) -> None:
        """Tell all relays, if they can be reached."""
        for name, log in self.group.relays.items():
            if name == self.relay or not self.is_cut:
                log.follower.decided(list(numbers), kept=True)

    def advance(self, key: Any, destination: Destination, number: int) -> None:
        """Move a cursor of a backend whose lease the relay has."""
        if not self.is_valid(key):
            return
        passed = self.group.passed.setdefault(self._name(key), {})
        assert number >= passed.get(destination, 0)
        passed[destination] = number

    def read(self, destination: Destination, after: int, max_bytes: int) -> Deferred[tuple[list[Record], int]]:
        """Read all."""
        found = [record for number, (record, _) in sorted(self.group.records.items()) if number > after]
        return succeed(([each for each in found if each.write.destination == destination], self.group.last))
