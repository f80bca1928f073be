"""InfluxDB servers, relays and what is around them, as processes that start and stop together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Self

from testing.servers import Influxd, Relay, Server


class Installation:
    """All of it, each part in a directory of its own.

    :ivar servers: the InfluxDB servers, by name.
    :ivar relays: the relays, by name.
    :ivar admin: the relays' ports for operators, by name.
    """

    def __init__(self, directory: str | Path, servers: Sequence[str], database: str) -> None:
        self.directory = Path(directory).resolve()
        self.servers = {name: Influxd(self.directory / name) for name in servers}
        self.admin: dict[str, int] = {}
        self.relays: dict[str, Relay] = {}
        self._database = database
        self._stack = ExitStack()

    @property
    def parts(self) -> dict[str, Server]:
        """What can be killed."""
        return {**self.relays, **self.servers}

    def before_relays(self) -> Sequence[AbstractContextManager[Any]]:
        """Return what has to run before the relays do."""
        return ()

    def behind_relays(self) -> Sequence[AbstractContextManager[Any]]:
        """Return what has to run when the relays do."""
        return ()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers.values():
                stack.enter_context(server).create_database(self._database)
            for each in (*self.before_relays(), *self.relays.values(), *self.behind_relays()):
                stack.enter_context(each)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
