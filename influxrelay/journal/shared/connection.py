"""A connection to one of several NATS servers, which reconnects whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.journal.shared.credentials import read_credentials
from influxrelay.journal.shared.dialing import dial, explained, leave, nats_error
from influxrelay.journal.shared.interface import Unfit
from influxrelay.transport.tls import ClientTLS

T = TypeVar("T")
_LOOK = 0.5  # seconds until it is seen that a client has ended that could not say so
_STAY = 5.0  # seconds at least for which a server is kept that is of no use
_PAUSE = 0.25  # seconds until all servers are tried again


class NoAnswer(JournalError):
    """A question was not answered; it may have been heard all the same."""


class Attached(Protocol):
    """Something that has to begin again at each server."""

    def connected(self) -> None:
        """Begin, at a server that knows nothing of it."""


class Connection:
    """A connection that looks for a server as long as it has none.

    The client of nats-py is used for one connection each: its own way to another server keeps what was not sent, tells
    too late of a server that is frozen, and gives up when a server refuses it.

    :ivar trouble: why there is no connection; empty if there is one.
    :ivar is_refused: whether there is none because of what this relay shows, or the server does not.
    :ivar info: what the server has said of itself.
    """

    _log = Logger()

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        servers: Sequence[str],
        *,
        name: str,
        tls: ClientTLS | None = None,
        credentials_file: str | None = None,
    ) -> None:
        self.loop = loop
        self.trouble = "not connected yet"
        self.is_refused = False
        self.info: Mapping[str, Any] = {}
        self._servers = list(servers)
        self._next = random.randrange(len(self._servers))  # noqa: S311 (relays need not all have the same server)
        self._name = name
        self._tls = tls
        self._credentials_file = credentials_file
        self._client: Any = None
        self._lost = asyncio.Event()
        self._there = asyncio.Event()
        self._attached: list[Attached] = []
        self._inbox = ""
        self._tokens = itertools.count(1)
        self._waiting: dict[str, Callable[[Any], None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opened = self._closed = False
        self._since = 0.0

    # -- coroutines and Deferreds

    def run(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine on the loop, until :meth:`close` at the latest."""
        if self._closed:
            work.close()
            deferred: Deferred[T] = Deferred()
            deferred.errback(Failure(JournalError("the connection is closed")))
            return deferred
        return Deferred.fromFuture(self.spawn(work)).addErrback(_as_journal_error)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a coroutine that ends with the connection at the latest."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- life

    def open(self) -> None:
        """Begin to look for a server, once."""
        if not self._opened:
            self._opened = True
            self.spawn(self._keep_connected())

    async def close(self) -> None:
        """Leave; whatever waits fails."""
        self._closed = True
        current = asyncio.current_task()
        for task in list(self._tasks):
            if task is not current:
                task.cancel()
        client, self._client = self._client, None
        self._there.clear()
        if client is not None:
            await leave(client)

    @property
    def server(self) -> str:
        """The server that is used, or is tried."""
        return self._servers[self._next % len(self._servers)]

    @property
    def others(self) -> int:
        """How many more servers there are."""
        return len(self._servers) - 1

    def attach(self, what: Attached) -> None:
        """Let something begin at this server, if there is one, and at each later one."""
        self._attached.append(what)
        if self._client is not None:
            what.connected()

    def detach(self, what: Attached) -> None:
        """Let it not begin any more."""
        if what in self._attached:
            self._attached.remove(what)

    def leave_server(self) -> None:
        """Look for another server, since this one is of no use; unless that is new."""
        if self.loop.time() - self._since > _STAY:
            self._lost.set()

    def move_on(self) -> None:
        """Look for another server, whatever this one is good for."""
        self._there.clear()
        self._lost.set()

    async def until_connected(self) -> None:
        """Wait until there is a connection."""
        await self._there.wait()

    async def _keep_connected(self) -> None:
        while True:
            client = await self._find()
            self._client, self.trouble = client, ""
            self._there.set()
            for each in list(self._attached):
                each.connected()
            while not client.is_closed and not self._lost.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._lost.wait(), _LOOK)
            self._client, self.trouble = None, f"lost the connection to {self.server}"
            self._there.clear()
            self._next += 1
            waiting, self._waiting = self._waiting, {}
            for give_up in waiting.values():
                give_up(None)
            self.loop.create_task(leave(client))

    async def _find(self) -> Any:
        failed = 0
        while True:
            server = self.server
            try:
                return await self._dial(server)
            except Exception as error:  # noqa: BLE001 (of nats-py, ssl and asyncio)
                self.trouble = f"{server}: {explained(error)}"
                self.is_refused = isinstance(error, Unfit) or "authorization" in self.trouble.lower()
            self._next += 1
            failed += 1
            if failed % len(self._servers) == 0:
                await asyncio.sleep(_PAUSE)

    async def _dial(self, server: str) -> Any:
        lost = asyncio.Event()
        credentials = read_credentials(self._credentials_file)
        client = await dial(server, self._name, self._tls.context if self._tls else None, credentials, lost.set)
        try:
            self._inbox = self.new_inbox()
            await client.subscribe(f"{self._inbox}.*", cb=self._answered, pending_bytes_limit=0)
        except BaseException:
            self.loop.create_task(leave(client))
            raise
        self.info = dict(client._server_info)  # noqa: SLF001 (there is no public way)
        self._lost, self._since = lost, self.loop.time()
        return client

    # -- messages

    async def publish(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Send a message to the server, in the order of the calls.

        :raises NoAnswer: there is no connection.
        """
        if self._client is None:
            raise NoAnswer(self.trouble)
        if len(payload) > self._client.max_payload:
            raise JournalError(
                f"a message of {len(payload)} bytes; the servers' max_payload is {self._client.max_payload}"
            )
        try:
            await self._client.publish(subject, payload, reply, dict(headers) if headers else None)
        except nats_error() as error:
            raise NoAnswer(explained(error)) from error

    async def request(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, seconds: float
    ) -> Any:
        """Ask once.

        :raises NoAnswer: there is no connection, or no answer.
        """
        answer: asyncio.Future[Any] = self.loop.create_future()
        token = self.expect(lambda message: None if answer.done() else answer.set_result(message))
        try:
            await self.publish(subject, payload, headers, self.reply_to(token))
            message = await asyncio.wait_for(answer, seconds)
        except TimeoutError:
            raise NoAnswer("no answer") from None
        finally:
            self.forget(token)
        if message is None:
            raise NoAnswer(self.trouble or "lost the connection")
        if not message.data and message.headers and message.headers.get("Status") == "503":
            raise NoAnswer("no JetStream responders (there may be no leader)")
        return message

    def reply_to(self, token: str) -> str:
        """Return the subject for answers that :meth:`expect` has given a token."""
        return f"{self._inbox}.{token}"

    def expect(self, on_answer: Callable[[Any], Any]) -> str:
        """Expect answers to a token; None is an answer if the connection is lost."""
        token = str(next(self._tokens))
        self._waiting[token] = on_answer
        return token

    def forget(self, token: str) -> None:
        """Expect nothing more."""
        self._waiting.pop(token, None)

    async def subscribe(self, subject: str, on_message: Callable[[Any], None]) -> Any:
        """Subscribe at this server; return what can be unsubscribed.

        :raises NoAnswer: there is no connection.
        """
        client = self._client
        if client is None:
            raise NoAnswer(self.trouble)

        async def give(message: Any) -> None:
            try:
                on_message(message)
            except Exception:  # noqa: BLE001 (the next messages are to come all the same)
                self._log.failure("a message of {subject} was not handled", subject=subject)

        try:
            return await client.subscribe(subject, cb=give, pending_msgs_limit=0, pending_bytes_limit=0)
        except nats_error() as error:
            raise NoAnswer(explained(error)) from error

    async def flush(self) -> None:
        """Wait until the server has seen what was sent.

        :raises NoAnswer: there is no connection, or no answer.
        """
        client = self._client
        if client is None:
            raise NoAnswer(self.trouble)
        try:
            await client.flush()
        except nats_error() as error:
            raise NoAnswer(explained(error)) from error

    def new_inbox(self) -> str:
        """Return a subject that nobody else has."""
        return f"_INBOX.{os.urandom(12).hex()}"

    async def _answered(self, message: Any) -> None:
        on_answer = self._waiting.get(message.subject.rpartition(".")[2])
        if on_answer is not None:
            on_answer(message)


def _as_journal_error(failure: Failure) -> Failure:
    if failure.check(JournalError):
        return failure
    if failure.check(asyncio.CancelledError):
        return Failure(JournalError("the connection was closed"))
    return failure
