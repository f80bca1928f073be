"""How a listener keeps what its backends miss: without a journal, in a directory, or in a log that relays share.

A listener picks one of these once, and asks nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, TimeoutError, succeed

from influxrelay.config.settings import HTTPOutputConfig, JournalConfig, ListenerConfig
from influxrelay.core.errors import JournalError
from influxrelay.delivery.backend import Backend
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.from_log import FromLog
from influxrelay.delivery.hand_out import BesideJournal, HandOut, JournalFirst
from influxrelay.delivery.sender import Sender
from influxrelay.journal.interface import Journal, Key, Positions
from influxrelay.journal.opening import check_disk
from influxrelay.journal.shared.log import SharedJournal
from influxrelay.journal.shared_log import RelayGroup
from influxrelay.journal.worker import in_thread
from influxrelay.journal.writer import JournalWriter
from influxrelay.listeners.factory import http_outputs, journal_limits, make_sender, sender_settings
from influxrelay.listeners.sharing import Opening

Backlogs = dict[str, Positions]
"""Up to where each backend has passed its destinations."""


class Owner(Protocol):
    """A listener, as it is at the moment."""

    name: str
    config: Any
    senders: list[Sender]
    fan_outs: list[FanOut]

    def make_backend(self, output: HTTPOutputConfig) -> Backend:
        """Return a transport to a backend."""

    def backends_of_journal(self) -> dict[Key, tuple[str, str]]:
        """Return the backends for the journal, as name and location."""


class NoJournal:
    """Nothing is kept, or only in memory. This is also the interface, complete.

    :ivar log: the journal, if there is one.
    :ivar group: the relays that share it, if there are any.
    :ivar is_open: whether it can be used, if there is one.
    """

    log: Journal | None = None
    group: RelayGroup | None = None
    is_open = True

    def __init__(self, reactor: Any, owner: Owner) -> None:
        self._reactor = reactor
        self._owner = owner

    def make_hand_out(self, *, is_answering: bool) -> HandOut:  # noqa: ARG002 (of use with a journal)
        """Return how a fan-out gives its senders what it accepts.

        :param is_answering: whether clients learn what becomes of what they send, and send it again if need be.
        """
        return HandOut(self._reactor, clock=time.time)

    def begin(self) -> None:
        """Open it before the reactor runs, or begin with that.

        :raises JournalError: it cannot be used.
        """

    async def open_for_reload(self, *, may_change: bool) -> Backlogs:
        """Open it while the reactor runs.

        :param may_change: whether to register the backends, and to upgrade or mend what is there.
        :return: where the last process stopped, for :meth:`resume`.
        :raises JournalError: it cannot be used.
        """
        return self.open(may_change=may_change)

    def open(self, *, may_change: bool = True) -> Backlogs:  # noqa: ARG002 (as above)
        """Do so at once."""
        return {}

    def resume(self, backlogs: Backlogs) -> None:
        """Begin to work with it, and read on from where the last process stopped; once."""

    def read_on(self, backlogs: Backlogs) -> None:
        """Let senders that are new read on from where their backends are."""

    def reconfigure(self, config: JournalConfig) -> None:
        """Let other limits hold."""

    def furnish(self) -> None:
        """Let it know of other senders."""

    async def give_up(self, within: float) -> None:
        """Close one that comes to nothing, and remove it if there was none before it was opened."""
        await self.stop(within)

    def stop(self, within: float) -> Deferred[Any]:
        """Close it; never fails."""
        for each in self._owner.fan_outs:
            each.hand_out.close()
        return self._stop(within)

    def _stop(self, within: float) -> Deferred[Any]:  # noqa: ARG002 (as above)
        return succeed(None)


class DirectoryJournal(NoJournal):
    """A journal on this relay's disk."""

    def __init__(self, reactor: Any, owner: Owner, writer: JournalWriter) -> None:
        super().__init__(reactor, owner)
        self.log = self._writer = writer
        self.is_open = False
        self._remove: Callable[[], None] | None = None  # if there was none before it was opened

    def make_hand_out(self, *, is_answering: bool) -> HandOut:
        """Have writes journaled beside sending them, or before where nobody would send them again."""
        return (BesideJournal if is_answering else JournalFirst)(self._writer, self._reactor, clock=time.time)

    def begin(self) -> None:
        """Open it and go on."""
        self.resume(self.open())

    async def open_for_reload(self, *, may_change: bool) -> Backlogs:
        """Open it in another thread: a disk may hang."""
        return await in_thread(self._reactor, "open", partial(self.open, may_change=may_change))

    def open(self, *, may_change: bool = True) -> Backlogs:
        """Do so; it may take a while, and be done in another thread."""
        if self.is_open:
            return {}
        owner = self._owner
        try:
            self._remove = check_disk(self._writer.directory, owner.config.journal.timeout)
            positions = self._writer.open(owner.backends_of_journal() if may_change else None)
        except JournalError as error:
            raise JournalError(f"{owner.name}: {error}") from error
        return {sender.name: positions[sender.backlog] for sender in owner.senders if sender.backlog in positions}

    def resume(self, backlogs: Backlogs) -> None:
        """Begin to work with it."""
        if not self.is_open:
            self.is_open = True
            self._writer.start()
            self.read_on(backlogs)

    def read_on(self, backlogs: Backlogs) -> None:
        """Let senders read on."""
        (fan_out,) = self._owner.fan_outs
        for sender in self._owner.senders:
            if sender.name in backlogs:
                sender.backlog.resume(backlogs[sender.name], self._writer.last_number, fan_out.decided())

    def reconfigure(self, config: JournalConfig) -> None:
        """Let other limits hold."""
        full_sync = config.sync == "full"
        self._writer.reconfigure(journal_limits(config), full_sync=full_sync, timeout=config.timeout)

    def _stop(self, within: float) -> Deferred[Any]:
        return self._writer.stop(within=within)

    async def give_up(self, within: float) -> None:
        """Close it, and remove it if there was none before."""
        await super().give_up(within)
        if self._remove is not None:
            removed = in_thread(self._reactor, "remove", self._remove)
            removed.addTimeout(within, self._reactor)
            with suppress(OSError, TimeoutError):  # of the disk, and of Twisted if it does not answer
                await removed


