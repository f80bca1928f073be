"""A UDP listener."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred

from influxrelay.config.settings import HTTPOutputConfig, UDPListenerConfig, UDPOutputConfig
from influxrelay.core.errors import ListenError
from influxrelay.core.matching import find_again
from influxrelay.core.text import tally
from influxrelay.core.write import Destination, Write
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.udp_batcher import LineBatcher
from influxrelay.delivery.udp_sender import DatagramSender
from influxrelay.lineprotocol.query_string import parse
from influxrelay.listeners.factory import http_outputs
from influxrelay.listeners.output_settings import make_filter
from influxrelay.listeners.relaying import Relaying
from influxrelay.listeners.transaction import Transaction
from influxrelay.listeners.udp_protocol import LineReceiver
from influxrelay.transport.addresses import show_address
from influxrelay.transport.datagram_port import DatagramPort
from influxrelay.transport.sockets import Sockets


class UDPService(Relaying):
    """A UDP listener and its outputs."""

    is_answering = False

    def __init__(self, config: UDPListenerConfig, reactor: Any, sockets: Sockets) -> None:
        super().__init__(config, reactor)
        self._sockets = sockets
        self.outputs: list[LineBatcher | DatagramSender] = []
        self.fan_outs = []
        self._batchers: dict[Sender | None, tuple[FanOut, LineBatcher]] = {}
        self._datagram_outputs: dict[str, DatagramSender] = {}
        self.protocol = LineReceiver(config.name, reactor, (), precision=config.precision)
        self.furnish()

    def furnish(self) -> None:
        """Let what is configured hold for the next datagram."""
        config = self.config
        batchers: dict[Sender | None, tuple[FanOut, LineBatcher]] = {}
        if self.writer is not None:  # one log, and so one batch for all backends
            batchers[None] = self._batcher(None, http_outputs(config)[0], config.name, self.senders)
        else:
            for output, sender in zip(http_outputs(config), self.senders, strict=True):
                batchers[sender] = self._batcher(sender, output, output.name, [sender])
        self._batchers = batchers
        self._change_datagram_outputs()
        self.fan_outs = [fan_out for fan_out, _ in batchers.values()]
        of_senders = iter([batcher for _, batcher in batchers.values()])
        self.outputs = [
            self._datagram_outputs[each.name] if isinstance(each, UDPOutputConfig) else next(of_senders)
            for each in (config.outputs if self.writer is None else config.outputs[:1])
        ]
        # The unit of a socket that was given says how large its buffer is.
        read_buffer = 0 if self._sockets.has_udp(config.host, config.port) else config.read_buffer
        self.protocol.reconfigure(config.name, self.outputs, precision=config.precision, read_buffer=read_buffer)
        filters = list(dict.fromkeys(map(make_filter, config.outputs)))
        self.protocol.filters = [] if None in filters else [each for each in filters if each is not None]

    def _batcher(
        self, key: Sender | None, output: HTTPOutputConfig, name: str, senders: list[Sender]
    ) -> tuple[FanOut, LineBatcher]:
        """Return those that there are, or new ones."""
        config = self.config
        target = parse(f"{output.query}&precision={config.precision}".encode())
        where = Destination(
            target.database, target.retention_policy, target.precision, (b"", target.username, target.password)
        )
        settings = {
            "batch_lines": config.batch_lines,
            "batch_bytes": config.batch_bytes,
            "interval": config.batch_interval,
        }
        if key not in self._batchers:
            fan_out = FanOut(name, senders, self.make_hand_out(), consistency="any")
            on_lost = (lambda _: None) if key is None else partial(self._note_lost, key)
            batcher = LineBatcher(fan_out, self._reactor, where, target.forwarded, **settings, on_lost=on_lost)
            return fan_out, batcher
        fan_out, batcher = self._batchers[key]
        fan_out.reconfigure(name, senders, consistency="any")
        batcher.reconfigure(where, target.forwarded, **settings)
        return fan_out, batcher

    def _change_datagram_outputs(self) -> None:
        present, wanted = self._datagram_outputs, [e for e in self.config.outputs if isinstance(e, UDPOutputConfig)]
        before = find_again(
            {name: each.location for name, each in present.items()},
            {each.name: f"{each.host}:{each.port}" for each in wanted},
        )
        self._datagram_outputs = {}
        for each in wanted:
            old = before.get(each.name)
            settings: Any = {"mtu": each.mtu, "selection": make_filter(each)}
            if old is None:
                output = DatagramSender(self.name, each.name, self._reactor, each.host, each.port, **settings)
            else:
                output = present.pop(old)
                output.reconfigure(self.name, each.name, each.host, each.port, **settings)
            self._datagram_outputs[each.name] = output
            if self.running:
                output.start()
        for output in present.values():
            output.stop()

    def listen(self) -> None:
        """Open the port."""
        self._enter(self._open(self.config))

    def startService(self) -> None:
        """Open the port, and look for the backends."""
        super().startService()
        for output in self._datagram_outputs.values():
            output.start()

    def _open(self, config: UDPListenerConfig) -> Any:
        try:
            bound = self._sockets.udp(config.host, config.port)
        except OSError as error:
            raise ListenError(f"{self.name}: cannot listen on {config.bind_addr}: {error.strerror or error}") from error
        port = DatagramPort(self._reactor, bound.socket, self.protocol)
        port.startListening()
        return port

    def _enter(self, port: Any) -> None:
        before, self._port, self._listening = self._port, port, True
        self.log.info(
            "{relay}: listening for UDP on {address}, backends: {backends}",
            relay=self.name,
            address=show_address(port.getHost()),
            backends=", ".join(each.name for each in self.config.outputs),
        )
        if before is not None:
            before.stopListening()

    def move(self, config: UDPListenerConfig, steps: Transaction) -> None:
        """Open the port of another configuration, to be used instead of the present one.

        :raises ListenError: it cannot be had.
        """
        if (config.host, config.port) != (self.config.host, self.config.port):
            port = self._open(config)
            steps.back(port.stopListening)
            steps.later(self._enter, port)
        if config.read_buffer != self.config.read_buffer:
            steps.later(lambda: self.protocol.set_read_buffer(self._port))

    def _note_lost(self, sender: Sender, write: Write) -> None:
        """Count lines that a backend has not taken as lost for it, if another one is well and so may have them."""
        if any(not other.why_unavailable() for other in self.senders if other is not sender):
            sender.backlog.missed(write, time.time())

    def why_unavailable(self) -> str:
        """Tell why lines would get nowhere now; datagrams go out whatever becomes of them."""
        return "" if self._datagram_outputs else super().why_unavailable()

    def hand_over(self) -> Deferred[Any]:
        """Give what has been collected to the senders; fires when they have it."""
        self.protocol.flush()
        for _, batcher in self._batchers.values():
            batcher.flush()
        return super().hand_over()

    def counters(self) -> dict[str, Any]:
        """Return what has been counted since the start, for JSON."""
        return {
            **super().counters(),
            "datagrams": self.protocol.datagrams_in,
            "lines": self.protocol.lines_in,
            "dropped": dict(self.protocol.dropped),
            "outputs": [
                {"name": each.name, "lines": each.lines_out, "dropped": dict(each.dropped)} for each in self.outputs
            ],
        }

    def stop_listening(self) -> Deferred[Any]:
        """Receive no more, and send on what was received; fires when the senders have it, and the socket is closed."""
        self._stopping = True
        return DeferredList([self.hand_over(), maybeDeferred(self._port.stopListening)])

    def abort(self) -> None:
        """Close the sockets and tell what became of the lines."""
        for output in self._datagram_outputs.values():
            output.stop()
        protocol = self.protocol
        self.log.info(
            "{relay}: lines received: {lines_in}, dropped: {dropped}; {outputs}",
            relay=self.name,
            lines_in=protocol.lines_in,
            dropped=tally(protocol.dropped),
            outputs="; ".join(
                f"sent to {each.name}: {each.lines_out}, dropped: {tally(each.dropped)}" for each in self.outputs
            ),
        )
