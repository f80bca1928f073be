"""What is measured: how many clients write how much, and to what kind of backend."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

RSS = "rss 64x1000"
DATABASE = "bench"
LINE_LENGTH = 155  # bytes, without the newline
REQUEST_DIGITS = "000000000"  # the digits of a timestamp that differ from one request to the next

BackendKind = Literal["sinks", "influxd", "udp"]


@dataclass(frozen=True)
class Scenario:
    """One row of the results.

    :ivar journal_sync: the ``journal-sync`` setting; if it is set, only relays with a journal take part.
    :ivar seconds: replaces the duration given on the command line.
    """

    name: str
    backends: BackendKind
    clients: int = 1
    lines: int = 1
    gzip: bool = False
    tls_in: bool = False
    tls_out: bool = False
    journal_sync: str = ""
    seconds: float | None = None

    @cached_property
    def body(self) -> bytes:
        """The body of each request."""
        return gzip.compress(body(self.lines), mtime=0) if self.gzip else body(self.lines)


def body(lines: int) -> bytes:
    """Return at most 1,000 lines of the same length, each with a timestamp of its own."""
    text = "".join(
        f"cpu,host=server{i % 100:03},rack={i % 40:02},region=us-west usage_idle={10 + i % 88}.5,usage_iowait=0.015625,"
        f"usage_nice=0,usage_system={10 + i % 31}.25,usage_user={10 + i % 89}.{i % 10},n={1000 + i}i"
        f" 1700000{REQUEST_DIGITS}{i:03}\n"
        for i in range(lines)
    )
    assert len(text) == lines * (LINE_LENGTH + 1), "the lines differ in length"
    return text.encode()


def count_lines(size: int) -> int:
    """Return how many lines there are in a plain body of this size, with or without the last newline."""
    return (size + 1) // (LINE_LENGTH + 1)


def _http(clients: int, lines: int, *, prefix: str = "", suffix: str = "", **settings: bool | str) -> Scenario:
    backends: BackendKind = "influxd" if prefix else "sinks"
    return Scenario(f"{prefix}{clients}x{lines}{suffix}", backends, clients, lines, **settings)  # type: ignore[arg-type]


def scenarios(*, quick: bool) -> list[Scenario]:
    """Return all scenarios, or those of the quick run. Their names say clients x lines."""
    every = [
        _http(1, 1),
        _http(16, 1),
        _http(64, 1),
        _http(64, 1000),
        _http(64, 1000, suffix=" gzip", gzip=True),
        _http(64, 1, suffix=" TLS in", tls_in=True),
        _http(64, 1, suffix=" TLS out", tls_out=True),
        _http(64, 1, suffix=" fsync", journal_sync="full"),
        Scenario(RSS, "sinks", 64, 1000, seconds=4 if quick else 60),
        Scenario("udp", "udp"),
        _http(64, 1, prefix="influxd "),
        _http(64, 1000, prefix="influxd "),
    ]
    few = {"1x1", "64x1", "64x1000", "64x1000 gzip", "udp"}
    return [scenario for scenario in every if not quick or scenario.name in few]
