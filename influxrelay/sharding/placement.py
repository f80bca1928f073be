"""Which shard a key belongs to, at a time.

Each key has a score for each shard of an epoch, and goes to the shard with the highest (*weighted rendezvous hashing*):
with more shards it either stays or goes to a new one, and a shard gets its weight's part of all keys. The score is
``-weight / ln(h)``, where *h*, between 0 and 1, is the BLAKE2b digest of 8 bytes of the shard's name in UTF-8, a zero
byte and the key: its first 52 bits, big-endian, and a half, divided by 2 to the 52nd. So it depends on names alone, and
each relay with the same configuration finds the same place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from math import log

import attrs

_BITS = 52  # with the half that is added they fit a float
_MEMORY = 64 * 1024  # keys whose places an epoch remembers
_MEMORY_LENGTH = 256  # bytes of the longest that is remembered


@attrs.frozen
class ShardKey:
    """What of a line, or of a series, decides where it belongs.

    :ivar tag: the tag whose value does, unescaped; None for the measurement.
    """

    tag: bytes | None = None

    @classmethod
    def read(cls, text: str) -> ShardKey:
        """Read ``measurement`` or ``tag:NAME``."""
        kind, _, name = text.partition(":")
        return cls(name.encode() if kind == "tag" else None)

    def __str__(self) -> str:
        return "measurement" if self.tag is None else f"tag:{self.tag.decode(errors='replace')}"


class NoShardError(LookupError):
    """There is no default shard, and so no place for what has no key."""


class Epoch:
    """Where keys belong in a span of data time, which ends where the next epoch begins.

    :param since_ns: its begin in nanoseconds since 1970; None for the beginning of time.
    :param shards: names and weights.
    :param pins: the shards of keys with a fixed place.
    """

    def __init__(
        self, since_ns: int | None, shards: Iterable[tuple[str, float]], pins: Mapping[bytes, str] | None = None
    ) -> None:
        self.since_ns = since_ns
        self.shards = tuple(sorted(shards))
        self.pins = dict(pins or {})
        self._digests = [(name, weight, blake2b(name.encode() + b"\0", digest_size=8)) for name, weight in self.shards]
        self._places: dict[bytes, str] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Epoch) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash((self.since_ns, self.shards))

    def __repr__(self) -> str:
        return f"Epoch({self.since_ns!r}, {self.shards!r}, {self.pins!r})"

    @property
    def _identity(self) -> tuple[int | None, tuple[tuple[str, float], ...], dict[bytes, str]]:
        return self.since_ns, self.shards, self.pins

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its shards, sorted."""
        return tuple(name for name, _ in self.shards)

    def has_places_of(self, other: Epoch) -> bool:
        """Tell whether every key belongs to the same shard in another epoch."""
        return (self.shards, self.pins) == (other.shards, other.pins)

    def place(self, key: bytes) -> str:
        """Return the shard of a key."""
        place = self._places.get(key)
        if place is None:
            place = self.pins.get(key) or self._best(key)
            if len(self._places) >= _MEMORY:
                self._places.clear()
            if len(key) <= _MEMORY_LENGTH:
                self._places[key] = place
        return place

    def _best(self, key: bytes) -> str:
        best, most = "", -1.0
        for name, weight, digest in self._digests:
            copy = digest.copy()
            copy.update(key)
            score = weight / -log(((int.from_bytes(copy.digest()) >> (64 - _BITS)) + 0.5) / (1 << _BITS))
            if score > most:
                best, most = name, score
        return best


class ShardMap:
    """Where keys belong, at any time.

    :param epochs: at least one; the earliest holds for all time before it, too.
    :param default: the shard of what has no key, at any time; None if there is none.
    """

    def __init__(self, key: ShardKey, epochs: Iterable[Epoch], default: str | None = None) -> None:
        self.key = key
        self.default = default
        self.epochs = tuple(sorted(epochs, key=_begin))
        self.borders = tuple(int(_begin(epoch)) for epoch in self.epochs[1:])  # where an epoch follows another

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardMap) and (self.key, self.epochs, self.default) == (
            other.key,
            other.epochs,
            other.default,
        )

    def __hash__(self) -> int:
        return hash((self.key, self.epochs, self.default))

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of all shards that have or had a part in it, sorted."""
        return _names(self.epochs, self.default)

    def place(self, key: bytes | None, time_ns: int) -> str:
        """Return the shard of a key; of None and of an empty value it is the default one.

        :raises NoShardError: there is no default shard.
        """
        if key:
            return self.epoch_at(time_ns).place(key)
        if self.default is None:
            raise NoShardError
        return self.default

    def epoch_at(self, time_ns: int) -> Epoch:
        """Return the epoch of a time."""
        return self.epochs[self.number_at(time_ns)]

    def number_at(self, time_ns: int) -> int:
        """Return the index of the epoch of a time."""
        return bisect_right(self.borders, time_ns)

    def epochs_between(self, since_ns: int | None, until_ns: int | None) -> Sequence[Epoch]:
        """Return the epochs that a range of time touches, the earliest first; both bounds belong to it.

        :param since_ns: None for the beginning of time, as ``until_ns`` for its end.
        """
        return [
            epoch
            for epoch, begin, end in zip(self.epochs, (None, *self.borders), (*self.borders, None), strict=True)
            if (until_ns is None or begin is None or begin <= until_ns)
            and (since_ns is None or end is None or since_ns < end)
        ]

    def agrees_until(self, time_ns: int, other: ShardMap) -> bool:
        """Tell whether another map has the same places for all time before this."""
        if (self.key, self.default) != (other.key, other.default):
            return False
        begins = [each for each in (*self.borders, *other.borders) if each < time_ns]
        return all(
            self.epoch_at(each).has_places_of(other.epoch_at(each)) for each in (min(begins, default=0) - 1, *begins)
        )

    def shards_between(self, since_ns: int | None, until_ns: int | None) -> tuple[str, ...]:
        """Return the names of the shards that may have something in a range of time, sorted."""
        return _names(self.epochs_between(since_ns, until_ns), self.default)


def _begin(epoch: Epoch) -> float:
    return float("-inf") if epoch.since_ns is None else epoch.since_ns


def _names(epochs: Iterable[Epoch], default: str | None) -> tuple[str, ...]:
    names = {name for epoch in epochs for name in (*epoch.names, *epoch.pins.values())}
    return tuple(sorted(names | ({default} if default else set())))
