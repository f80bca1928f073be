"""Somebody who creates databases all the time: every server has to have them, whatever fails meanwhile."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from testing.servers import LOOPBACK, Influxd

SOURCE = "127.9.0.3"
_PAUSE = 0.25  # seconds


class Statements(threading.Thread):
    """Creates one database after the other through HAProxy, and tries again once where that fails, as for a write.

    :param port: HAProxy's.
    :ivar created: those that a client was told of.
    :ivar failed: what else was answered.
    """

    def __init__(self, port: int) -> None:
        super().__init__(name="statements", daemon=True)
        self.over = threading.Event()
        self.created: list[str] = []
        self.failed: list[str] = []
        self._port = port

    def run(self) -> None:
        """Create databases until told to end."""
        number = 0
        while not self.over.wait(_PAUSE):
            number += 1
            name = f"created{number}"
            said = self._create(name) and self._create(name)
            if said:
                self.failed.append(f"CREATE DATABASE {name}: {said}")
            else:
                self.created.append(name)

    def _create(self, name: str) -> str:
        """Create a database; return what has happened instead of success."""
        try:
            return self._ask(name)
        except (http.client.HTTPException, OSError) as error:
            return repr(error)

    def _ask(self, name: str) -> str:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=30, source_address=(SOURCE, 0))
        try:
            connection.request("POST", f"/query?{urlencode({'q': f'CREATE DATABASE {name}', 'consistency': 'any'})}")
            answer = connection.getresponse()
            body = answer.read()
            return "" if answer.status == http.client.OK and b"error" not in body else f"{answer.status} {body[:100]!r}"
        finally:
            connection.close()

    def missing(self, created: Sequence[str], servers: Mapping[str, Influxd]) -> list[str]:
        """Return which of these databases a server lacks."""
        there = {name: {row[0] for row in server.rows("SHOW DATABASES", "")} for name, server in servers.items()}
        return [
            f"{server} lacks the database {name}" for name in created for server in servers if name not in there[server]
        ]

    def end(self) -> None:
        """Let it end."""
        self.over.set()
        self.join()
