"""The parent of the workers: it holds the sockets, starts and watches the workers, and speaks for all of them."""

from __future__ import annotations

import pickle
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from prometheus_client.core import Metric
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from influxrelay import __version__, together, udp
from influxrelay.channel import NoAnswer, Progress
from influxrelay.config_values import Config, HTTPListener, UDPListener
from influxrelay.entrance import Entrance
from influxrelay.errors import ListenError, StartError
from influxrelay.health import DistantExaminer, Examiner, Health, merge_health
from influxrelay.metric_families import OF_SUPERVISOR
from influxrelay.metrics import Sheet, merge_metrics
from influxrelay.notify import Notifier
from influxrelay.ports import PortService, SiteService, cannot_start
from influxrelay.process import CHECK, START, Legacy, Process, wait_until_well
from influxrelay.reload import Steps
from influxrelay.report import Refused, Request, iso
from influxrelay.service import RelayService
from influxrelay.shares import Shares
from influxrelay.sockets import Sockets
from influxrelay.split import left_over, make_parents

_RESERVE = 5.0  # seconds that the workers' end may take beyond the shutdown timeout
_PATIENCE = 3.0  # seconds that a worker has to say how it is ...
_TO_CHANGE = 30.0  # ... and to change, beyond the shutdown timeout of what it removes


class _Held(PortService):
    """A port that is open for the workers, who have all that is behind it."""

    keeper = None
    roads = leaving = ()
    latest: Any = None

    def __init__(self, config: HTTPListener | UDPListener, sockets: Sockets) -> None:
        self.name = config.name
        self.config = config
        self._sockets = sockets

    async def prepare(self, config: Any, steps: Steps) -> None:
        """Have another configuration."""
        steps.later(self._hold, config)

    def _hold(self, config: Any) -> None:
        self.name, self.config = config.name, config

    def _keeps(self, port: Any) -> Callable[[], None]:
        def keep() -> None:
            self.latest = port

        return keep

    def stop_listening(self) -> Deferred[Any]:
        """Close the port; what is taken is the workers'."""
        self._stopping = True
        return maybeDeferred(self.latest.stopListening) if self.latest is not None else maybeDeferred(lambda: None)

    def abort(self) -> None:
        """Do nothing: no connection is ours."""


class _HeldSite(_Held, SiteService):
    """A stream port.

    :ivar latest: the port that is open, or is about to be the one.
    """

    _takes = "{relay}: {address} is open for the workers"

    def __init__(self, config: HTTPListener, sockets: Sockets) -> None:
        super().__init__(config, sockets)
        self.site: Any = Factory()
        self.site.noisy = False

    def _entrance_for(self, config: Any) -> Entrance:
        entrance = super()._entrance_for(config)
        self.latest = entrance.port
        self.latest.stopReading()
        return entrance

    def move(self, config: Any, steps: Steps) -> None:
        """Open the port of another configuration, to be held instead of the present one."""
        steps.back(self._keeps(self.latest))
        super().move(config, steps)

    def found(self, config: HTTPListener) -> HTTPListener:
        """Return a configuration with the address at which it is open, by which a worker finds it."""
        address = self.latest.getHost()
        if not config.endpoint.startswith("systemd:"):
            port = getattr(address, "port", 0)
            return attrs.evolve(config, endpoint=re.sub(r"^(\w+):0(?=:|$)", rf"\1:{port}", config.endpoint))
        if isinstance(address, UNIXAddress):
            return attrs.evolve(config, endpoint=f"unix:{quoteStringArgument(str(address.name))}")
        kind = "tcp6" if ":" in address.host else "tcp"
        return attrs.evolve(config, endpoint=f"{kind}:{address.port}:interface={quoteStringArgument(address.host)}")


class _HeldUDP(_Held):
    """A UDP port, for the first worker."""

    def __init__(self, config: UDPListener, sockets: Sockets) -> None:
        super().__init__(config, sockets)
        self._protocol = udp.UDPListener(config.name, sockets, ())

    def listen(self) -> None:
        """Open the port."""
        self._open(self.config)
        self._listening = True

    def _open(self, config: UDPListener) -> None:
        self._set_buffer(config)
        try:
            self.latest = self._sockets.listenUDP(config.port, self._protocol, interface=config.host)
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            raise ListenError(f"{self.name}: cannot listen on {config.bind_addr}: {reason}") from error
        self.latest.stopReading()

    def _set_buffer(self, config: UDPListener) -> None:
        given = self._sockets.has(IPv4Address("UDP", config.host, config.port))  # its unit says how large it is
        size = 0 if given else config.read_buffer
        self._protocol.reconfigure(config.name, (), precision=config.precision, read_buffer=size)

    def move(self, config: UDPListener, steps: Steps) -> None:
        """Open the port of another configuration, to be held instead of the present one."""
        if (config.host, config.port) != (self.config.host, self.config.port):
            before = self.latest
            self._open(config)
            steps.back(self._keeps(before))
            steps.back(self.latest.stopListening)
            steps.later(before.stopListening)
        elif config.read_buffer != self.config.read_buffer:
            steps.later(self._set_buffer, config)
            steps.later(lambda: self._protocol.set_read_buffer(self.latest))

    def found(self, config: UDPListener) -> UDPListener:
        """Return a configuration with the port that it has."""
        return attrs.evolve(config, port=self.latest.getHost().port)


