"""A relay in the test's process that keeps a journal."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, formatEvent

from influxrelay.config.settings import Config, HTTPListenerConfig, JournalConfig
from influxrelay.core.errors import StartError
from influxrelay.core.write import Destination, Write
from influxrelay.journal.ledger import FILE
from influxrelay.journal.records import Record
from influxrelay.listeners.http import HTTPService
from influxrelay.service.relay_service import RelayService
from testing.kept_journal import KeptJournal
from testing.logs import watch_events
from testing.scripted import LOOPBACK, RelayTestCase, ScriptedBackend, reactor, request

QUERY = b"db=db"
DESTINATION = Destination(b"db", b"", b"ns", (b"", b"", b""))


def line(number: int, size: int = 0) -> bytes:
    """Return a write's body, which tells its number."""
    padding = b',p="%b"' % (b"." * size) if size else b""
    return b"m v=%di%b %d\n" % (number, padding, number)


class JournalTestCase(RelayTestCase):
    """Has a directory for a journal, and hears what the relay logs."""

    def setUp(self) -> None:
        """Make the directory's name."""
        self.base = Path(tempfile.mkdtemp(prefix="journal-"))  # trial's paths are too long for the admin socket's
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.directory = self.base / "journal"
        self.events = watch_events(self)

    def lines(self, level: LogLevel) -> list[str]:
        """Return what was logged with a level."""
        return [formatEvent(each) for each in self.events if each["log_level"] is level and "log_failure" not in each]

    def start(self, *outputs: Any, consistency: str = "one", **settings: Any) -> HTTPService:
        """Start a relay on the journal."""
        journal = JournalConfig(directory=str(self.directory), **settings)
        made = tuple(
            self.output(each, f"backend-{number}") if isinstance(each, ScriptedBackend) else each
            for number, each in enumerate(outputs)
        )
        listener = HTTPListenerConfig(
            name="test",
            bind_addr="test",
            endpoint=f"tcp:0:interface={LOOPBACK}",
            outputs=made,
            journal=journal,
            consistency=consistency,
        )
        service = RelayService(Config(path="test", shutdown_timeout=2.0, http=(listener,)), reactor)
        service.startService()  # not the privileged one first: where this raises, no port is to be left open
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        (started,) = service.listeners
        if not isinstance(started, HTTPService):
            raise TypeError(started)
        return started

    async def write(self, relay: HTTPService, number: int, size: int = 0) -> int:
        """Write, and return the answer's status."""
        return (await self.ask(relay, request(b"/write?" + QUERY, line(number, size)))).status

    @contextlib.contextmanager
    def opened(self, backends: dict[str, str] | None = None) -> Iterator[KeptJournal]:
        """Open the journal that no relay has open."""
        journal = KeptJournal(self.directory, backends)
        try:
            yield journal
        finally:
            journal.close()

    def fill(self, backends: dict[str, str], count: int = 200) -> None:
        """Make a journal in which writes wait for all these backends."""
        with self.opened(backends) as journal:
            for number in range(1, count + 1):
                body = line(number, 5000 if number % 9 == 0 else 50)
                journal.append(Record(number, time.time(), Write(DESTINATION, QUERY, b"", body)))

    def names(self, *backends: ScriptedBackend) -> dict[str, str]:
        """Return what :meth:`relay` makes of backends, as name to location."""
        return {f"backend-{number}": backend.url for number, backend in enumerate(backends)}

    def aside(self) -> list[Path]:
        """Return the files that were moved aside."""
        return [each for each in self.directory.glob(f"{FILE}.corrupt-*") if not each.name.endswith(("-wal", "-shm"))]

    def refused_start(self, *outputs: Any, **settings: Any) -> str:
        """Start a relay that does not start, and return its one line."""
        error = self.assertRaises(StartError, self.start, *outputs, **settings)
        text = str(error)
        self.assertNotIn("\n", text)
        self.assertIn(str(self.directory), text)
        return text
