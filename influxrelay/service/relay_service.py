"""The whole relay: its listeners, its admin socket, the reload, and the ordered stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client.core import Metric
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from influxrelay import __version__
from influxrelay.config.diff import compare
from influxrelay.config.loader import load
from influxrelay.config.settings import (
    AdminConfig,
    Config,
    ListenerConfig,
)
from influxrelay.core.errors import ConfigError, JournalError, ListenError
from influxrelay.core.text import count, iso, size
from influxrelay.core.timeouts import within
from influxrelay.delivery.prober import Prober
from influxrelay.delivery.sender import Sender
from influxrelay.http.overload import AdmissionControl
from influxrelay.listeners.factory import http_outputs
from influxrelay.listeners.http import connect_shards
from influxrelay.listeners.port_service import AdminService, SiteService, cannot_start
from influxrelay.listeners.tcp import TCPService
from influxrelay.listeners.tcp_protocol import LineServer
from influxrelay.listeners.transaction import Transaction
from influxrelay.operations import overview
from influxrelay.operations.admin_socket import AdminSocket, no_admin_socket
from influxrelay.operations.commands import FOR_OTHER_RELAYS, run, show_queues
from influxrelay.operations.forwarding import answer_relays
from influxrelay.operations.health import Examiner, LocalExaminer
from influxrelay.operations.metrics import Metrics, serve_metrics
from influxrelay.operations.resources import serve_health, serve_status
from influxrelay.operations.status_page import StatusPage
from influxrelay.operations.targets import Progress
from influxrelay.operations.verifications import Verifications, place_of
from influxrelay.operations.views import REPORT, Refused, Request, socket_path
from influxrelay.service.composition import Listener, make_listener
from influxrelay.service.process_limits import file_limit, share_files
from influxrelay.service.systemd import Notifier
from influxrelay.transport.event_loop import describe_reactor
from influxrelay.transport.sockets import Sockets

_RESERVE = 10.0  # seconds that the end may take after the shutdown timeout, on a busy machine or a slow disk
_LAST_WORDS = 0.5  # seconds of the shutdown timeout that are kept for answering whoever still waits, and for a disk


class RelayService(MultiService):
    """The whole relay.

    :param config: a loaded configuration.
    :param sockets: where ports come from; without it, all are opened here.
    :param notifier: hears when the relay is ready and when it stops.
    :raises ConfigError: it names a file that cannot be used.
    """

    log = Logger()

    def __init__(
        self, config: Config, reactor: Any, *, sockets: Sockets | None = None, notifier: Notifier | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self._reactor = reactor
        self._sockets = sockets or Sockets()
        self._notifier = notifier or Notifier({}, reactor)
        self.listeners = [make_listener(each, reactor, self._sockets) for each in config.listeners]
        for listener in self.listeners:
            listener.setServiceParent(self)
        connect_shards(self.listeners)
        answer_relays(self.listeners, FOR_OTHER_RELAYS)
        self._verifications = Verifications(lambda: place_of(self.config), reactor, time.time)
        self._metrics = Metrics(lambda: self.listeners, reactor, verifications=self._verifications, path=config.path)
        self.page = StatusPage(self._make_examiner(), self.describe, lambda: self.listeners, reactor)
        self.page.setServiceParent(self)
        self.admin: AdminService | None = None
        if config.admin is not None:
            self._set_admin(self._make_admin(config.admin))
        self._started = time.time()
        self._stopping = False
        self.prober = Prober(lambda: [sender for listener in self.listeners for sender in listener.senders], reactor)
        self._reloading = DeferredLock()
        self._leaving: set[Deferred[None]] = set()
        self._admin_socket = AdminSocket(socket_path(config), self.run, reactor)

    def _make_admin(self, config: AdminConfig) -> AdminService:
        admin = AdminService(config, self._reactor, self._sockets)
        serve_health(admin.site, admin.root, self._make_examiner())
        serve_status(admin.root, self.describe)
        serve_metrics(admin.root, self.collect)
        self.page.serve(admin.root)
        return admin

    def _make_examiner(self) -> Examiner:
        return LocalExaminer(lambda: self.listeners, self._reactor)

    def _set_admin(self, admin: AdminService) -> None:
        self.admin = admin
        for service in (admin, self._metrics):
            service.setServiceParent(self)

    def startService(self) -> None:
        """Begin to work."""
        self._started = time.time()
        self.log.info(
            "starting influxrelay {version} on {reactor}", version=__version__, reactor=describe_reactor(self._reactor)
        )
        self._warn_of_configuration()
        self._verifications.load()
        super().startService()
        try:
            self._admin_socket.start()
        except (CannotListenError, OSError) as error:
            cannot_start(self.log, f"influxrelay: {no_admin_socket(self._admin_socket.path, error)}")
        self.prober.start()
        self._share_files()
        for unused in self._sockets.unused():
            self.log.warn("no listener uses the inherited socket {unused}", unused=unused)
        self._reactor.callWhenRunning(self._ready)

    def _warn_of_configuration(self) -> None:
        for warning in self.config.warnings:
            self.log.warn("{text}", text=warning)

    def _ready(self) -> None:
        """Tell the service manager; every port listens and every journal is open, or the start had failed."""
        if self.running:
            self._notifier.ready(f"at work, {count(len(self.listeners), 'listener')}")

    async def describe(self) -> dict[str, Any]:
        """Return how everything is, for JSON that people read."""
        return {
            "version": __version__,
            "started": iso(self._started),
            "uptime": round(time.time() - self._started, 3),
            "listeners": [{**each.counters(), **self._verifications.show(each.name)} for each in self.listeners],
            "queues": (await show_queues(self.listeners, self._reactor))["queues"],
        }

    async def collect(self) -> list[Metric]:
        """Return what Prometheus is told."""
        return await self._metrics.collect()

    async def run(self, request: Request, progress: Progress) -> dict[str, Any]:
        """Do what the operator asks.

        :raises Refused: that cannot be done.
        """
        if request.command in ("reload", "reload check"):
            return await self.reload(check=request.command != "reload")
        if request.command == overview.COMMAND:
            return await self.page.overview(request.listener)
        if request.command == REPORT:
            return self._verifications.take(request)
        answer = await run(self.listeners, request, progress)
        self._verifications.note(request, answer)
        return answer

    def _share_files(self) -> None:
        """Let clients have no more connections than there are files for them."""
        sites = [each.site.admission for each in (*self.listeners, self.admin) if isinstance(each, SiteService)]
        servers = [each.server for each in self.listeners if isinstance(each, TCPService)]
        limited: list[AdmissionControl | LineServer] = [*sites, *servers]
        wanted = [each.max_connections for each in limited]
        files = file_limit()
        outputs = [output for listener in self.config.listeners for output in http_outputs(listener)]
        to_backends = sum(output.max_connections for output in outputs)
        to_backends += sum(each.max_queries for each in self.config.http if each.queries)
        granted = share_files(files, to_backends, wanted)
        for each, number in zip(limited, granted, strict=True):
            each.limit_connections(number)
        if granted != wanted:
            self.log.warn(
                "the limit of open files is {files}: accepting {granted} client connections instead of {wanted}",
                files=files,
                granted=sum(granted),
                wanted=sum(wanted),
            )

    # -- another configuration

    def hang_up(self) -> None:
        """Read the configuration again, as SIGHUP asks for; before the start and at the stop, do nothing."""
        if self.running and not self._stopping:
            Deferred.fromCoroutine(self.reload()).addErrback(self._not_reloaded)

    def _not_reloaded(self, failure: Any) -> None:
        if not failure.check(Refused):  # which the log knows already
            self.log.failure("the reload", failure)

    async def reload(self, *, check: bool = False) -> dict[str, Any]:
        """Read the configuration again, and do as :meth:`change`."""
        return await self.change(lambda: load(self.config.path), check=check)

    async def change(self, read: Callable[[], Config], *, check: bool) -> dict[str, Any]:
        """Let all of another configuration hold, or nothing. One change waits for the other.

        What an earlier one has removed is finished first: if it returns, it must not overtake itself.

        :param read: returns it.
        :param check: try everything, and leave it as it was.
        :return: ``changes``, each in words for people.
        :raises Refused: nothing has changed, for this reason.
        """
        await self._reloading.acquire()
        problem: Exception | None = None
        changes: list[str] = []
        try:
            self._notifier.reloading()
            await DeferredList(list(self._leaving))
            pool = self._reactor.getThreadPool()  # tomlkit takes its time, and clients wait for the reactor
            changes = await self._change(await deferToThreadPool(self._reactor, pool, read), check=check)
        except (ConfigError, JournalError, ListenError, _StoppingError) as error:
            problem = error
        finally:
            self._ready()
            self._reloading.release()
        if not check:
            self._metrics.last_reload_successful = problem is None
        if problem is not None:
            self.log.error("not reloaded, nothing has changed: {reason}", reason=str(problem))
            raise Refused(str(problem)) from problem
        if not check:
            self.log.info("reloaded: {changes}", changes="; ".join(changes) or "nothing has changed")
            self._warn_of_configuration()
        return {"checked": check, "changes": changes}

    async def _change(self, config: Config, *, check: bool) -> list[str]:
        plan = compare(self.config, config)
        steps = Transaction()
        steps.told += plan.changes
        present = {each.name: each for each in self.listeners}
        after: dict[str, Listener] = {}
        try:
            for old, new in plan.kept:
                self._refuse_at_the_stop()
                listener: Any = present[old.name]
                after[new.name] = listener
                await listener.prepare(new, steps)
            for new in plan.added:
                after[new.name] = await self._prepare_new(new, steps, check=check)
            # From here on all happens in one turn of the reactor.
            self._open_ports(config, [(after[new.name], new) for _, new in plan.kept], steps)
            for new in plan.added:
                after[new.name].listen_for(steps)
        except BaseException:
            await steps.take_back()
            raise
        if check:
            await steps.take_back()
            return steps.told
        steps.later(self._set_listeners, config, after)
        steps.take()
        return steps.told

    def _refuse_at_the_stop(self) -> None:
        if self._stopping or not self.running:
            raise _StoppingError("the relay is shutting down")

    async def _prepare_new(self, config: ListenerConfig, steps: Transaction, *, check: bool) -> Listener:
        listener = make_listener(config, self._reactor, self._sockets)
        if listener.writer is not None:
            steps.back(lambda: Deferred.fromCoroutine(listener.give_up_journal()))
            steps.later(listener.resume, await listener.open_for_reload(may_change=not check))
        return listener

    def _open_ports(self, config: Config, kept: list[tuple[Any, Any]], steps: Transaction) -> None:
        """Open all that is new of ports.

        :raises ListenError: a port cannot be had.
        """
        self._refuse_at_the_stop()
        for listener, new in kept:
            listener.move(new, steps)
        if config.admin is not None and self.admin is not None:
            self.admin.move(config.admin, steps)
            steps.later(self.admin.reconfigure, config.admin)
        elif config.admin is not None:
            admin = self._make_admin(config.admin)
            admin.listen_for(steps)
            steps.later(self._set_admin, admin)
        elif self.admin is not None:
            steps.later(self._remove_admin, self.admin)
        path = socket_path(config)
        try:
            self._admin_socket.move(path, steps)
        except (CannotListenError, OSError) as error:
            raise ListenError(no_admin_socket(path, error)) from error

    def _remove_admin(self, admin: AdminService) -> None:
        self.admin = None
        for service in (admin, self._metrics):
            service.disownServiceParent()
        self._let_leave(_close(admin))

    def _set_listeners(self, config: Config, after: dict[str, Listener]) -> None:
        """Go on with these listeners, and without the others."""
        before = list(self.listeners)
        self.config = config
        self.listeners[:] = [after[each.name] for each in config.listeners]
        connect_shards(self.listeners)
        answer_relays(self.listeners, FOR_OTHER_RELAYS)
        for listener in self.listeners:
            if listener not in before:
                listener.setServiceParent(self)
            for sender in list(listener.leaving):
                self._let_leave(self._leave(listener, sender))
        self._share_files()
        for listener in before:
            if listener not in self.listeners:
                listener.disownServiceParent()
                self._let_leave(self._end([listener]))

    def _let_leave(self, work: Any) -> None:
        leaving: Deferred[None] = Deferred.fromCoroutine(work)
        self._leaving.add(leaving)
        leaving.addErrback(
            lambda failure: self.log.failure("unexpected error while closing what a reload has removed", failure)
        )
        leaving.addBoth(lambda _: self._leaving.discard(leaving))

    async def _leave(self, listener: Listener, sender: Sender) -> None:
        """Let a backend that is removed have what waits for it, within the shutdown timeout."""
        await self._drain([sender], listener.hand_over())  # what waits for the journal is its, too
        lost = next((each for each in sender.backlog.losses() if each.reason == "stopped"), None)
        if lost is not None:
            self.log.warn(
                "{relay}: removed backend {backend}, losing {writes} ({size}) accepted from {first} to {last}",
                relay=listener.name,
                backend=sender.name,
                writes=count(lost.writes, "write"),
                size=size(lost.bytes),
                first=iso(lost.first),
                last=iso(lost.last),
            )
        listener.forget(sender)
        await sender.backend.close()

    # -- the end

    def stopService(self) -> Deferred[Any]:
        """Stop listening, answer what is in flight, settle what waits; fires within the shutdown timeout."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        self._notifier.stopping(within=self.config.shutdown_timeout + _RESERVE)
        self.prober.stop()
        no_socket = self._admin_socket.stop()
        await self._end(self.listeners)
        stopped: list[Deferred[Any]] = [no_socket, *self._leaving]
        if self.admin is not None:  # the last to go: a stop can be watched
            stopped.append(Deferred.fromCoroutine(_close(self.admin)))
        await DeferredList(stopped)
        await maybeDeferred(MultiService.stopService, self)
        self._notifier.stopped()
        self.log.info("influxrelay has stopped")

    async def _end(self, listeners: Sequence[Listener]) -> None:
        """Let listeners take no more, answer what is in flight, and settle what waits; then close all they have."""
        senders = [sender for listener in listeners for sender in (*listener.senders, *listener.leaving)]
        deadline = self._reactor.seconds() + self.config.shutdown_timeout
        await self._drain(senders, DeferredList([listener.stop_listening() for listener in listeners]))
        for listener in listeners:
            listener.abort()
        closed: list[Deferred[Any]] = [sender.backend.close() for sender in senders]
        left = max(_LAST_WORDS, deadline - self._reactor.seconds())
        closed += [each.stop_journal(left) for each in listeners]
        await DeferredList(closed)

    async def _drain(self, senders: Sequence[Sender], settled: Deferred[Any]) -> None:
        """Wait for something, and until nothing waits in the senders, within the shutdown timeout; then close them."""
        settled.addCallback(lambda _: DeferredList([sender.drained() for sender in senders]))
        timeout = self.config.shutdown_timeout
        limit = max(timeout - _LAST_WORDS, timeout / 2)
        if not await within(limit, settled, self._reactor):
            self.log.warn("not everything could be settled within {seconds:g} s", seconds=limit)
        for sender in senders:
            sender.close()  # whoever still waits is told so
            sender.abort()
        await within(timeout - limit, settled, self._reactor)


class _StoppingError(Exception):
    """There is nothing any more that could be reloaded."""


async def _close(admin: AdminService) -> None:
    stopped = admin.stop_listening()
    admin.abort()
    await stopped
