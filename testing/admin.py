"""Relays from configuration files that are operated through their admin socket."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory

from influxrelay.config.loader import load
from influxrelay.service.relay_service import RelayService
from testing.scripted import LOOPBACK, Client, RelayTestCase, ScriptedBackend, answer, reactor, request

BAD = b"cpu value=oops 1465839830100400200\n"
REFUSAL = b'{"error":"unable to parse \'cpu value=oops\': invalid boolean"}\n'
SECRET = b"/write?db=db&rp=week&u=me&p=SECRET-query&precision=s"
HEADER = b"Authorization: Token SECRET-token"


class OperatedCase(RelayTestCase):
    """Has relays from configuration files, in a directory short enough for a unix socket's name."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(tempfile.mkdtemp(prefix="relay-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.config = self.directory / "relay.toml"
        self.socket = self.directory / "main" / "admin.sock"

    def listener(
        self, *backends: ScriptedBackend, name: str = "main", journal: bool = True, buffer: int = 0, keys: str = ""
    ) -> str:
        """Return the lines of a listener whose outputs are ``one``, ``two``, ..."""
        text = f'[[http]]\nname = "{name}"\nbind-addr = "{LOOPBACK}:0"\n{keys}'
        if journal:
            text += f'journal = "{self.directory / name}"\n'
        for each, backend in zip(("one", "two", "three"), backends, strict=False):
            text += f'[[http.output]]\nname = "{each}"\nlocation = "{backend.url}"\ntimeout = "2s"\n'
            text += f'max-delay-interval = "100ms"\nbuffer-size-mb = {buffer}\n'
        return text

    def operate(self, *listeners: str, top: str = "") -> RelayService:
        """Start a relay."""
        self.config.write_text("\n".join(['shutdown-timeout = "1s"', top, *listeners]))
        service = RelayService(load(self.config), reactor)
        if not self.pings:
            self.patch(service.prober, "start", lambda: None)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        return service

    async def write(self, service: RelayService, *pieces: bytes, listener: int = 0) -> int:
        """Send a write, and return the status."""
        return (await self.ask(self.http(service, listener), request(*pieces))).status

    async def raw(self, *data: bytes) -> list[dict[str, Any]]:
        """Send bytes to the admin socket, and return the lines that came until its end."""
        factory = Factory.forProtocol(Client)
        factory.noisy = False
        client: Client = await UNIXClientEndpoint(reactor, str(self.socket)).connect(factory)
        client.send(*data)
        return [json.loads(line) for line in (await client.end()).splitlines()]

    async def order(self, command: str, **fields: Any) -> Any:
        """Send a command, and return its result, or its error."""
        *progress, last = await self.raw(json.dumps({"command": command, **fields}).encode() + b"\n")
        self.progress = [each["progress"] for each in progress]
        return last.get("result", last.get("error"))

    async def row(self, backend: str, listener: str = "") -> dict[str, Any]:
        """Return what ``queues`` says of a backend."""
        queues = (await self.order("queues", listener=listener))["queues"]
        found: dict[str, Any] = next(each for each in queues if each["backend"] == backend)
        return found

    async def with_letters(self, count: int = 1, *, journal: bool = True) -> tuple[RelayService, ScriptedBackend]:
        """Start a relay whose backend ``two`` has refused so many writes for good, with 500s."""
        good, bad = self.backend(), self.backend(answer(500, REFUSAL))
        top = "" if journal else f'admin-socket = "{self.socket}"'
        if not journal:
            self.socket.parent.mkdir()
        service = self.operate(self.listener(good, bad, journal=journal, buffer=1), top=top)
        for _ in range(count):
            self.assertEqual(await self.write(service, SECRET, BAD, HEADER), 204)

        async def all_there() -> bool:
            row = await self.row("two")
            return bool(row["dead_letters"] == count)

        while not await all_there():
            pass
        return service, bad
