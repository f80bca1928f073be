"""Where a run takes place: its directory, its ports and its certificate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FIRST_PORT = 18280


@dataclass(frozen=True)
class Ports:
    """The loopback ports of a run: fixed, so that a peer's configuration can be written by hand."""

    first: int = FIRST_PORT

    @property
    def relay(self) -> int:
        """Where influxrelay listens, for HTTP and for UDP."""
        return self.first

    @property
    def mirror(self) -> int:
        """Where nginx listens as a relay."""
        return self.first + 1

    @property
    def haproxy(self) -> int:
        """Where HAProxy listens."""
        return self.first + 2

    @property
    def sinks(self) -> tuple[int, int]:
        """The HTTP sinks."""
        return self.first + 3, self.first + 4

    @property
    def tls_sinks(self) -> tuple[int, int]:
        """The same sinks behind TLS."""
        return self.first + 5, self.first + 6

    @property
    def influxd(self) -> tuple[int, int]:
        """The InfluxDB servers."""
        return self.first + 7, self.first + 8

    @property
    def udp_sinks(self) -> tuple[int, int]:
        """The UDP sinks."""
        return self.first + 9, self.first + 10


@dataclass(frozen=True)
class Testbed:
    """What all contenders and backends of a run share.

    :ivar certificate: a PEM file with a key and a certificate for the loopback address.
    """

    directory: Path
    ports: Ports
    certificate: str
