"""A configuration that is read again while the relay works."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

from twisted.internet.defer import Deferred

from influxrelay.config import load
from influxrelay.report import Refused
from influxrelay.service import RelayService
from tests.scripted import LINE, LOOPBACK, Answer, RelayTestCase, reactor, request, until


class ReloadCase(RelayTestCase):
    """A relay with a configuration file that can be written anew."""

    timeout = 120

    def setUp(self) -> None:
        """Make a directory."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
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
        """Write another configuration, and return why it is refused."""
        self.write(text)
        try:
            await self.service.reload()
        except Refused as error:
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

    async def submit(self, body: bytes = LINE, target: bytes = b"/write?db=db", *headers: bytes) -> Answer:
        """Write to the first listener."""
        return await self.ask(self.listener, request(target, body, *headers))


class OutputTests(ReloadCase):
    """Backends that come and go."""

    async def test_outputs(self) -> None:
        """An output that is added gets the next write, and one that is removed does not."""
        one, two = self.backend(), self.backend()
        text = f"""
            [[http]]
            name = "main"
            bind-addr = "{LOOPBACK}:0"
            [[http.output]]
            name = "one"
            location = "{one.url}"
        """
        both = f"""
            {text}
            [[http.output]]
            name = "two"
            location = "{two.url}"
        """
        self.start(text)
        port = self.listener._port
        await self.submit(b"a v=1 1")
        self.assertEqual(await self.reload(both), ["main: output two added"])
        await self.submit(b"a v=1 2")
        await until(lambda: two.requests)
        last = text.replace("one", "eins").replace(one.url, two.url)
        self.assertEqual(await self.reload(last), ["main: output eins: name", "main: output one removed"])
        await self.submit(b"a v=1 3")
        self.assertEqual([each.body for each in one.requests], [b"a v=1 1", b"a v=1 2"])
        self.assertEqual([each.body for each in two.requests], [b"a v=1 2", b"a v=1 3"])
        self.assertEqual(await self.reload(last), [])
        self.assertIs(self.listener._port, port)
        self.assertIn("bad TOML", await self.refused("["))
        self.assertEqual(await self.last_reload_successful(), 0)
        self.assertEqual(await self.reload(last), [])
        self.assertEqual(await self.last_reload_successful(), 1)
