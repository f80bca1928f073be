"""The keys of a listener that are about its journal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from influxrelay.config import schema as config_keys
from influxrelay.config.document import Place, Table
from influxrelay.config.settings import JournalConfig, StreamConfig

_OF_STREAMS = ("ca_file", "credentials_file", "lease")
_SHARED: Mapping[str, Any] = {"on_error": "refuse", "timeout": 10.0}
"""Other defaults: without the log there is no common order, and to elect a leader takes time."""


def choose_journal(place: Place, table: Table, fields: Table) -> JournalConfig | None:
    """Make one value of a journal's settings; an empty directory switches them all off."""
    need(place, table, "journal", '"DIRECTORY"', *config_keys.JOURNAL)
    chosen = fields.pop("journal", None)
    names = [name for name in fields if name.startswith("journal_")]
    settings = {name.removeprefix("journal_"): fields.pop(name) for name in names}
    if chosen is None:
        return None
    of_stream = {name: settings.pop(name) for name in _OF_STREAMS if name in settings}
    if not isinstance(chosen, StreamConfig):
        for name in of_stream:
            key = f"journal-{name.replace('_', '-')}"
            raise (place / key).error('set without a shared journal; add journal = "nats://...", or remove it')
        return JournalConfig(chosen, **settings)
    if "ca_file" in of_stream and not chosen.tls:
        raise (place / "journal-ca-file").error('set without TLS; begin the URL of the journal with "tls://"')
    if of_stream.get("lease", 1.0) < 1.0:
        raise (place / "journal-lease").error("less than a second; at least 1s is allowed")
    shared = attrs.evolve(chosen, **of_stream)
    return JournalConfig(table["journal"], **{**_SHARED, **settings}, shared=shared)


def journal_of_shard(journal: JournalConfig, shard: str) -> JournalConfig:
    """Return the journal of one shard of a listener that has this one."""
    if journal.shared is None:
        return attrs.evolve(journal, directory=os.path.join(journal.directory, shard))  # noqa: PTH118 (as written)
    end = f"-{shard.replace('.', '_')}"
    shared = attrs.evolve(journal.shared, stream=journal.shared.stream + end)
    return attrs.evolve(journal, directory=journal.directory.rstrip("/") + end, shared=shared)


def log_of(journal: JournalConfig) -> object:
    """Return what no two listeners can share."""
    if journal.shared is None:
        return os.path.realpath(journal.directory)
    return tuple(sorted(journal.shared.servers)), journal.shared.stream


def need(place: Place, table: Table, key: str, value: str, *dependents: str) -> None:
    """Refuse settings of something that the table does not switch on."""
    for dependent in dependents:
        if dependent in table and key not in table:
            raise (place / dependent).error(f"set without {key}; add {key} = {value}, or remove it")
