"""The values that go into a journal and come out of it."""

from __future__ import annotations

import attrs

from influxrelay.core.write import Write


@attrs.define(eq=False)  # not frozen, as a write is not
class Record:
    """A write as the log has it.

    :ivar time: when it was accepted, in seconds since the epoch.
    """

    seq: int
    time: float
    write: Write


@attrs.frozen
class Depth:
    """What waits for one backend.

    :ivar oldest: when the oldest of it was accepted, in seconds since the epoch; None if nothing waits.
    """

    backend: str
    location: str
    active: bool
    writes: int
    bytes: int
    oldest: float | None


@attrs.frozen
class DeadLetter:
    """A write that a backend refused for good, after a client had been told that it was taken."""

    id: int
    time: float
    backend: str
    status: int
    message: str
    write: Write


@attrs.frozen
class Drop:
    """What was lost for one backend, and why.

    :ivar first: when the first of it was accepted, in seconds since the epoch; ``last`` likewise.
    """

    backend: str
    reason: str
    writes: int
    bytes: int
    first: float
    last: float


def lost_change(reason: str) -> str:
    """Return what the dead letter of a change says that a backend has not executed, and will not be sent."""
    return f"it was lost with the queue ({reason})"


def count_drop(drops: dict[str, Drop], backend: str, reason: str, when: float, size: int) -> None:
    """Count a write of this size, accepted at this time, that a backend will not get."""
    known = drops.get(reason) or Drop(backend, reason, 0, 0, when, when)
    drops[reason] = attrs.evolve(
        known,
        writes=known.writes + 1,
        bytes=known.bytes + size,
        first=min(known.first, when),
        last=max(known.last, when),
    )


@attrs.frozen
class Contents:
    """What a journal held at one moment.

    :ivar depths: what waits, by backend; those no longer configured have nothing.
    :ivar dead_letters: how many there are, by backend, for those that have any.
    """

    depths: dict[str, Depth]
    drops: tuple[Drop, ...]
    dead_letters: dict[str, int]


@attrs.frozen
class JournalLimits:
    """How much a journal keeps.

    :ivar max_bytes: on disk; 0 for no limit.
    :ivar max_age: seconds; 0 for no limit.
    :ivar drop_oldest: what to do when it is full: drop the oldest, or refuse new writes.
    """

    max_bytes: int = 0
    max_age: float = 0.0
    drop_oldest: bool = False
