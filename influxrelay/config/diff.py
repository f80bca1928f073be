"""The difference between two configurations, as a reload needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from influxrelay.config.schema import ATTRIBUTES
from influxrelay.config.settings import (
    Config,
    HTTPListenerConfig,
    HTTPOutputConfig,
    ListenerConfig,
    ShardConfig,
    UDPOutputConfig,
)
from influxrelay.core.errors import ConfigError
from influxrelay.core.matching import find_again

Listener = ListenerConfig
Output = HTTPOutputConfig | UDPOutputConfig


@attrs.frozen
class Plan:
    """What a reload does with the listeners.

    :ivar kept: listeners that stay, each with its old and its new configuration.
    :ivar changes: what changes, for people: places and keys, but no values, which may be secrets.
    """

    kept: tuple[tuple[Listener, Listener], ...]
    added: tuple[Listener, ...]
    removed: tuple[Listener, ...]
    changes: tuple[str, ...]


def compare(old: Config, new: Config) -> Plan:
    """Compare two configurations.

    :raises ConfigError: something changes that needs a restart.
    """
    kept: list[tuple[Listener, Listener]] = []
    added: list[Listener] = []
    removed: list[Listener] = []
    changes = list(_keys(old, new, ("http", "udp", "tcp", "admin", "warnings")))
    if old.admin != new.admin:
        changes.append(f"admin: {_change_of(old.admin, new.admin)}")
    kinds: tuple[tuple[list[str], Sequence[Listener], Sequence[Listener]], ...] = (
        (_places("http", new.http), old.http, new.http),
        (_places_of_shards(new), old.shards, new.shards),
        (_places("udp", new.udp), old.udp, new.udp),
        (_places("tcp", new.tcp), old.tcp, new.tcp),
    )
    for places, before, after in kinds:
        present = {each.name: each for each in before}
        names = _same_listeners(before, after)
        for index, listener in enumerate(after):
            if listener.name not in names:
                added.append(listener)
                changes.append(f"{listener.name}: added")
                continue
            was = present.pop(names[listener.name])
            _refuse_what_needs_a_restart(f"{new.path}: {places[index]}", was, listener)
            kept.append((was, listener))
            changes += _differences(was, listener)
        removed += present.values()
        changes += [f"{name}: removed" for name in present]
    return Plan(tuple(kept), tuple(added), tuple(removed), tuple(changes))


def _places(kind: str, listeners: Sequence[Listener]) -> list[str]:
    return [f"{kind}[{index}]" for index in range(len(listeners))]


def _places_of_shards(config: Config) -> list[str]:
    return [
        f"http[{index}].{place}" for index, each in enumerate(config.http) for place in _places("shard", each.shards)
    ]


def _change_of(old: object, new: object) -> str:
    if old is None:
        return "added"
    return "removed" if new is None else "bind-addr"


def _same_listeners(old: Sequence[Listener], new: Sequence[Listener]) -> dict[str, str]:
    """Return the old name of each listener that existed before, by its address, else its name, else its journal."""
    before = find_again({each.name: each.bind_addr for each in old}, {each.name: each.bind_addr for each in new})
    journals = {each.journal.directory: each.name for each in old if each.journal and each.name not in before.values()}
    for each in new:
        if each.name not in before and each.journal and each.journal.directory in journals:
            before[each.name] = journals.pop(each.journal.directory)
    return before


def _refuse_what_needs_a_restart(place: str, old: Listener, new: Listener) -> None:
    """Refuse changes that a running listener cannot make.

    :raises ConfigError: with the key.
    """
    if isinstance(new, HTTPListenerConfig) and bool(new.shards) != bool(getattr(old, "shards", ())):
        raise ConfigError(f"{place}.shard: to begin or end with shards needs a restart")
    if (old.journal and old.journal.directory) != (new.journal and new.journal.directory):
        raise ConfigError(f"{place}.journal: another journal, or to begin or end one, needs a restart")
    if old.journal and new.journal:
        for key in _keys(old.journal.shared, new.journal.shared):
            raise ConfigError(f"{place}.journal-{key}: another value needs a restart")
    before = pair_outputs(old, new)
    for index, output in enumerate(new.outputs):
        if getattr(output, "type", "") != getattr(before.get(output.name, output), "type", ""):
            raise ConfigError(f"{place}.output[{index}].type: another type needs a restart")
        if new.journal is None and _has_buffer(output) != _has_buffer(before.get(output.name, output)):
            raise ConfigError(f"{place}.output[{index}].buffer-size-mb: to begin or end a buffer needs a restart")


def pair_outputs(old: Listener, new: Listener) -> dict[str, Output]:
    """Return the old configuration of each output that existed before, by its new name.

    Renamed, swapped and moved outputs are recognised in the way in which the journal recognises backends.
    """
    pairs: dict[str, Output] = {}
    for kind in (HTTPOutputConfig, UDPOutputConfig):
        present = {each.name: each for each in old.outputs if isinstance(each, kind)}
        wanted = {each.name: _place_of(each) for each in new.outputs if isinstance(each, kind)}
        before = find_again({name: _place_of(each) for name, each in present.items()}, wanted)
        pairs.update((name, present[was]) for name, was in before.items())
    return pairs


def _has_buffer(output: Output) -> bool:
    return isinstance(output, HTTPOutputConfig) and output.buffer_size_mb > 0


def _place_of(output: Output) -> str:
    return output.write_url if isinstance(output, HTTPOutputConfig) else output.location


# -- Changes, for people


def _differences(old: Listener, new: Listener) -> Iterator[str]:
    """Yield the changes of a listener, by place and key."""
    unsaid = ("journal", "outputs", "shards", *(("bind_addr", "consistency") if isinstance(new, ShardConfig) else ()))
    keys = [*_keys(old, new, unsaid), *(f"journal-{key}" for key in _keys(old.journal, new.journal))]
    if keys:
        yield f"{new.name}: {', '.join(keys)}"
    before = pair_outputs(old, new)
    for output in new.outputs:
        if output.name not in before:
            yield f"{new.name}: output {output.name} added"
        elif keys := list(_keys(before[output.name], output, ("health_timeout",))):
            yield f"{new.name}: output {output.name}: {', '.join(keys)}"
    kept = [each.name for each in before.values()]
    for output in old.outputs:
        if output.name not in kept:
            yield f"{new.name}: output {output.name} removed"


_DERIVED = {
    "bind_addr": {"endpoint", "host", "port"},
    "location": {"write_url", "write_prom_url", "ping_url", "query_url", "query", "host", "port"},
}
_KEYS = {
    **{attribute: key for key, attribute in ATTRIBUTES.items()},
    "max_bytes": "max-mb",
    "endpoint": "ssl-combined-pem",
    "epochs": "epoch",
}
_ENDPOINTS = ("write_url", "write_prom_url", "ping_url", "query_url", "query")


def _keys(old: Any, new: Any, but: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the keys whose values differ."""
    if old is None or new is None:
        return
    differing = {
        field.name
        for field in attrs.fields(type(new))
        if field.name not in (*but, "path") and getattr(old, field.name) != getattr(new, field.name)
    }
    for attribute, derived in _DERIVED.items():
        if attribute in differing:
            differing -= derived
    if differing.intersection(_ENDPOINTS):
        differing = {*differing.difference(_ENDPOINTS), "endpoints"}
    names = {} if isinstance(new, HTTPOutputConfig | UDPOutputConfig) else _KEYS
    for field in sorted(differing):
        yield names.get(field, field.replace("_", "-"))
