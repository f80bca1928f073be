"""A shared log on NATS JetStream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.api import Api
from influxrelay.journal.shared.bucket import NatsBucket
from influxrelay.journal.shared.connection import Connection, NoAnswer
from influxrelay.journal.shared.frames import seq_of
from influxrelay.journal.shared.interface import Entry, Unfit
from influxrelay.journal.shared.provision import Provision
from influxrelay.journal.shared.state import PREFIX, BackendState
from influxrelay.journal.shared.stream import NatsStream
from influxrelay.transport.event_loop import event_loop
from influxrelay.transport.tls import ClientTLS


class NatsEngine:
    """A connection to NATS, as :class:`influxrelay.journal.shared.interface.Engine`.

    :param place: the URL, for people.
    :param servers: ``HOST:PORT`` of each.
    :param name: of the stream.
    :param client: what the servers are to call this relay.
    :param full_sync: whether to refuse servers that do not promise to survive a power failure.
    :param timeout: seconds after which whatever is not answered fails.
    :raises JournalError: the reactor has no event loop of its own.
    :raises ConfigError: the file of authorities is not what it should be.
    """

    def __init__(
        self,
        reactor: Any,
        place: str,
        servers: Sequence[str],
        name: str,
        limits: JournalLimits,
        *,
        client: str = "influxrelay",
        tls: bool = False,
        ca_file: str | None = None,
        credentials_file: str | None = None,
        full_sync: bool = False,
        timeout: float = 10.0,
    ) -> None:
        loop = event_loop(reactor)
        if loop is None:
            raise JournalError(f"{place}: a shared journal needs a reactor on asyncio; start twistd without --reactor")
        self.name = name
        self.place = place
        self._connection = Connection(
            loop,
            servers,
            name=client,
            tls=ClientTLS(ca_file=ca_file) if tls else None,
            credentials_file=credentials_file,
        )
        self._api = Api(self._connection, timeout)
        self._provision = Provision(self._api, place, name, limits, full_sync=full_sync, known_seq=self._last_known_seq)
        self.log = NatsStream(self._api, name)
        self.letters = NatsStream(self._api, f"{name}-letters")
        self.bucket = NatsBucket(self._api, f"{name}-state")

    @property
    def trouble(self) -> str:
        """What is wrong."""
        return self._api.trouble

    @property
    def risk(self) -> str:
        """What may cost acknowledged writes although all works."""
        return self._provision.risk

    async def _last_known_seq(self) -> int:
        """Return up to where the log had come, as this relay has seen, or as the backends' positions tell."""
        numbers: list[int] = []

        def take(entry: Entry) -> None:
            with contextlib.suppress(ValueError):
                numbers.append(BackendState.decode(entry.value or b"").highest)

        watch = self.bucket.watch(PREFIX, take)
        await watch.in_sync.asFuture(self._connection.loop)
        watch.stop()
        return max([self.log.last_seen, *map(seq_of, numbers)])

    def connect(self) -> Deferred[None]:
        """Connect, check the servers, and make what is missing."""
        self._connection.open()
        return self._connection.run(self._provision.complete()).addErrback(self._with_place)

    def _with_place(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, JournalError):
            raise (Unfit if isinstance(error, Unfit) else JournalError)(f"{self.place}: {error}") from error
        failure.raiseException()

    def close(self) -> Deferred[None]:
        """Leave."""
        return Deferred.fromCoroutine(self._close())

    def reconfigure(self, limits: JournalLimits) -> Deferred[None]:
        """Let the stream have other limits."""
        return self._connection.run(self._provision.limit(limits))

    def send(self, subject: str, payload: bytes) -> None:
        """Send to whoever subscribes now."""
        self._check_subject(subject)
        self._connection.spawn(self._send(subject, payload))

    def subscribe(self, subject: str, on_payload: Callable[[bytes], None]) -> Subscription:
        """Hand out what is sent to a subject."""
        self._check_subject(subject)
        return Subscription(self._connection, subject, on_payload)

    async def _send(self, subject: str, payload: bytes) -> None:
        with contextlib.suppress(JournalError):
            await self._connection.publish(subject, payload)

    async def _close(self) -> None:
        await Deferred.fromFuture(self._connection.loop.create_task(self._connection.close()))

    def _check_subject(self, subject: str) -> None:
        if not subject.startswith(f"{self.name}.") or subject in {f"{self.name}.log", f"{self.name}.strike"}:
            raise ValueError(f"{subject!r} is none of the subjects that are not stored")


class Subscription:
    """What is sent to a subject and not stored."""

    def __init__(self, connection: Connection, subject: str, on_payload: Callable[[bytes], None]) -> None:
        self.in_sync: Deferred[None] = Deferred()
        self._connection = connection
        self._subject = subject
        self._on_payload = on_payload
        self._subscribed: Any = None
        self._stopped = False
        connection.attach(self)

    def connected(self) -> None:
        """Subscribe at this server."""
        self._connection.spawn(self._subscribe())

    def stop(self) -> None:
        """Hand out nothing more."""
        if not self._stopped:
            self._stopped = True
            self._connection.detach(self)
            if self._subscribed is not None:
                self._connection.spawn(self._unsubscribe())

    async def _subscribe(self) -> None:
        with contextlib.suppress(NoAnswer):
            self._subscribed = await self._connection.subscribe(self._subject, self._came)
            await self._connection.flush()
            if not self.in_sync.called:
                self.in_sync.callback(None)

    async def _unsubscribe(self) -> None:
        with contextlib.suppress(Exception):
            await self._subscribed.unsubscribe()

    def _came(self, message: Any) -> None:
        if not self._stopped:
            self._on_payload(message.data)
