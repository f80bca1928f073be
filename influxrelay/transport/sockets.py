"""Sockets to listen on: inherited from systemd where the address agrees, and bound here otherwise.

Binding is done at once, so that an address which cannot be had stops a start or a reload with its reason.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import attrs

_FIRST = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (what a configuration may ask for)
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_INET = (socket.AF_INET, socket.AF_INET6)


@attrs.frozen(eq=False)
class BoundSocket:
    """A socket that has its address.

    :ivar inherited: whether it was given to this process, and stays open in the service manager when it is closed here:
        whoever connects then waits for the next process that listens.
    :ivar path: the file to remove when it is closed.
    """

    socket: socket.socket
    inherited: bool = False
    path: str | None = None

    def close(self) -> None:
        """Close it, and remove its file."""
        self.socket.close()
        if self.path is not None:
            Path(self.path).unlink(missing_ok=True)


def systemd_sockets(environ: MutableMapping[str, str]) -> dict[int, str]:
    """Return the names of the file descriptors that systemd has passed to this process, if any (sd_listen_fds(3)).

    :param environ: ``LISTEN_...`` is removed from it: it is not for this process's children.
    """
    given = _initial_environment()
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    count = given.get("LISTEN_FDS", "")
    if given.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return {}
    names = given.get("LISTEN_FDNAMES", "").split(":")
    return {_FIRST + index: names[index] if index < len(names) else "" for index in range(int(count))}


def _initial_environment() -> dict[str, str]:
    """Return the environment that this process began with: Twisted's endpoints remove ``LISTEN_...`` when imported."""
    entries = os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


class Sockets:
    """Where all listening sockets of the process come from.

    :param inherited: the names of file descriptors that this process was given, in order; they become non-blocking,
        and no child inherits them.
    """

    def __init__(self, inherited: Mapping[int, str] | None = None) -> None:
        self._inherited: list[tuple[str, socket.socket]] = []
        self._used: set[socket.socket] = set()
        self._strangers: list[str] = []
        for fd, name in (inherited or {}).items():
            try:
                os.set_inheritable(fd, False)
                given = socket.socket(fileno=os.dup(fd))
            except OSError as error:
                self._strangers.append(f"file descriptor {fd} ({error.strerror})")
            else:
                given.setblocking(False)
                self._inherited.append((name, given))

    def unused(self) -> list[str]:
        """Describe what was inherited and is used by nobody."""
        return [*self._strangers, *(describe(each) for _, each in self._inherited if each not in self._used)]

    def tcp(self, host: str, port: int) -> BoundSocket:
        """Return a TCP socket.

        :param host: an IP address; empty or unspecified for every address of the machine, IPv4's and IPv6's.
        :raises OSError: the address cannot be had.
        """
        return self._inet(socket.SOCK_STREAM, host, port)

    def udp(self, host: str, port: int) -> BoundSocket:
        """Return a UDP socket, as :meth:`tcp` does."""
        return self._inet(socket.SOCK_DGRAM, host, port)

    def has_udp(self, host: str, port: int) -> bool:
        """Tell whether :meth:`udp` returns an inherited socket."""
        return self._find_inet(socket.SOCK_DGRAM, host, port) is not None

    def unix(self, path: str, mode: int) -> BoundSocket:
        """Return a unix stream socket; the file of a process that is gone is replaced.

        :param mode: of the file; an inherited one is left as it is.
        :raises OSError: the address cannot be had.
        """
        for _, given in self._inherited:
            if given.family == socket.AF_UNIX and _listens(given) and path == _path(given):
                return self._take(given)
        return BoundSocket(_bind_unix(path, mode), path=path)

    def by_name(self, name: str) -> BoundSocket:
        """Return the inherited socket to which the service manager has given a name.

        :raises LookupError: there is none.
        """
        for known, given in self._inherited:
            if known == name:
                return self._take(given)
        raise LookupError(f"no inherited socket has the name {name!r}")

    def by_index(self, index: int) -> BoundSocket:
        """Return one of the inherited sockets, counted from 0.

        :raises LookupError: there is none.
        """
        if not 0 <= index < len(self._inherited):
            raise LookupError(f"there is no inherited socket number {index}")
        return self._take(self._inherited[index][1])

    def _take(self, given: socket.socket) -> BoundSocket:
        self._used.add(given)
        return BoundSocket(given.dup(), inherited=True)

    def _inet(self, kind: socket.SocketKind, host: str, port: int) -> BoundSocket:
        given = self._find_inet(kind, host, port)
        return BoundSocket(_bind(kind, host, port)) if given is None else self._take(given)

    def _find_inet(self, kind: socket.SocketKind, host: str, port: int) -> socket.socket | None:
        hosts = _EVERYWHERE if is_everywhere(host) else (host,)
        for wanted in hosts:
            for _, given in self._inherited:
                if _is_inet(given, kind) and given.getsockname()[:2] == (wanted, port):
                    return given
        return None


def is_everywhere(host: str) -> bool:
    """Tell whether this stands for every address of the machine: as in Go, of IPv4 and IPv6, however it is written."""
    return host in ("", *_EVERYWHERE)


def _bind(kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    if is_everywhere(host):
        try:
            return _bind_to(kind, socket.AF_INET6, "::", port)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
        host = "0.0.0.0"  # noqa: S104 (the configuration asks for it)
    return _bind_to(kind, socket.AF_INET6 if ":" in host else socket.AF_INET, host, port)


def _bind_to(kind: socket.SocketKind, family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    bound = socket.socket(family, kind)
    try:
        bound.setblocking(False)
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _bind_unix(path: str, mode: int) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.setblocking(False)
        try:
            bound.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
                raise
            Path(path).unlink()
            bound.bind(path)
        Path(path).chmod(mode)
    except BaseException:
        bound.close()
        raise
    return bound


def _is_abandoned(path: str) -> bool:
    """Tell whether a file is a socket on which nobody listens."""
    if not stat.S_ISSOCK(Path(path).stat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        return client.connect_ex(path) == errno.ECONNREFUSED


def _is_inet(given: socket.socket, kind: socket.SocketKind) -> bool:
    if given.family not in _INET or given.type != kind:
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
    if given.family not in _INET:
        return f"a socket of another kind ({given.family!r})"
    host, port = given.getsockname()[:2]
    kind = "udp" if given.type == socket.SOCK_DGRAM else "tcp"
    return f"{kind} [{host}]:{port}" if ":" in host else f"{kind} {host}:{port}"
