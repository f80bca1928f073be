"""A relay in the test's process whose configuration is reloaded."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from textwrap import dedent
from typing import Any

from twisted.internet.defer import Deferred

from influxrelay.config.loader import load
from influxrelay.operations.views import Refused
from influxrelay.service.relay_service import RelayService
from testing.scripted import LINE, LOOPBACK, Answer, RelayTestCase, reactor, request


class ReloadCase(RelayTestCase):
    """A relay with a configuration file that can be written anew."""

    service: RelayService

    def setUp(self) -> None:
        """Make a directory, with a path that leaves room for a socket's name."""
        self.directory = Path(tempfile.mkdtemp(prefix="relay-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.path = self.directory / "relay.toml"

    def write(self, text: str) -> None:
        """Write the configuration."""
        self.path.write_text(dedent(text))

    def start(self, text: str) -> RelayService:
        """Start a relay with a configuration."""
        self.write(text)
        self.service = service = RelayService(load(self.path), reactor)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        return service

    async def reload(self, text: str) -> list[str]:
        """Write another configuration, and let it hold; return what it is said to have changed."""
        self.write(text)
        changes: list[str] = (await self.service.reload())["changes"]
        return changes

    async def refused(self, text: str) -> str:
        """Write another configuration, and return why it is refused; check that it is one line."""
        self.write(text)
        try:
            await self.service.reload()
        except Refused as error:
            self.assertNotIn("\n", str(error))
            return str(error)
        raise AssertionError("it was not refused")

    async def last_reload_successful(self) -> float:
        """Return what Prometheus is told of it."""
        families = {each.name: each for each in await self.service.collect()}
        return families["influxrelay_config_last_reload_successful"].samples[0].value

    @property
    def listener(self) -> Any:
        """The first listener."""
        return self.service.listeners[0]

    @property
    def sender(self) -> Any:
        """The first sender of the first listener."""
        return self.listener.senders[0]

    async def submit(self, body: bytes = LINE, target: bytes = b"/write?db=db", *headers: bytes) -> Answer:
        """Write to the first listener."""
        return await self.ask(self.listener, request(target, body, *headers))


def http(*outputs: str, listener: str = "", top: str = "", bind: str = f"{LOOPBACK}:0") -> str:
    """Return a configuration with an HTTP listener.

    :param outputs: the lines of each.
    """
    lines = [top, "[[http]]", 'name = "main"', f'bind-addr = "{bind}"', listener]
    return "\n".join(lines + [f"[[http.output]]\n{each}" for each in outputs])


def to(backend: Any, name: str = "one", more: str = "") -> str:
    """Return the lines of an output."""
    return f'name = "{name}"\nlocation = "{backend.url}"\n{more}'
