"""Listening sockets that this process was given already open: by systemd, or by a process of ours.

Whoever opens a port asks :class:`Sockets` instead of the reactor::

    sockets = Sockets(reactor, systemd_fds(os.environ))         # or any other file descriptors
    serverFromString(sockets, "ssl:9096:...").listen(factory)   # all endpoints work
    sockets.listenUDP(9096, protocol, interface="127.0.0.1")

It has the reactor's methods. A port whose address is that of a given socket is made from that socket; all others are
opened as ever. Stopping such a port leaves the socket open: what is in its queue waits for the next one who listens.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.unix import Port as UNIXPort
from twisted.protocols.tls import TLSMemoryBIOFactory

_FIRST = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_KINDS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)


def systemd_fds(environ: MutableMapping[str, str]) -> range:
    """Return the file descriptors that systemd has passed to this process, if any (sd_listen_fds(3)).

    :param environ: ``LISTEN_...`` is removed from it: it is not for this process's children.
    """
    given = _initial_environment()
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    count = given.get("LISTEN_FDS", "")
    if given.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return range(0)
    return range(_FIRST, _FIRST + int(count))


def _initial_environment() -> dict[str, str]:
    """Return the environment that this process began with: Twisted's endpoints remove ``LISTEN_...`` when imported."""
    entries = os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


class Sockets:
    """Opens ports at a reactor, from given sockets where their addresses agree.

    :param fds: of the given sockets; they become non-blocking, and no child inherits them.
    """

    def __init__(self, reactor: Any, fds: Iterable[int] = ()) -> None:
        self._reactor = reactor
        self._given: list[socket.socket] = []
        self.give(fds)

    def give(self, fds: Iterable[int]) -> None:
        """Have these from now on, instead of those before; ports that are open stay so."""
        for each in self._given:
            each.close()
        self._given = []
        self._taken: set[socket.socket] = set()
        self._strangers: list[str] = []
        for fd in fds:
            try:
                os.set_inheritable(fd, False)
                given = socket.socket(fileno=os.dup(fd))
            except OSError as error:
                self._strangers.append(f"file descriptor {fd} ({error.strerror})")
            else:
                given.setblocking(False)
                self._given.append(given)

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to the reactor."""
        return getattr(self._reactor, name)

    def unused(self) -> list[str]:
        """Describe what was given and nobody has taken."""
        return [*self._strangers, *(describe(each) for each in self._given if each not in self._taken)]

    def has(self, where: Any) -> bool:
        """Tell whether the port at an address, such as its ``getHost()``, is made from a given socket.

        If so, what arrives while nobody listens waits for the next who does.
        """
        if isinstance(where, UNIXAddress):
            return self._find_unix(where.name) is not None
        return self._find(_KINDS[where.type], where.host, where.port) is not None

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """Open a TCP port."""
        given = self._find(socket.SOCK_STREAM, interface, port)
        if given is None:
            return self._reactor.listenTCP(port, factory, backlog, interface)
        return self._adopt(given, factory)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:  # noqa: N803 (Twisted's)
        """Open a TCP port that speaks TLS."""
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory), backlog, interface)

    def listenUNIX(self, path: str, factory: Any, *arguments: Any, **options: Any) -> Any:
        """Open a unix stream socket."""
        given = self._find_unix(path)
        if given is None:
            return self._reactor.listenUNIX(path, factory, *arguments, **options)
        self._taken.add(given)
        # Reactors adopt unix sockets, too, but change the mode of the file, and remove it at the end.
        port: Any = UNIXPort._fromListeningDescriptor(self._reactor, given.fileno(), factory)  # noqa: SLF001 (no other way)
        port._bindPath, port._shouldShutdown, port.backlog = b"\0", False, socket.SOMAXCONN  # noqa: SLF001 (as above)
        port.startListening()
        return port

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> Any:  # noqa: N803 (Twisted's)
        """Open a UDP port."""
        given = self._find(socket.SOCK_DGRAM, interface, port)
        if given is None:
            return self._reactor.listenUDP(port, protocol, interface, maxPacketSize)
        self._taken.add(given)
        return self._reactor.adoptDatagramPort(given.fileno(), given.family, protocol, maxPacketSize)

    def adoptStreamPort(self, fd: int, family: int, factory: Any) -> Any:
        """Listen at a socket that is named by its descriptor, as Twisted's endpoint ``systemd:`` does."""
        port = self._reactor.adoptStreamPort(fd, family, factory)
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as named:
            self._taken.update(given for given in self._given if given.getsockname() == named.getsockname())
        return port

    def _adopt(self, given: socket.socket, factory: Any) -> Any:
        self._taken.add(given)
        return self._reactor.adoptStreamPort(given.fileno(), given.family, factory)

    def _find(self, kind: socket.SocketKind, host: str, port: int) -> socket.socket | None:
        """Return the given socket with an address; no host stands for all addresses, IPv6's among them or not."""
        hosts = _WILDCARDS if host in ("", _WILDCARDS[0]) else (host,)
        for wanted in hosts:
            for given in self._given:
                if _is_inet(given, kind) and given.getsockname()[:2] == (wanted, port):
                    return given
        return None

    def _find_unix(self, path: str | bytes | None) -> socket.socket | None:
        wanted = os.fsdecode(path or "")
        for given in self._given:
            if given.family == socket.AF_UNIX and _listens(given) and wanted == _path(given):
                return given
        return None


def _is_inet(given: socket.socket, kind: socket.SocketKind) -> bool:
    if given.family not in (socket.AF_INET, socket.AF_INET6) or given.type != kind:
        return False
    return kind == socket.SOCK_DGRAM or _listens(given)


def _listens(given: socket.socket) -> bool:
    """Tell a listening socket from a client's connection, which systemd passes where ``Accept=yes``."""
    return bool(given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _path(given: socket.socket) -> str:
    return os.fsdecode(given.getsockname())


def describe(given: socket.socket) -> str:
    """Name a socket as people do: ``tcp 127.0.0.1:9096``."""
    if given.family == socket.AF_UNIX:
        return f"unix {_path(given)}"
    if given.family not in (socket.AF_INET, socket.AF_INET6):
        return f"a socket of another kind ({given.family!r})"
    host, port = given.getsockname()[:2]
    kind = "udp" if given.type == socket.SOCK_DGRAM else "tcp"
    return f"{kind} [{host}]:{port}" if ":" in host else f"{kind} {host}:{port}"
