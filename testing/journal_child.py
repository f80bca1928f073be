"""A relay with a journal as a child process, whose disk can be limited; and what backends have got of its writes."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from twisted.internet.threads import deferToThread

from testing.journal_relay import JournalTestCase, line
from testing.scripted import LOOPBACK, ScriptedBackend
from testing.servers import Relay, free_port, send


def numbers(*backends: ScriptedBackend) -> list[int]:
    """Return the numbers of the writes that backends have got, in order."""
    return [
        int(found)
        for backend in backends
        for each in backend.requests
        for found in re.findall(rb"(?m)^m v=(\d+)i", each.body)
    ]


class Child:
    """A relay in a process of its own, in front of scripted backends."""

    def __init__(
        self, case: JournalTestCase, name: str, journal: Path, settings: str = "", **backends: ScriptedBackend
    ) -> None:
        port = free_port()
        lines = ["[[http]]", 'name = "test"', f'bind-addr = "{LOOPBACK}:{port}"', f'journal = "{journal}"', settings]
        for each, backend in backends.items():
            lines += ["[[http.output]]", f'name = "{each}"', f'location = "{backend.url}"', 'timeout = "2s"']
            lines += ['max-delay-interval = "500ms"']
        self.relay = Relay(case.base / name, "\n".join([*lines, ""]), port)
        case.addCleanup(lambda: deferToThread(self.relay.kill))

    async def start(self) -> None:
        """Start it."""
        await deferToThread(self.relay.start)

    async def stop(self) -> None:
        """Stop it in order."""
        await deferToThread(self.relay.stop)

    async def kill(self) -> None:
        """Kill it."""
        await deferToThread(self.relay.kill)

    async def write(self, number: int, size: int = 0, consistency: str = "") -> int:
        """Write, and return the answer's status."""
        url = f"{self.relay.url}/write?db=db&consistency={consistency}"
        status, self.words = await deferToThread(send, "POST", url, line(number, size))
        return int(status)

    def limit(self, size: int = resource.RLIM_INFINITY) -> None:
        """Fill the disk for this process: no file can grow beyond this size; or make room again."""
        _, hard = resource.prlimit(self.relay.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.relay.pid, resource.RLIMIT_FSIZE, (size, hard))

    def said(self, text: str) -> int:
        """Return how many lines of the log hold a text."""
        return sum(text in each for each in self.relay.log.read_text().splitlines())