class GroupJournal(NoJournal):
    """A log that relays share; where each backend stands is told with its lease."""

    def __init__(self, reactor: Any, owner: Owner, journal: SharedJournal, config: ListenerConfig) -> None:
        super().__init__(reactor, owner)
        self.log = self.group = self._journal = journal
        self.is_open = False
        self._hand_out = FromLog(journal, reactor, clock=time.time)
        self._opening = Opening(reactor, config.name, journal.place, self._open)
        self._beside: dict[str, Sender] = {}  # by name, for what the log cannot take

    def make_hand_out(self, *, is_answering: bool) -> HandOut:  # noqa: ARG002 (nobody is answered before the log has it)
        """Have writes handed out by the log."""
        self.furnish()
        return self._hand_out

    def begin(self) -> None:
        """Open it, however long that takes."""
        if not self.is_open:
            self._opening.begin()

    async def open_for_reload(self, *, may_change: bool) -> Backlogs:
        """Open it only if anything may change."""
        if may_change:
            await self._opening.try_once()
        return {}

    def _open(self) -> Deferred[None]:
        opened = self._journal.open(self._owner.backends_of_journal(), self._hand_out.follower)
        return opened.addCallback(lambda _: self._opened())

    def _opened(self) -> None:
        self.is_open = True
        self._hand_out.begin()

    def reconfigure(self, config: JournalConfig) -> None:
        """Let other limits hold."""
        self._journal.reconfigure(journal_limits(config), full_sync=config.sync == "full")

    def furnish(self) -> None:
        """Have senders without a backlog for what the log cannot take, if that is to be relayed."""
        owner, before = self._owner, self._beside
        self._beside = {}
        relays = owner.config.journal.on_error == "relay"
        for output, sender in zip(http_outputs(owner.config), owner.senders, strict=True) if relays else ():
            plain = attrs.evolve(output, buffer_size_mb=0)
            beside = before.pop(output.name, None) or make_sender(plain, owner.name, self._reactor, None)
            beside.reconfigure(owner.make_backend(plain), sender_settings(plain, owner.name))
            sender.backlog.relay_beside(beside.backlog)
            self._beside[output.name] = beside
        self._hand_out.relay_by(self._beside)
        for each in before.values():
            each.backend.retire()

    def _stop(self, within: float) -> Deferred[Any]:
        self._opening.end()
        for beside in self._beside.values():
            beside.close()
            beside.abort()
            beside.backend.close()
        return self._journal.stop(within=within)
