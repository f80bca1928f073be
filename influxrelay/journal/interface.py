"""What the rest of the relay asks of a journal, wherever that keeps its log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from influxrelay.core.histogram import Histogram
from influxrelay.core.write import Destination, Write
from influxrelay.journal.records import Contents, DeadLetter, Depth, Drop, JournalLimits, Record

Key = object
"""An object that stands for a backend as long as the process lives, whatever its name is."""

Positions = list[tuple[Destination, int]]
"""Destinations in which something waits for a backend, each with the number up to which the backend has passed it."""


class Receipt(Protocol):
    """Is told what has become of a write; a Deferred is one, and any other takes less time."""

    def callback(self, result: None, /) -> None:
        """Learn that the write is kept."""

    def errback(self, failure: Failure, /) -> None:
        """Learn that it is not, because of a :class:`influxrelay.core.errors.JournalError`."""


class Journal(Protocol):
    """One log of writes, and for each backend a position in each destination.

    Each write has a number, and numbers only rise. Nothing here blocks, and nothing is assumed to be quick: the log may
    be on a slow disk or on another machine. Every Deferred fails with
    :class:`influxrelay.core.errors.JournalError` if the log does not answer, or refuses.
    """

    @property
    def place(self) -> str:
        """Where the log is, for people."""

    @property
    def trouble(self) -> str:
        """What is wrong, as long as it is; empty if all is well."""

    @property
    def risk(self) -> str:
        """What may cost acknowledged writes although all is well, as far as is known; empty if nothing."""

    @property
    def used(self) -> int:
        """Bytes that the journal takes."""

    @property
    def commits(self) -> Histogram:
        """The seconds that each commit took."""

    @property
    def last_number(self) -> int:
        """The last number that was given out."""

    @property
    def why_unavailable(self) -> str:
        """Why a write would not be journaled now; empty if it would, as far as is known."""

    @property
    def max_bytes(self) -> int:
        """How much the journal may keep, in bytes; 0 for no limit."""

    # -- writes

    def next_number(self) -> int:
        """Return the number for the next write; it is to be appended before another number is asked for."""

    def append(self, record: Record) -> Deferred[None]:
        """Add a write; fires when it is kept."""

    def append_for(self, record: Record, receipt: Receipt) -> None:
        """Add a write as :meth:`append` does, and have somebody told who must not raise."""

    def strike(self, number: int) -> Deferred[None]:
        """Take back a write that no client was told was taken; fires when it can no longer be delivered."""

    def advance(self, key: Key, destination: Destination, number: int) -> None:
        """Note that a backend is done with a destination up to this number.

        This may be kept some time later: after a crash a backend may get again what it had.
        """

    def keep_positions(self) -> Deferred[None]:
        """Fire when what was noted until now, of all backends, is kept, and so is what was buried and counted."""

    def bury(self, key: Key, when: float, write: Write, status: int, message: str) -> None:
        """Keep a write that a backend has refused for good, with what it said; kept before any later position is.

        :param when: the write was accepted, in seconds since the epoch.
        """

    def count_loss(self, key: Key, reason: str, when: float, size: int) -> None:
        """Count a write that a backend will not get; kept before any later position is.

        :param when: the write was accepted, in seconds since the epoch.
        :param size: of its body, in bytes.
        """

    def read(self, destination: Destination, after: int, max_bytes: int) -> Deferred[tuple[list[Record], int]]:
        """Read the next writes of a destination, until they have ``max_bytes`` bytes; one at least, if there is one.

        Everything that was given to :meth:`append` before is found, unless it has failed. What is damaged is left out,
        and counted as lost for every backend that has not passed it.

        :return: the writes, and up to which number they are all.
        """

    def losses(self, key: Key) -> list[Drop]:
        """Return what was lost for a backend, as far as is known without asking the log."""

    # -- backends and settings

    def reconfigure(self, limits: JournalLimits, *, full_sync: bool) -> None:
        """Let other settings hold from the next write on."""

    def register(self, backends: Mapping[Key, tuple[str, str]]) -> None:
        """Say which backends there are from this moment on, as name and location.

        One that was not there before begins behind the last write, or where it was when it was removed.
        """

    def returning(self, backends: Mapping[str, str], known: Mapping[str, Key]) -> Deferred[dict[str, Positions]]:
        """Return where the backends stand that were removed at an earlier time, and would return.

        :param backends: all that there would be, as name to location.
        :param known: those of them that are registered, by the name that they would have.
        """

    # -- for the operator

    def contents(self) -> Deferred[Contents]:
        """Return what is in the journal."""

    def discard(self, backend: str) -> Deferred[tuple[Depth | None, int]]:
        """Give up what waits for a backend, and count it; or forget a backend that is no longer configured.

        :return: what waited, and the number of the last write that was given up.
        """

    def forget_losses(self, backend: str) -> Deferred[list[Drop]]:
        """Count a backend's losses from zero, and return what was counted."""

    def dead_letters(self, after: int, limit: int) -> Deferred[list[DeadLetter]]:
        """Return the dead letters with a higher id, the oldest first, no more than ``limit``."""

    def drop_dead_letters(self, ids: Iterable[int]) -> Deferred[int]:
        """Remove dead letters, and return how many there were."""

    def probe(self) -> Deferred[None]:
        """Find out whether the journal works; :attr:`trouble` tells afterwards."""
