"""Prometheus as a child process, with the very files of ``etc``: only addresses and intervals are replaced."""

from __future__ import annotations

import http
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from testing.balancers import SERVERS, replace
from testing.servers import LOOPBACK, PROJECT, Server, find_program, free_port, send

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RELAYS = ("10.0.0.11:9196", "10.0.0.12:9196")  # the admin listeners, as etc/prometheus.yml names them


class Prometheus(Server):
    """Scrapes the admin listeners of two relays, and two servers, at these addresses (``host:port``).

    :param interval: between two scrapes, and between two looks at the rules.
    :param waits: instead of the rules' own ``for``, by its text: ``{"1m": "3s"}``.
    """

    def __init__(
        self,
        directory: str | Path,
        relays: Sequence[str],
        servers: Sequence[str],
        *,
        interval: str = "15s",
        waits: Mapping[str, str] | None = None,
    ) -> None:
        port = free_port()
        super().__init__(directory, [port])
        self.url = f"http://{LOOPBACK}:{port}"
        self._address = f"{LOOPBACK}:{port}"
        self._interval = interval
        self._waits = waits or {}
        self._places = {
            **dict(zip(RELAYS, relays, strict=True)),
            **dict(zip(SERVERS, servers, strict=True)),
        }

    def command(self) -> list[str]:
        """Write the files that it reads, and return the command."""
        etc = PROJECT / "etc"
        text = replace((etc / "prometheus.yml").read_text(), self._places)
        text = text.replace("_interval: 15s", f"_interval: {self._interval}")
        config = self.directory / "prometheus.yml"
        config.write_text(text)
        rules = (etc / "alerts.yml").read_text()
        waits = self._waits
        rules = re.sub(r"\bfor: (\w+)", lambda found: f"for: {waits.get(found[1], found[1])}", rules)
        (self.directory / "alerts.yml").write_text(rules)
        return [
            find_program("prometheus", "prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self._address}",
            "--log.level=warn",
        ]

    def is_ready(self) -> bool:
        """Say whether it has read its files and answers."""
        return send("GET", f"{self.url}/-/ready", timeout=1)[0] == http.HTTPStatus.OK

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its API."""
        url = f"{self.url}/api/v1/{path}?{urlencode(parameters)}"
        status, body = send("GET", url, timeout=30)
        if status != http.HTTPStatus.OK:
            raise ValueError(f"{parameters} was answered {status}: {body.decode()}")
        return json.loads(body)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples that an expression gives now, each with ``metric`` and ``value``."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def firing(self) -> list[dict[str, Any]]:
        """Return the alerts that fire now, each with ``labels`` and ``annotations``."""
        return [each for each in self.ask("alerts")["alerts"] if each["state"] == "firing"]
