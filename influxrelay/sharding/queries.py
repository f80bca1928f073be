"""Queries over shards: who is asked what, and what comes of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import attrs
from twisted.internet.defer import Deferred, FirstError, gatherResults

from influxrelay.influxql.ast import Statement
from influxrelay.sharding.aggregates import Aggregate
from influxrelay.sharding.concern import bounded_range
from influxrelay.sharding.merge_groups import Groups
from influxrelay.sharding.merge_rows import merge_rows
from influxrelay.sharding.outcomes import Refused, ShardFailed, StatementError
from influxrelay.sharding.placement import ShardMap
from influxrelay.sharding.results import Answer, Block, Shard
from influxrelay.sharding.schema import Schema
from influxrelay.sharding.selects import Rows, SelectPlan, offset_of
from influxrelay.sharding.shows import Show, show
from influxrelay.sharding.windows import Windows

T = TypeVar("T")


@attrs.frozen
class Alone:
    """One shard answers.

    :ivar text: what it is asked.
    """

    shard: str
    text: str


@attrs.frozen
class Together:
    """The whole of what several shards say.

    :ivar blocks: begins to ask when it is called.
    :ivar zone: of the times, where they are shown as text.
    """

    blocks: Callable[[], AsyncGenerator[Block, None]]
    has_times: bool = False
    zone: str = ""


class Planner:
    """Plans the statements of one request.

    :param ask: the shards, by name.
    :param now: what ``now()`` stands for, nanoseconds since the epoch.
    :param max_points: how many points may be read for one statement where windows are computed from points.
    """

    def __init__(self, shards: ShardMap, ask: Mapping[str, Shard], now: int, max_points: int) -> None:
        self._shards = shards
        self._ask = ask
        self._now = now
        self._max_points = max_points

    async def plan(self, statement: Statement, text: str, bare: str) -> Alone | Together:
        """Return how a statement that changes nothing is answered.

        :param text: the statement's, with the time instead of ``now()``.
        :param bare: the same without LIMIT and OFFSET.
        :raises Unanswered: it is not, with the reason.
        """
        if statement.select is not None:
            return await self._select(statement, text)
        how = show(statement, text, self._shards)
        if len(how.everywhere) == 1:
            return Alone(next(iter(how.everywhere)), text)
        return Together(lambda: self._shown(how, bare))

    async def alone(self, how: Alone) -> AsyncGenerator[Block, None]:
        """Yield what one shard says."""
        answer = self._ask[how.shard].ask(how.text)
        try:
            async for block in _blocks(answer):
                yield block
        finally:
            answer.close()

    # -- SHOW

    async def _shown(self, how: Show, text: str) -> AsyncGenerator[Block, None]:
        for block in how.merged(await self._all(sorted(how.everywhere), text)):
            yield block

    async def _all(self, names: Iterable[str], text: str) -> list[list[Block]]:
        """Return everything that shards say to one statement."""

        async def collect(answer: Answer) -> list[Block]:
            try:
                return [block async for _, blocks in answer for block in blocks]
            finally:
                answer.close()

        return await together(collect(self._ask[name].ask(text)) for name in names)

    # -- SELECT

    async def _select(self, statement: Statement, text: str) -> Alone | Together:
        select = statement.select
        if select is None:
            raise TypeError(statement)
        try:
            plan = SelectPlan(select, self._shards, self._now)
        except ValueError as error:
            raise Refused(f"its range of time cannot be told: {error}") from None
        everywhere = sorted(plan.everywhere)
        if plan.is_at_home:
            return Alone(everywhere[0], text)
        if len(everywhere) == 1:
            return await self._alone(plan, everywhere[0], statement, text)
        if statement.kind != "SELECT":
            raise Refused(
                f"{statement.kind} of what several shards have: fix the shard key by WHERE, or use backend=NAME"
            )
        plan.check()
        schema = await self._learn(plan, everywhere)
        if plan.has_wildcards or plan.names_unknown(schema):
            others = [each for each in self._shards.shards if each not in everywhere]
            asked = plan.question()
            schema = Schema.union([schema, *await together(self._schema(name, asked) for name in others)])
            plan.check_key(schema)
        how = plan.over(schema)
        if isinstance(how, Rows):
            return Together(lambda: self._rows(how, everywhere), has_times=True, zone=select.zone)
        return Together(lambda: self._groups(how, everywhere), has_times=True, zone=select.zone)

    async def _alone(self, plan: SelectPlan, name: str, statement: Statement, text: str) -> Alone:
        """Return what the one shard is asked: with what it lacks and others know, as far as they answer."""
        if not plan.has_one_database:
            return Alone(name, text)
        schema = await self._learn(plan, [name])
        if plan.has_wildcards or plan.names_unknown(schema):
            others = [each for each in self._shards.shards if each != name]
            schema = Schema.union([schema, *await self._learn_from_some(plan, others)])
            plan.check_key(schema)
        try:
            typed = plan.text(schema)
        except Refused:
            return Alone(name, text)
        prefix = "" if statement.kind == "SELECT" else f"{statement.kind} "
        return Alone(name, prefix + typed)

    async def _learn(self, plan: SelectPlan, names: Iterable[str]) -> Schema:
        """Return what shards know of what a SELECT reads.

        :raises StatementError: InfluxDB does not understand the statement.
        """
        asked = plan.question()
        try:
            checked = f"{asked}; {plan.check_text()}"
            schema = Schema.union(await together(self._schema(name, checked) for name in names))
        except StatementError as error:
            if "type error" in str(error):  # it names types, which a shard may not know
                schema = Schema.union(await together(self._schema(name, asked) for name in self._shards.shards))
                await self._all(self._shards.shards[:1], f"EXPLAIN {plan.text(schema)}")
            raise
        plan.check_key(schema)
        return schema

    async def _learn_from_some(self, plan: SelectPlan, names: Iterable[str]) -> list[Schema]:
        asked = plan.question()

        async def learn(name: str) -> Schema:
            try:
                return await self._schema(name, asked)
            except ShardFailed:
                return Schema()

        return await together(learn(name) for name in names)

    async def _schema(self, name: str, asked: str) -> Schema:
        found: dict[int, list[Block]] = {}
        answer = self._ask[name].ask(asked)
        try:
            async for number, blocks in answer:
                found.setdefault(number, []).extend(blocks)
        finally:
            answer.close()
        return Schema.read(found)

    async def _rows(self, how: Rows, names: Iterable[str]) -> AsyncGenerator[Block, None]:
        answers = [self._ask[name].ask(how.text) for name in names]
        try:
            merged = merge_rows(
                [_blocks(each) for each in answers], descending=how.descending, limit=how.limit, offset=how.offset
            )
            async for block in merged:
                yield block
        finally:
            for answer in answers:
                answer.close()

    async def _groups(self, how: Aggregate, names: Iterable[str]) -> AsyncGenerator[Block, None]:
        whole = bounded_range(how.select, self._now)
        select = how.select
        zone = ZoneInfo(select.zone) if select.zone not in ("", "UTC") else None
        offset = offset_of(select, self._now)
        groups = Groups(how, Windows(select.interval(), offset, whole.since, whole.until, zone), self._max_points)
        text = "; ".join(each.text for each in how.questions)

        async def collect(answer: Answer) -> None:
            try:
                async for number, blocks in answer:
                    for block in blocks:
                        groups.add(how.questions[number], block)
            finally:
                answer.close()

        if how.questions:
            await together(collect(self._ask[name].ask(text)) for name in names)
        for block in groups.blocks():
            yield block


async def _blocks(answer: Answer) -> AsyncGenerator[Block, None]:
    async for _, blocks in answer:
        for block in blocks:
            yield block


def together(each: Iterable[Coroutine[Deferred[Any], Any, T]]) -> Awaitable[list[T]]:
    """Return the results of all; as soon as one fails the others are given up."""
    running = [Deferred.fromCoroutine(one) for one in each]

    def give_up(failure: Any) -> Any:
        for one in running:
            one.cancel()
        failure.trap(FirstError)
        return failure.value.subFailure

    return gatherResults(running, consumeErrors=True).addErrback(give_up)
