"""The listeners: each takes writes at a port, and has the senders to its backends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, TimeoutError, succeed

from influxrelay.config.settings import HTTPOutputConfig, JournalConfig, ListenerConfig
from influxrelay.core.errors import JournalError
from influxrelay.core.write import LINES, Destination
from influxrelay.delivery.backend import Backend
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.from_log import FromLog
from influxrelay.delivery.hand_out import HandOut
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.standing import Outlook
from influxrelay.journal.interface import Key, Positions
from influxrelay.journal.opening import check_disk
from influxrelay.journal.shared.log import SharedJournal
from influxrelay.journal.shared_log import RelayGroup
from influxrelay.journal.worker import in_thread
from influxrelay.journal.writer import JournalWriter
from influxrelay.listeners.factory import (
    http_outputs,
    journal_limits,
    make_backend,
    make_hand_out,
    make_sender,
    make_writer,
    sender_settings,
)
from influxrelay.listeners.port_service import PortService, cannot_start
from influxrelay.listeners.sender_changes import SenderChanges
from influxrelay.listeners.sharing import Opening, make_shared_journal
from influxrelay.listeners.transaction import Transaction

Backlogs = dict[str, Positions]
"""Up to where each backend has passed its destinations."""


class Relaying(PortService):
    """A port whose writes go to backends.

    :cvar is_answering: whether clients learn what becomes of what they send, and send it again if need be.
    :ivar leaving: the senders of outputs that are no longer configured, until they have finished what they have.
    """

    is_shard = False
    is_answering = True
    fan_outs: list[FanOut]
    _journal_open = False
    _remove_journal: Callable[[], None] | None = None  # if there was none before it was opened
    _opening: Opening | None = None

    def __init__(self, config: ListenerConfig, reactor: Any) -> None:
        self.name = config.name
        self.config = config
        self._reactor = reactor
        self.writer = self.make_writer(config)
        self.senders = [self.make_sender(each, config.name) for each in http_outputs(config)]
        self.leaving: dict[Sender, tuple[str, str]] = {}
        self._beside: dict[str, Sender] = {}  # by name, for what a shared journal cannot take

    def make_writer(self, config: ListenerConfig) -> JournalWriter | SharedJournal | None:
        """Return what keeps the journal, if there is one."""
        shared = make_shared_journal(config.journal, self._reactor) if config.journal is not None else None
        return shared or make_writer(config.journal, self._reactor, self._forget)

    @property
    def group(self) -> RelayGroup | None:
        """The relays that share the journal; None if there are none."""
        return self.writer if isinstance(self.writer, SharedJournal) else None

    def make_hand_out(self) -> HandOut:
        """Return how a fan-out gives its senders what it accepts."""
        hand_out = make_hand_out(self.writer, self._reactor, is_answering=self.is_answering)
        if isinstance(self.writer, SharedJournal) and isinstance(hand_out, FromLog):
            attempt = partial(self._open_shared, self.writer, hand_out)
            self._opening = Opening(self._reactor, self.name, self.writer.place, attempt)
            self._relay_beside(hand_out)
        return hand_out

    def _relay_beside(self, hand_out: FromLog) -> None:
        """Have senders without a backlog for what a shared journal cannot take, if that is to be relayed."""
        before, journal = self._beside, self.config.journal
        self._beside = {}
        relays = journal is not None and journal.on_error == "relay"
        for output, sender in zip(http_outputs(self.config), self.senders, strict=True) if relays else ():
            plain = attrs.evolve(output, buffer_size_mb=0)
            beside = before.pop(output.name, None) or make_sender(plain, self.name, self._reactor, None)
            beside.reconfigure(self.make_backend(plain), sender_settings(plain, self.name))
            sender.backlog.relay_beside(beside.backlog)
            self._beside[output.name] = beside
        hand_out.relay_by(self._beside)
        for each in before.values():
            each.backend.retire()

    def make_sender(self, output: HTTPOutputConfig, name: str) -> Sender:
        """Return the sender to a backend of the listener of this name."""
        return make_sender(output, name, self._reactor, self.writer)

    def make_backend(self, output: HTTPOutputConfig) -> Backend:
        """Return a transport to a backend."""
        return make_backend(output, self._reactor)

    def why_unavailable(self) -> str:
        """Tell why a write would be answered 5xx now; empty if it would not, as far as is known."""
        reasons = [each.why_unavailable() for each in self.fan_outs]
        return "" if "" in reasons else "; ".join(reasons)

    def outlook(self) -> Outlook | None:
        """Tell what would become of a read; None if there are no queries here."""
        return None

    def _influxdbs(self) -> list[Sender]:
        """Return the senders to backends that answer queries: Prometheus does not."""
        return [sender for sender in self.senders if LINES in sender.kinds]

    def hand_over(self) -> Deferred[Any]:
        """Give what has been collected to the senders; fires when they have it."""
        return DeferredList([each.handed_out() for each in self.fan_outs])

    def counters(self) -> dict[str, Any]:
        """Return what has been counted since the start, for JSON."""
        return {
            "name": self.name,
            "bind_addr": self.bind_addr,
            "ready": self.is_ready,
            "problem": self.why_unavailable(),
            "backends": [
                {
                    "name": sender.name,
                    "problem": sender.why_unavailable(),
                    "writes": sender.writes,
                    "requests": sender.requests.count,
                    "failures": dict(sender.clients.failures),
                }
                for sender in self.senders
            ],
        }

    # -- the journal

    def startService(self) -> None:
        """Open the journal, then the port."""
        try:
            if self._opening is not None and not self._journal_open:
                self._opening.begin()
            self.resume(self.open_journal())
        except JournalError as error:
            cannot_start(self.log, f"influxrelay: {error}")
        super().startService()

    def _open_shared(self, journal: SharedJournal, hand_out: FromLog) -> Deferred[None]:
        opened = journal.open(self._backends_of_journal(), hand_out.follower)
        return opened.addCallback(lambda _: self._opened_shared(hand_out))

    def _opened_shared(self, hand_out: FromLog) -> None:
        self._journal_open = True
        hand_out.begin()

    def open_journal(self, *, may_change: bool = True) -> Backlogs:
        """Open the journal, if there is one; may take a while, and be done in another thread.

        :param may_change: whether to register the backends, and to upgrade or mend what is there.
        :return: where the last process stopped, for :meth:`resume`.
        :raises JournalError: it cannot be used.
        """
        journal = self.config.journal
        if not isinstance(self.writer, JournalWriter) or journal is None or self._journal_open:
            return {}
        try:
            self._remove_journal = check_disk(self.writer.directory, journal.timeout)
            positions = self.writer.open(self._backends_of_journal() if may_change else None)
        except JournalError as error:
            raise JournalError(f"{self.name}: {error}") from error
        return {sender.name: positions[sender.backlog] for sender in self.senders if sender.backlog in positions}

    async def give_up_journal(self) -> None:
        """Close a journal that comes to nothing, and remove it if there was none before it was opened."""
        if self.writer is not None and self.config.journal is not None:
            await self.stop_journal(self.config.journal.timeout)
            if self._remove_journal is not None:
                removed = in_thread(self._reactor, "remove", self._remove_journal)
                removed.addTimeout(self.config.journal.timeout, self._reactor)
                with suppress(OSError, TimeoutError):  # of the disk, and of Twisted if it does not answer
                    await removed

    def resume(self, backlogs: Backlogs) -> None:
        """Begin to work with the journal, and read on from where the last process stopped; once."""
        if isinstance(self.writer, JournalWriter) and not self._journal_open:
            self._journal_open = True
            self.writer.start()
            self._read_on(self.writer, backlogs)

    @property
    def is_ready(self) -> bool:
        """Whether it listens, its journal is open, and it is not stopping."""
        return super().is_ready and (self.writer is None or self._journal_open)

    async def open_for_reload(self, *, may_change: bool) -> Backlogs:
        """Open the journal while the reactor runs; one that relays share only if anything may change.

        :raises JournalError: it cannot be used.
        """
        if self._opening is not None:
            if may_change:
                await self._opening.try_once()
            return {}
        return await in_thread(self._reactor, "open", partial(self.open_journal, may_change=may_change))

    def stop_journal(self, within: float) -> Deferred[Any]:
        """Close the journal; never fails."""
        if self._opening is not None:
            self._opening.end()
        for each in self.fan_outs:
            each.hand_out.close()
        for beside in self._beside.values():
            beside.close()
            beside.abort()
            beside.backend.close()
        return succeed(None) if self.writer is None else self.writer.stop(within=within)

    def _read_on(self, writer: JournalWriter, backlogs: Backlogs) -> None:
        (fan_out,) = self.fan_outs
        for sender in self.senders:
            if sender.name in backlogs:
                sender.backlog.resume(backlogs[sender.name], writer.last_number, fan_out.decided())

    def _forget(self, destination: Destination, upto: int) -> None:
        for sender in (*self.senders, *self.leaving):
            sender.backlog.forget(destination, upto)

    # -- another configuration

    async def prepare(self, config: Any, steps: Transaction) -> None:
        """Check what can fail of another configuration, but for the port.

        :raises ConfigError: a PEM file cannot be used.
        :raises JournalError: the journal does not tell where a backend that returns has stopped.
        """
        writer = self.writer
        changes = SenderChanges.between(self.config, config, self.senders, self.make_sender, self.make_backend)
        steps.told += changes.told
        backlogs: Backlogs = {}
        if writer is not None and changes.added():
            locations = {each.name: each.write_url for each in http_outputs(config)}
            kept: dict[str, Key] = {name: sender.backlog for name, sender in changes.kept.items()}
            backlogs = await writer.returning(locations, kept)
        steps.later(self.reconfigure, config, changes, backlogs)

    def reconfigure(self, config: Any, changes: SenderChanges, backlogs: Backlogs) -> None:
        """Let another configuration hold, but for the port."""
        self.hand_over()
        before = self._locations()
        self.leaving.update((sender, before[sender]) for sender in changes.removed)
        changes.apply()
        self.name, self.config, self.senders = config.name, config, changes.senders
        if self.writer is not None:
            self._reconfigure_journal(self.writer, config.journal)
            if self._locations() != before or changes.removed:
                self.writer.register(self._backends_of_journal())
            if isinstance(self.writer, JournalWriter):
                self._read_on(self.writer, backlogs)
        for each in self.fan_outs:
            if isinstance(each.hand_out, FromLog):
                self._relay_beside(each.hand_out)
        self.furnish()

    def _reconfigure_journal(self, journal: JournalWriter | SharedJournal, config: JournalConfig) -> None:
        limits, full_sync = journal_limits(config), config.sync == "full"
        if isinstance(journal, JournalWriter):
            journal.reconfigure(limits, full_sync=full_sync, timeout=config.timeout)
        else:
            journal.reconfigure(limits, full_sync=full_sync)

    def furnish(self) -> None:
        """Let what is configured hold for the next write."""
        raise NotImplementedError

    def forget(self, sender: Sender) -> None:
        """Know no more of a sender that has left."""
        if self.leaving.pop(sender, None) is not None and self.writer is not None:
            self.writer.register(self._backends_of_journal())

    def _locations(self) -> dict[Sender, tuple[str, str]]:
        """Return the name and the location of each backend, those that are leaving included."""
        urls = {each.name: each.write_url for each in http_outputs(self.config)}
        return {**{sender: (sender.name, urls[sender.name]) for sender in self.senders}, **self.leaving}

    def _backends_of_journal(self) -> dict[Key, tuple[str, str]]:
        """Return the backends of today for the journal; one that is leaving makes way for another of its name."""
        taken = {sender.name for sender in self.senders}
        backends: dict[Key, tuple[str, str]] = {}
        for sender, (name, location) in self._locations().items():
            makes_way = sender in self.leaving and name in taken
            backends[sender.backlog] = (f"{name} ({location})" if makes_way else name, location)
        return backends
