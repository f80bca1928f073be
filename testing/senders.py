"""A sender that answers when a test says so."""

from __future__ import annotations

from collections.abc import Sequence

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.fate import Fate
from influxrelay.delivery.settings import EVERYTHING
from influxrelay.lineprotocol.filters import Filter


class FakeSender:
    """Takes writes and tells their fates what it is told.

    It is its own backlog, of which a fan-out asks little.

    :param keeps: whether it has a backlog.
    :ivar at_once: the outcome of each write, told before :meth:`submit` returns.
    :ivar takes: what :meth:`submit` returns.
    :ivar relies: whether it relies on the journal for its writes.
    :ivar skipped: the numbers of the writes of which it gets nothing.
    :ivar unjournaled: the fates of the writes that the journal could not take, although this sender relies on it.
    """

    def __init__(self, name: str = "fake", *, keeps: bool = False, wanted: Filter | None = None) -> None:
        self.name = name
        self.keeps = keeps
        self.filter = wanted
        self.at_once: Reply | BackendFailure | None = None
        self.takes = True
        self.kinds = EVERYTHING
        self.relies = False
        self.taken: list[Write] = []
        self.fates: list[Fate] = []
        self.skipped: list[int] = []
        self.unjournaled: list[Fate] = []
        self.backlog = self

    def go_along_with(self, senders: Sequence[FakeSender]) -> None:
        """Do nothing: it does not look at others."""

    def submit(self, write: Write, fate: Fate) -> bool:
        """Take a write."""
        self.taken.append(write)
        self.fates.append(fate)
        if self.relies:
            fate.rely(self)
        if self.at_once is not None:
            self.settle(self.at_once)
        return self.takes

    def settle(self, outcome: Reply | BackendFailure) -> None:
        """Tell the last write's fate."""
        if isinstance(outcome, Reply):
            self.fates[-1].answered(self.name, outcome)
        else:
            self.fates[-1].failed(self.name, outcome)

    def skip(self, destination: Destination, number: int) -> None:
        """Note it."""
        self.skipped.append(number)

    def decided(self, fate: Fate) -> None:
        """Nothing to forget."""

    def not_journaled(self, fate: Fate) -> None:
        """Note it."""
        self.unjournaled.append(fate)
