"""Socket addresses, as Twisted's objects and as people write them."""

from __future__ import annotations

import socket
from typing import Any, Literal

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

Address = IPv4Address | IPv6Address | UNIXAddress

_MAPPED = "::ffff:"  # RFC 4291, 2.5.5.2: an IPv4 address on an IPv6 socket


def to_address(name: Any, kind: Literal["TCP", "UDP"] = "TCP") -> Address:
    """Return what ``getsockname()`` or ``getpeername()`` returns, as Twisted's address.

    :param kind: TCP or UDP; of no importance for a unix socket.
    """
    if not isinstance(name, tuple):
        return UNIXAddress(name or None)
    host, port = name[:2]
    if ":" not in host:
        return IPv4Address(kind, host, port)
    if host.startswith(_MAPPED) and "." in host:
        return IPv4Address(kind, host.removeprefix(_MAPPED), port)
    return IPv6Address(kind, *name)


def show_address(address: Any) -> str:
    """Return an address as it stands in a configuration: ``127.0.0.1:9096``, ``[::1]:9096``, ``/run/relay.sock``."""
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", address)
        return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def family_of(host: str) -> socket.AddressFamily | None:
    """Return the family of an IP address, which may have a zone (``fe80::1%eth0``); None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return family
    return None
