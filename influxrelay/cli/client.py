"""Asks the relay over its admin socket, or the journals of a relay that is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Generator
from typing import Any

from influxrelay.config.loader import load
from influxrelay.config.settings import Config
from influxrelay.operations.views import Refused, Request, socket_path

PATIENCE = 120.0  # seconds that the relay has for its next line
Progress = Callable[[int, int], None]
"""Is called with how many are done, of how many."""


class NoRelay(Refused):
    """Nobody answers at the admin socket."""


class Client:
    """Whoever can answer for a relay.

    :param config: the path of its configuration, which is read when it is needed.
    :param path: of its admin socket; empty for what the configuration says.
    """

    def __init__(self, config: str, path: str = "") -> None:
        self._file = config
        self._path = path
        self._config: Config | None = None

    @property
    def path(self) -> str:
        """Where the admin socket is; empty for nowhere.

        :raises ConfigError: the configuration, which says that, cannot be used.
        """
        return self._path or socket_path(self._read())

    def _read(self) -> Config:
        if self._config is None:
            self._config = load(self._file, secrets=False)
        return self._config

    def ask(self, request: Request, progress: Progress | None = None) -> dict[str, Any]:
        """Ask the relay, or its journals if it is stopped.

        :raises Refused: it cannot be done.
        """
        try:
            return self.ask_relay(request, progress)
        except NoRelay as problem:
            if self._config is None and not os.path.exists(self._file):  # noqa: PTH110 (a name, not a path of ours)
                raise
            from influxrelay.cli import offline  # noqa: PLC0415 (it needs Twisted, which takes its time to load)

            return offline.run(self._read(), request, str(problem), progress)

    def ask_relay(
        self, request: Request, progress: Progress | None = None, patience: float | None = None
    ) -> dict[str, Any]:
        """Ask the relay.

        :param patience: seconds that it has for its next line.
        :raises NoRelay: nobody is there.
        :raises Refused: it cannot be done.
        """
        path = self.path
        if not path:
            raise NoRelay("no admin socket is configured (set admin-socket)")
        with contextlib.closing(_lines(path, request, PATIENCE if patience is None else patience)) as lines:
            for line in lines:
                if "error" in line:
                    raise Refused(line["error"])
                if "result" in line:
                    result: dict[str, Any] = line["result"]
                    return result
                if progress is not None:
                    progress(line["progress"]["done"], line["progress"]["total"])
        raise Refused("the relay has broken the connection")


def _lines(path: str, request: Request, patience: float) -> Generator[dict[str, Any], None, None]:
    """Send a request, and yield the lines of the answer.

    :raises NoRelay: nobody is there.
    """
    with socket.socket(socket.AF_UNIX) as relay:
        relay.settimeout(patience)
        try:
            relay.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoRelay(f"no relay answers at {path}") from None
        except OSError as error:
            raise Refused(f"cannot use the admin socket {path}: {error.strerror or error}") from None
        try:
            relay.sendall(request.line())
            with relay.makefile("rb") as answer:
                for line in answer:
                    yield json.loads(line)
        except TimeoutError:
            raise Refused(f"the relay at {path} has not answered for {patience:g} s") from None
        except OSError as error:
            raise Refused(f"the relay at {path} has broken the connection: {error.strerror or error}") from None
        except ValueError:
            raise Refused(f"the process at {path} is not a relay") from None
