"""What the system that keeps a shared log has stored, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from twisted.internet.task import Clock

from influxrelay.journal.shared.interface import Conflict, Entry, Full, Message, StreamState

EPOCH = 1_700_000_000.0
"""The time by the cluster's clock when that is at 0."""


class Follower(Protocol):
    """Wants to know of what is stored."""

    def changed(self) -> None:
        """Learn that there is something new."""


class Kept:
    """Messages of a stream."""

    def __init__(self, clock: Clock, *, max_bytes: int = 0, max_age: float = 0.0, drop_oldest: bool = False) -> None:
        self.clock = clock
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.drop_oldest = drop_oldest
        self.messages: dict[int, Message] = {}
        self.last = self.used = 0
        self.followers: list[Follower] = []
        self.created = 0
        self._known: dict[str, int] = {}

    def remake(self) -> None:
        """Forget everything, as if the stream had been removed and made anew."""
        self.messages.clear()
        self._known.clear()
        self.last = self.used = 0
        self.created += 1

    def store(self, subject: str, headers: Mapping[str, str], payload: bytes, msg_id: str) -> int:
        """Store a message once."""
        if msg_id in self._known:
            return self._known[msg_id]
        self.expire()
        now = EPOCH + self.clock.seconds()
        message = Message(self.last + 1, subject, {**headers, "Nats-Msg-Id": msg_id}, payload, len(payload), now)
        while self.max_bytes and self.used + _cost(message) > self.max_bytes:
            if not self.drop_oldest or not self.messages:
                raise Full("maximum bytes exceeded")
            self.remove(next(iter(self.messages)))
        self.last += 1
        self.messages[self.last] = message
        self.used += _cost(message)
        self._known[msg_id] = self.last
        for follower in list(self.followers):
            follower.changed()
        return self.last

    def expire(self) -> None:
        """Remove what is too old."""
        until = EPOCH + self.clock.seconds() - self.max_age
        while self.max_age and self.messages and next(iter(self.messages.values())).time < until:
            self.remove(next(iter(self.messages)))

    def remove(self, seq: int) -> bool:
        """Remove a message, and tell whether it was there."""
        message = self.messages.pop(seq, None)
        self.used -= _cost(message) if message else 0
        return message is not None

    def state(self) -> StreamState:
        """Return what there is."""
        self.expire()
        first = next(iter(self.messages), self.last + 1)
        return StreamState(first, self.last, self.used, len(self.messages), str(self.created))


def _cost(message: Message) -> int:
    headers = sum(len(name) + len(value) + 4 for name, value in message.headers.items())
    return len(message.payload) + len(message.subject) + headers + 20


class Values:
    """Values of a bucket."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.last = 0
        self.followers: list[Follower] = []
        self._done: dict[object, int] = {}

    def remake(self) -> None:
        """Forget everything, as if the bucket had been removed and made anew."""
        self.entries.clear()
        self.last = 0

    def set(self, key: str, value: bytes | None, revision: int | None, call: object) -> int:
        """Set a value once for each call.

        :param revision: that it has to have; 0 for none, None for any.
        """
        if call in self._done:
            return self._done[call]
        found = self.entries.get(key)
        current = found.revision if found and found.value is not None else 0
        if revision is not None and current != revision:
            raise Conflict(f"{key} has revision {current}, not {revision}")
        self.last += 1
        self.entries[key] = Entry(key, value, self.last)
        self._done[call] = self.last
        for follower in list(self.followers):
            follower.changed()
        return self.last
