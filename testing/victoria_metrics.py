"""A VictoriaMetrics server of its own."""

from __future__ import annotations

import http
import json
from pathlib import Path
from urllib.parse import urlencode

from testing.servers import LOOPBACK, Server, find_program, free_port, send


class VictoriaMetrics(Server):
    """A server that keeps a century."""

    def __init__(self, directory: str | Path) -> None:
        self.port = free_port()
        super().__init__(directory, [self.port])
        self.url = f"http://{LOOPBACK}:{self.port}"

    def command(self) -> list[str]:
        """Return the command."""
        return [
            find_program("victoria-metrics", "victoria-metrics"),
            f"-httpListenAddr={LOOPBACK}:{self.port}",
            f"-storageDataPath={self.directory / 'data'}",
            "-retentionPeriod=100y",
        ]

    def is_ready(self) -> bool:
        """Say whether it answers."""
        return send("GET", f"{self.url}/health", timeout=1)[0] == http.HTTPStatus.OK

    def samples(self, selector: str) -> dict[str, tuple[float, int]]:
        """Return the first value and its time in milliseconds of each series, by the tag ``host``."""
        send("GET", f"{self.url}/internal/force_flush")
        _, body = send("GET", f"{self.url}/api/v1/export?{urlencode({'match[]': selector})}")
        series = [json.loads(line) for line in body.splitlines()]
        return {each["metric"]["host"]: (each["values"][0], each["timestamps"][0]) for each in series}
