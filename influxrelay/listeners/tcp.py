"""A listener for lines that come over TCP, or through a unix stream socket."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from influxrelay.config.settings import TCPListenerConfig
from influxrelay.core.text import tally
from influxrelay.core.write import Destination
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.patient_batcher import PatientBatcher
from influxrelay.lineprotocol.query_string import parse
from influxrelay.listeners.factory import http_outputs
from influxrelay.listeners.output_settings import make_filter
from influxrelay.listeners.port_service import StreamService
from influxrelay.listeners.relaying import Relaying
from influxrelay.listeners.tcp_protocol import LineServer
from influxrelay.transport.sockets import Sockets


class TCPService(StreamService, Relaying):
    """A listener for newline-framed lines, and its outputs.

    It gives no answers. Lines that no backend and no queue can take wait, and nothing more is read meanwhile.
    """

    is_answering = False
    _listening_line = "{relay}: listening for TCP on {address}, backends: {backends}"
    config: TCPListenerConfig

    def __init__(self, config: TCPListenerConfig, reactor: Any, sockets: Sockets) -> None:
        Relaying.__init__(self, config, reactor)
        self._sockets = sockets
        self.check_endpoint()
        self.server = LineServer(config.name, reactor)
        self._fan_out = FanOut(config.name, self.senders, self.make_hand_out(), consistency="any")
        self.fan_outs = [self._fan_out]
        where, query = self._destination()
        self.batcher = PatientBatcher(
            self._fan_out, reactor, where, query, **self._bounds(), on_room=self.server.resume
        )
        self.furnish()

    @property
    def _factory(self) -> LineServer:
        return self.server

    def _destination(self) -> tuple[Destination, bytes]:
        """Return where the lines go, and the query string for the backends."""
        output = http_outputs(self.config)[0]
        target = parse(f"{output.query}&precision={self.config.precision}".encode())
        credentials = (b"", target.username, target.password)
        where = Destination(target.database, target.retention_policy, target.precision, credentials)
        return where, target.forwarded

    def _bounds(self) -> dict[str, Any]:
        config = self.config
        return {
            "batch_lines": config.batch_lines,
            "batch_bytes": config.batch_bytes,
            "interval": config.batch_interval,
        }

    def furnish(self) -> None:
        """Let what is configured hold for the next line."""
        config = self.config
        self._fan_out.reconfigure(config.name, self.senders, consistency="any")
        where, query = self._destination()
        self.batcher.reconfigure(where, query, **self._bounds())
        filters = list(dict.fromkeys(map(make_filter, config.outputs)))
        wanted = [] if None in filters else [each for each in filters if each is not None]
        self.server.limit_connections(config.max_connections)
        self.server.reconfigure(config.name, self.batcher, precision=config.precision, filters=wanted)

    def _backends(self) -> str:
        return ", ".join(sender.name for sender in self.senders)

    def hand_over(self) -> Deferred[Any]:
        """Give what has been collected to the senders; fires when they have it."""
        self.batcher.flush()
        return super().hand_over()

    def counters(self) -> dict[str, Any]:
        """Return what has been counted since the start, for JSON."""
        return {
            **super().counters(),
            "connections": len(self.server.connections),
            "refused_connections": self.server.refused,
            "reading": not self.server.is_paused,
            "lines": self.server.lines_in,
            "dropped": dict(self.server.dropped + self.batcher.dropped),
        }

    def stop_listening(self) -> Deferred[Any]:
        """Receive no more, and write what was received; fires when it has been taken."""
        self._stopping = True
        return Deferred.fromCoroutine(self._stop_listening())

    async def _stop_listening(self) -> None:
        if self._port is not None:
            await self._port.stopListening()
        self.server.close()
        await DeferredList([self.batcher.drained(), self._fan_out.handed_out()])

    def abort(self) -> None:
        """Break what connections are left, and tell what became of the lines."""
        self.server.abort()
        self.batcher.close()
        self.log.info(
            "{relay}: lines received: {lines_in}, sent: {lines_out}, dropped: {dropped}",
            relay=self.name,
            lines_in=self.server.lines_in,
            lines_out=self.batcher.lines_out,
            dropped=tally(self.server.dropped + self.batcher.dropped),
        )
