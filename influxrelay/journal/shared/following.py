"""Messages of a stream as they are stored, in order, each once."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from influxrelay.core.errors import JournalError
from influxrelay.journal.shared.api import NO_MESSAGE, Api, ApiError
from influxrelay.journal.shared.connection import NoAnswer
from influxrelay.journal.shared.interface import Message

HEARTBEAT = 1.0  # seconds
_SILENCE = 3.0  # seconds without a sign of life, after which the consumer is made anew
_PAUSE = 0.25  # seconds
_TRIES = 5  # consumers that are made until one is at the leader; which server has one cannot be chosen


class Following:
    """Hands out the messages of a stream through a consumer, which is made anew whenever it cannot be trusted.

    :param position: up to which sequence everything is known.
    :param subject: only messages with subjects like this, which is not only ``>``: of that JetStream does not tell the
        last message if others behind it were removed.
    :param last_only: at the beginning only the last message of each subject.
    """

    _log = Logger()

    def __init__(
        self,
        api: Api,
        stream: str,
        position: int,
        on_message: Callable[[Message], None],
        *,
        subject: str,
        headers_only: bool = False,
        last_only: bool = False,
    ) -> None:
        self.in_sync: Deferred[None] = Deferred()
        self._api = api
        self._stream = stream
        self._position = position
        self._on_message = on_message
        self._subject = subject
        self._headers_only = headers_only
        self._last_only = last_only
        self._target: int | None = None
        self._consumer = ""
        self._delivered = 0
        self._alive = 0.0
        self._wake = asyncio.Event()
        self._broken = False
        self._stopped = False
        self._task = api.connection.spawn(self._follow())
        api.connection.attach(self)

    def stop(self) -> None:
        """Hand out nothing more."""
        if not self._stopped:
            self._stopped = True
            self._api.connection.detach(self)
            self._task.cancel()

    def connected(self) -> None:
        """Make a consumer at this server."""
        self._broken = True
        self._wake.set()

    # -- consumers

    async def _follow(self) -> None:
        connection = self._api.connection
        while not self._stopped:
            subscription = None
            try:
                await connection.until_connected()
                self._broken = False
                if self._target is None:
                    self._target = await self._last()
                inbox = connection.new_inbox()
                subscription = await connection.subscribe(inbox, self._came)
                await self._create(inbox)
                await self._watch()
            except JournalError as error:
                self._log.debug("{stream}: cannot be followed: {error}", stream=self._stream, error=error)
            finally:
                gone, self._consumer = self._consumer, ""
                if subscription is not None:
                    connection.loop.create_task(self._give_up(subscription, gone))
            await asyncio.sleep(_PAUSE)

    async def _create(self, inbox: str) -> None:
        """Make a consumer, if possible at the leader: others learn later what is stored."""
        for attempt in range(1, _TRIES + 1):
            name = self._consumer = f"follow-{os.urandom(8).hex()}"
            self._delivered = 0
            self._alive = self._api.connection.loop.time()
            made = await self._api.call(f"CONSUMER.CREATE.{self._stream}.{name}", self._configuration(name, inbox))
            info = await self._api.call(f"STREAM.INFO.{self._stream}")
            if _leader_of(made) == _leader_of(info):
                break
            if attempt < _TRIES:
                await self._remove(name)
        if not made.get("num_pending") and not self._delivered:
            await self._check_sync()

    async def _give_up(self, subscription: Any, consumer: str) -> None:
        with contextlib.suppress(Exception):
            await subscription.unsubscribe()
        await self._remove(consumer)

    async def _remove(self, consumer: str) -> None:
        with contextlib.suppress(NoAnswer):
            await self._api.connection.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{consumer}", b"")

    def _configuration(self, name: str, inbox: str) -> Mapping[str, Any]:
        begin: dict[str, Any] = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._position + 1}
        if self._last_only and not self._position:
            begin = {"deliver_policy": "last_per_subject"}
        config = {
            "name": name,
            **begin,
            "deliver_subject": inbox,
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": self._subject,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT * 1e9),
            "inactive_threshold": int(30 * 1e9),
            "headers_only": self._headers_only,
            "num_replicas": 1,
            "mem_storage": True,
        }
        return {"stream_name": self._stream, "config": config, "action": "create"}

    async def _watch(self) -> None:
        """Return when the consumer cannot be trusted any more."""
        loop = self._api.connection.loop
        while not self._broken and loop.time() - self._alive < _SILENCE:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), HEARTBEAT)
            if not self.in_sync.called and not self._broken:
                await self._check_sync()

    # -- messages

    def _came(self, message: Any) -> None:
        headers = message.headers or {}
        if headers.get("Status") == "100" and not message.data:
            self._take_sign(message, headers)
            return
        parts = message.reply.split(".")
        offset = 0 if len(parts) == 9 else 2  # with a domain and an account there are more
        if self._stopped or self._broken or parts[3 + offset] != self._consumer:
            return
        self._alive = self._api.connection.loop.time()
        seq, count = int(parts[5 + offset]), int(parts[6 + offset])
        if count != self._delivered + 1:
            self.connected()
            return
        self._delivered = count
        if seq > self._position:
            self._position = seq
            size = int(headers.get("Nats-Msg-Size", len(message.data)))
            when = int(parts[7 + offset]) / 1e9
            self._on_message(Message(seq, message.subject, headers, message.data, size, when))
        self._note_sync()

    def _take_sign(self, message: Any, headers: Mapping[str, str]) -> None:
        """Take a heartbeat, or answer flow control."""
        self._alive = self._api.connection.loop.time()
        if reply := message.reply or headers.get("Nats-Consumer-Stalled"):
            self._api.connection.spawn(self._answer(reply))
        if int(headers.get("Nats-Last-Consumer", self._delivered)) > self._delivered:
            self.connected()

    async def _answer(self, subject: str) -> None:
        with contextlib.suppress(NoAnswer):
            await self._api.connection.publish(subject, b"")

    # -- being in sync

    async def _last(self) -> int:
        """Return the sequence of the last message that is there; 0 if there is none."""
        try:
            found = await self._api.call(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._subject})
        except ApiError as error:
            if error.err_code in NO_MESSAGE:
                return 0
            raise
        return int(found["message"]["seq"])

    async def _check_sync(self) -> None:
        """Find out whether what is missing was removed."""
        if not self.in_sync.called and self._target is not None and self._target > self._position:
            state = (await self._api.call(f"STREAM.INFO.{self._stream}"))["state"]
            if not state["messages"] or state["first_seq"] > self._target or await self._last() <= self._position:
                self._target = self._position
        self._note_sync()

    def _note_sync(self) -> None:
        if self._stopped or self.in_sync.called or self._target is None or self._position < self._target:
            return
        self.in_sync.callback(None)


def _leader_of(info: Mapping[str, Any]) -> str:
    """Return which server leads a stream or a consumer; empty if there are no others."""
    return str((info.get("cluster") or {}).get("leader", ""))
