"""A journal that a listener shares with the same listener of other relays: making it, and opening it."""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.config.settings import JournalConfig
from influxrelay.core.errors import ConfigError, JournalError
from influxrelay.journal.shared.engine import NatsEngine
from influxrelay.journal.shared.interface import Unfit
from influxrelay.journal.shared.log import SharedJournal
from influxrelay.listeners.factory import journal_limits
from influxrelay.transport.event_loop import event_loop

PAUSE = 1.0  # seconds between two attempts to open a log that cannot be reached
LONG_PAUSE = 30.0  # the same where the system must not be used


def make_shared_journal(journal: JournalConfig, reactor: Any) -> SharedJournal | None:
    """Build what keeps a shared journal; None if the journal is not shared.

    :raises ConfigError: a PEM file cannot be used, or the reactor has no event loop of its own.
    """
    shared = journal.shared
    if shared is None:
        return None
    relay = f"{re.sub('[^A-Za-z0-9]+', '-', socket.gethostname())[:32]}-{secrets.token_hex(4)}"
    limits = journal_limits(journal)
    try:
        engine = NatsEngine(
            reactor,
            journal.directory,
            shared.servers,
            shared.stream,
            limits,
            client=relay,
            tls=shared.tls,
            ca_file=shared.ca_file,
            credentials_file=shared.credentials_file,
            full_sync=journal.sync == "full",
            timeout=journal.timeout,
        )
    except JournalError as error:
        raise ConfigError(str(error)) from error
    return SharedJournal(reactor, engine, relay, limits, lease=shared.lease)


class Opening:
    """Opens a shared journal, however long that takes.

    :param attempt: tries it.
    :param place: where it is, for people.
    :ivar problem: why it is not open.
    """

    _log = Logger()

    def __init__(self, reactor: Any, relay: str, place: str, attempt: Callable[[], Deferred[None]]) -> None:
        self.problem = "it is not open yet"
        self._reactor = reactor
        self._fields: dict[str, Any] = {"relay": relay, "place": place}
        self._attempt = attempt
        self._is_over = False

    def begin(self) -> None:
        """Try it before the reactor runs; if the log cannot be reached, go on with that in the background.

        :raises Unfit: the system must not be used.
        """
        loop: Any = event_loop(self._reactor)
        self._log.info("{relay}: waiting for the journal at {place}", **self._fields)
        try:
            loop.run_until_complete(self._attempt().asFuture(loop))
        except Unfit:
            raise
        except JournalError as error:
            self._failed(error)
            going_on = Deferred.fromCoroutine(self._go_on())
            going_on.addErrback(self._bug)
        else:
            self._opened()

    def try_once(self) -> Deferred[None]:
        """Try it while the reactor runs."""
        return self._attempt().addCallback(lambda _: self._opened())

    async def _go_on(self) -> None:
        pause = PAUSE
        while not self._is_over:
            await deferLater(self._reactor, pause)
            if self._is_over:
                return
            try:
                await self._attempt()
            except JournalError as error:
                self._failed(error)
                pause = LONG_PAUSE if isinstance(error, Unfit) else PAUSE
            else:
                self._opened()

    def _bug(self, failure: Failure) -> None:
        self._log.failure("{relay}: the journal at {place}", failure, **self._fields)

    def _failed(self, error: JournalError) -> None:
        if str(error) != self.problem:
            self._log.critical(
                "{relay}: cannot open the journal, trying again: {reason}", reason=str(error), **self._fields
            )
        self.problem = str(error)

    def _opened(self) -> None:
        self._is_over = True
        self.problem = ""
        self._log.info("{relay}: the journal at {place} is open", **self._fields)

    def end(self) -> None:
        """Try it no more."""
        self._is_over = True
