"""Bodies that are rewritten before they are sent, a bit in each turn of the reactor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import CooperativeTask, TaskStopped
from twisted.python.failure import Failure

from influxrelay.core.cooperation import make_cooperator
from influxrelay.core.errors import BackendFailure
from influxrelay.lineprotocol.scanner import Steps

AT_ONCE = 128 * 1024  # bytes of a body that are rewritten in one go


class Conversions:
    """What is being rewritten for one backend."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._cooperator = make_cooperator(reactor)
        self._tasks: dict[CooperativeTask[Iterator[int]], None] = {}

    def convert(self, steps: Steps[bytes]) -> Deferred[bytes]:
        """Rewrite a body; fires with what becomes of it, fails with :class:`BackendFailure` if that is stopped."""
        converted: list[bytes] = []

        def work() -> Iterator[int]:
            converted.append((yield from steps))

        task = self._cooperator.cooperate(work())
        self._tasks[task] = None
        done: Deferred[Any] = task.whenDone()
        done.addBoth(self._ended, task)
        done.addCallback(lambda _: converted[0])
        return done

    def _ended(self, result: object, task: CooperativeTask[Iterator[int]]) -> object:
        self._tasks.pop(task, None)
        if isinstance(result, Failure) and result.check(TaskStopped):
            raise BackendFailure("stopped", "the relay is shutting down")
        return result

    @property
    def busy(self) -> bool:
        """Whether anything is being rewritten."""
        return bool(self._tasks)

    def abort(self) -> None:
        """Stop all of that."""
        for task in list(self._tasks):
            task.stop()
