"""A worker's process: ``python -m influxrelay.worker NUMBER SOCKETS``, started by :mod:`influxrelay.process`.

It inherits so many listening sockets, from descriptor 3 on as systemd passes them, and then its end of the
:mod:`channel <influxrelay.channel>`, the memory of the :mod:`shares <influxrelay.shares>`, and a file with the
configuration. What it logs goes to standard output, one JSON event a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import sys
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, globalLogBeginner, jsonFileLogObserver

from influxrelay.channel import Channel, Progress
from influxrelay.config_values import Config, HTTPListener, UDPListener
from influxrelay.errors import InfluxRelayError
from influxrelay.health import DistantExaminer, LocalExaminer, examine
from influxrelay.keeper import Keeper
from influxrelay.listeners import HTTPService, UDPService
from influxrelay.metrics import show_metrics
from influxrelay.report import Request, iso
from influxrelay.service import RelayService
from influxrelay.shares import Shares, Turns
from influxrelay.sockets import Sockets
from influxrelay.split import for_worker, remove_journal
from influxrelay.status import serve_health

FIRST = 3  # the first socket's descriptor
FAILED = "failed"  # the only key of a first line that says why there is no start
DRAINED = 3  # the exit status of a worker that was there for what its journals held
_BEAT = 1.0  # seconds between two signs of life


class _SharedSockets(Sockets):
    """The supervisor's sockets, at which the workers take turns."""

    turns: Turns

    def take_over(self, fds: Sequence[int]) -> None:
        """Have these from now on."""
        self.give(fds)
        for fd in fds:
            os.close(fd)  # there is a copy

    def adoptStreamPort(self, fd: int, family: int, factory: Any) -> Any:
        return self.turns.take(super().adoptStreamPort(fd, family, factory))

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self.turns.take(super().listenTCP(port, factory, backlog, interface))

    def listenUNIX(self, path: str, factory: Any, *arguments: Any, **options: Any) -> Any:
        return self.turns.take(super().listenUNIX(path, factory, *arguments, **options))

    def unused(self) -> list[str]:
        """Describe none: that is the supervisor's."""
        return []


class WorkerService(RelayService):
    """A worker's relay: it answers for all workers where it would for itself.

    :ivar ask: asks the supervisor.
    """

    ask: Callable[[dict[str, Any]], Awaitable[Any]]

    def __init__(self, config: Config, reactor: Any, sockets: Sockets) -> None:
        super().__init__(config, reactor, sockets=sockets)
        self._metrics.setServiceParent(self)

    def _make_listener(self, config: HTTPListener | UDPListener) -> HTTPService | UDPService:
        listener = super()._make_listener(config)
        if isinstance(listener, HTTPService):
            examiner = DistantExaminer(self._ask, lambda: listener.name)
            serve_health(listener.site, listener.site.resource, examiner)
        return listener

    async def _ask(self, what: dict[str, Any]) -> Any:
        return await self.ask(what)


