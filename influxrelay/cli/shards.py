"""The map of a listener's shards, for the operator: which epoch has which, and where a key goes."""

from __future__ import annotations

from typing import Any

from influxrelay.config.settings import Config, HTTPListenerConfig
from influxrelay.core.text import iso_nanoseconds
from influxrelay.listeners.factory import make_shard_map
from influxrelay.operations.views import Refused
from influxrelay.sharding.placement import NoShardError, ShardMap


def shard_maps(config: Config, listener: str, key: bytes | None, time: int) -> dict[str, Any]:
    """Return the map of each listener that has shards, as plain values for JSON.

    :param listener: only this one; empty for all.
    :param key: whose place is wanted; None for none. The empty one is that of lines without the tag.
    :param time: nanoseconds since 1970.
    :raises Refused: there are no shards, or the key has no place.
    """
    found = [each for each in config.http if each.shards and listener in ("", each.name)]
    if not found:
        raise Refused(f"the listener {listener} has no shards" if listener else "no listener has shards")
    return {"at": iso_nanoseconds(time), "listeners": [_map(each, key, time) for each in found]}


def _map(config: HTTPListenerConfig, key: bytes | None, time: int) -> dict[str, Any]:
    shards = make_shard_map(config)
    shown = {
        "name": config.name,
        "shard_key": config.shard_key,
        "default_shard": config.default_shard,
        "epochs": [
            {
                "since": None if each.since_ns is None else iso_nanoseconds(each.since_ns),
                "shards": [{"name": name, "weight": weight} for name, weight in each.shards],
                "pins": {pinned.decode(): name for pinned, name in sorted(each.pins.items())},
                "current": each is shards.epoch_at(time),
            }
            for each in shards.epochs
        ],
    }
    if key is not None:
        shown.update(key=key.decode(errors="backslashreplace"), shard=_place(config.name, shards, key, time))
    return shown


def _place(listener: str, shards: ShardMap, key: bytes, time: int) -> str:
    try:
        return shards.place(key, time)
    except NoShardError:
        raise Refused(f"{listener} has no default-shard: writes without the tag are refused") from None
