"""What is measured: who writes how much, and to what kind of backend."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Literal

# Fixed, so that the configuration of a peer can be written by hand.
RELAY_PORT, MIRROR_PORT = 18290, 18289  # influxrelay (HTTP and UDP), nginx as a relay
SINK_PORTS = (18291, 18292)  # nginx, answers 204
UDP_SINK_PORTS = (18293, 18294)
INFLUXD_PORTS = (18186, 18187)

RSS = "rss 64x1000"
DATABASE = "bench"
LINE_LENGTH = 155  # bytes, without the newline
REQUEST_DIGITS = "000000000"  # the part of a timestamp that tells one request's points from the next one's

BackendKind = Literal["sinks", "influxd", "udp"]


@dataclass(frozen=True)
class Scenario:
    """One row of the results."""

    name: str
    backends: BackendKind
    clients: int = 1
    lines: int = 1
    gzip: bool = False
    seconds: float | None = None  # instead of the run's

    @property
    def body(self) -> bytes:
        """What each request carries."""
        return gzip.compress(body(self.lines), mtime=0) if self.gzip else body(self.lines)


def body(lines: int) -> bytes:
    """Return so many lines, at most 1000, all of the same length, and each with a timestamp of its own."""
    text = "".join(
        f"cpu,host=server{i % 100:03},rack={i % 40:02},region=us-west usage_idle={10 + i % 88}.5,usage_iowait=0.015625,"
        f"usage_nice=0,usage_system={10 + i % 31}.25,usage_user={10 + i % 89}.{i % 10},n={1000 + i}i"
        f" 1700000{REQUEST_DIGITS}{i:03}\n"
        for i in range(lines)
    )
    assert len(text) == lines * (LINE_LENGTH + 1), "lines of another length"
    return text.encode()


def count_lines(size: int) -> int:
    """Return how many lines that many bytes hold, with or without the last newline."""
    return (size + 1) // (LINE_LENGTH + 1)


def _grid(backends: BackendKind, *, zipped: bool = False) -> list[Scenario]:
    suffix = " gzip" if zipped else ""
    return [
        Scenario(f"{backends} {clients}x{lines}{suffix}", backends, clients, lines, zipped)
        for clients in (1, 16, 64)
        for lines in (1, 10, 1000)
    ]


def scenarios(*, quick: bool) -> list[Scenario]:
    """Return all scenarios, or those of the quick run. Their names say clients x lines."""
    rss = Scenario(RSS, "sinks", 64, 1000, seconds=4 if quick else 60)
    many = Scenario("sinks 256x1", "sinks", 256, 1)
    every = [*_grid("sinks"), many, *_grid("sinks", zipped=True), rss, Scenario("udp", "udp"), *_grid("influxd")]
    few = {"sinks 1x1", "sinks 64x1", "sinks 64x1000", "sinks 64x1000 gzip", RSS, "udp", "influxd 64x1"}
    return [scenario for scenario in every if not quick or scenario.name in few]
