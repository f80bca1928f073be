"""Values by key in JetStream: a key-value bucket, as NATS lays it out."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from influxrelay.journal.shared.api import NO_MESSAGE, Api, ApiError
from influxrelay.journal.shared.following import Following
from influxrelay.journal.shared.interface import Conflict, Entry, Message
from influxrelay.journal.shared.stream import sequence_of

_GONE = b"KV-Operation: DEL"


class NatsBucket:
    """A bucket, as :class:`influxrelay.journal.shared.interface.Bucket`.

    A revision is the sequence of a message in the stream ``KV_NAME``.
    """

    def __init__(self, api: Api, name: str) -> None:
        self._api = api
        self._stream = f"KV_{name}"
        self._subject = f"$KV.{name}."
        self._run = api.connection.run

    def load(self, key: str) -> Deferred[Entry | None]:
        """Return a value."""

        async def find() -> Entry | None:
            entry = await self._load(key)
            return entry if entry and entry.value is not None else None

        return self._run(find())

    def create(self, key: str, value: bytes) -> Deferred[int]:
        """Set a value that is not there."""

        async def create() -> int:
            entry = await self._load(key)
            if entry and entry.value is not None:
                raise Conflict(f"{key} is there already")
            return await self._update(key, value, entry.revision if entry else 0)

        return self._run(create())

    def update(self, key: str, value: bytes, revision: int) -> Deferred[int]:
        """Set a value with this revision."""
        return self._run(self._update(key, value, revision))

    def delete(self, key: str) -> Deferred[None]:
        """Remove a value."""

        async def remove() -> None:
            await self._put(key, b"", {"KV-Operation": "DEL"})

        return self._run(remove())

    def watch(self, prefix: str, on_change: Callable[[Entry], None]) -> Following:
        """Hand out values."""
        start = len(self._subject)

        def give(message: Message) -> None:
            gone = "KV-Operation" in message.headers
            on_change(Entry(message.subject[start:], None if gone else message.payload, message.seq))

        return Following(self._api, self._stream, 0, give, subject=f"{self._subject}{prefix}>", last_only=True)

    async def _update(self, key: str, value: bytes, revision: int) -> int:
        try:
            return await self._put(key, value, {"Nats-Expected-Last-Subject-Sequence": str(revision)})
        except Conflict:
            # An attempt without an answer may have been the one that changed it.
            entry = await self._load(key)
            if entry and entry.value == value and entry.revision > revision:
                return entry.revision
            raise

    async def _put(self, key: str, value: bytes, headers: Mapping[str, str]) -> int:
        result: int = await self._api.ask(self._subject + key, value, headers, parse=sequence_of)
        return result

    async def _load(self, key: str) -> Entry | None:
        """Return what the leader has, also if it was deleted."""
        try:
            found = await self._api.call(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._subject + key})
        except ApiError as error:
            if error.err_code in NO_MESSAGE:
                return None
            raise
        message: Mapping[str, Any] = found["message"]
        gone = _GONE in base64.b64decode(message.get("hdrs", ""))
        return Entry(key, None if gone else base64.b64decode(message.get("data", "")), message["seq"])
