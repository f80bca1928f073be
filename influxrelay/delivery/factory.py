"""From configured outputs and journals to senders and writers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs

from influxrelay.config.diff import pair_outputs
from influxrelay.config.settings import (
    HTTPOutputConfig,
    JournalConfig,
    ListenerConfig,
    UDPOutputConfig,
)
from influxrelay.core.write import Destination
from influxrelay.delivery.backlog import Backlog, JournalBacklog, MemoryBacklog
from influxrelay.delivery.buffered_sender import BufferedSender
from influxrelay.delivery.http_backend import HTTPBackend
from influxrelay.delivery.sender import Backend, Sender
from influxrelay.delivery.write_apis import V1, V2, V3, WriteAPI
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.writer import JournalWriter
from influxrelay.lineprotocol.filters import Filter
from influxrelay.transport.tls import ClientTLS

_KB = 1024
_MB = 1024 * 1024
Listener = ListenerConfig


def http_outputs(listener: Listener) -> list[HTTPOutputConfig]:
    """Return the outputs that have senders."""
    return [output for output in listener.outputs if isinstance(output, HTTPOutputConfig)]


def make_backend(output: HTTPOutputConfig, reactor: Any) -> HTTPBackend:
    """Build the transport to one HTTP backend.

    :raises ConfigError: a PEM file cannot be used.
    """
    authorization = None
    if output.token is not None:
        authorization = (b"Bearer " if output.api == "v3" else b"Token ") + output.token.encode()
    elif output.username is not None:
        authorization = b"Basic " + b64encode(f"{output.username}:{output.password}".encode())
    tls = ClientTLS(
        verify=not output.skip_tls_verification,
        ca_file=output.ca_file,
        client_certificate=output.client_certificate,
    )
    return HTTPBackend(
        output.name,
        output.write_url,
        reactor,
        tls,
        timeout=output.timeout,
        api=make_api(output),
        authorization=authorization,
        gzip=output.gzip,
        headers=dict(output.headers),
        max_connections=output.max_connections,
        ping_url=output.ping_url,
        ping_timeout=output.health_timeout,
        query_url=output.query_url,
    )


def make_api(output: HTTPOutputConfig) -> WriteAPI:
    """Return how an output is written to."""
    if output.api == "v2":
        return V2(output.org or "", output.buckets)
    return V3(output.buckets) if output.api == "v3" else V1()


def _bounds(output: HTTPOutputConfig) -> dict[str, Any]:
    return {
        "max_batch": output.max_batch_kb * _KB,
        "max_in_flight": output.max_in_flight,
        "max_waiting": output.max_waiting_mb * _MB,
    }


def make_sender(output: HTTPOutputConfig, relay: str, reactor: Any, writer: Journal | None) -> Sender:
    """Build the sender to one HTTP backend, with a queue if there is a journal or a buffer.

    :raises ConfigError: a PEM file cannot be used.
    """
    backend, bounds = make_backend(output, reactor), _bounds(output)
    sender: Sender
    if writer is None and not output.buffer_size_mb:
        sender = Sender(backend, reactor, relay=relay, **bounds)
    else:
        sender = BufferedSender(
            backend,
            reactor,
            relay=relay,
            backlog=_make_backlog(output, writer),
            max_delay=output.max_delay_interval,
            create_databases=output.create_databases,
            **bounds,
        )
    sender.filter = make_filter(output)
    return sender


def _make_backlog(output: HTTPOutputConfig, writer: Journal | None) -> Backlog:
    if writer is not None:
        return JournalBacklog(writer)
    drop_oldest = output.buffer_full == "drop-oldest"
    return MemoryBacklog(output.name, output.buffer_size_mb * _MB, drop_oldest=drop_oldest)


def make_filter(output: HTTPOutputConfig | UDPOutputConfig) -> Filter | None:
    """Build what decides which lines an output takes; None if it takes all."""
    measurement = [each.measurement_expression for each in output.filters if each.measurement_expression]
    tag = [each.tag_expression for each in output.filters if each.tag_expression]
    return Filter(measurement, tag) if measurement or tag else None


def reconfigure_sender(sender: Sender, output: HTTPOutputConfig, backend: Backend, relay: str) -> None:
    """Let a sender go on with what its output says now; the queue stays, if there is one.

    :param backend: the output's, or the sender's own if that would do the same.
    """
    if isinstance(sender, BufferedSender):
        sender.max_delay, sender.create_databases = output.max_delay_interval, output.create_databases
        if isinstance(sender.backlog, MemoryBacklog):
            sender.backlog.backend, sender.backlog.max_bytes = output.name, output.buffer_size_mb * _MB
            sender.backlog.drop_oldest = output.buffer_full == "drop-oldest"
    if isinstance(backend, HTTPBackend) and isinstance(sender.backend, HTTPBackend):
        backend.take_over(sender.backend)
    backend.name = output.name
    sender.filter = make_filter(output)
    sender.reconfigure(backend, relay=relay, **_bounds(output))


@attrs.frozen
class SenderChanges:
    """What another configuration does to a listener's senders, as soon as :meth:`apply` is called.

    :ivar senders: those that there will be, in order.
    :ivar kept: those of them that are there already, by their new names.
    :ivar removed: those that will be no more.
    :ivar told: what changes beside the configuration itself, for people.
    """

    senders: list[Sender] = attrs.field(factory=list)
    kept: dict[str, Sender] = attrs.field(factory=dict)
    removed: list[Sender] = attrs.field(factory=list)
    told: list[str] = attrs.field(factory=list)
    _steps: list[Callable[[], None]] = attrs.field(factory=list)

    @classmethod
    def between(
        cls,
        old: Listener,
        new: Listener,
        senders: Sequence[Sender],
        make_sender: Callable[[HTTPOutputConfig, str], Sender],
        make_backend: Callable[[HTTPOutputConfig], Backend],
    ) -> SenderChanges:
        """Find out which senders stay, which come and which go.

        :param senders: of the old outputs, in their order.
        :raises ConfigError: a PEM file cannot be used.
        """
        changes = cls()
        present = {each.name: (each, sender) for each, sender in zip(http_outputs(old), senders, strict=True)}
        before = pair_outputs(old, new)
        for output in http_outputs(new):
            if output.name not in before:
                changes.senders.append(make_sender(output, new.name))
                continue
            was, sender = present.pop(before[output.name].name)
            changes.senders.append(sender)
            changes.kept[output.name] = sender
            made = make_backend(output)
            stays = made.does_the_same(sender.backend)
            if not stays or output != was or new.name != old.name:
                backend = sender.backend if stays else made
                changes._steps.append(partial(reconfigure_sender, sender, output, backend, new.name))
            if output == was and not stays:
                changes.told.append(f"{new.name}: output {output.name}: content of its PEM files")
        changes.removed.extend(sender for _, sender in present.values())
        return changes

    def added(self) -> list[Sender]:
        """Return those that are new."""
        return [sender for sender in self.senders if sender not in self.kept.values()]

    def apply(self) -> None:
        """Let the senders that stay go on with what holds now."""
        for step in self._steps:
            step()


def make_writer(
    journal: JournalConfig | None, reactor: Any, on_drop: Callable[[Destination, int], object]
) -> JournalWriter | None:
    """Build what keeps a journal.

    :param on_drop: is told of a destination, and of the last number in it that a limit has cost.
    """
    if journal is None:
        return None
    limits, full_sync = journal_limits(journal), journal.sync == "full"
    return JournalWriter(reactor, journal.directory, limits, full_sync=full_sync, on_drop=on_drop)


def journal_limits(journal: JournalConfig) -> JournalLimits:
    """Return how much a journal keeps."""
    return JournalLimits(journal.max_bytes, journal.max_age, journal.full == "drop-oldest")
