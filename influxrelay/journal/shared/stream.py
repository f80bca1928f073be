"""A stream of JetStream."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred

from influxrelay.core.errors import JournalError
from influxrelay.journal.shared.api import NO_MESSAGE, NO_STORAGE, Api, ApiError, answer_of
from influxrelay.journal.shared.connection import NoAnswer
from influxrelay.journal.shared.following import Following
from influxrelay.journal.shared.interface import Full, Message, StreamState

_AT_ONCE = 64  # messages that are asked for at a time


class NatsStream:
    """A stream of JetStream, as :class:`influxrelay.journal.shared.interface.Stream`.

    :ivar last_seen: the last message that is known to have been there.
    """

    def __init__(self, api: Api, name: str) -> None:
        self.name = name
        self.last_seen = 0
        self._api = api
        self._run = api.connection.run

    def publish(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, msg_id: str
    ) -> Deferred[int]:
        """Store a message once."""
        if not subject.startswith(f"{self.name}."):
            raise ValueError(f"{subject!r} is no subject of the stream {self.name}")
        marked = {**(headers or {}), "Nats-Msg-Id": msg_id, "Nats-Expected-Stream": self.name}
        return self._run(self._api.ask(subject, payload, marked, parse=self._acknowledged))

    def _acknowledged(self, message: Any) -> int:
        seq = sequence_of(message)
        self.last_seen = max(self.last_seen, seq)
        return seq

    def get(self, seqs: Iterable[int]) -> Deferred[list[Message]]:
        """Read messages."""
        return self._run(self._get(list(seqs)))

    def follow(self, after: int, on_message: Callable[[Message], None], *, headers_only: bool = False) -> Following:
        """Hand out messages in order."""
        subject = f"{self.name}.*"
        return Following(self._api, self.name, after, on_message, subject=subject, headers_only=headers_only)

    def state(self) -> Deferred[StreamState]:
        """Return what there is."""
        return self._run(self._state())

    def purge(self, upto: int) -> Deferred[None]:
        """Remove the oldest messages; the next one comes behind this sequence."""

        async def remove() -> None:
            await self._api.call(f"STREAM.PURGE.{self.name}", {"seq": upto + 1})

        return self._run(remove())

    def delete(self, seqs: Iterable[int]) -> Deferred[int]:
        """Remove single messages."""

        async def remove(seq: int) -> bool:
            try:
                await self._api.call(f"STREAM.MSG.DELETE.{self.name}", {"seq": seq, "no_erase": True})
            except ApiError as error:
                if error.err_code in NO_MESSAGE:
                    return False
                raise
            return True

        async def remove_all(unwanted: Iterable[int]) -> int:
            return sum([await remove(seq) for seq in unwanted])

        return self._run(remove_all(list(seqs)))

    async def _state(self) -> StreamState:
        info = await self._api.call(f"STREAM.INFO.{self.name}")
        state = info["state"]
        messages, last = state["messages"], state["last_seq"]
        self.last_seen = max(self.last_seen, last)
        first = state["first_seq"] if messages else last + 1
        return StreamState(first, last, state["bytes"], messages, info["created"])

    async def _get(self, seqs: list[int]) -> list[Message]:
        found: list[Message] = []
        for begin in range(0, len(seqs), _AT_ONCE):
            messages = await asyncio.gather(*map(self._get_one, seqs[begin : begin + _AT_ONCE]))
            found += filter(None, messages)
        return found

    async def _get_one(self, seq: int) -> Message | None:
        """Read a message from whichever server has it; only the leader knows that it is not there."""
        body = f'{{"seq":{seq}}}'.encode()
        subject = f"$JS.API.DIRECT.GET.{self.name}"
        direct = await self._api.ask(subject, body, parse=_direct, of_leader=False)
        if direct is not None:
            found: Message = direct
            return found
        try:
            answer = await self._api.call(f"STREAM.MSG.GET.{self.name}", {"seq": seq})
        except ApiError as error:
            if error.err_code not in NO_MESSAGE:
                raise
            if seq > (await self._state()).last_seq:
                raise JournalError(f"{self.name}: message {seq} is not there yet") from None
            return None
        return _stored(answer["message"])


def sequence_of(message: Any) -> int:
    """Return the sequence from the acknowledgement of a message.

    :raises Full: the servers have no room.
    """
    try:
        answer = answer_of(message)
    except ApiError as error:
        if error.err_code == NO_STORAGE:
            raise Full(str(error)) from error
        raise
    if "seq" not in answer:
        raise NoAnswer(f"an acknowledgement without a sequence: {message.data[:100]!r}")
    return int(answer["seq"])


def _direct(message: Any) -> Message | None:
    headers = message.headers or {}
    if headers.get("Status") in ("404", "408"):
        return None
    if "Nats-Sequence" not in headers:
        raise JournalError(f"a message without a sequence: {headers}")
    own = {name: value for name, value in headers.items() if name not in _ADDED}
    when = seconds_of(headers["Nats-Time-Stamp"])
    seq, data = int(headers["Nats-Sequence"]), message.data
    return Message(seq, headers["Nats-Subject"], own, data, len(data), when)


_ADDED = {"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence"}


def _stored(message: Mapping[str, Any]) -> Message:
    lines = base64.b64decode(message.get("hdrs", "")).decode().split("\r\n")[1:]
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    data = base64.b64decode(message.get("data", ""))
    return Message(message["seq"], message["subject"], headers, data, len(data), seconds_of(message["time"]))


def seconds_of(timestamp: str) -> float:
    """Return seconds since the epoch, of a time as Go writes it."""
    match = re.fullmatch(r"(.*?)(\.\d+)?Z", timestamp)
    if match is None:
        return datetime.fromisoformat(timestamp).timestamp()
    whole = datetime.fromisoformat(match[1]).replace(tzinfo=UTC).timestamp()
    return whole + float(match[2] or 0)
