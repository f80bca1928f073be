"""Checks of the NATS servers: whether their versions, their configuration and the stream keep acknowledged writes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.logger import Logger

from influxrelay.core.text import count
from influxrelay.journal.shared.api import Api
from influxrelay.journal.shared.connection import NoAnswer

VERSION = (2, 12, 3)  # before, Jepsen found lost writes also with sync_interval: always
REPLICAS = 3
_VARZ = "$SYS.REQ.SERVER.PING.VARZ"
_PATIENCE = 1.0  # seconds for servers to say how they are configured


@attrs.frozen
class ServerInfo:
    """What a server says of itself.

    :ivar sync_always: whether it syncs each message to disk before it acknowledges it.
    :ivar stores: whether JetStream works there; a server whose disk is full disables it until it is started again.
    """

    name: str
    version: str
    sync_always: bool
    stores: bool = True

    @property
    def is_old(self) -> bool:
        """Whether it is older than what is known to be safe."""
        return tuple(map(int, re.findall(r"\d+", self.version)[:3])) < VERSION


class Promises:
    """Finds out what the loss of a server, or of power, may cost.

    :param place: the URL, for people.
    """

    _log = Logger()

    def __init__(self, api: Api, place: str) -> None:
        self._api = api
        self._place = place
        self._known: dict[str, ServerInfo] = {}  # what each has said last
        self._silent: list[str] = []

    async def problems(self, log: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with the servers that have the log, and with its stream.

        :param log: what JetStream says of that.
        """
        return [*_of_stream(log["config"]), *await self._of_servers(_servers_of(log))]

    async def _of_servers(self, having: set[str]) -> list[str]:
        """Return what is wrong with the servers that have the log."""
        connection = self._api.connection
        self._known |= {each.name: each for each in await self._ask_servers(having)}
        asked = [each for name, each in sorted(self._known.items()) if name in having or not having]
        here = ServerInfo(
            connection.info.get("server_name", "?"), connection.info.get("version", "0"), sync_always=False
        )
        problems = [
            f"{each.name} has version {each.version}, older than {'.'.join(map(str, VERSION))}"
            for each in asked or [here]
            if each.is_old
        ]
        problems += [
            f"{each.name} has disabled JetStream (a full disk?): restart it" for each in asked if not each.stores
        ]
        problems += [
            f"{each.name} has no sync_interval: always" for each in asked if each.stores and not each.sync_always
        ]
        silent = sorted(having - {each.name for each in asked})
        if not asked:
            problems.append("the servers do not say whether they have sync_interval: always")
        elif silent and len(silent) * 2 >= len(having):
            problems.append(f"{', '.join(silent)} did not say whether it has sync_interval: always")
        elif silent and silent != self._silent:
            self._log.info(
                "{place}: {silent} could not be checked; make sure that it is configured as the others are",
                place=self._place,
                silent=", ".join(silent),
            )
        self._silent = silent
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
        return list(answers.values())


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
    return ServerInfo(name, version, config.get("sync_always") is True, bool(config))
