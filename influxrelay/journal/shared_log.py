"""What delivery asks of a journal that several relays share, beyond what any journal does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply
from influxrelay.journal.interface import Journal, Key, Positions, Receipt
from influxrelay.journal.records import Record

ON_ITS_WAY = 3.0  # seconds for which a write may wait elsewhere before the backend counts as behind


@attrs.frozen
class Elsewhere:
    """What is known of a backend to which another relay delivers, or none.

    :ivar deliverer: that relay; empty if there is none.
    :ivar paused: whether an operator wants nothing to be sent.
    :ivar age: seconds since the oldest write was accepted that is not known to be passed; None if there is none. It
        takes a second or two until that is known.
    :ivar is_changing: whether a change is among those.
    """

    deliverer: str = ""
    paused: bool = False
    age: float | None = None
    is_changing: bool = False

    @property
    def is_behind(self) -> bool:
        """Whether something waits that is not just on its way."""
        return self.age is not None and self.age > ON_ITS_WAY


class Follower(Protocol):
    """The delivery of one relay, as a shared log sees it; nothing here may raise.

    A backend's writes are delivered by one relay at a time, the one that has its lease: its *deliverer*. The relay
    whose client wrote is a write's *origin*.
    """

    def hand_out(self, records: Sequence[Record], origin: str) -> None:
        """Take the next writes of the log, own and others', in the log's order; each exactly once.

        Called while this relay has the lease of at least one backend. Own writes are the very :class:`Record` objects
        that were appended, and their receipts have been told.

        :param origin: the relay whose clients wrote, as :attr:`SharedLog.relay` there.
        """

    def outcome(self, number: int, backend: str, result: Reply | BackendFailure) -> None:
        """Learn what became of an own write at a backend; perhaps twice, perhaps not at all."""

    def decided(self, numbers: Sequence[int], *, kept: bool) -> None:
        """Learn that writes are kept or struck. Of those that are struck each deliverer learns, of the others perhaps.

        The numbers may be of writes that are unknown here.
        """

    def gained(self, key: Key, positions: Positions, last_number: int) -> None:
        """Deliver to a backend from now on.

        :param positions: the destinations in which something waits, and up to where each was passed.
        :param last_number: up to here everything is to be read; what comes later is handed out.
        """

    def lost(self, key: Key) -> None:
        """Send nothing more to a backend, and forget all that waits for it; nothing of that is lost."""

    def dropped(self, key: Key, destination: Destination, upto: int) -> None:
        """Give up what a limit has cost a backend that this relay delivers to; it is counted."""

    def given_up(self, key: Key, upto: int) -> None:
        """Give up what the operator has dropped, at whichever relay, for a backend that this one delivers to."""

    def paused(self, key: Key, *, paused: bool) -> None:
        """Send nothing to a backend that this relay delivers to, or go on; also told after :meth:`gained` if paused."""


class SharedLog(Journal, Protocol):
    """A journal whose log several relays append to, and read in one order.

    A write's number is where it is in the log, so it is known only when the log has it: :meth:`append_for` sets the
    record's ``seq`` before the receipt is told, and :meth:`next_number` always returns 0. Positions, dead letters and
    losses that are noted for a backend count only as long as this relay has its lease.

    After a failed append the write may be in the log all the same; then it is handed out, if at all, as any other.
    """

    @property
    def relay(self) -> str:
        """What this process is called in the group; no other one has the same name, ever."""

    # -- start and stop

    def open(self, backends: Mapping[Key, tuple[str, str]], follower: Follower) -> Deferred[None]:
        """Find out what is in the log, and register the backends; leases come later, one by one.

        :raises JournalError: the log cannot be reached, or must not be used.
        """

    def stop(self, within: float = ...) -> Deferred[None]:
        """Finish what has been given, write the positions down, give the leases back, and leave. Never fails."""

    # -- writes

    def append_shared(self, record: Record) -> Deferred[int]:
        """Add a write; fires with its number when it is kept."""

    def append_for(self, record: Record, receipt: Receipt) -> None:
        """Add a write, and have somebody told who must not raise; by then ``record.seq`` is its number."""

    # -- between deliverer and origin

    def outcome(self, number: int, origin: str, backend: str, result: Reply | BackendFailure) -> None:
        """Tell a write's origin what became of it at a backend; at once if that is this relay."""

    def decided(self, numbers: Iterable[int]) -> None:
        """Tell the deliverers that own writes are kept; this relay's own at once. Those not to be kept are struck."""

    # -- leases

    def is_valid(self, key: Key) -> bool:
        """Tell whether this relay has a backend's lease at this moment; ask directly before each request's bytes."""

    def deliverers(self) -> dict[str, str]:
        """Return which relay delivers to each backend, as far as is known; empty if none does."""

    def elsewhere(self, key: Key) -> Elsewhere:
        """Return what is known of a backend to which this relay does not deliver."""


class RelayGroup(Protocol):
    """The relays that share a journal, as their operators see them."""

    def pause(self, backend: str, *, paused: bool) -> Deferred[bool]:
        """Pause a backend for the whole group, or let it go on; fires with whether there is such a backend."""

    def ask(self, relay: str, payload: bytes, is_gone: Callable[[], bool]) -> Deferred[bytes]:
        """Ask another relay; fires with its answer.

        :param is_gone: tells whether that relay is no longer the one to be asked.
        :raises JournalError: there is no answer; what was asked for may have been done.
        """

    def answer_by(self, do: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Have what other relays ask done by this, which must not raise."""
