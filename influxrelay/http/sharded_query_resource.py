"""``/query`` of a listener with shards."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred

from influxrelay.core.replies import json_error
from influxrelay.delivery.changes import Changes
from influxrelay.http.query_request import Query
from influxrelay.http.query_resource import QueryResource, Readers
from influxrelay.http.request import Request
from influxrelay.http.sharded_execution import ShardedExecution, ShardHandlers
from influxrelay.influxql.ast import Class
from influxrelay.sharding.placement import ShardMap


class ShardedQueryResource(QueryResource):
    """Queries over shards.

    :param readers: without backends; its settings are the listener's.
    """

    def __init__(self, readers: Readers, changes: Changes, shards: ShardMap) -> None:
        super().__init__(readers, changes)
        self._shards = shards
        self._shard_handlers: dict[str, ShardHandlers] = {}
        self._max_points = 0

    def connect(self, shards: ShardMap, shard_handlers: Mapping[str, ShardHandlers], *, max_points: int) -> None:
        """Let these shards answer the next query.

        :param shard_handlers: by the names of the shards.
        :param max_points: how many points may be read where windows have to be computed from points.
        """
        self._shards = shards
        self._shard_handlers = dict(shard_handlers)
        self._max_points = max_points

    def _answer(self, query: Query, request: Request) -> None:
        refusal = self.refusal(query)
        if refusal is not None:
            request.refuse(refusal)
        elif query.backend or not query.statements:
            handlers = self._handlers_of(query.backend)
            if handlers is None:
                names = ", ".join(name for each in self._shard_handlers.values() for name in each.readers.counters)
                message = f'no backend is named "{query.backend}"; there are: {names}'
                request.refuse(json_error(400, message))
            else:
                handlers.readers.answer(request, query.question, query.backend, query.shown)
        else:
            self._execute(query, request)

    def _handlers_of(self, backend: str) -> ShardHandlers | None:
        """Return the shard of a backend; of none one that may answer, for what no server understands."""
        found = list(self._shard_handlers.values())
        if backend:
            return next((each for each in found if backend in each.readers.counters), None)
        able = (each for each in found if any(not sender.why_unavailable() for sender in each.readers.senders))
        return next(able, found[0])

    def _execute(self, query: Query, request: Request) -> None:
        reads = all(each.klass is Class.READ for each in query.statements or ())
        reactor, timeout = self._readers.reactor, self._readers.settings.timeout if reads else 0.0
        execution = ShardedExecution(
            query, request, self._shards, self._shard_handlers, reactor, max_points=self._max_points, timeout=timeout
        )
        done = Deferred.fromCoroutine(execution.run())
        if not done.called and reads:
            request.on_leave(done.cancel)
            if timeout:
                done.addTimeout(timeout, reactor)
        done.addErrback(request.fail)