class Worker:
    """What a worker does beside relaying: it says that it is well, answers questions, and ends with its supervisor."""

    _log = Logger()

    def __init__(
        self, number: int, workers: int, service: WorkerService, sockets: _SharedSockets, reactor: Any
    ) -> None:
        self.drained: list[Path] = []
        self.channel = Channel(self._answer, lambda: None, self._supervisor_lost)
        service.ask = self.channel.ask
        self._number = number
        self._left_over = number >= workers
        self._service = service
        self._sockets = sockets
        self._reactor = reactor
        self._ending = False
        self._beat = LoopingCall(self._tell)
        self._beat.clock = reactor

    def start(self) -> None:
        """Begin; the first sign of life says that everything is open."""
        self._beat.start(_BEAT)

    def _tell(self) -> Deferred[None] | None:
        self.channel.is_well()
        if self._left_over:
            return Deferred.fromCoroutine(self._end_if_drained())
        self._sockets.turns.update()
        return None

    def _supervisor_lost(self) -> None:
        if not self._ending:
            self._log.error("the supervisor has gone: this worker stops, too")
            self._end()

    def _end(self) -> None:
        self._ending = True
        with contextlib.suppress(ReactorNotRunning):
            self._reactor.stop()

    async def _answer(self, what: dict[str, Any], tell: Progress) -> Any:
        service = self._service
        if "examine" in what:
            listeners = [each for each in service.listeners if what["listener"] in ("", each.name)]
            return await examine(LocalExaminer(lambda: listeners, self._reactor), what["examine"], what["backend"])
        if "stop" in what:
            return self._end()
        if "metrics" in what:
            return show_metrics(await service.collect())
        if "describe" in what:
            return {"pid": os.getpid(), **await service.describe()}
        if "reload" in what:
            fds, self.channel.fds = self.channel.fds, []
            self._sockets.take_over(fds)
            config = pickle.loads(b64decode(what["reload"]))  # noqa: S301 (from the supervisor)
            return await service.change(lambda: for_worker(config, self._number), check=what["check"])
        return await service.run(Request.parse(json.dumps(what).encode()), tell)

    async def _end_if_drained(self) -> None:
        """End when nothing is left in the journals; of losses that they know of they tell a last time."""
        keepers: list[Keeper] = [each.keeper for each in self._service.listeners if each.keeper is not None]
        found = [
            await keeper.call(lambda journal: (journal.depths(), journal.count_dead_letters(), journal.drops()))
            for keeper in keepers
        ]
        if self._ending or any(letters or any(each.writes for each in depths) for depths, letters, _ in found):
            return
        for keeper, (_, _, drops) in zip(keepers, found, strict=True):
            self.drained.append(keeper.directory)
            self._log.info("the journal in {directory} has got empty, and is removed", directory=str(keeper.directory))
            for each in drops:
                self._log.warn(
                    "{backend} never got {writes} write(s), {bytes} bytes, from {first} to {last}: {reason}",
                    backend=each.backend,
                    writes=each.writes,
                    bytes=each.bytes,
                    first=iso(each.first),
                    last=iso(each.last),
                    reason=each.reason,
                )
        self._end()


def main() -> None:
    """Work until the end."""
    number, count = map(int, sys.argv[1:])
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the supervisor gets them, too, and says what to do
    globalLogBeginner.beginLoggingTo([jsonFileLogObserver(sys.stdout, recordSeparator="")], redirectStandardIO=False)
    from twisted.internet import reactor  # noqa: PLC0415 (importing it installs it)

    channel_fd, shares_fd, config_fd = range(FIRST + count, FIRST + count + 3)
    with open(config_fd, "rb") as file:  # noqa: PTH123 (a descriptor)
        config: Config = pickle.load(file)  # noqa: S301 (from the supervisor)
    end = socket.socket(fileno=channel_fd)
    end.setblocking(False)
    sockets = _SharedSockets(reactor)
    sockets.take_over(range(FIRST, FIRST + count))
    sockets.turns = turns = Turns(Shares(shares_fd, config.workers), number, reactor)
    try:
        service = WorkerService(for_worker(config, number), reactor, sockets)
        listeners = service.listeners
        turns.count = lambda: sum(len(each.site.channels) for each in listeners if isinstance(each, HTTPService))
        service.startService()
    except InfluxRelayError as error:
        end.sendall(json.dumps({FAILED: str(error)}).encode() + b"\n")
        sys.exit(1)
    worker = Worker(number, config.workers, service, sockets, reactor)
    factory = Factory.forProtocol(lambda: worker.channel)
    factory.noisy = False
    run: Any = reactor
    run.adoptStreamConnection(channel_fd, socket.AF_UNIX, factory)
    end.close()
    run.addSystemEventTrigger("before", "shutdown", service.stopService)
    run.callWhenRunning(worker.start)
    run.run(installSignalHandlers=False)
    for directory in worker.drained:
        remove_journal(directory)
    sys.exit(DRAINED if worker.drained else 0)


if __name__ == "__main__":
    main()
