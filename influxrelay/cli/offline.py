"""Commands while the relay is stopped: its journals, opened without a thread, stand in for its listeners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from influxrelay.config.settings import Config
from influxrelay.core.errors import JournalError
from influxrelay.delivery.sender import Sender
from influxrelay.journal.ledger import FILE
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.worker import InlineWorker
from influxrelay.journal.writer import JournalWriter
from influxrelay.operations import commands
from influxrelay.operations.targets import Progress
from influxrelay.operations.views import Refused, Request


@attrs.define
class StoppedListener:
    """A listener of a relay that is stopped."""

    name: str
    writer: JournalWriter
    senders: tuple[Sender, ...] = ()
    group: None = None
    running: bool = False


def run(config: Config, request: Request, no_relay: str, progress: Progress | None = None) -> dict[str, Any]:
    """Run a command on the journals of a stopped relay.

    :param no_relay: why there is no relay to ask.
    :raises Refused: it cannot be done.
    """
    if request.command not in commands.COMMANDS.keys() - commands.NEED_A_RELAY:
        raise Refused(f"{no_relay}; this needs a running relay")
    listeners = config.listeners
    if request.listener and request.listener not in [each.name for each in listeners]:
        there_is = ", ".join(each.name for each in listeners)
        raise Refused(f"there is no listener {request.listener}; there is: {there_is}")
    directories = {
        each.name: Path(each.journal.directory)
        for each in listeners
        if each.journal and not each.journal.shared and request.listener in ("", each.name)
    }
    if not directories and any(each.journal and each.journal.shared for each in listeners):
        raise Refused(f"{no_relay}; only a running relay knows what is in a shared journal")
    if not directories:
        raise Refused(f"{no_relay}, and there is no journal that could be read instead")
    try:
        with _opened(directories) as stopped:
            command = commands.COMMANDS[request.command]
            return _result(Deferred.fromCoroutine(command(stopped, request, progress or _not_told)))
    except JournalError as error:
        raise Refused(f"{no_relay}; {error}") from error


def _not_told(done: int, total: int) -> None:
    """Tell nobody how far the work is."""


@contextmanager
def _opened(directories: Mapping[str, Path]) -> Iterator[list[StoppedListener]]:
    """Open the journals that a relay has made already.

    :raises JournalError: one of them cannot be opened.
    """
    listeners: list[StoppedListener] = []
    try:
        for name, directory in directories.items():
            try:
                if not (directory / FILE).exists():
                    continue
            except OSError as error:
                raise JournalError(f"{directory}: {error.strerror}") from error
            writer = JournalWriter(Clock(), directory, JournalLimits(), make_worker=InlineWorker)
            writer.open(None)
            listeners.append(StoppedListener(name, writer))
        yield listeners
    finally:
        for each in listeners:
            each.writer.stop()


def _result(deferred: Deferred[dict[str, Any]]) -> dict[str, Any]:
    """Return what a Deferred fired with: nothing here waits for anything."""
    results: list[dict[str, Any] | Failure] = []
    deferred.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
