"""What the group knows of one backend: who delivers to it, up to where it has the log, and what it has lost.

It is one value in the bucket, so that all of that changes together, or not at all.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping

import attrs

from influxrelay.core.write import CHANGES, Destination
from influxrelay.journal.frames import destination_of, key_of
from influxrelay.journal.records import Drop

PREFIX = "backend."
VERSION = 1
MOST_AHEAD = 2048  # destinations; about as much as fits into a value
_PLAIN = re.compile(rb"[A-Za-z0-9_-]")


@attrs.frozen
class BackendState:
    """What the bucket has of a backend.

    :ivar owner: the relay that delivers, or did when it was last heard of; empty if it has given the lease back.
    :ivar epoch: how often the lease was taken.
    :ivar beat: how often owners have written this.
    :ivar cursor: everything up to this number is passed, in whatever destination.
    :ivar ahead: the destinations that are passed up to a higher number.
    :ivar removed: whether it is in no configuration any more; nothing is kept for it.
    :ivar losses: by reason.
    """

    name: str
    location: str = ""
    owner: str = ""
    epoch: int = 0
    beat: int = 0
    cursor: int = 0
    ahead: Mapping[Destination, int] = attrs.field(factory=dict)
    paused: bool = False
    removed: bool = False
    losses: Mapping[str, Drop] = attrs.field(factory=dict)

    def passed(self, destination: Destination) -> int:
        """Return up to which number a destination is passed."""
        return max(self.cursor, self.ahead.get(destination, 0))

    @property
    def highest(self) -> int:
        """The highest number up to which something is passed."""
        return max([self.cursor, *self.ahead.values()])

    def with_losses(self, drops: Iterable[Drop]) -> BackendState:
        """Return the same with more losses."""
        losses = dict(self.losses)
        for each in drops:
            losses[each.reason] = plus(losses.get(each.reason), each)
        return attrs.evolve(self, losses=losses)

    def encode(self) -> bytes:
        """Return the bytes of the value."""
        value = attrs.asdict(self, recurse=False)
        value["version"] = VERSION
        value["ahead"] = {b64encode(key_of(where)).decode(): number for where, number in self.ahead.items()}
        value["losses"] = {
            reason: [each.writes, each.bytes, each.first, each.last] for reason, each in self.losses.items()
        }
        return json.dumps(value, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> BackendState:
        """Return what a value says.

        :raises ValueError: it makes no sense, or is of a later version.
        """
        try:
            value = json.loads(data)
            version = value.pop("version")
            if version != VERSION:
                raise ValueError(f"version {version!r} of a backend's state is not known")
            value["ahead"] = {destination_of(b64decode(key)): number for key, number in value["ahead"].items()}
            name = value["name"]
            value["losses"] = {reason: Drop(name, reason, *each) for reason, each in value["losses"].items()}
            return cls(**value)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not the state of a backend: {error}") from error


def plus(known: Drop | None, more: Drop) -> Drop:
    """Return two losses of a backend, for the same reason, as one."""
    if known is None:
        return more
    return attrs.evolve(
        known,
        writes=known.writes + more.writes,
        bytes=known.bytes + more.bytes,
        first=min(known.first, more.first),
        last=max(known.last, more.last),
    )


def bounded(ahead: dict[Destination, int]) -> dict[Destination, int]:
    """Return no more than :data:`MOST_AHEAD` of them: the others are delivered again after a hand-over.

    Changes are always among them, for a change must not be executed twice.
    """
    if len(ahead) <= MOST_AHEAD:
        return ahead
    first = sorted(ahead.items(), key=lambda each: (each[0] != CHANGES, -each[1]))
    return dict(first[:MOST_AHEAD])


def key_for(backend: str) -> str:
    """Return the key under which the state of a backend is kept."""
    return PREFIX + token(backend)


def token(name: str) -> str:
    """Return a name as one word of a key or a subject, whatever is in it."""
    return "".join(chr(byte) if _PLAIN.match(bytes([byte])) else f"={byte:02X}" for byte in name.encode()) or "="
