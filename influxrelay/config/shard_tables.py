"""The tables of a listener's shards and epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from influxrelay.config import schema as config_keys
from influxrelay.config.document import Place, Table, read, read_each, refuse_duplicates
from influxrelay.config.journals import journal_of_shard
from influxrelay.config.readers import shown
from influxrelay.config.settings import EpochConfig, HTTPListenerConfig, HTTPOutputConfig, JournalConfig, ShardConfig

MAX_SHARDS = 250
_KEYS = ("shard_key", "default_shard", "shard", "epoch")
_ReadOutputs = Callable[[Place, Table, JournalConfig | None], tuple[HTTPOutputConfig, ...]]


def is_sharded(fields: Table) -> bool:
    """Tell whether a listener's table says anything of shards."""
    return any(key in fields for key in _KEYS)


def read_shards(place: Place, bind_addr: str, fields: Table, read_outputs: _ReadOutputs) -> None:
    """Put the shards and epochs of a listener into its fields, instead of what its table says of them.

    :param fields: with the name and the journal.
    :param read_outputs: takes the outputs of one shard out of its fields.
    :raises ConfigError: they make no sense.
    """
    tables = fields.pop("shard", [])
    if not tables:
        raise (place / "shard").error("no shard; with shard-key, default-shard or epoch at least one is needed")
    if "output" in fields:
        raise (place / "output").error("there are shards too; each output belongs into a [[http.shard]]")
    if "shard_key" not in fields:
        raise (place / "shard-key").error(
            'missing; allowed with shards: "measurement", or "tag:" and the name of a tag'
        )
    if len(tables) > MAX_SHARDS:
        raise (place / "shard").error(f"found {len(tables)} shards; at most {MAX_SHARDS} are allowed")
    journal = fields.pop("journal")

    def shard(at: Place, table: Table) -> ShardConfig:
        known = read(at, table, config_keys.HTTP_SHARD, "name")
        name = known.pop("name")
        its = journal_of_shard(journal, name) if journal else None
        outputs = read_outputs(at, known, its)
        return ShardConfig(
            name=f"{fields['name']}/{name}",
            shard=name,
            bind_addr=f"{bind_addr} {name}",
            consistency=fields.get("consistency", "one"),
            journal=its,
            outputs=outputs,
            **known,
        )

    shards = read_each(place / "shard", tables, shard)
    _refuse_shared_names(place / "shard", shards)
    names = [each.shard for each in shards]
    _check_default(place, fields, names)
    tables = fields.pop("epoch", None)
    epochs = (EpochConfig(shards=tuple(names)),) if tables is None else _read_epochs(place / "epoch", tables, names)
    fields.update(shards=shards, epochs=epochs, journal=None)


def _refuse_shared_names(place: Place, shards: Sequence[ShardConfig]) -> None:
    named = [(place[index], each.shard, each.shard) for index, each in enumerate(shards)]
    refuse_duplicates("name", "names must be unique", named)
    outputs = [
        ((place[index] / "output")[number], each.name, each.name)
        for index, shard in enumerate(shards)
        for number, each in enumerate(shard.outputs)
    ]
    refuse_duplicates("name", "the names of a listener's outputs must be unique", outputs)


def _check_default(place: Place, fields: Table, names: Sequence[str]) -> None:
    default = fields.get("default_shard")
    if default is None:
        return
    if fields["shard_key"] == "measurement":
        raise (place / "default-shard").error('each line has a measurement; remove it, or use "tag:NAME" as shard-key')
    _refuse_unknown(place / "default-shard", default, names)


def _read_epochs(place: Place, tables: list[Table], names: Sequence[str]) -> tuple[EpochConfig, ...]:
    def epoch(at: Place, table: Table) -> EpochConfig:
        found = EpochConfig(**read(at, table, config_keys.HTTP_EPOCH, "shards"))
        for index, name in enumerate(found.shards):
            _refuse_unknown((at / "shards")[index], name, names)
            if name in found.shards[:index]:
                raise (at / "shards")[index].error(f"found {shown(name)} twice; each shard is there once")
        for key, name in found.pins:
            _refuse_unknown(at / "pin" / key, name, found.shards)
        return found

    if not tables:
        raise place.error("no epoch; remove the key, and all shards hold all of time")
    epochs = read_each(place, tables, epoch)
    begins: dict[int | None, Place] = {}
    for index, each in enumerate(epochs):
        if each.since in begins:
            if each.since is None:
                raise (place[index] / "since").error("missing; only the earliest epoch may leave it out")
            raise (place[index] / "since").error(f"the same as in {begins[each.since].path}; each epoch begins alone")
        begins[each.since] = place[index]
    return tuple(sorted(epochs, key=lambda each: (each.since is not None, each.since or 0)))


def _refuse_unknown(place: Place, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise place.error(f"found {shown(name)}; allowed: {', '.join(names)}")


def warnings(place: Place, listener: HTTPListenerConfig) -> Iterator[str]:
    """Yield what is odd about a listener's shards.

    :param place: of the listener.
    """
    used = {name for epoch in listener.epochs for name in epoch.shards}
    for index, each in enumerate(listener.shards):
        if each.shard not in used and each.shard != listener.default_shard:
            yield f"{(place / 'shard')[index]}: no epoch has the shard {each.shard}, so it gets nothing"
