"""Prometheus, VictoriaMetrics and vmagent as child processes that send and receive remote writes."""

from __future__ import annotations

import http
import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from testing.servers import LOOPBACK, Server, find_program, free_port, send

if TYPE_CHECKING:
    from collections.abc import Sequence

Samples = dict[str, list[tuple[float, int]]]
"""By series, written as JSON of its labels: value and milliseconds of each sample, the oldest first."""


class Receiver(Server):
    """A server that takes remote writes, and from which raw samples can be read."""

    def __init__(self, directory: str | Path, options: Sequence[str] = ()) -> None:
        port = free_port()
        super().__init__(directory, [port])
        self.url = f"http://{LOOPBACK}:{port}"
        self.address = f"{LOOPBACK}:{port}"
        self.write_url = f"{self.url}/api/v1/write"
        self._options = options

    def samples(self, selector: str) -> Samples:
        """Return what is stored of the series that a selector finds."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Say whether it answers."""
        return send("GET", f"{self.url}/-/healthy", timeout=1)[0] == http.HTTPStatus.OK


class PrometheusReceiver(Receiver):
    """Debian's Prometheus, which takes remote writes; given a URL it scrapes itself, and sends what it finds there.

    `window` is for how long a sample may come late. `reads_from` is where it reads what others have written.
    """

    def __init__(
        self,
        directory: str | Path,
        options: Sequence[str] = (),
        *,
        sends_to: str = "",
        reads_from: str = "",
        window: str = "",
    ) -> None:
        super().__init__(directory, options)
        self._reads_from = reads_from
        self._sends_to = sends_to
        self._window = window

    def command(self) -> list[str]:
        """Write the configuration, and return the command."""
        text = "global:\n  scrape_interval: 500ms\n"
        if self._sends_to:
            text += f"scrape_configs:\n  - job_name: self\n    static_configs:\n      - targets: ['{self.address}']\n"
            text += f"remote_write:\n  - url: {self._sends_to}\n    queue_config:\n      batch_send_deadline: 200ms\n"
        if self._reads_from:
            text += f"remote_read:\n  - url: {self._reads_from}\n    read_recent: true\n"
        if self._window:
            text += f"storage:\n  tsdb:\n    out_of_order_time_window: {self._window}\n"
        config = self.directory / "prometheus.yml"
        config.write_text(text)
        return [
            find_program("prometheus", "prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self.address}",
            "--web.enable-remote-write-receiver",
            "--log.level=warn",
            *self._options,
        ]

    def is_ready(self) -> bool:
        """Say whether it has read its files and answers."""
        return send("GET", f"{self.url}/-/ready", timeout=1)[0] == http.HTTPStatus.OK

    def samples(self, selector: str) -> Samples:
        """Return what is stored of the series that a selector finds."""
        url = f"{self.url}/api/v1/query?{urlencode({'query': f'{selector}[1d]'})}"
        found = json.loads(send("GET", url, timeout=30)[1])["data"]["result"]
        return {
            json.dumps(each["metric"], sort_keys=True): [
                (float(value), round(seconds * 1000)) for seconds, value in each["values"]
            ]
            for each in found
        }


class VictoriaMetrics(Receiver):
    """Debian's VictoriaMetrics."""

    def command(self) -> list[str]:
        """Return the command."""
        return [
            find_program("victoria-metrics", "victoria-metrics"),
            f"-storageDataPath={self.directory / 'data'}",
            f"-httpListenAddr={self.address}",
            "-retentionPeriod=100y",
            *self._options,
        ]

    def is_ready(self) -> bool:
        """Say whether it answers."""
        return send("GET", f"{self.url}/health", timeout=1)[0] == http.HTTPStatus.OK

    def samples(self, selector: str) -> Samples:
        """Return what is stored of the series that a selector finds."""
        send("GET", f"{self.url}/internal/force_flush")
        body = send("GET", f"{self.url}/api/v1/export?{urlencode({'match[]': selector})}", timeout=30)[1]
        found = map(json.loads, body.splitlines())
        return {
            json.dumps(each["metric"], sort_keys=True): sorted(
                {
                    (value, when)
                    for value, when in zip(each["values"], each["timestamps"], strict=True)
                    if value is not None  # a staleness marker
                },  # it keeps what comes twice
                key=lambda sample: sample[1],
            )
            for each in found
        }


class Vmagent(Server):
    """Debian's vmagent: it scrapes itself, and sends what it finds to a URL."""

    def __init__(self, directory: str | Path, sends_to: str) -> None:
        port = free_port()
        super().__init__(directory, [port])
        self.url = f"http://{LOOPBACK}:{port}"
        self.address = f"{LOOPBACK}:{port}"
        self._sends_to = sends_to

    def command(self) -> list[str]:
        """Write the configuration, and return the command."""
        config = self.directory / "scrape.yml"
        config.write_text(
            "global:\n  scrape_interval: 500ms\n"
            f"scrape_configs:\n  - job_name: agent\n    static_configs:\n      - targets: ['{self.address}']\n"
        )
        return [
            find_program("vmagent", "victoria-metrics"),
            f"-promscrape.config={config}",
            f"-remoteWrite.url={self._sends_to}",
            f"-remoteWrite.tmpDataPath={self.directory / 'queue'}",
            "-remoteWrite.flushInterval=200ms",
            f"-httpListenAddr={self.address}",
        ]

    def is_ready(self) -> bool:
        """Say whether it answers."""
        return send("GET", f"{self.url}/health", timeout=1)[0] == http.HTTPStatus.OK
