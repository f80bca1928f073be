"""Mending several windows at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

import attrs

from influxrelay.verification.repair import Mending
from influxrelay.verification.setting import Found, Types
from influxrelay.verification.statements import Measurement, Window
from influxrelay.verification.tombstones import Tombstones


@attrs.define
class Crew:
    """Mends several windows at a time.

    :param lead: on whose connections it is found out what is to be mended.
    :param members: each with connections of its own; a single one mends while it is waited for.
    """

    lead: Mending
    members: Sequence[Mending]
    _idle: SimpleQueue[Mending] = attrs.field(factory=SimpleQueue, init=False)
    _problems: list[BaseException] = attrs.field(factory=list, init=False)

    @classmethod
    def of(cls, lead: Mending, size: int) -> Crew:
        """Return a crew of so many, all of whom do the same."""
        members = [
            attrs.evolve(
                lead,
                source=attrs.evolve(lead.source),
                target=attrs.evolve(lead.target),
                tombstones=Tombstones(lead.tombstones.missed),
                uncopied=[],
            )
            for _ in range(size)
        ]
        return cls(lead, members)

    def __attrs_post_init__(self) -> None:
        for each in self.members:
            self._idle.put(each)

    def mark(self) -> str:
        """Return what goes with points that are read from now on."""
        return self.lead.mark()

    def mend(self, measurement: Measurement, window: Window, types: Types, found: Found | None = None) -> None:
        """Have a window mended as soon as somebody has the time.

        :raises InfluxRelayError: one of them could not be.
        """
        if len(self.members) == 1:
            self.members[0].mend(measurement, window, types, found)
            return
        member = self._idle.get()
        if self._problems:
            self._idle.put(member)
            raise self._problems[0]

        def work() -> None:
            try:
                member.mend(measurement, window, types, found)
            except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
                self._problems.append(error)
            finally:
                self._idle.put(member)

        threading.Thread(target=work, daemon=True).start()

    def finish(self) -> None:
        """Wait for all of them.

        :raises InfluxRelayError: one of them could not be mended.
        """
        for each in [self._idle.get() for _ in self.members]:
            self._idle.put(each)
        if self._problems:
            raise self._problems[0]

    def notes(self) -> Iterator[str]:
        """Yield what was not copied because it is deleted."""
        held = Tombstones()
        for each in self.members:
            held.held.update(each.tombstones.held)
        return held.notes(self.lead.source.name)

    @property
    def copied(self) -> int:
        """How many points were copied."""
        return sum(each.copied for each in self.members)

    def close(self) -> None:
        """Close the connections."""
        for each in (self.lead, *self.members):
            each.source.close()
            each.target.close()
