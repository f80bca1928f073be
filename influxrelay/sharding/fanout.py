"""Writes to several shards, each of which has a fan-out of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.replies import TAKEN, json_error
from influxrelay.core.write import REMOTE_WRITE, Reply, Write
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.fate import Waiter
from influxrelay.delivery.parts import Division
from influxrelay.lineprotocol.gzip_body import decoded_body_slowly, reduced
from influxrelay.lineprotocol.scanner import Steps, run
from influxrelay.remotewrite.headers import has_counts, is_version_2, only_counts, total
from influxrelay.sharding.lines import LineDivider
from influxrelay.sharding.placement import ShardMap
from influxrelay.sharding.series import divide_series_slowly

_NOT_NOW = (408, 425, 429)


@attrs.frozen
class ShardedWrite:
    """What each shard gets of a write.

    :ivar shards: by which it was divided.
    :ivar parts: by the name of the shard, each with what the filters of its backends leave of it, if they were asked.
    """

    shards: ShardMap
    parts: Mapping[str, tuple[Write, Division | None]]


class ShardedFanOut:
    """One listener's shards, as a fan-out to all of them.

    :ivar shards: where what belongs.
    :ivar fan_outs: by the name of the shard.
    """

    at_once = 0  # bytes of a body that is submitted without being divided
    divides_lines = divides_series = True

    def __init__(self, shards: ShardMap, fan_outs: Mapping[str, FanOut]) -> None:
        self.reconfigure(shards, fan_outs)

    def reconfigure(self, shards: ShardMap, fan_outs: Mapping[str, FanOut]) -> None:
        """Let another map hold for the next write, and for those that are divided but not submitted."""
        self.shards = shards
        self.fan_outs = dict(fan_outs)
        self._lines = LineDivider(shards)

    def divide_slowly(self, write: Write) -> Steps[ShardedWrite]:
        """Find out bit by bit what each shard gets of a write.

        :raises InvalidRequest: something of it belongs nowhere.
        """
        shards, lines, fan_outs = self.shards, self._lines, self.fan_outs
        if write.destination.kind == REMOTE_WRITE:
            version = 2 if is_version_2(write.query) else 1
            divided = yield from divide_series_slowly(write.body, shards, version=version)
            return ShardedWrite(
                shards,
                {
                    name: (write if part is write.body else attrs.evolve(write, body=part), None)
                    for name, part in divided.items()
                },
            )
        body = yield from decoded_body_slowly(write)
        divided = yield from lines.divide_slowly(body, write.destination.precision.partition(b"\n")[0])
        parts: dict[str, tuple[Write, Division | None]] = {}
        for name, part in divided.items():
            reduced_write = reduced(write, body, part)
            if reduced_write is not None:
                fan_out = fan_outs[name]
                division = (yield from fan_out.divide_slowly(reduced_write)) if fan_out.divides_lines else None
                parts[name] = reduced_write, division
        return ShardedWrite(shards, parts)

    def submit_for(
        self, waiter: Waiter, write: Write, consistency: str = "", division: ShardedWrite | None = None
    ) -> None:
        """Do as :meth:`submit`, and give the answer to who waits for it."""
        self.submit(write, consistency, division).addCallbacks(waiter.callback, waiter.errback)

    def submit(self, write: Write, consistency: str = "", division: ShardedWrite | None = None) -> Deferred[Reply]:
        """Give each shard its part of a write, and fire with the worst of their answers. Never fails.

        A 5xx is worse than a 4xx, which would make a client drop lines that another shard can still take.

        :param division: what :meth:`divide_slowly` has found.
        """
        if division is None or division.shards is not self.shards:  # a reload has changed them
            try:
                division = run(self.divide_slowly(write))
            except InvalidRequest as error:
                return succeed(json_error(error.status, error.message))
        answers = [
            self.fan_outs[name].submit(part, consistency, filtered) for name, (part, filtered) in division.parts.items()
        ]
        if len(answers) == 1:
            return answers[0]
        return _Answers(answers).worst if answers else succeed(TAKEN)


def worst(replies: Sequence[Reply]) -> Reply:
    """Return what a client is told who wrote to several shards; of equally bad answers the first that came.

    What was written by all of them is added up where they say it.
    """
    found = max(replies, key=_badness)
    if found.status < 300 and all(map(has_counts, replies)):
        return attrs.evolve(found, headers=total([only_counts(each.headers) for each in replies]))
    return found


def _badness(reply: Reply) -> int:
    if reply.status < 300:
        return 0
    if reply.status >= 500:
        return 3
    return 2 if reply.status in _NOT_NOW else 1


class _Answers:
    """Waits for the answers of several shards: ``gatherResults`` for the price of a counter.

    :ivar worst: fires with the worst of them when all are there.
    """

    __slots__ = ("_count", "_replies", "worst")

    def __init__(self, answers: Sequence[Deferred[Reply]]) -> None:
        self.worst: Deferred[Reply] = Deferred()
        self._count = len(answers)
        self._replies: list[Reply] = []
        for each in answers:
            each.addCallbacks(self._answered, self._failed)

    def _answered(self, reply: Reply) -> None:
        self._replies.append(reply)
        if len(self._replies) == self._count:
            self.worst.callback(worst(self._replies))

    def _failed(self, failure: Failure) -> None:
        if not self.worst.called:
            self.worst.errback(failure)
