"""Remote writes divided among shards, series by series."""

from __future__ import annotations

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.text import text
from influxrelay.lineprotocol.scanner import OFTEN, Steps
from influxrelay.remotewrite.bodies import NAME, Series, series, without_series
from influxrelay.remotewrite.snappy import BodyError, pack, unpack
from influxrelay.remotewrite.times import divide_by_time
from influxrelay.sharding.placement import NoShardError, ShardMap

_MILLISECOND = 10**6
_NAMELESS = b"prom_metric_not_specified"  # the measurement of a series without a name (prometheus/converters.go)


def divide_series_slowly(body: bytes, shards: ShardMap, *, version: int) -> Steps[dict[str, bytes]]:
    """Return the series of each shard that gets any, in their order.

    Metadata goes with the first of them; a request of version 2.0 has its symbols in each part.

    :param body: a request, as it came.
    :param version: 1 or 2.
    :return: the body itself where one shard gets all of it.
    :raises InvalidRequest: it is no request, or a series lacks the label, and there is no default shard.
    """
    try:
        message = unpack(body)
        parts: dict[str, list[bytes]] = {}
        for number, each in enumerate(series(message, version=version), 1):
            for shard, field in _divide(each, shards, version):
                parts.setdefault(shard, []).append(field)
            if number % OFTEN == 0:
                yield 0
        rest = without_series(message, version=version)
    except BodyError as error:
        raise InvalidRequest(400, f"not a remote write: {error}") from None
    if len(parts) < 2:
        return dict.fromkeys(parts or [shards.default or shards.shards[0]], body)
    divided = {}
    for shard, its in parts.items():
        divided[shard] = pack(b"".join((rest, *its)))
        rest = rest if version == 2 else b""
        yield 0
    return divided


def _divide(each: Series, shards: ShardMap, version: int) -> list[tuple[str, bytes]]:
    """Return what each shard gets of a series."""
    key = each.label(NAME) or _NAMELESS if shards.key.tag is None else each.label(shards.key.tag)
    try:
        if not shards.borders:
            return [(shards.place(key, 0), each.field)]
        divided = divide_by_time(each.field, lambda time: shards.number_at(time * _MILLISECOND), version=version)
        places: dict[str, list[bytes]] = {}
        for number, field in (divided or {len(shards.borders): each.field}).items():
            place = shards.epochs[number].place(key) if key else shards.place(None, 0)
            places.setdefault(place, []).append(field)
    except NoShardError:
        words = f'unable to shard: a series lacks the label "{text(shards.key.tag or NAME)}"'
        raise InvalidRequest(400, words) from None
    if len(places) == 1:  # several epochs of one place
        return [(place, each.field) for place in places]
    return [(place, field) for place, some in places.items() for field in some]
