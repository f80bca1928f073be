"""The admin socket: what the operator's command line asks of a relay that runs.

A client sends one line of JSON, a :class:`influxrelay.operations.views.Request`. It gets any number of lines
``{"progress": {"done": 1, "total": 2}}``, then one ``{"result": ...}`` or ``{"error": "..."}``, and the end of the
connection.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.timeouts import within
from influxrelay.journal.worker import in_thread
from influxrelay.listeners.transaction import Transaction
from influxrelay.operations.targets import Progress
from influxrelay.operations.views import Refused, Request

MAX_LINE = 32 * 1024 * 1024  # bytes of a request; a point may be as large as InfluxDB takes it
_CONNECT = 1.0  # seconds that another relay has to take the connection
_PATIENCE = 1.0  # seconds that a disk has to remove the socket


class AdminSocket:
    """Listens on a unix socket that only its owner can use.

    :param path: empty for no socket.
    :param run: does what is asked; raises :class:`Refused`.
    """

    def __init__(self, path: str, run: Callable[[Request, Progress], Awaitable[dict[str, Any]]], reactor: Any) -> None:
        self.path = path
        self.run = run
        self.connections: set[AdminProtocol] = set()
        self._reactor = reactor
        self._port: Any = None

    def start(self) -> None:
        """Listen.

        :raises OSError: another relay does so already, or the socket cannot be made.
        """
        self._port = self._listen(self.path)

    def _listen(self, path: str) -> Any:
        if not path:
            return None
        _make_way(path)
        mask = os.umask(0o177)
        try:
            port = _Port(os.fsencode(path), _Factory(self), mode=0o600, reactor=self._reactor)
            port.startListening()
            return port
        finally:
            os.umask(mask)

    def move(self, path: str, steps: Transaction) -> None:
        """Listen somewhere else in the course of a reload; who is connected stays.

        :raises OSError: as :meth:`start`.
        """
        if path == self.path:
            return
        port = self._listen(path)
        if port is not None:
            steps.back(partial(self._close, port, path))
        steps.later(self._go_on_at, path, port)

    def _go_on_at(self, path: str, port: Any) -> None:
        before, path_before = self._port, self.path
        self._port, self.path = port, path
        if before is not None:
            self._close(before, path_before)

    def stop(self) -> Deferred[Any]:
        """Listen no more, and break the connections; fires when the socket is gone."""
        port, self._port = self._port, None
        stopped = self._close(port, self.path) if port is not None else succeed(None)
        for each in list(self.connections):
            each.transport.abortConnection()
        return stopped

    def _close(self, port: _Port, path: str) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._close_and_remove(port, path))

    async def _close_and_remove(self, port: _Port, path: str) -> None:
        """Close a port, and remove its file, unless the disk does not answer."""
        await maybeDeferred(port.stopListening)
        removed = in_thread(self._reactor, "socket", lambda: Path(path).unlink(missing_ok=True))
        await within(_PATIENCE, removed.addErrback(lambda failure: failure.trap(OSError)), self._reactor)


def no_admin_socket(path: str, error: Any) -> str:
    """Return why there is none, for people."""
    return f"cannot open the admin socket {path}: {getattr(error, 'socketError', error)}"


def _make_way(path: str) -> None:
    """Remove the socket of a relay that is gone.

    :raises OSError: somebody uses it, or it is no socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is in its place")
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(_CONNECT)
        try:
            other.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 (as the rest of this function)
            return
    raise OSError(errno.EADDRINUSE, "another relay answers there")


class _Port(unix.Port):
    """A port that leaves its file alone when it is closed: removing it may take as long as the disk likes."""

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket."""
        tcp.Port.connectionLost(self, reason)


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, admin: AdminSocket) -> None:
        self._admin = admin

    def logPrefix(self) -> str:
        return "The admin socket"

    def buildProtocol(self, addr: object) -> AdminProtocol:  # noqa: ARG002 (Twisted's)
        return AdminProtocol(self._admin)


class AdminProtocol(Protocol):
    """One client, and its one request."""

    _log = Logger()
    transport: Any

    def __init__(self, admin: AdminSocket) -> None:
        self._admin = admin
        self._gone = False
        self._asked = False
        self._pieces: list[bytes] = []  # of the request
        self._length = 0

    def connectionMade(self) -> None:
        """Join the connections."""
        self._admin.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 (Twisted's)
        """Leave them; what is under way ends with its next step."""
        self._gone = True
        self._admin.connections.discard(self)

    def dataReceived(self, data: bytes) -> None:
        """Gather the request, and do what is asked; of a second one nobody has the answer."""
        piece, end, more = data.partition(b"\n")
        self._length += len(piece)
        if self._asked or more or self._length > MAX_LINE:
            self.transport.abortConnection()
            return
        self._pieces.append(piece)
        if end:
            self._asked = True
            done = Deferred.fromCoroutine(self._run(b"".join(self._pieces)))
            self._pieces.clear()
            done.addErrback(lambda failure: self._log.failure("a command of the operator", failure))
            done.addBoth(lambda _: self.transport.loseConnection())

    async def _run(self, line: bytes) -> None:
        try:
            request = Request.parse(line)
            answer: dict[str, Any] = {"result": await self._admin.run(request, self._tell)}
        except (Refused, JournalError) as error:
            answer = {"error": str(error)}
        except Exception as error:
            self._send({"error": f"the relay failed to do this: {error!r} (see its log)"})
            raise
        self._send(answer)

    def _tell(self, done: int, total: int) -> None:
        """Tell how far the work is; end it if there is nobody to tell."""
        if self._gone:
            raise Refused("the client has gone")
        self._send({"progress": {"done": done, "total": total}})

    def _send(self, answer: dict[str, Any]) -> None:
        self.transport.write(json.dumps(answer).encode() + b"\n")
