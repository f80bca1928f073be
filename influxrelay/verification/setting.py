"""What the comparisons of all measurements of some servers share, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Protocol

import attrs

from influxrelay.verification.differences import Difference
from influxrelay.verification.points import Point, Points
from influxrelay.verification.progress import Memory
from influxrelay.verification.statements import Extent, Window

Types = Mapping[str, set[str]]
"""The types that each field has on a server."""

SETTLING = 60 * 10**9  # nanoseconds for which a write may be under way to one of the servers


@attrs.frozen
class Found:
    """What two servers have in a window.

    :ivar mark: see :meth:`Mender.mark`.
    """

    source: Points
    target: Points
    mark: str = ""


class Mender(Protocol):
    """Does something about points that differ."""

    dry_run: bool
    """Whether it only says what it would do: then all that differs is wanted."""

    def mark(self) -> str:
        """Return what tells later whether points that are read from now on are out of date."""

    def mend(self, extent: Extent, types: Types, found: Found | None) -> set[Point]:
        """Do something about points of which some differ; return those that it would change if this is a dry run.

        :param types: of the fields on the first server.
        :param found: None where the second server has nothing; then nothing is said of them.
        """


@attrs.define
class Outcome:
    """What was found.

    :ivar windows: that were compared by aggregates, and ``large``: those of them that were not read in full, of which
        ``sampled`` of ``large_points`` points were read.
    :ivar points: that were compared one by one.
    :ivar not_compared: what could not be compared, and why.
    """

    differences: list[Difference] = attrs.field(factory=list)
    windows: int = 0
    large: int = 0
    large_points: int = 0
    sampled: int = 0
    points: int = 0
    not_compared: list[str] = attrs.field(factory=list)


@attrs.define
class Setting:
    """What the comparisons of all measurements share.

    :ivar now: nanoseconds since 1970, when the comparison began.
    :ivar report: is called now and then, with the part of the window at hand that is done.
    """

    outcome: Outcome
    memory: Memory
    random: Random
    sleep: Callable[[float], None]
    now: int
    mender: Mender | None
    report: Callable[[float], None]

    def is_settled(self, window: Window) -> bool:
        """Say whether no write should be under way any more that may be missing in a window."""
        return window.until <= self.now - SETTLING

    def divide(self, window: Window) -> tuple[Window, Window]:
        """Return the part of a window that is settled, and the one behind it; one of them may be empty."""
        middle = min(max(window.since, self.now - SETTLING), window.until)
        return Window(window.since, middle), Window(middle, window.until)
