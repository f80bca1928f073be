"""The listeners: each takes writes at a port, and has the senders to its backends."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from influxrelay.config.settings import HTTPOutputConfig, ListenerConfig
from influxrelay.core.errors import JournalError
from influxrelay.core.write import LINES, Destination
from influxrelay.delivery.backend import Backend
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.hand_out import HandOut
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.standing import Outlook
from influxrelay.journal.interface import Journal, Key
from influxrelay.journal.shared_log import RelayGroup
from influxrelay.listeners.factory import (
    http_outputs,
    make_backend,
    make_sender,
    make_writer,
)
from influxrelay.listeners.journaling import Backlogs, DirectoryJournal, GroupJournal, NoJournal
from influxrelay.listeners.port_service import PortService, cannot_start
from influxrelay.listeners.sender_changes import SenderChanges
from influxrelay.listeners.sharing import make_shared_journal
from influxrelay.listeners.transaction import Transaction


class Relaying(PortService):
    """A port whose writes go to backends.

    :cvar is_answering: whether clients learn what becomes of what they send, and send it again if need be.
    :ivar leaving: the senders of outputs that are no longer configured, until they have finished what they have.
    """

    is_shard = False
    is_answering = True
    fan_outs: list[FanOut]

    def __init__(self, config: ListenerConfig, reactor: Any) -> None:
        self.name = config.name
        self.config = config
        self._reactor = reactor
        self.journal = self.make_journal(config)
        self.senders = [self.make_sender(each, config.name) for each in http_outputs(config)]
        self.leaving: dict[Sender, tuple[str, str]] = {}

    def make_journal(self, config: ListenerConfig) -> NoJournal:
        """Return what keeps what backends miss, beside memory."""
        if config.journal is None:
            return NoJournal(self._reactor, self)
        shared = make_shared_journal(config.journal, self._reactor)
        if shared is not None:
            return GroupJournal(self._reactor, self, shared, config)
        return DirectoryJournal(self._reactor, self, make_writer(config.journal, self._reactor, self._forget))

    @property
    def writer(self) -> Journal | None:
        """The journal, if there is one."""
        return self.journal.log

    @property
    def group(self) -> RelayGroup | None:
        """The relays that share the journal; None if there are none."""
        return self.journal.group

    def make_hand_out(self) -> HandOut:
        """Return how a fan-out gives its senders what it accepts."""
        return self.journal.make_hand_out(is_answering=self.is_answering)

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
                    "trouble_age": sender.status.trouble_age,
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
            self.journal.begin()
        except JournalError as error:
            cannot_start(self.log, f"influxrelay: {error}")
        super().startService()

    async def give_up_journal(self) -> None:
        """Close a journal that comes to nothing, and remove it if there was none before it was opened."""
        if self.config.journal is not None:
            await self.journal.give_up(self.config.journal.timeout)

    def resume(self, backlogs: Backlogs) -> None:
        """Begin to work with the journal, and read on from where the last process stopped; once."""
        self.journal.resume(backlogs)

    @property
    def is_ready(self) -> bool:
        """Whether it listens, its journal is open, and it is not stopping."""
        return super().is_ready and self.journal.is_open

    async def open_for_reload(self, *, may_change: bool) -> Backlogs:
        """Open the journal while the reactor runs.

        :raises JournalError: it cannot be used.
        """
        return await self.journal.open_for_reload(may_change=may_change)

    def stop_journal(self, within: float) -> Deferred[Any]:
        """Close the journal; never fails."""
        return self.journal.stop(within)

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
            self.journal.reconfigure(config.journal)
            if self._locations() != before or changes.removed:
                self.writer.register(self.backends_of_journal())
            self.journal.read_on(backlogs)
            self.journal.furnish()
        self.furnish()

    def furnish(self) -> None:
        """Let what is configured hold for the next write."""
        raise NotImplementedError

    def forget(self, sender: Sender) -> None:
        """Know no more of a sender that has left."""
        if self.leaving.pop(sender, None) is not None and self.writer is not None:
            self.writer.register(self.backends_of_journal())

    def _locations(self) -> dict[Sender, tuple[str, str]]:
        """Return the name and the location of each backend, those that are leaving included."""
        urls = {each.name: each.write_url for each in http_outputs(self.config)}
        return {**{sender: (sender.name, urls[sender.name]) for sender in self.senders}, **self.leaving}

    def backends_of_journal(self) -> dict[Key, tuple[str, str]]:
        """Return the backends of today for the journal; one that is leaving makes way for another of its name."""
        taken = {sender.name for sender in self.senders}
        backends: dict[Key, tuple[str, str]] = {}
        for sender, (name, location) in self._locations().items():
            makes_way = sender in self.leaving and name in taken
            backends[sender.backlog] = (f"{name} ({location})" if makes_way else name, location)
        return backends
