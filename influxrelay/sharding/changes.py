"""Statements that change something on several shards."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs

from influxrelay.core.write import Reply
from influxrelay.influxql.ast import Binary, Call, Measurement, Reference, Select, Statement, Wildcard, walk
from influxrelay.sharding.concern import is_one_epoch, leaves
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.placement import ShardMap


def check_change(statement: Statement, shards: ShardMap, now: int) -> None:
    """Refuse what shards cannot change side by side.

    :raises Refused: with the reason, and what would do.
    """
    select = statement.select
    if select is None or len(shards.shards) == 1:
        return
    try:
        found = list(leaves(select, now))
    except ValueError:
        return  # InfluxDB says why
    tag = shards.key.tag
    if tag is None:
        if select.target is not None and select.target.name:
            raise Refused(
                "INTO writes to the shards that it reads from, and another measurement may belong elsewhere: "
                "write to :MEASUREMENT in another retention policy or database, or write the result as points"
            )
    else:
        name = tag.decode("utf-8", "surrogateescape")
        if not all(any(_is_of(each, name) for each in level.dimensions) for level in select.selects()):
            raise Refused(f'INTO over several shards has to be grouped by the shard key: GROUP BY "{name}" or *')
    if statement.kind == "SELECT" and not all(is_one_epoch(shards, each.range) for each in found):
        raise Refused("INTO over several epochs: write the part of each epoch by a statement of its own")
    for level in select.selects():
        _check_condition(level)


def _is_of(dimension: object, tag: str) -> bool:
    return isinstance(dimension, Wildcard) or (isinstance(dimension, Reference) and dimension.name == tag)


def _check_condition(select: Select) -> None:
    """Refuse what a shard that lacks a field would take for a condition on a tag that is absent."""
    for each in walk(select.condition):
        if isinstance(each, Binary) and each.operator in ("!=", "!~") and not isinstance(each.left, Call):
            raise Refused(f"{each.operator} with INTO over several shards: say what is wanted with = or =~")
    if any(not isinstance(each, Measurement | Select) for each in select.sources):
        raise Refused("INTO reads nothing")


def combined(replies: Sequence[Reply]) -> Reply:
    """Return what a client is told whose change was made by several shards: the worst, or how much was written."""
    worst = max(replies, key=_badness)
    if _badness(worst):
        return worst
    written = [_written(each) for each in replies]
    total = 0
    for reply, count in zip(replies, written, strict=True):
        if count is None:  # it writes nothing, or a shard has it in its queues and cannot tell yet
            return reply
        total += count
    if len(replies) > 1:
        document = json.loads(worst.body)
        document["results"][0]["series"][0]["values"][0][1] = total
        body = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        headers = tuple(
            each for each in worst.headers if each[0].lower() not in (b"content-length", b"content-encoding")
        )
        return attrs.evolve(worst, headers=headers, body=body)
    return worst


def _badness(reply: Reply) -> int:
    if reply.status >= 500:
        return 3
    if reply.status >= 400:
        return 2
    return 1 if b'"error"' in reply.body else 0


def _written(reply: Reply) -> int | None:
    try:
        value = json.loads(reply.body)["results"][0]["series"][0]["values"][0][1]
    except (ValueError, LookupError, TypeError):
        return None
    return value if isinstance(value, int) else None
