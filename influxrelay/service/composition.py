"""Listeners, made from their settings with all that they answer."""

from __future__ import annotations

from typing import Any

from influxrelay.config.settings import HTTPListenerConfig, ListenerConfig, ShardConfig, TCPListenerConfig
from influxrelay.listeners.http import HTTPService
from influxrelay.listeners.shard import ShardService
from influxrelay.listeners.tcp import TCPService
from influxrelay.listeners.udp import UDPService
from influxrelay.operations.health import LocalExaminer
from influxrelay.operations.resources import serve_health
from influxrelay.transport.sockets import Sockets

Listener = HTTPService | ShardService | UDPService | TCPService


def make_listener(config: ListenerConfig, reactor: Any, sockets: Sockets) -> Listener:
    """Return a listener that is not started yet.

    :param sockets: where its port comes from.
    :raises ConfigError: it names a file that cannot be used.
    """
    if isinstance(config, HTTPListenerConfig):
        listener = HTTPService(config, reactor, sockets)
        serve_health(listener.site, listener.root, LocalExaminer(lambda: [listener, *listener.shards], reactor))
        return listener
    if isinstance(config, ShardConfig):
        return ShardService(config, reactor)
    if isinstance(config, TCPListenerConfig):
        return TCPService(config, reactor, sockets)
    return UDPService(config, reactor, sockets)
