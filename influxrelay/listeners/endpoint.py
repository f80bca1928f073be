"""Where a port listens, read from Twisted's endpoint strings."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

from influxrelay.transport.server import BACKLOG
from influxrelay.transport.sockets import BoundSocket, Sockets, is_everywhere
from influxrelay.transport.tls import ServerTLS

_PART = re.compile(r"((?:[^\\:]|\\.)*):", re.DOTALL)
_OPTION = re.compile(r"((?:[^\\=]|\\.)*)=(.*)", re.DOTALL)


@attrs.frozen
class Endpoint:
    """Where a port listens, and what it shows to its clients.

    :ivar place: what two endpoints have in common if they listen at the same address.
    :ivar tls: None for connections without TLS.
    """

    place: tuple[str, ...]
    _bind: Callable[[Sockets], BoundSocket] = attrs.field(eq=False)
    tls: ServerTLS | None = None
    backlog: int = BACKLOG

    @classmethod
    def read(cls, description: str) -> Endpoint:
        """Read ``tcp:``, ``tcp6:``, ``ssl:``, ``unix:`` or ``systemd:``, with Twisted's arguments.

        :raises ValueError: it is no such string.
        :raises ConfigError: one of its files cannot be used.
        """
        kind, arguments, options = _split(description)
        reader = _READERS.get(kind)
        if reader is None:
            raise ValueError(f"unknown kind of endpoint {kind!r}; known: {', '.join(_READERS)}")
        try:
            return reader(*arguments, **options)
        except TypeError as error:
            raise ValueError(str(error).partition("() ")[2]) from error

    def bind(self, sockets: Sockets) -> BoundSocket:
        """Return a socket with the address.

        :raises OSError: the address cannot be had.
        :raises LookupError: it names an inherited socket that is not there.
        """
        return self._bind(sockets)


def _split(description: str) -> tuple[str, list[str], dict[str, str]]:
    """Split at colons and equals signs that no backslash escapes, as Twisted's ``serverFromString`` does."""
    kind, *parts = _PART.findall(description + ":")
    arguments, options = [], {}
    for part in parts:
        option = _OPTION.fullmatch(part)
        if option is None:
            arguments.append(_unescape(part))
        else:
            options[_unescape(option[1])] = _unescape(option[2])
    return _unescape(kind), arguments, options


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


# The arguments have the names that Twisted gives them.


def _tcp(port: str, interface: str = "", backlog: str = str(BACKLOG), tls: ServerTLS | None = None) -> Endpoint:
    place = ("tcp", "" if is_everywhere(interface) else interface, port)
    number = int(port)
    return Endpoint(place, lambda sockets: sockets.tcp(interface, number), tls, int(backlog))


def _ssl(  # noqa: PLR0917 (they come by name)
    port: str,
    privateKey: str = "server.pem",  # noqa: N803 (Twisted's)
    certKey: str | None = None,  # noqa: N803 (Twisted's)
    extraCertChain: str | None = None,  # noqa: N803 (Twisted's)
    interface: str = "",
    backlog: str = str(BACKLOG),
) -> Endpoint:
    return _tcp(port, interface, backlog, ServerTLS(certKey or privateKey, privateKey, extraCertChain))


def _unix(address: str, mode: str = "666", backlog: str = str(BACKLOG), lockfile: str = "1") -> Endpoint:
    del lockfile  # a socket that is in use is told from one that is abandoned without it
    bits = int(mode, 8)
    return Endpoint(("unix", address), lambda sockets: sockets.unix(address, bits), backlog=int(backlog))


def _systemd(domain: str, index: str | None = None, name: str | None = None) -> Endpoint:
    del domain  # the socket knows it
    if index is not None and name is None:
        number = int(index)
        return Endpoint(("systemd", "index", index), lambda sockets: sockets.by_index(number))
    if name is not None and index is None:
        return Endpoint(("systemd", "name", name), lambda sockets: sockets.by_name(name))
    raise ValueError("an index or a name is needed, and not both")


_READERS: dict[str, Callable[..., Endpoint]] = {
    "tcp": _tcp,
    "tcp6": _tcp,
    "ssl": _ssl,
    "unix": _unix,
    "systemd": _systemd,
}
