"""What the shared journal asks of the system that keeps its log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred

from influxrelay.core.errors import JournalError
from influxrelay.journal.records import JournalLimits

GAP = 1 << 20
"""Messages that are left out where the log is made anew: what other relays know of the one before has lower numbers."""


class Unfit(JournalError):
    """The system must not be used as it is; to try again is of no use."""


class Conflict(JournalError):
    """A value was not changed, because it has another revision than was expected."""


class Full(JournalError):
    """A message was not stored, because the stream is full and must not drop older ones."""


@attrs.frozen
class Message:
    """A message of a stream.

    :ivar seq: its sequence in the stream; the first is 1.
    :ivar payload: empty if only headers were asked for.
    :ivar size: of the payload, in bytes, also if that is left out.
    :ivar time: when it was stored, in seconds since the epoch, by the clock of the server.
    """

    seq: int
    subject: str
    headers: Mapping[str, str]
    payload: bytes
    size: int
    time: float


@attrs.frozen
class StreamState:
    """What a stream holds.

    :ivar first_seq: of the oldest message; ``last_seq + 1`` if there is none.
    :ivar last_seq: of the last message that was ever stored; 0 if there was none.
    :ivar bytes: that its messages take.
    :ivar created: another text for another stream of this name.
    """

    first_seq: int
    last_seq: int
    bytes: int
    messages: int
    created: str = ""


@attrs.frozen
class Entry:
    """A value of a bucket.

    :ivar value: None if it was deleted.
    :ivar revision: changes with each change of the value, and only rises.
    """

    key: str
    value: bytes | None
    revision: int


class Watch(Protocol):
    """Messages or values that are handed out as they are stored."""

    @property
    def in_sync(self) -> Deferred[None]:
        """Fires once everything that was there at the beginning has been handed out; never fails."""

    def stop(self) -> None:
        """Hand nothing out any more, from this moment on."""


class Stream(Protocol):
    """A replicated log of messages. Every Deferred fails with a :class:`JournalError` if there is no answer in time."""

    @property
    def name(self) -> str:
        """Its name; subjects of the stream begin with it and a dot."""

    def publish(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, msg_id: str
    ) -> Deferred[int]:
        """Store a message; fires with its sequence when a quorum has it.

        It is repeated until the time is up and stored once, as the ``msg_id`` is unique. Messages are stored in the
        order of the calls as long as none has to be repeated. After a failure it may be stored all the same, unless
        that is :class:`Full`.
        """

    def get(self, seqs: Iterable[int]) -> Deferred[list[Message]]:
        """Read messages; those that are no longer there are left out. Fails if that is not certain of one."""

    def follow(self, after: int, on_message: Callable[[Message], None], *, headers_only: bool = False) -> Watch:
        """Hand out all messages behind a sequence, in order, each once, now and as they are stored.

        It goes on by itself after a lost connection. A sequence that is left out is no longer in the stream.
        """

    def state(self) -> Deferred[StreamState]:
        """Return what the stream holds, at least everything that was acknowledged before the call."""

    def purge(self, upto: int) -> Deferred[None]:
        """Remove all messages up to a sequence, and this one; the next to be stored comes behind it."""

    def delete(self, seqs: Iterable[int]) -> Deferred[int]:
        """Remove single messages, and return how many were there."""


class Bucket(Protocol):
    """Replicated values by key, of which only the last is kept.

    Keys are letters, digits, ``-``, ``_``, ``=``, ``/`` and dots that are not at the ends.
    """

    def load(self, key: str) -> Deferred[Entry | None]:
        """Return a value and its revision, which may be a moment old; None if there is none."""

    def create(self, key: str, value: bytes) -> Deferred[int]:
        """Set a value that is not there, and return its revision.

        :raises Conflict: there is one.
        """

    def update(self, key: str, value: bytes, revision: int) -> Deferred[int]:
        """Set a value that has this revision, and return the new one.

        After a failure that is no :class:`Conflict`, it may have been set, and it may still be.

        :raises Conflict: it has another revision, or is not there.
        """

    def delete(self, key: str) -> Deferred[None]:
        """Remove a value, whatever its revision."""

    def watch(self, prefix: str, on_change: Callable[[Entry], None]) -> Watch:
        """Hand out all values whose keys begin with a prefix, now and when they change.

        Of several changes at once perhaps only the last. It goes on by itself after a lost connection.

        :param prefix: whole words with dots between them, and a dot at its end.
        """


class Engine(Protocol):
    """A connection to the system that keeps a shared log."""

    @property
    def name(self) -> str:
        """The name of the log's stream; of the subjects that :meth:`send` may use each begins with it and a dot."""

    @property
    def place(self) -> str:
        """Where it is, for people."""

    @property
    def trouble(self) -> str:
        """What is wrong, as long as it is; empty if all is well, as far as is known."""

    @property
    def risk(self) -> str:
        """What may cost acknowledged writes although all works, as far as is known; empty if nothing."""

    @property
    def log(self) -> Stream:
        """The log, with the subjects ``NAME.log`` and ``NAME.strike``."""

    @property
    def letters(self) -> Stream:
        """Dead letters, with the subjects ``NAME-letters.*``."""

    @property
    def bucket(self) -> Bucket:
        """Cursors, leases and counts."""

    def connect(self) -> Deferred[None]:
        """Connect, and make what is missing; fires when everything can be used.

        It may be called again after a failure.

        :raises Unfit: the system must not be used.
        :raises JournalError: it cannot be reached in time.
        """

    def reconfigure(self, limits: JournalLimits) -> Deferred[None]:
        """Let the log have other limits, for all relays."""

    def close(self) -> Deferred[None]:
        """Stop all watches and subscriptions, fail what waits, and leave."""

    def send(self, subject: str, payload: bytes) -> None:
        """Send a message to whoever subscribes now; it may be lost, and nobody learns that."""

    def subscribe(self, subject: str, on_payload: Callable[[bytes], None]) -> Watch:
        """Hand out what is sent to a subject from now on; in sync when the system knows of the subscription."""
