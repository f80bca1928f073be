"""The clients of the campaign."""

from __future__ import annotations

import enum
import http.client
import random
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol
from urllib.parse import urlencode

import attrs
import cramjam

from testing.remote_write import Timeseries, version_1
from testing.servers import LOOPBACK

PATIENCE = 15.0  # seconds for one answer; the backends' timeout is a second
EPOCH = 1_600_000_000
PLACES: tuple[dict[str, str], ...] = (
    {"db": "a"},
    {"db": "a", "precision": "s"},
    {"db": "b", "rp": "autogen"},
)
REMOTE_PLACE = {"db": "c"}  # of Prometheus' remote writes
CONSISTENCIES = ("", "", "one", "any", "any", "quorum", "all")


class Conditions(Protocol):
    """What the clients know of the campaign."""

    over: threading.Event
    port: int
    round: int


class Fate(enum.Enum):
    """What a writer was told of a write."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@attrs.frozen
class Told:
    """A write, and what its writer was told."""

    number: int
    round: int
    poisoned: bool
    fate: Fate
    words: str


class Writer(threading.Thread):
    """Writes one write after the other, and notes what it is told.

    :ivar told: by number.
    """

    path = "/write"
    headers: Mapping[str, str] = MappingProxyType({})
    field = "v"

    def __init__(self, number: int, campaign: Conditions, rng: random.Random) -> None:
        super().__init__(name=f"writer {number}", daemon=True)
        self.number = number
        self.place = self.choose_place()
        self.told: dict[int, Told] = {}
        self.unanswered = 0
        self._campaign = campaign
        self._rng = rng

    def choose_place(self) -> dict[str, str]:
        """Return where it writes to."""
        return PLACES[self.number % len(PLACES)]

    def run(self) -> None:
        """Write until the campaign's end."""
        rng, number = self._rng, 0
        connection = None
        while not self._campaign.over.is_set():
            time.sleep(rng.uniform(0.0, 0.04))
            if connection is None:
                connection = http.client.HTTPConnection(LOOPBACK, self._campaign.port, timeout=PATIENCE)
                try:
                    connection.connect()
                except OSError:  # nothing was sent
                    connection = None
                    continue
            number += 1
            at = self._campaign.round
            poisoned = rng.random() < 0.01
            parameters = {**self.place, "consistency": rng.choice(CONSISTENCIES)}
            body = self.body(number, at, poisoned=poisoned, padding=30_000 if rng.random() < 0.05 else 0)
            fate, words = Fate.UNKNOWN, ""
            try:
                connection.request("POST", f"{self.path}?{urlencode(parameters)}", body, self.headers)
                answer = connection.getresponse()
                words = f"{answer.status} {answer.read().decode().strip()}"
                fate = Fate.ACKNOWLEDGED if answer.status < 300 else Fate.REFUSED
            except (http.client.HTTPException, OSError) as error:
                words = repr(error)
                self.unanswered += isinstance(error, TimeoutError)
                connection.close()
                connection = None
            self.told[number] = Told(number, at, poisoned, fate, words)

    def body(self, number: int, at: int, *, poisoned: bool, padding: int) -> bytes:
        """Return the lines of a write."""
        unit = 1 if "precision" in self.place else 1_000_000_000
        more = ',p="poison"' if poisoned else ""
        if padding:
            more += f',pad="{"." * padding}"'
        return (
            f"own,w={self.number} v={number}i{more} {(EPOCH + number) * unit}\n"
            f"shared,w={self.number} v={number}i {(EPOCH + at) * unit}\n"
        ).encode()


class RemoteWriter(Writer):
    """Writes the same as remote writes of Prometheus."""

    path = "/api/v1/prom/write"
    headers: Mapping[str, str] = MappingProxyType(
        {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
    )
    field = "value"

    def choose_place(self) -> dict[str, str]:
        """Return where it writes to."""
        return REMOTE_PLACE

    def body(self, number: int, at: int, *, poisoned: bool, padding: int) -> bytes:
        """Return the samples of a write."""
        labels = {"w": str(self.number)}
        more = {**({"p": "poison"} if poisoned else {}), **({"pad": "." * (padding // 10)} if padding else {})}
        own = Timeseries({"__name__": "own", **labels, **more}, [(float(number), (EPOCH + number) * 1000)])
        shared = Timeseries({"__name__": "shared", **labels}, [(float(number), (EPOCH + at) * 1000)])
        return bytes(cramjam.snappy.compress_raw(version_1([own, shared])))


def make_writer(number: int, campaign: Conditions, rng: random.Random) -> Writer:
    """Return a client; every fourth sends remote writes."""
    return (RemoteWriter if number % 4 == 3 else Writer)(number, campaign, rng)
