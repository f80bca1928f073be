"""The streams that a shared journal needs, and what the servers that have them promise."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.logger import Logger

from influxrelay.core.errors import JournalError
from influxrelay.core.text import count
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.api import STREAM_NOT_FOUND, Api, ApiError
from influxrelay.journal.shared.connection import NoAnswer
from influxrelay.journal.shared.interface import Unfit

VERSION = (2, 12, 3)  # before, Jepsen found lost writes also with sync_interval: always
REPLICAS = 3
_VARZ = "$SYS.REQ.SERVER.PING.VARZ"
_PATIENCE = 1.0  # seconds for servers to say how they are configured
_DUPLICATES = 600.0  # seconds for which a repeated message is known, also if a frozen server had it meanwhile
_BUCKET_BYTES = 16 * 1024 * 1024
_OF_LETTERS = 4  # dead letters may take this part of what the log may
_NAME_IN_USE = 10058
_NO_PEERS = 10005
_PAUSE = 0.25  # seconds


@attrs.frozen
class ServerInfo:
    """What a server says of itself.

    :ivar sync_always: whether it syncs each message to disk before it acknowledges it.
    """

    name: str
    version: str
    sync_always: bool

    @property
    def is_old(self) -> bool:
        """Whether it is older than what is known to be safe."""
        return tuple(map(int, re.findall(r"\d+", self.version)[:3])) < VERSION


class Provision:
    """Makes what is missing, and finds out what is promised.

    :param full_sync: whether to refuse what does not survive a power failure.
    """

    _log = Logger()

    def __init__(self, api: Api, place: str, name: str, limits: JournalLimits, *, full_sync: bool) -> None:
        self._api = api
        self._place = place
        self._name = name
        self._limits = limits
        self._full_sync = full_sync

    async def complete(self) -> None:
        """Make what is missing, and check the rest.

        :raises Unfit: it must not be used.
        :raises JournalError: it cannot be reached.
        """
        await self._reach()
        found = [await self._ensure(wanted) for wanted in self._wanted()]
        log = found[0]
        problems = [*_of_stream(log["config"]), *await self._of_servers(_servers_of(log))]
        if not problems:
            return
        if self._full_sync:
            raise Unfit(f'refused, since journal-sync is "full": {"; ".join(problems)}')
        self._log.warn(
            "{place}: the loss of a server or of power may cost acknowledged writes: {problems}",
            place=self._place,
            problems="; ".join(problems),
        )

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
                "name": name,
                "subjects": [f"{name}.log", f"{name}.strike"],
                "max_age": int(limits.max_age * 1e9),
                "discard": "old" if limits.drop_oldest else "new",
                "deny_delete": True,
            },
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
        ]

    async def _ensure(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        name = wanted["name"]
        try:
            found = await self._api.call(f"STREAM.INFO.{name}")
        except ApiError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise
            try:
                return await self._call("made", "CREATE", wanted)
            except ApiError as refusal:
                if refusal.err_code != _NAME_IN_USE:
                    raise
            found = await self._api.call(f"STREAM.INFO.{name}")
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

    # -- servers

    async def _of_servers(self, having: set[str]) -> list[str]:
        """Return what is wrong with the servers that have the log."""
        connection = self._api.connection
        answers = await self._ask_servers(having)
        asked = [each for each in answers if each.name in having or not having]
        here = ServerInfo(
            connection.info.get("server_name", "?"), connection.info.get("version", "0"), sync_always=False
        )
        problems = [
            f"{each.name} has version {each.version}, older than {'.'.join(map(str, VERSION))}"
            for each in asked or [here]
            if each.is_old
        ]
        problems += [f"{each.name} has no sync_interval: always" for each in asked if not each.sync_always]
        silent = sorted(having - {each.name for each in asked})
        if not asked:
            problems.append("the servers do not say whether they have sync_interval: always")
        elif silent and len(silent) * 2 >= len(having):
            problems.append(f"{', '.join(silent)} did not say whether it has sync_interval: always")
        elif silent:
            self._log.info(
                "{place}: {silent} could not be checked; make sure that it is configured as the others are",
                place=self._place,
                silent=", ".join(silent),
            )
        return problems

    async def _ask_servers(self, having: set[str]) -> list[ServerInfo]:
        """Ask all servers how they are configured, if this account may."""
        connection = self._api.connection
        answers: dict[str, ServerInfo] = {}
        done = asyncio.Event()

        def answered(message: Any) -> None:
            each = _server(message)
            if each is not None:
                answers[each.name] = each
            if each is None or having <= answers.keys():
                done.set()

        token = connection.expect(answered)
        try:
            await connection.publish(_VARZ, b"", reply=connection.reply_to(token))
            await asyncio.wait_for(done.wait(), _PATIENCE)
        except (NoAnswer, TimeoutError):
            pass
        finally:
            connection.forget(token)
        return sorted(answers.values(), key=lambda each: each.name)


def _of_stream(config: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the log's stream."""
    name, replicas = config["name"], config.get("num_replicas", 1)
    problems = []
    if replicas < REPLICAS:
        problems.append(f"the stream {name} has {count(replicas, 'replica')} instead of {REPLICAS}")
    if config.get("storage") != "file":
        problems.append(f"the stream {name} is kept in memory")
    if config.get("persist_mode") == "async":
        problems.append(f"the stream {name} is written asynchronously")
    return problems


def _servers_of(info: Mapping[str, Any]) -> set[str]:
    """Return the names of the servers that have a stream; empty if that is a server without others."""
    cluster = info.get("cluster") or {}
    names = {cluster.get("leader", ""), *(each["name"] for each in cluster.get("replicas") or ())}
    return names - {""}


def _server(message: Any) -> ServerInfo | None:
    """Return what a server has said of itself; None if nobody has."""
    try:
        answer = json.loads(message.data) if message is not None else {}
        config = answer["data"].get("jetstream", {}).get("config", {})
        name, version = answer["server"]["name"], answer["server"]["ver"]
    except (ValueError, KeyError, AttributeError):
        return None
    return ServerInfo(name, version, config.get("sync_always") is True)