class Supervisor(RelayService):
    """The relay as several processes; its listeners hold the ports.

    :param given: the descriptors among ``sockets``.
    """

    def __init__(
        self, config: Config, reactor: Any, *, sockets: Sockets, given: Sequence[int], notifier: Notifier
    ) -> None:
        self.processes: dict[int, Process] = {}
        self._given = given
        self._checks = LoopingCall(self._check)
        self._checks.clock = reactor
        super().__init__(config, reactor, sockets=sockets, notifier=notifier)

    def _make_listener(self, config: HTTPListener | UDPListener) -> Any:
        kind: Any = _HeldSite if isinstance(config, HTTPListener) else _HeldUDP
        return kind(config, self._sockets)

    def _make_examiner(self) -> Examiner:
        return DistantExaminer(self.answer, lambda: "")

    # -- start and stop

    def startService(self) -> None:
        """Open the ports and start the workers; returns when all are ready."""
        make_parents(self.config)
        super().startService()
        held = {each.name: each for each in self.listeners}
        config = _found(self.config, held)
        self._legacy = Legacy(config, self._fds(held.values()), Shares.make(config.workers))
        for number in (*range(config.workers), *left_over(config)):
            self.processes[number] = Process(number, self._legacy, self.answer, self._reactor)
        self._start_processes()
        self._checks.start(CHECK, now=False)

    def _fds(self, held: Iterable[Any]) -> list[int]:
        return [*self._given, *(each.latest.fileno() for each in held)]

    def _start_processes(self) -> None:
        try:
            channels = [(each, each.start()) for each in self.processes.values()]
        except OSError as error:
            cannot_start(self.log, f"influxrelay: cannot start a worker: {error.strerror}")
        deadline = time.monotonic() + START * CHECK
        for process, channel in channels:
            problem = wait_until_well(channel, deadline)
            if problem:  # the worker has written it to stderr, too
                line = f"influxrelay: worker {process.number}: {problem.removeprefix('influxrelay: ')}"
                self.log.error("{line}", line=line)
                raise StartError(line)
        for process, channel in channels:
            process.connect(channel, well=True)

    def _check(self) -> None:
        for number, process in list(self.processes.items()):
            process.check()
            if process.done:
                del self.processes[number]

    async def _stop(self) -> None:
        self._stopping = True
        self._notifier.stopping(within=self.config.shutdown_timeout + _RESERVE * 2)
        ended = DeferredList([process.stop() for process in self.processes.values()])
        closed = DeferredList([each.stop_listening() for each in self.listeners])
        timer = self._reactor.callLater(self.config.shutdown_timeout + _RESERVE, self._kill)
        await ended
        await closed
        if timer.active():
            timer.cancel()
        if self._checks.running:
            self._checks.stop()
        self.listeners.clear()
        await super()._stop()

    def _kill(self) -> None:
        for process in self.processes.values():
            if process.running:
                self.log.error("worker {number} has not ended in time, and is killed", number=process.number)
                process.kill()

    # -- another configuration

    async def _agree(self, config: Config, after: dict[str, Any], steps: Steps) -> None:
        """Ask all workers whether they could have it, and give them what ports are new."""
        make_parents(config)
        fds = self._fds({*self.listeners, *after.values()})
        what = {"reload": _pickled(_found(config, after)), "check": True}
        answers, silent = await self._ask_all(what, self._to_change(), [*fds, *self._legacy.sockets])
        if silent:
            raise ListenError("; ".join(f"worker {number}: {why}" for number, why in silent.items()))
        steps.told[:] = answers[0]["changes"]
        steps.later(self._bequeath, _found(config, after), self._fds(after.values()))

    def _to_change(self) -> float:
        return self.config.shutdown_timeout + _TO_CHANGE

    def _bequeath(self, config: Config, fds: list[int]) -> None:
        self._legacy.config, self._legacy.sockets = config, fds

    async def _change(self, config: Config, *, check: bool) -> list[str]:
        told = await super()._change(config, check=check)
        if not check:
            what = {"reload": _pickled(self._legacy.config), "check": False}
            _, silent = await self._ask_all(what, self._to_change(), self._legacy.sockets)
            for number, why in silent.items():
                self.log.error("worker {number} {why}, and begins anew", number=number, why=why)
                self.processes[number].kill()
        return told

    # -- what is asked

    async def answer(self, what: dict[str, Any], _: Progress | None = None) -> Any:
        """Answer for all workers whether they, or a backend, are well."""
        answers, silent = await self._ask_all(what)
        if what["examine"] == "health":  # connections go to those that are there
            absent = [number for number in silent if not self.processes[number].well]
            if len(absent) < len(self.processes):
                silent = {number: why for number, why in silent.items() if number not in absent}
        found = {number: Health.parse(each) for number, each in answers.items() if each is not None}
        return merge_health(found, silent).show() if found or silent else None

    async def describe(self) -> dict[str, Any]:
        """Return how everything is, for JSON that people read."""
        answers, silent = await self._ask_all({"describe": ""})
        rows = [row for each in answers.values() for row in each.pop("queues")]
        return {
            "version": __version__,
            "started": iso(self._started),
            "uptime": round(time.time() - self._started, 3),
            "workers": [
                {
                    "worker": number,
                    "trouble": silent.get(number, ""),
                    "restarts": process.restarts,
                    **answers.get(number, {}),
                }
                for number, process in self.processes.items()
            ],
            "queues": [row.show(time.time()) for row in together.merge_rows(rows)],
        }

    async def collect(self) -> list[Metric]:
        """Return what Prometheus is told."""
        answers, _ = await self._ask_all({"metrics": ""})
        sheet = Sheet(OF_SUPERVISOR)
        sheet.add("influxrelay_config_last_reload_successful", (), self._metrics.last_reload_successful)
        for number, process in self.processes.items():
            sheet.add("influxrelay_worker_up", (str(number),), process.well)
            sheet.add("influxrelay_worker_restarts_total", (str(number),), process.restarts)
        own = sheet.filled()
        names = {each.name for each in own}
        return [*(each for each in merge_metrics(answers) if each.name not in names), *own]

    async def run(self, request: Request, progress: Progress) -> dict[str, Any]:
        """Do what the operator asks, in every worker that it concerns.

        :raises Refused: no worker can do it, or not all could be asked.
        """
        if request.command in ("reload", "reload check"):
            return await super().run(request, progress)
        requests = together.split(request, self.processes)
        done: dict[int, tuple[int, int]] = {}

        def tell(number: int) -> Progress:
            def note(part: int, whole: int) -> None:
                done[number] = part, whole
                progress(*map(sum, zip(*done.values(), strict=True)))

            return note

        asked = {
            number: self.processes[number].ask(attrs.asdict(each), tell(number)) for number, each in requests.items()
        }
        answers, silent, refused = await _collect(asked)
        return together.combine(request, answers, silent, refused, time.time())

    async def _ask_all(
        self, what: dict[str, Any], patience: float = _PATIENCE, fds: Sequence[int] = ()
    ) -> tuple[dict[int, Any], dict[int, str]]:
        """Return what those say who answer in time, and why the others do not."""
        asked = {
            number: process.ask(what, fds=fds).addTimeout(patience, self._reactor, _no_answer)
            for number, process in self.processes.items()
        }
        answers, silent, refused = await _collect(asked)
        return answers, {**silent, **refused}


def _no_answer(result: Any, _: float) -> Any:
    return Failure(NoAnswer("does not answer")) if isinstance(result, Failure) else result


async def _collect(asked: dict[int, Deferred[Any]]) -> tuple[dict[int, Any], dict[int, str], dict[int, str]]:
    """Return the answers, and the words of those that do not answer, or refuse."""
    answers: dict[int, Any] = {}
    silent: dict[int, str] = {}
    refused: dict[int, str] = {}
    for number, each in asked.items():
        try:
            answers[number] = await each
        except NoAnswer as error:
            silent[number] = str(error)
        except Refused as error:
            refused[number] = str(error)
    return answers, silent, refused


def _found(config: Config, held: Mapping[str, Any]) -> Config:
    """Return a configuration with the addresses of the ports that are open for it."""
    http = tuple(held[each.name].found(each) for each in config.http)
    return attrs.evolve(config, http=http, udp=tuple(held[each.name].found(each) for each in config.udp))


def _pickled(config: Config) -> str:
    return b64encode(pickle.dumps(config)).decode()
