"""The streams of a shared journal: created if they are missing, and checked once a minute."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from twisted.logger import Logger, LogLevel

from influxrelay.core.errors import JournalError
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.api import STREAM_NOT_FOUND, Api, ApiError
from influxrelay.journal.shared.interface import GAP, Unfit
from influxrelay.journal.shared.promises import REPLICAS, Promises

_DUPLICATES = 600.0  # seconds for which a repeated message is known, also if a frozen server had it meanwhile
_BUCKET_BYTES = 16 * 1024 * 1024
_OF_LETTERS = 4  # dead letters may take this part of what the log may
_NAME_IN_USE = 10058
MAX_PAYLOAD = 640 * 1024  # bytes of the largest message
LOOK = 60.0  # seconds between two checks of the servers
LOOK_IN_TROUBLE = 5.0  # the same if nothing can be stored
_NO_PEERS = 10005
_PAUSE = 0.25  # seconds


class Provision:
    """Makes what is missing, and finds out what is promised: at the start, and again and again.

    :param full_sync: whether to refuse what does not survive a power failure.
    :param known_seq: returns the last message of the log that is known to have been there, by whatever source.
    :ivar risk: what may cost acknowledged writes; empty if nothing is known.
    """

    _log = Logger()

    def __init__(
        self,
        api: Api,
        place: str,
        name: str,
        limits: JournalLimits,
        *,
        full_sync: bool,
        known_seq: Callable[[], Coroutine[Any, Any, int]],
    ) -> None:
        self.risk = ""
        self._api = api
        self._place = place
        self._name = name
        self._limits = limits
        self._full_sync = full_sync
        self._known_seq = known_seq
        self._promises = Promises(api, place)
        self._wake = asyncio.Event()
        self._is_watching = False

    async def complete(self) -> None:
        """Make what is missing, and check the rest; from then on this is done again and again.

        The log's leader is preferred to other servers.

        :raises Unfit: it must not be used.
        :raises JournalError: it cannot be reached.
        """
        await self._reach()
        found = [await self._ensure(wanted) for wanted in self._wanted()]
        problems = await self._promises.problems(found[-1])
        if problems and self._full_sync:
            raise Unfit(f'refused, since journal-sync is "full": {"; ".join(problems)}')
        self._note(problems)
        await self._approach((found[-1].get("cluster") or {}).get("leader", ""))
        if not self._is_watching:
            self._is_watching = True
            self._api.connection.attach(self)
            self._wake.clear()
            self._api.connection.spawn(self._watch())

    def connected(self) -> None:
        """Check the servers when there is a connection again: another one may have come."""
        self._wake.set()

    async def _watch(self) -> None:
        while True:
            pause = LOOK_IN_TROUBLE if self._api.trouble else LOOK
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            self._wake.clear()
            try:
                found = [await self._find(wanted) for wanted in self._wanted()]
                self._note(await self._promises.problems(found[-1]))
            except JournalError as error:
                self._log.debug("{place}: the servers cannot be checked: {error}", place=self._place, error=error)
            await asyncio.sleep(_PAUSE)

    def _note(self, problems: Sequence[str]) -> None:
        """Log what has changed."""
        before, self.risk = self.risk, "; ".join(problems)
        if self.risk and self.risk != before:
            self._log.emit(
                LogLevel.critical if self._full_sync else LogLevel.warn,
                "{place}: the loss of a server or of power may cost acknowledged writes: {problems}",
                place=self._place,
                problems=self.risk,
            )
        elif before and not self.risk:
            self._log.info("{place}: the servers are as they should be again", place=self._place)

    async def limit(self, limits: JournalLimits) -> None:
        """Let the streams have other limits."""
        self._limits = limits
        for wanted in self._wanted():
            await self._ensure(wanted)

    async def _reach(self) -> None:
        connection = self._api.connection
        try:
            await asyncio.wait_for(connection.until_connected(), self._api.timeout)
        except TimeoutError:
            kind = Unfit if connection.is_refused else JournalError
            raise kind(connection.trouble) from None
        if (most := connection.info.get("max_payload", MAX_PAYLOAD)) < MAX_PAYLOAD:
            raise Unfit(f"{connection.server}: max_payload is {most}; it must be at least {MAX_PAYLOAD}")

    async def _approach(self, leader: str) -> None:
        """Try other servers until one is the log's leader: all messages go through it, also those of others."""
        connection = self._api.connection
        for _ in range(connection.others):
            if not leader or connection.info.get("server_name") == leader:
                return
            connection.move_on()
            await self._reach()

    # -- streams

    def _wanted(self) -> list[dict[str, Any]]:
        name, limits = self._name, self._limits
        known = min(_DUPLICATES, limits.max_age or _DUPLICATES)  # JetStream allows no more than the age
        common = {
            "retention": "limits",
            "storage": "file",
            "num_replicas": REPLICAS if "cluster" in self._api.connection.info else 1,
            "allow_direct": True,
            "duplicate_window": int(known * 1e9),
            "max_bytes": limits.max_bytes or -1,
            "discard": "new",
        }
        bucket = f"{name}-state"
        return [
            {
                **common,
                "name": f"{name}-letters",
                "subjects": [f"{name}-letters.*"],
                "max_bytes": limits.max_bytes // _OF_LETTERS or -1,
            },
            {
                **common,
                "name": f"KV_{bucket}",
                "subjects": [f"$KV.{bucket}.>"],
                "max_msgs_per_subject": 1,
                "max_bytes": _BUCKET_BYTES,
                "allow_rollup_hdrs": True,
                "deny_delete": True,
            },
            {
                **common,
                "name": name,
                "subjects": [f"{name}.log", f"{name}.strike"],
                "max_age": int(limits.max_age * 1e9),
                "discard": "old" if limits.drop_oldest else "new",
                "deny_delete": True,
            },
        ]

    async def _find(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return what JetStream says of a stream; make it if it is missing."""
        name = wanted["name"]
        try:
            return await self._api.call(f"STREAM.INFO.{name}")
        except ApiError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise
        known = await self._known_seq() if name == self._name else 0
        try:
            made = await self._call("made", "CREATE", {**wanted, **({"first_seq": known + GAP + 1} if known else {})})
        except ApiError as refusal:
            if refusal.err_code != _NAME_IN_USE:
                raise
            return await self._api.call(f"STREAM.INFO.{name}")  # another relay was first
        if known or self._is_watching:
            self._log.critical(
                "{place}: somebody removed the stream {stream}, and its content is lost; recreated it",
                place=self._place,
                stream=name,
            )
        return made

    async def _ensure(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        name = wanted["name"]
        found = await self._find(wanted)
        config = found["config"]
        if sorted(config.get("subjects", ())) != wanted["subjects"] or config.get("deny_purge") or config.get("sealed"):
            raise Unfit(f"the stream {name} is there, but not as a journal needs it; remove it")
        bounds = {key: wanted[key] for key in ("max_bytes", "max_age", "discard", "duplicate_window") if key in wanted}
        differing = [key for key, value in bounds.items() if config.get(key) != value]
        if not differing:
            return found
        self._log.info(
            "{place}: changing {keys} of the stream {stream} to what is configured here",
            place=self._place,
            keys=", ".join(differing),
            stream=name,
        )
        return await self._call("changed", "UPDATE", {**config, **bounds})

    async def _call(self, what: str, verb: str, config: Mapping[str, Any]) -> dict[str, Any]:
        name, loop = config["name"], self._api.connection.loop
        end = loop.time() + self._api.timeout
        while True:
            try:
                return await self._api.call(f"STREAM.{verb}.{name}", config)
            except ApiError as error:
                if error.err_code == _NAME_IN_USE:
                    raise
                alone = error.err_code == _NO_PEERS and "storage" not in str(error)
                if not alone or loop.time() > end:
                    kind = JournalError if alone else Unfit
                    raise kind(f"the stream {name} cannot be {what}: {error}") from error
            await asyncio.sleep(_PAUSE)  # servers that have just been started do not know each other yet
