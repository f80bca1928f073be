"""What commands act on: the listeners of a running relay, or of a stopped one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from influxrelay.delivery.sender import Sender
from influxrelay.journal.interface import Journal
from influxrelay.journal.shared_log import RelayGroup

Progress = Callable[[int, int], None]
"""Is called with how many are done, of how many; raises if nobody waits for the rest."""


class Listener(Protocol):
    """What commands need of a listener."""

    name: str

    @property
    def running(self) -> bool | int:
        """Whether its relay runs."""

    @property
    def writer(self) -> Journal | None:
        """Its journal, if it has one."""

    @property
    def group(self) -> RelayGroup | None:
        """The relays that share its journal; None if it shares none."""

    @property
    def senders(self) -> Sequence[Sender]:
        """The senders to its backends."""
